"""The peer's streams without a request: control, QPACK, and those of unknown types.

``PeerStreams`` reads them and enforces their rules. ``connection`` acts on the SETTINGS and GOAWAY that they carry.
"""

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from wtio.protocol import qpack, varint
from wtio.protocol.codes import ErrorCodes
from wtio.protocol.faults import ConnectionFault
from wtio.protocol.frames import HTTP2_FRAME_TYPES, FrameType, Handling, RecordReader, StreamType
from wtio.protocol.limits import Allowance, ProtocolLimits
from wtio.protocol.outbox import Outbox
from wtio.protocol.settings import decode_settings

__all__ = ["Goaway", "PeerStreams"]

_NEVER_ON_CONTROL_STREAM: Final = HTTP2_FRAME_TYPES | {FrameType.DATA, FrameType.HEADERS, FrameType.PUSH_PROMISE}
# RFC 9218, section 7.2. A session has no priority of its own: the application says what goes first (``send_order``).
_PRIORITY_UPDATES: Final = frozenset((FrameType.PRIORITY_UPDATE_REQUEST, FrameType.PRIORITY_UPDATE_PUSH))
_MOST_PRIORITY: Final = 256
_ENCODER_STREAM: Final = qpack.EncoderStream()  # has no state
# Streams that must stay open as long as the connection (RFC 9114, section 6.2.1; RFC 9204, section 4.2).
_CRITICAL: Final = frozenset((StreamType.CONTROL, StreamType.QPACK_ENCODER, StreamType.QPACK_DECODER))


class Goaway(NamedTuple):
    """The peer's GOAWAY."""

    identifier: int
    """The first request that a server will not process, or the first push that a client will not accept."""


