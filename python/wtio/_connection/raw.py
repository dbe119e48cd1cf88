"""Raw streams: those whose bytes are HTTP/3's, and not an application's.

There are the CONNECT streams and other requests, and for each side a control stream and two QPACK streams. What
arrives on them goes to ``H3Connection``, and what that sends waits here while the peer gives no room for it. What the
bytes mean, and what a stream's end leads to, is decided elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from wtio._core import ReadAnswer
from wtio._waiting import Waiter, wake
from wtio.protocol.codes import ErrorCodes
from wtio.protocol.outbox import Role

if TYPE_CHECKING:
    import asyncio

    from wtio import _core
    from wtio.protocol.exchanges import Exchanges

__all__ = ["Layer", "RawStreams"]

# Bytes of one raw stream that may wait for the peer's flow control, unless they end it. Only capsules wait here; a peer
# that does not read them must not make us keep more.
_PENDING_LIMIT: Final = 256 * 1024
# Bytes that are read at once.
_READ_SIZE: Final = 64 * 1024
# Unidirectional streams of a peer that last as long as the connection: control, QPACK encoder and QPACK decoder.
_CRITICAL_STREAMS: Final = 3


class Layer(Protocol):
    """What takes the bytes that arrive (``protocol.connection.H3Connection``)."""

    @property
    def exchanges(self) -> Exchanges:
        """The ordinary requests of a server."""

    def receive_data(self, stream_id: int, data: bytes, end: bool, /) -> None:
        """Take bytes of a stream, in order, and its end with the last ones."""

    def receive_reset(self, stream_id: int, code: int, /) -> None:
        """Take the reset of a stream."""


class _Pending:
    """Bytes for a raw stream that its queue had no room for."""

    __slots__ = ("data", "end", "frees", "waiter")

    def __init__(self) -> None:
        self.data = bytearray()
        # Whether the stream ends after them.
        self.end = False
        # Whether the stream is to be forgotten after them.
        self.frees = False
        # Of the task that waits until none of them is left.
        self.waiter: Waiter | None = None


class RawStreams:
    """The raw streams of one connection. It refers to no connection, so those that wait for room keep none."""

    __slots__ = (
        "_control",
        "_control_waiting",
        "_core",
        "_critical",
        "_h3",
        "_left",
        "_loop",
        "_pending",
        "_streams",
        "_unidirectional_streams",
    )

    def __init__(
        self,
        core: _core.Connection,
        loop: asyncio.AbstractEventLoop,
        h3: Layer,
        unidirectional_streams: int,
    ) -> None:
        self._core = core
        self._loop = loop
        # Takes what arrives.
        self._h3 = h3
        # ``Limits.unidirectional_streams``: how many the peer may have open for its sessions.
        self._unidirectional_streams = unidirectional_streams
        # By stream ID, those that the HTTP/3 layer has not freed; never more than may be open at once. None are found
        # any more once the connection is lost.
        self._streams: dict[int, _core.Stream] = {}
        # Those that were left when the connection was lost, until ``clear``.
        self._left: dict[int, _core.Stream] | None = None
        # By stream ID, what waits for the peer's flow control: at most ``_PENDING_LIMIT`` each, or one response. None
        # while there is nothing, which is nearly always.
        self._pending: dict[int, _Pending] | None = None
        # Our control stream, once the peer allows it.
        self._control: _core.Stream | None = None
        # What is to go on it, SETTINGS and a GOAWAY at most; None once it is open, and when the connection is lost.
        self._control_waiting: bytearray | None = bytearray()
        # How many unidirectional streams the peer has opened, up to ``_CRITICAL_STREAMS``.
        self._critical = 0

    # -- which there are

    def open_request(self) -> _core.Stream | None:
        """Open a bidirectional stream; None while the peer allows none."""
        stream = self._core.open_stream(True, b"", None)
        if stream is not None:
            self._keep(stream)
        return stream

    def take(self, stream: _core.Stream) -> None:
        """Keep a stream that the peer has opened; its bytes follow."""
        self._keep(stream)
        # RFC 9000, section 2.1: the second bit is set on unidirectional streams.
        if stream.id & 2 and self._critical < _CRITICAL_STREAMS:
            self._critical += 1
            if self._critical > 1:
                # The two QPACK streams take nothing from what sessions may have.
                self._core.set_concurrent_streams(False, self._unidirectional_streams + self._critical)

    def _keep(self, stream: _core.Stream) -> None:
        stream.abandon_code = ErrorCodes.H3_REQUEST_CANCELLED
        self._streams[stream.id] = stream

    def get(self, stream_id: int) -> _core.Stream | None:
        """Find a stream."""
        return self._streams.get(stream_id)

    def remove(self, stream_id: int) -> _core.Stream | None:
        """Forget a stream at once; None if that was done before."""
        return self._streams.pop(stream_id, None)

    def free(self, stream_id: int) -> None:
        """Forget a stream as soon as nothing of it waits."""
        if self._pending and (pending := self._pending.get(stream_id)):
            pending.frees = True
        else:
            self._streams.pop(stream_id, None)

    def lose(self) -> None:
        """The connection is lost: nothing is read and sent any more.

        The engine keeps a connection that has ended for as long as there are streams of it, so they stay until
        ``clear``.
        """
        self._left, self._streams = self._streams, {}
        pending, self._pending = self._pending, None
        for waiting in (pending or {}).values():
            wake(waiting.waiter)
        self._control = None
        self._control_waiting = None

    def clear(self) -> None:
        """Forget the streams of a lost connection, so that the engine can forget it."""
        self._left = None

    # -- what arrives

    def read(self, stream_id: int) -> None:
        """Give the HTTP/3 layer all that has arrived on a stream; of an ordinary request, what begins it.

        The rest of an ordinary request is read with ``read_piece``.
        """
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        data = stream.read(_READ_SIZE)
        while isinstance(data, bytes):
            # The end is seen together with the last bytes, which saves the layer above a call.
            is_ended = stream.receive_state().is_ended
            self._h3.receive_data(stream_id, data, is_ended)
            if is_ended or (not stream_id & 3 and self._h3.exchanges.is_on_demand(stream_id)):
                return
            data = stream.read(_READ_SIZE)
        if data is ReadAnswer.ENDED:
            self._read_end(stream)

    def read_piece(self, stream_id: int) -> bool:
        """Give the HTTP/3 layer the next 64 KiB of a stream at most, or its end; whether there may be more."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return False
        data = stream.read(_READ_SIZE)
        if isinstance(data, bytes):
            is_ended = stream.receive_state().is_ended
            self._h3.receive_data(stream_id, data, is_ended)
            return not is_ended
        if data is ReadAnswer.ENDED:
            self._read_end(stream)
        return False

    def _read_end(self, stream: _core.Stream) -> None:
        """Give the HTTP/3 layer what a stream has ended with."""
        state = stream.receive_state()
        if state.is_ended:
            self._h3.receive_data(stream.id, b"", True)
        elif state.is_reset:
            self._h3.receive_reset(stream.id, state.wire_code)

    # -- what is sent

    def send(self, target: int | Role, data: bytes, end: bool) -> bool:
        """Send bytes, and the end of the stream behind them. What the peer gives no room for waits.

        Returns:
            Whether what waits is within its bound. If not, the connection is to be closed: the peer does not read.
        """
        stream = self._control if isinstance(target, Role) else self._streams.get(target)
        if stream is None:
            if isinstance(target, Role) and self._control_waiting is not None:
                is_first = not self._control_waiting
                self._control_waiting += data
                if is_first:
                    self._open_control()
            return True
        pending = self._pending and self._pending.get(stream.id)
        if not pending:
            accepted = stream.write(data, 0) if data else 0
            if accepted == len(data):
                if end:
                    stream.finish()
                return True
            if accepted < 0:
                return True
            pending = _Pending()
            if self._pending is None:
                self._pending = {}
            self._pending[stream.id] = pending
            data = data[accepted:]
            self._await_room(stream)
        pending.data += data
        pending.end = pending.end or end
        return len(pending.data) <= _PENDING_LIMIT or pending.end

    def room(self, stream_id: int) -> Waiter | None:
        """Return what to await until nothing of a stream waits any more; None if that is so. For one task at a time."""
        pending = self._pending and self._pending.get(stream_id)
        if not pending:
            return None
        pending.waiter = Waiter(self._loop)
        return pending.waiter

    def reset(self, stream_id: int, wire_code: int) -> None:
        """Reset a stream; what waits is not sent."""
        if stream := self._streams.get(stream_id):
            self._drop_pending(stream_id)
            stream.reset(wire_code)

    def stop(self, stream_id: int, wire_code: int) -> None:
        """Ask the peer to send nothing further on a stream."""
        if stream := self._streams.get(stream_id):
            stream.stop(wire_code)

    def _drop_pending(self, stream_id: int) -> None:
        """Nothing of a stream waits any more."""
        if self._pending is not None:
            if pending := self._pending.pop(stream_id, None):
                wake(pending.waiter)
            if not self._pending:
                self._pending = None

    def _await_room(self, stream: _core.Stream) -> None:
        future = self._loop.create_future()
        future.add_done_callback(lambda _: self._send_pending(stream))
        stream.wait_writable(future)

    def _send_pending(self, stream: _core.Stream) -> None:
        pending = self._pending and self._pending.get(stream.id)
        if not pending:
            return
        accepted = stream.write(pending.data, 0)
        if 0 <= accepted < len(pending.data):
            del pending.data[:accepted]
            self._await_room(stream)
            return
        self._drop_pending(stream.id)
        if accepted >= 0 and pending.end:
            stream.finish()
        if pending.frees:
            self._streams.pop(stream.id, None)

    def _open_control(self) -> None:
        """Open our control stream, as soon as the peer's credit allows."""
        if self._control_waiting is None:
            return
        stream = self._core.open_stream(False, b"", None)
        if stream is None:
            # A peer should allow three streams at once (RFC 9114, section 6.2), but nothing forces it to.
            future = self._loop.create_future()
            future.add_done_callback(lambda _: self._open_control())
            self._core.wait_streams(False, future)
            return
        self._control = stream
        waiting, self._control_waiting = self._control_waiting, None
        self.send(Role.CONTROL, bytes(waiting), False)
