"""A bus over Redis or Valkey, by publish and subscribe (redis-py)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from wtio._arguments import check_text
from wtio.hub._bus import Bus, BusConnection

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["RedisBus"]


class RedisBus(Bus):
    """A bus over Redis or Valkey. Needs ``pip install wtio[redis]``.

    Args:
        url: Where it is, as redis-py takes it, for instance ``redis://localhost:6379`` or ``rediss://`` with TLS. User
            and password may be in it; they appear neither in the log nor in the ``repr``.
        prefix: Begins the names of all channels, so that several applications can share a Redis. Default ``wtio``.

    Raises:
        TypeError: An argument is not a str.
        ValueError: ``url`` is none that redis-py knows.
        ImportError: redis-py is not installed.
    """

    __slots__ = ("_make", "_name", "_prefix")

    def __init__(self, url: str, *, prefix: str = "wtio") -> None:
        check_text("url", url)
        check_text("prefix", prefix)
        try:
            from redis.asyncio import Redis
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
        except ImportError as error:
            raise ImportError("RedisBus needs redis-py; install wtio[redis]") from error

        def make() -> Redis:
            # The hub connects again itself. It also times everything; nothing else may end a silent connection.
            return Redis.from_url(url, retry=Retry(NoBackoff(), 0), socket_timeout=None, health_check_interval=0)

        try:
            make()
            parts = urlsplit(url)
            self._name = f"redis at {parts.hostname or 'localhost'}:{parts.port or 6379}" if parts.netloc else "redis"
        except ValueError as error:
            # Its message may quote the URL.
            raise ValueError("url is not one of Redis, such as redis://localhost:6379") from error
        # Makes a client that is not connected yet.
        self._make = make
        self._prefix = prefix + ":"

    @property
    def name(self) -> str:
        """``redis at`` host and port."""
        return self._name

    async def connect(self, receive: Callable[[str, bytes], None]) -> BusConnection:
        """Make one attempt to connect. Cancelling gives it up."""
        client: Any = self._make()
        connection = _RedisConnection(client, self._prefix, receive)
        try:
            await connection.open()
        except BaseException:
            await connection.close()
            raise
        return connection

    def __repr__(self) -> str:
        return f"<RedisBus {self._name}>"


class _RedisConnection(BusConnection):
    """Two connections to Redis: one publishes, one subscribes."""

    __slots__ = ("_awaited", "_client", "_prefix", "_pubsub", "_receive")

    # redis-py's own types say Any for nearly everything that is used here.
    def __init__(self, client: Any, prefix: str, receive: Callable[[str, bytes], None]) -> None:
        self._client = client
        self._pubsub = client.pubsub()
        self._prefix = prefix
        self._receive = receive
        # Calls of ``subscribe`` that wait for a confirmation, by channel. Only the hub's one task subscribes.
        self._awaited: dict[str, asyncio.Future[None]] = {}

    async def open(self) -> None:
        """Connect both."""
        await self._client.ping()
        await self._pubsub.connect()

    async def listen(self) -> None:
        prefix = len(self._prefix)
        while True:
            # redis-py reads only from a connection that has subscribed.
            found = await self._pubsub.parse_response(block=True)
            answer = await self._pubsub.handle_message(found)
            if answer is None:
                continue
            channel = answer["channel"].decode()[prefix:]
            if answer["type"] == "message":
                self._receive(channel, answer["data"])
            elif answer["type"] == "subscribe":
                confirmed = self._awaited.pop(channel, None)
                if confirmed is not None and not confirmed.done():
                    confirmed.set_result(None)

    async def subscribe(self, channels: Sequence[str]) -> None:
        loop = asyncio.get_running_loop()
        waiting = {channel: loop.create_future() for channel in channels}
        self._awaited.update(waiting)
        await self._pubsub.subscribe(*(self._prefix + channel for channel in channels))
        await asyncio.gather(*waiting.values())

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        await self._pubsub.unsubscribe(*(self._prefix + channel for channel in channels))

    async def publish(self, batch: Sequence[tuple[str, bytes]]) -> None:
        async with self._client.pipeline(transaction=False) as pipeline:
            for channel, payload in batch:
                pipeline.publish(self._prefix + channel, payload)
            await pipeline.execute()

    async def close(self) -> None:
        try:
            await self._pubsub.aclose()
        finally:
            await self._client.aclose()
