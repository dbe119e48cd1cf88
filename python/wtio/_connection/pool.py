"""Which connection a session of a pooling client gets: a ready one, one that is being made, or a new one.

``Pool`` knows the connections that may be shared, by server. ``Spare`` makes another one beside one that may not serve.
``dial`` makes connections, and the connect call sends the session request.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from wtio.errors import ConnectError

if TYPE_CHECKING:
    from wtio._connection.client import ClientConnection, PendingRequest
    from wtio._connection.dial import Dialer

__all__ = ["Pool", "Spare"]

_Key = tuple[str, int]


class _Dial:
    """A connection that is being made, for all connect calls that wait for it."""

    def __init__(self, dialer: Dialer) -> None:
        # Makes the connection, and knows how far that has come.
        self.dialer = dialer
        # Connect calls that wait for it. When the last one is removed, the dial is cancelled.
        self.waiters = 0
        # Done when the connection is ready or has failed.
        self.connection: asyncio.Future[ClientConnection] = asyncio.get_running_loop().create_future()
        # Every waiting call raises its failure. If none waits, asyncio must not log it as never retrieved.
        self.connection.add_done_callback(lambda future: future.cancelled() or future.exception())
        # Makes the connection. It is cancelled when no call waits any more, or the client is closed.
        self.task: asyncio.Task[ClientConnection] = asyncio.ensure_future(dialer.dial())


class Pool:
    """Connections of one client by server, and those that are being made."""

    def __init__(self) -> None:
        # Connections that are ready and not lost, by server. ``ClientConnection.on_lost`` removes them.
        self._ready: dict[_Key, list[ClientConnection]] = {}
        # The connection that is being made to each server; one at a time, however many wait.
        self._dials: dict[_Key, _Dial] = {}
        # Servers without session flow control: they get a connection for each session, and no call waits for another's.
        self._unshareable: set[_Key] = set()

    async def acquire(self, dialer: Dialer) -> ClientConnection:
        """Return a connection that has room for one more session. The caller must use it before it suspends.

        One that answers and has streams left is preferred. If there is none, another one is returned, which may still
        be the first to serve (see ``Spare``).
        """
        key = dialer.target.where, dialer.target.port
        while True:
            usable = [connection for connection in self._ready.get(key, ()) if connection.has_room]
            if usable:
                # One that is unused was made for a call that waits, so it is taken first.
                connection = min(usable, key=lambda one: (one.is_silent, one.is_full, one.is_used))
                # An unused one was made just now, and its dialer's progress was adopted.
                if connection.is_used:
                    dialer.reuse(connection)
                return connection
            if key in self._unshareable:
                connection = await dialer.dial()
                self._keep(key, connection)
                return connection
            dial = self.add_waiter(key, dialer)
            try:
                await asyncio.shield(dial.connection)
            except BaseException:
                self.remove_waiter(key, dial)
                raise
            else:
                dial.waiters -= 1
            finally:
                dialer.adopt(dial.dialer)

    def spare(self, dialer: Dialer, connection: ClientConnection) -> Spare | None:
        """Return the spare for a call that waits on a connection; None if the server does not share connections."""
        return Spare(self, dialer, connection) if connection.h3.flow_control else None

    def add_waiter(self, key: _Key, dialer: Dialer) -> _Dial:
        """Count one more that waits for a new connection to a server; the first one begins to make it.

        There is one at a time to each server, however many wait.
        """
        dial = self._dials.get(key)
        if dial is None:
            dial = self._dials[key] = _Dial(dialer.copy())
            dial.task.add_done_callback(partial(self._dialled, key, dial))
        dial.waiters += 1
        return dial

    def remove_waiter(self, key: _Key, dial: _Dial) -> None:
        """Count one less that waits and does not use the connection; without any, the connection is closed."""
        dial.waiters -= 1
        if not dial.waiters:
            self._cancel(key, dial)

    def _dialled(self, key: _Key, dial: _Dial, task: asyncio.Task[ClientConnection]) -> None:
        if self._dials.get(key) is dial:
            del self._dials[key]
        if task.cancelled():
            dial.connection.cancel()
        elif (error := task.exception()) is not None:
            if not dial.connection.done():
                dial.connection.set_exception(error)
        elif dial.connection.done():
            task.result().close_at_once()
        else:
            self._keep(key, task.result())
            dial.connection.set_result(task.result())

    def _cancel(self, key: _Key, dial: _Dial) -> None:
        """Stop making a connection for which no call waits."""
        if self._dials.get(key) is dial:
            del self._dials[key]
        dial.task.cancel()
        if dial.connection.done() and not dial.connection.cancelled() and dial.connection.exception() is None:
            connection = dial.connection.result()
            if not connection.is_used:
                connection.close_at_once()

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
        """Fail all calls that wait for a connection: the client was closed."""
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

    def __init__(self, pool: Pool, dialer: Dialer, connection: ClientConnection) -> None:
        # Makes the new connection, one for all calls that wait for this server.
        self._pool = pool
        # The server: host and port.
        self._key = dialer.target.where, dialer.target.port
        # The waiting call's: what to dial, how far that has come, and the event that wakes the call.
        self._dialer = dialer
        # The one that may not serve.
        self._connection = connection
        # Acknowledgements of that connection when it was last looked at.
        self._acks = connection.acks
        # The new connection, once it is being made.
        self._dial: _Dial | None = None
        # False after a new connection could not be had.
        self._may_dial = True
        # When the old connection has had its chance, on the loop's clock.
        self._due = connection.loop.time()
        if not connection.is_silent:
            self._due += connection.patience

    async def wait(self, pending: PendingRequest | None, changed: asyncio.Event) -> bool:
        """Wait until something has happened on either connection. Returns whether the new one is to be used.

        Cancelling changes nothing; call ``close`` then.
        """
        try:
            async with asyncio.timeout_at(self._due):
                await changed.wait()
        except TimeoutError:
            self._look(pending)
        dial = self._dial
        if dial is None or not dial.connection.done():
            return False
        is_silent = self._connection.is_silent
        if pending is not None and not is_silent:
            return False
        if dial.connection.cancelled() or dial.connection.exception() is not None:
            self.close()
            # Without it there is still the other one, if that only lacks streams.
            self._may_dial = False
            if is_silent:
                self._dialer.adopt(dial.dialer)
                dial.connection.result()
            return False
        self._dialer.adopt(dial.dialer)
        # The caller uses it before another task runs.
        dial.waiters -= 1
        self._dial = None
        return True

    def close(self) -> None:
        """Wait no longer. Idempotent."""
        dial, self._dial = self._dial, None
        if dial is not None:
            dial.connection.remove_done_callback(self._wake)
            self._pool.remove_waiter(self._key, dial)

    def _look(self, pending: PendingRequest | None) -> None:
        """Begin a new connection, if the old one has done nothing for as long as its ``patience``."""
        connection = self._connection
        acks, self._acks = self._acks, connection.acks
        self._due = connection.loop.time() + connection.patience
        if pending is not None:
            if connection.is_acknowledged(pending) or connection.acks != acks:
                return
            connection.note_silent()
        if self._dial is None and self._may_dial:
            what = "has no stream left" if pending is None else "does not answer"
            self._dialer.step = f"waiting for another connection, beside one that {what}"
            self._dial = self._pool.add_waiter(self._key, self._dialer)
            self._dial.connection.add_done_callback(self._wake)

    def _wake(self, _: object) -> None:
        self._dialer.changed.set()