class PeerStreams:
    """Reads all streams of the peer that carry neither a request nor data of a session."""

    __slots__ = (
        "_allowance",
        "_control",
        "_control_id",
        "_decoder_stream",
        "_has_settings",
        "_is_client",
        "_max_push_id",
        "_max_settings_size",
        "_outbox",
        "_streams",
    )

    def __init__(self, is_client: bool, limits: ProtocolLimits, allowance: Allowance, outbox: Outbox) -> None:
        self._is_client = is_client  # we are the client
        self._max_settings_size = limits.max_settings_size
        # Shared with the rest of the connection: what the peer may still repeat, and where outputs go.
        self._allowance = allowance
        self._outbox = outbox
        # The control stream, once it is there, and the reader of its frames.
        self._control_id: int | None = None
        self._control = RecordReader()
        # By stream ID: the type of another critical stream, or the bytes, at most 7, of a type that is incomplete.
        # Bounded by what the peer may have open at once. None while there are none: many peers open the control stream
        # alone.
        self._streams: dict[int, int | bytes] | None = None
        # Made with the first byte, because most peers send none.
        self._decoder_stream: qpack.DecoderStream | None = None
        self._has_settings = False  # the peer's SETTINGS have arrived
        self._max_push_id = -1  # the client's last MAX_PUSH_ID, which must not shrink

    def receive(self, stream_id: int, data: bytes, end: bool) -> Iterator[Mapping[int, int] | Goaway]:
        """Take bytes of a unidirectional stream; yield the settings and each GOAWAY on the control stream.

        The iterator is lazy, so that the caller can act on a message before the next frame is read. It must be
        exhausted.

        Raises:
            ConnectionFault: The peer broke a rule of these streams.
        """
        stream_type = self._type(stream_id)
        if isinstance(stream_type, bytes):
            data = stream_type + data
            head = varint.decode(data)
            if head is None:
                self._note(stream_id, data)
            else:
                stream_type, offset = head
                data = data[offset:]
                self._begin(stream_id, stream_type)
        # If the type is not critical, _begin has forgotten the stream.
        if stream_type in _CRITICAL:
            if stream_type == StreamType.CONTROL:
                for frame_type, payload in self._control.feed(data, self._classify_control_frame):
                    message = self._control_frame(frame_type, payload)
                    if message is not None:
                        yield message
            elif stream_type == StreamType.QPACK_ENCODER:
                _ENCODER_STREAM.feed(data)
            else:
                if self._decoder_stream is None:
                    self._decoder_stream = qpack.DecoderStream()
                self._decoder_stream.feed(data, self._allowance.count_idle)
        if end:
            self.end(stream_id)

    def _begin(self, stream_id: int, stream_type: int) -> None:
        """Act on the type of a unidirectional stream (RFC 9114, section 6.2)."""
        if stream_type in _CRITICAL:
            if stream_type == StreamType.CONTROL:
                is_second = self._control_id is not None
            else:
                is_second = self._streams is not None and stream_type in self._streams.values()
            if is_second:
                raise ConnectionFault(
                    ErrorCodes.H3_STREAM_CREATION_ERROR, f"second stream of type {StreamType(stream_type).name}"
                )
            if stream_type == StreamType.CONTROL:
                self._control_id = stream_id
                # It may have been kept with an incomplete type.
                self._drop(stream_id)
            else:
                self._note(stream_id, stream_type)
            return
        if stream_type == StreamType.PUSH:
            if self._is_client:  # section 7.2.7: we never allowed any push
                raise ConnectionFault(ErrorCodes.H3_ID_ERROR, "push stream, but no push was allowed")
            raise ConnectionFault(ErrorCodes.H3_STREAM_CREATION_ERROR, "push stream of a client")
        # Section 6.2: an unknown type is no error. We stop the stream, so that there is nothing to drain.
        self._outbox.stop(stream_id, ErrorCodes.H3_STREAM_CREATION_ERROR)
        self._forget(stream_id)
        self._allowance.count_refused()

    def receive_stray(self, stream_id: int, data: bytes, end: bool) -> None:
        """Client: a bidirectional stream of the server that is not a complete WebTransport data stream."""
        head = self._type(stream_id)
        assert isinstance(head, bytes)  # only unidirectional streams have a type
        head += data[:16]
        value = varint.decode(head)
        if value and value[0] != FrameType.WT_STREAM:
            # RFC 9114, section 6.1.
            raise ConnectionFault(ErrorCodes.H3_STREAM_CREATION_ERROR, "bidirectional stream of a server")
        self._note(stream_id, head)
        # If the stream ends inside the head of a data stream, it was given up before it named its session.
        if value or end:
            self._outbox.reset(stream_id, ErrorCodes.WT_BUFFERED_STREAM_REJECTED)
            self._outbox.stop(stream_id, ErrorCodes.WT_BUFFERED_STREAM_REJECTED)
            self._forget(stream_id)
            self._allowance.count_refused()

    def end(self, stream_id: int) -> None:
        """Take the end or the reset of a stream. A stream that is not known is ignored."""
        if self._type(stream_id) in _CRITICAL:
            raise ConnectionFault(ErrorCodes.H3_CLOSED_CRITICAL_STREAM, "the peer closed a critical stream")
        # RFC 9114, section 6.2: an end inside the type must be tolerated.
        if self._streams and stream_id in self._streams:
            self._forget(stream_id)

    def _type(self, stream_id: int) -> int | bytes:
        """Return the type of a critical stream, or what has come of the type of any other."""
        if stream_id == self._control_id:
            return StreamType.CONTROL
        return self._streams.get(stream_id, b"") if self._streams else b""

    def _note(self, stream_id: int, stream_type: int | bytes) -> None:
        if self._streams is None:
            self._streams = {}
        self._streams[stream_id] = stream_type

    def _drop(self, stream_id: int) -> None:
        if self._streams is not None:
            self._streams.pop(stream_id, None)
            if not self._streams:
                self._streams = None

    def _forget(self, stream_id: int) -> None:
        self._drop(stream_id)
        self._outbox.free(stream_id)

    # -- control stream

    def _classify_control_frame(self, frame_type: int, length: int) -> Handling:
        """Refuse frames that may not come on a control stream here (RFC 9114, sections 6.2.1 and 7.2)."""
        if frame_type == FrameType.SETTINGS:
            if self._has_settings:
                raise ConnectionFault(ErrorCodes.H3_FRAME_UNEXPECTED, "second SETTINGS frame")
            if length > self._max_settings_size:
                raise ConnectionFault(
                    ErrorCodes.H3_EXCESSIVE_LOAD,
                    f"SETTINGS frame of {length} bytes exceeds {self._max_settings_size}",
                )
            return Handling.COLLECT
        if not self._has_settings:
            raise ConnectionFault(ErrorCodes.H3_MISSING_SETTINGS, "control stream does not begin with SETTINGS")
        if frame_type in _NEVER_ON_CONTROL_STREAM:
            raise ConnectionFault(ErrorCodes.H3_FRAME_UNEXPECTED, f"frame of type {frame_type} on the control stream")
        if frame_type == FrameType.WT_STREAM:
            raise ConnectionFault(ErrorCodes.H3_FRAME_ERROR, "WebTransport stream signal on the control stream")
        if frame_type in (FrameType.GOAWAY, FrameType.CANCEL_PUSH, FrameType.MAX_PUSH_ID):
            if frame_type == FrameType.MAX_PUSH_ID and self._is_client:
                raise ConnectionFault(ErrorCodes.H3_FRAME_UNEXPECTED, "MAX_PUSH_ID of a server")
            if not 1 <= length <= 8:
                raise ConnectionFault(
                    ErrorCodes.H3_FRAME_ERROR, f"{FrameType(frame_type).name} frame of {length} bytes is no single id"
                )
            return Handling.COLLECT
        if frame_type in _PRIORITY_UPDATES:
            if self._is_client:
                # RFC 9218, section 7.2.
                raise ConnectionFault(ErrorCodes.H3_FRAME_UNEXPECTED, "PRIORITY_UPDATE of a server")
            # Of the frame only the id at its head is looked at, so a long one need not be kept.
            if length <= _MOST_PRIORITY:
                return Handling.COLLECT
        self._allowance.count_idle()
        return Handling.SKIP

    def _control_frame(self, frame_type: int, payload: bytes) -> Mapping[int, int] | Goaway | None:
        """Read a frame; return what the connection has to act on, if anything."""
        if frame_type == FrameType.SETTINGS:
            self._has_settings = True
            return decode_settings(payload, is_client=self._is_client)
        value = varint.decode(payload)
        if frame_type in _PRIORITY_UPDATES:
            if value is None:
                raise ConnectionFault(ErrorCodes.H3_FRAME_ERROR, "PRIORITY_UPDATE frame without an id")
            if frame_type == FrameType.PRIORITY_UPDATE_PUSH or value[0] % 4:
                raise ConnectionFault(ErrorCodes.H3_ID_ERROR, f"PRIORITY_UPDATE for {value[0]}, which is no request")
            self._allowance.count_idle()
            return None
        if value is None or value[1] != len(payload):
            raise ConnectionFault(ErrorCodes.H3_FRAME_ERROR, f"{FrameType(frame_type).name} frame is no single id")
        if frame_type == FrameType.GOAWAY:
            return Goaway(value[0])
        if frame_type == FrameType.CANCEL_PUSH:
            # RFC 9114, section 7.2.3: neither side ever promised or allowed a push.
            raise ConnectionFault(ErrorCodes.H3_ID_ERROR, f"CANCEL_PUSH for push {value[0]}, which does not exist")
        if value[0] < self._max_push_id:  # section 7.2.7
            raise ConnectionFault(ErrorCodes.H3_ID_ERROR, "MAX_PUSH_ID shrinks")
        self._max_push_id = value[0]
        self._allowance.count_idle()
        return None
