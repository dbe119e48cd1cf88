"""A client that shares: sockets among all of its connections, connections among sessions to the same server.

``Client`` is what applications hold. ``Pool`` decides which connection a session gets; making connections and asking
for sessions is ``wtio.client``'s.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Self

from wtio._arguments import check_bool
from wtio._driver.loop import LoopTransport
from wtio._headers import header_pairs
from wtio._options import EndpointOptions
from wtio.client import (
    Sockets,
    check_client_tls,
    check_own_origin,
    make_connector,
    offered_protocols,
)
from wtio.config import Limits, Timeouts
from wtio.errors import ConnectError, LocalProtocolError
from wtio.tls import ClientTLS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from wtio._driver import Transport
    from wtio._headers import HeaderArgument
    from wtio.client import ClientConnection, Connector, _Asked

__all__ = ["Client"]

_Key = tuple[str, int]


class _Dial:
    """A connection that is being made, for everybody who waits for it."""

    def __init__(self, dialer: Connector) -> None:
        self.dialer = dialer
        self.waiters = 0
        self.connection: asyncio.Future[ClientConnection] = asyncio.get_running_loop().create_future()
        # Its failure is everybody's who waits, and nobody's if nobody does.
        self.connection.add_done_callback(lambda future: future.cancelled() or future.exception())
        self.task = asyncio.ensure_future(dialer._dial())


class Pool:
    """Connections of one client by server, and those that are being made."""

    def __init__(self) -> None:
        self._ready: dict[_Key, list[ClientConnection]] = {}
        self._dials: dict[_Key, _Dial] = {}
        # Servers that want a connection for each session: nobody waits there for somebody else's.
        self._unshareable: set[_Key] = set()

    async def acquire(self, connector: Connector) -> ClientConnection:
        """Give a connection that has room for one more session, until the caller suspends.

        Rather one that answers and has streams left; but where there is only another one, it may still be the first
        that serves (see ``Spare``).
        """
        key = connector._target.host, connector._target.port
        while True:
            usable = [connection for connection in self._ready.get(key, ()) if connection.has_room]
            if usable:
                # One that nobody uses yet was made for somebody who waited.
                connection = min(usable, key=lambda one: (one.is_silent, one.is_full, one.is_used))
                if connection.is_used:
                    connector._reuse(connection)
                return connection
            if key in self._unshareable:
                connection = await connector._dial()
                self._keep(key, connection)
                return connection
            dial = self.join(key, connector)
            try:
                await asyncio.shield(dial.connection)
            except BaseException:
                self.leave(key, dial)
                raise
            else:
                dial.waiters -= 1
            finally:
                connector._adopt(dial.dialer)

    def spare(self, connector: Connector, connection: ClientConnection) -> Spare | None:
        """Make a way out for who waits on a connection; None where it is shared with nobody, and quick to be had."""
        return Spare(self, connector, connection) if connection.h3.flow_control else None

    def join(self, key: _Key, connector: Connector) -> _Dial:
        """Wait for a new connection to a server; the first who needs it begins to make it.

        There is one at a time to each server, however many wait.
        """
        dial = self._dials.get(key)
        if dial is None:
            dial = self._dials[key] = _Dial(connector._twin())
            dial.task.add_done_callback(partial(self._dialled, key, dial))
        dial.waiters += 1
        return dial

    def leave(self, key: _Key, dial: _Dial) -> None:
        """Wait no longer, and have no use for it; the last who does so gives it up."""
        dial.waiters -= 1
        if not dial.waiters:
            self._abandon(key, dial)

    def _dialled(self, key: _Key, dial: _Dial, task: asyncio.Task[ClientConnection]) -> None:
        if self._dials.get(key) is dial:
            del self._dials[key]
        if task.cancelled():
            dial.connection.cancel()
        elif (error := task.exception()) is not None:
            if not dial.connection.done():
                dial.connection.set_exception(error)
        elif dial.connection.done():
            task.result().give_up()
        else:
            self._keep(key, task.result())
            dial.connection.set_result(task.result())

    def _abandon(self, key: _Key, dial: _Dial) -> None:
        """Nobody waits any more."""
        if self._dials.get(key) is dial:
            del self._dials[key]
        dial.task.cancel()
        if dial.connection.done() and not dial.connection.cancelled() and dial.connection.exception() is None:
            connection = dial.connection.result()
            if not connection.is_used:
                connection.give_up()

    def _keep(self, key: _Key, connection: ClientConnection) -> None:
        if connection.h3.flow_control:
            self._unshareable.discard(key)
        else:
            self._unshareable.add(key)
        if not connection.is_lost:
            self._ready.setdefault(key, []).append(connection)
            connection.on_lost = partial(self._drop, key, connection)

    def _drop(self, key: _Key, connection: ClientConnection) -> None:
        connections = self._ready.get(key, [])
        if connection in connections:
            connections.remove(connection)
        if not connections:
            self._ready.pop(key, None)

    async def close(self) -> None:
        """Whoever waits for a connection learns that the client was closed."""
        dials = list(self._dials.values())
        self._dials.clear()
        for dial in dials:
            if not dial.connection.done():
                dial.connection.set_exception(ConnectError("the client was closed"))
            dial.task.cancel()
        await asyncio.gather(*(dial.task for dial in dials), return_exceptions=True)


class Spare:
    """A connection that is made beside one that may not serve, and takes its place if it is ready first.

    It is begun when the other one has no stream for a request, or has acknowledged nothing, for as long as
    ``ClientConnection.patience``. All who wait for one server share it.
    """

    def __init__(self, pool: Pool, connector: Connector, connection: ClientConnection) -> None:
        self._pool = pool
        self._key = connector._target.host, connector._target.port
        self._connector = connector
        self._connection = connection
        self._acks = connection.acks
        self._dial: _Dial | None = None
        self._may_dial = True
        self._due = connection.loop.time()
        if not connection.is_silent:
            self._due += connection.patience

    async def wait(self, asked: _Asked | None, changed: asyncio.Event) -> bool:
        """Wait until something has happened, here or there; whether the new connection is to be used.

        Cancelling changes nothing; then ``close``.
        """
        try:
            async with asyncio.timeout_at(self._due):
                await changed.wait()
        except TimeoutError:
            self._look(asked)
        dial = self._dial
        if dial is None or not dial.connection.done():
            return False
        is_silent = self._connection.is_silent
        if asked is not None and not is_silent:
            return False
        if dial.connection.cancelled() or dial.connection.exception() is not None:
            self.close()
            # Without it there is still the other one, if that only lacks streams.
            self._may_dial = False
            if is_silent:
                self._connector._adopt(dial.dialer)
                dial.connection.result()
            return False
        self._connector._adopt(dial.dialer)
        # It is used before anybody else's turn.
        dial.waiters -= 1
        self._dial = None
        return True

    def close(self) -> None:
        """Wait no longer. Idempotent."""
        dial, self._dial = self._dial, None
        if dial is not None:
            dial.connection.remove_done_callback(self._notify)
            self._pool.leave(self._key, dial)

    def _look(self, asked: _Asked | None) -> None:
        """The other connection has had its chance."""
        connection = self._connection
        acks, self._acks = self._acks, connection.acks
        self._due = connection.loop.time() + connection.patience
        if asked is not None:
            if connection.is_acknowledged(asked) or connection.acks != acks:
                return
            connection.note_silent()
        if self._dial is None and self._may_dial:
            what = "has no stream left" if asked is None else "does not answer"
            self._connector._step = f"waiting for another connection, beside one that {what}"
            self._dial = self._pool.join(self._key, self._connector)
            self._dial.connection.add_done_callback(self._notify)

    def _notify(self, _: object) -> None:
        self._connector._changed.set()


class Client:
    """Sessions that share sockets and, on request, connections.

    Use it as a context manager::

        async with wtio.Client(tls=tls) as client:
            async with client.connect("https://example.org/chat", allow_pooling=True) as session:
                ...

    All of its connections use one UDP socket per address family and one set of trust settings. They have no threads or
    tasks of their own, so a thousand quiet sessions cost little. A client belongs to the event loop of its first
    session. On another loop or thread, opening sessions and ``close`` raise RuntimeError. Leaving ``async with`` closes
    it.
    """

    __slots__ = ("__weakref__", "_headers", "_origin", "_pool", "_protocols", "_sockets", "_tls")

    def __init__(
        self,
        *,
        tls: ClientTLS | None = None,
        headers: HeaderArgument = (),
        protocols: Sequence[str] = (),
        origin: str | None = None,
        timeouts: Timeouts | None = None,
        limits: Limits | None = None,
        congestion: str = "tolerant",
        reset_stream_at: bool = True,
        strict: bool = False,
        io: str = "loop",
    ) -> None:
        """Make a client. No socket is opened before the first session.

        Args:
            tls: What to trust; None trusts the authorities of the system.
            headers: Headers of every request, in front of those given to ``connect``.
            protocols: Subprotocols to offer if ``connect`` does not give any.
            origin: Value of the Origin header if ``connect`` does not give one; None (default) sends none.
            timeouts: Durations in seconds; None means ``Timeouts()``.
            limits: Sizes in bytes and counts; None means ``Limits()``.
            congestion: How fast to send: ``"tolerant"`` (default; CUBIC that tells random losses from a full queue),
                ``"cubic"``, ``"newreno"`` or ``"bbr"`` (experimental). See docs/congestion.md.
            reset_stream_at: Offer and use reliable resets (draft-ietf-quic-reliable-stream-reset), which deliver the
                header of a stream together with its reset. Default True. Without them, or if the peer does not support
                them, a reset waits until the header is acknowledged. Strict peers require them.
            strict: As for ``wtio.connect``.
            io: As for ``wtio.connect``. With ``"thread"``, there is one thread per address family.

        Raises:
            ValueError: A header, subprotocol or origin cannot be sent, or ``congestion`` or ``io`` is unknown.
            TypeError: An argument is of the wrong type.
        """
        options = EndpointOptions(
            limits=Limits() if limits is None else limits,
            timeouts=Timeouts() if timeouts is None else timeouts,
            congestion=congestion,
            reset_stream_at=reset_stream_at,
            strict=strict,
            io=io,
        )
        self._set_up(LoopTransport(), options, tls=tls, headers=headers, protocols=protocols, origin=origin)

    def _set_up(
        self,
        transport: Transport,
        options: EndpointOptions,
        *,
        tls: ClientTLS | None,
        headers: HeaderArgument,
        protocols: Sequence[str],
        origin: str | None,
    ) -> None:
        """Do what constructors have in common; the simulated network's gives another transport."""
        check_client_tls(tls)
        self._tls = ClientTLS() if tls is None else tls
        self._headers = header_pairs(headers)
        self._protocols = offered_protocols(protocols)
        check_own_origin(origin, self._headers)
        self._origin = origin
        self._pool = Pool()
        self._sockets = Sockets(transport, options, is_shared=True)

    @property
    def is_closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._sockets.is_closed

    @property
    def connections(self) -> int:
        """QUIC connections that are open or being opened."""
        return len(self._sockets.connections)

    def connect(
        self,
        url: str,
        *,
        headers: HeaderArgument = (),
        protocols: Sequence[str] | None = None,
        origin: str | None = None,
        allow_pooling: bool = False,
    ) -> Connector:
        """Open a session: ``async with client.connect(url) as session``, or ``session = await client.connect(url)``.

        As ``wtio.connect``, with the client's options and sockets. With pooling, sessions to the same host and port
        share a connection as long as the server allows more sessions on it, which requires session flow control on both
        sides; otherwise each gets its own connection. If the server is going away, its connection gets no new sessions.
        A shared connection is closed with its last session; the end of one session does not affect the others.
        Cancelling gives up only this session, even while several wait for the same handshake.

        Args:
            url: ``https://host[:port][/path][?query]``; the default port is 443.
            headers: Further headers of the request, in order: a mapping or pairs.
            protocols: Subprotocols to offer, preferred ones first; None offers the client's.
            origin: Value of the Origin header; None sends the client's.
            allow_pooling: Whether the session may share its connection with others that allow it too. Default False.

        Raises:
            ValueError: Pooling is combined with ``ClientTLS(certificate_hashes=...)``, which browsers do not allow
                either, or a header or subprotocol cannot be sent.
            TypeError: An argument is of the wrong type.
            LocalProtocolError: The client was closed.
            ConnectError: As ``wtio.connect``, which lists its kinds.

        Source: draft-ietf-webtrans-http3-16, sections 3 and 5.1; W3C WebTransport, ``allowPooling``.
        """
        check_bool("allow_pooling", allow_pooling)
        if self.is_closed:
            raise LocalProtocolError("this client was closed; make another one")
        if allow_pooling and self._tls.certificate_hashes:
            raise ValueError(
                "allow_pooling=True does not go with ClientTLS(certificate_hashes=...): browsers forbid it, too; "
                "leave pooling off, or trust the certificate's authority with ClientTLS(cafile=...)"
            )
        return make_connector(
            url,
            tls=self._tls,
            headers=(*self._headers, *header_pairs(headers)),
            protocols=self._protocols if protocols is None else protocols,
            origin=self._origin if origin is None else origin,
            sockets=self._sockets,
            pool=self._pool if allow_pooling else None,
        )

    async def close(self) -> None:
        """Close all sessions with code 0, then connections and sockets. Idempotent.

        Takes as long as the slowest ``WebTransportSession.close``. Sessions that are being opened raise ConnectError.
        Cancelling closes what is left at once, without waiting for the peers' closes.
        """
        self._sockets.check_loop()
        self._sockets.is_closed = True
        sessions = [session for connection in self._sockets.connections for session in connection.sessions]
        try:
            for connection in list(self._sockets.connections):
                if not connection.sessions:
                    connection.give_up()
            await self._pool.close()
            await asyncio.gather(*(session.close() for session in sessions))
        finally:
            for connection in list(self._sockets.connections):
                connection.give_up()
            self._sockets.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<wtio.Client with {self.connections} connections{' closed' * self.is_closed}>"
