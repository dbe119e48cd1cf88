"""A bus over NATS, by its core's publish and subscribe (nats-py)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

from wtio._arguments import check_text
from wtio.hub._bus import Bus, BusConnection

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["NatsBus"]

# Messages that nats-py keeps for one subject until its callback has run, which never waits.
_PENDING: Final = 65_536


class NatsBus(Bus):
    """A bus over NATS. Needs ``pip install wtio[nats]``.

    Args:
        url: Where it is, for instance ``nats://localhost:4222`` or ``tls://``. User and password or a token may be in
            it; they appear neither in the log nor in the ``repr``.
        prefix: The first token of all subjects, so that several applications can share a NATS. Default ``wtio``.

    Raises:
        TypeError: An argument is not a str.
        ValueError: ``url`` is none of NATS, or ``prefix`` has dots, spaces or wildcards.
        ImportError: nats-py is not installed.
    """

    __slots__ = ("_make", "_name", "_prefix", "_url")

    def __init__(self, url: str, *, prefix: str = "wtio") -> None:
        check_text("url", url)
        check_text("prefix", prefix)
        if not prefix or quote(prefix, safe="") != prefix or "." in prefix:
            raise ValueError(f"prefix is {prefix!r}; it must have letters, digits, `_`, `-` and `~` only")
        try:
            from nats.aio.client import Client
        except ImportError as error:
            raise ImportError("NatsBus needs nats-py; install wtio[nats]") from error
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port or 4222
        except ValueError:
            host = None
        if not host or parts.scheme not in ("nats", "tls", "ws", "wss"):
            raise ValueError("url is not one of NATS, such as nats://localhost:4222")
        self._name = f"nats at {host}:{port}"
        self._url = url
        self._prefix = prefix
        self._make: Callable[[], Any] = Client

    @property
    def name(self) -> str:
        """``nats at`` host and port."""
        return self._name

    async def connect(self, receive: Callable[[str, bytes], None]) -> BusConnection:
        """Make one attempt to connect. Cancelling gives it up."""
        connection = _NatsConnection(self._make(), self._prefix, receive)
        try:
            await connection.open(self._url)
        except BaseException:
            await connection.close()
            raise
        return connection

    def __repr__(self) -> str:
        return f"<NatsBus {self._name}>"


class _NatsConnection(BusConnection):
    """One connection to NATS, which nats-py does not make again."""

    __slots__ = ("_client", "_lost", "_prefix", "_receive", "_subscriptions")

    def __init__(self, client: Any, prefix: str, receive: Callable[[str, bytes], None]) -> None:
        self._client = client
        self._prefix = prefix
        self._receive = receive
        # Set when the connection is over.
        self._lost = asyncio.Event()
        # nats-py's subscriptions by channel.
        self._subscriptions: dict[str, Any] = {}

    async def open(self, url: str) -> None:
        """Connect."""
        await self._client.connect(
            url,
            allow_reconnect=False,
            # One attempt and no pause: otherwise it waits 2 s within connect() before it tries the same server again.
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            error_cb=self._note_error,
            closed_cb=self._note_end,
            disconnected_cb=self._note_end,
        )

    async def _note_error(self, error: Exception) -> None:
        # nats-py would log it. The hub sees the end of the connection, and gaps where messages were dropped.
        pass

    async def _note_end(self) -> None:
        self._lost.set()

    async def listen(self) -> None:
        await self._lost.wait()

    async def subscribe(self, channels: Sequence[str]) -> None:
        for channel in channels:

            async def take(message: Any, channel: str = channel) -> None:
                self._receive(channel, message.data)

            self._subscriptions[channel] = await self._client.subscribe(
                self._subject(channel), cb=take, pending_msgs_limit=_PENDING
            )
        await self._confirm()

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        for channel in channels:
            await self._subscriptions.pop(channel).unsubscribe()

    async def publish(self, batch: Sequence[tuple[str, bytes]]) -> None:
        for channel, payload in batch:
            await self._client.publish(self._subject(channel), payload)
        await self._confirm()

    async def _confirm(self) -> None:
        """Wait until the server has what was written so far."""
        # It answers in order. But nats-py writes its PING ahead of what it has queued, so only the second answer tells:
        # the queue has been written by the time of the first one.
        await self._client.flush()
        await self._client.flush()

    async def close(self) -> None:
        await self._client.close()

    def _subject(self, channel: str) -> str:
        # A dot would divide the subject into tokens, of which none may be empty.
        return f"{self._prefix}.{quote(channel, safe='').replace('.', '%2E')}"
