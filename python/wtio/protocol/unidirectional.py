"""The peer's unidirectional streams: control, QPACK, and those that mean nothing to us."""

from collections.abc import Mapping
from typing import Final, Protocol

from wtio.protocol import qpack, varint
from wtio.protocol.codes import ErrorCodes
from wtio.protocol.faults import ConnectionFault
from wtio.protocol.frames import HTTP2_FRAME_TYPES, FrameType, Handling, RecordReader, StreamType
from wtio.protocol.limits import ProtocolLimits
from wtio.protocol.outbox import Output, Reset, Stop
from wtio.protocol.settings import decode_settings

__all__ = ["PeerStreams"]

_NEVER_ON_CONTROL_STREAM: Final = HTTP2_FRAME_TYPES | {FrameType.DATA, FrameType.HEADERS, FrameType.PUSH_PROMISE}
# RFC 9218, section 7.2. A session has no priority of its own: the application says what goes first (``send_order``).
_PRIORITY_UPDATES: Final = frozenset((FrameType.PRIORITY_UPDATE_REQUEST, FrameType.PRIORITY_UPDATE_PUSH))
_MOST_PRIORITY: Final = 256
_ENCODER_STREAM: Final = qpack.EncoderStream()  # has no state
# Streams that last as long as the connection (RFC 9114, section 6.2.1; RFC 9204, section 4.2).
_CRITICAL: Final = frozenset((StreamType.CONTROL, StreamType.QPACK_ENCODER, StreamType.QPACK_DECODER))


class _PeerStream:
    """A unidirectional stream of the peer's, or a stray bidirectional one; at first its type is not known."""

    __slots__ = ("head", "stream_type")

    def __init__(self) -> None:
        self.head = b""
        self.stream_type: int | None = None


class Owner(Protocol):
    """What reading these streams needs from the connection (``H3Connection``)."""

    is_client: bool
    limits: ProtocolLimits

    def _count_idle(self) -> None: ...
    def _count_refused(self) -> None: ...
    def _emit(self, output: Output) -> None: ...
    def _forget(self, stream_id: int) -> None: ...
    def _take_settings(self, settings: Mapping[int, int]) -> None: ...
    def _take_goaway(self, identifier: int) -> None: ...


class PeerStreams:
    """Reads all streams of the peer that carry no request."""

    __slots__ = ("_control", "_decoder_stream", "_has_settings", "_is_client", "_max_push_id", "_owner", "_streams")

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._is_client = owner.is_client
        # Those that last, and those whose type is incomplete: never more than the peer may have open at once.
        self._streams: dict[int, _PeerStream] = {}
        self._control = RecordReader(self._classify_control_frame)
        self._decoder_stream: qpack.DecoderStream | None = None
        self._has_settings = False
        self._max_push_id = -1

    def receive(self, stream_id: int, data: bytes, end: bool) -> None:
        """Take bytes of a unidirectional stream; ConnectionFault for what ends the connection."""
        stream = self._streams.setdefault(stream_id, _PeerStream())
        if stream.stream_type is None:
            data = stream.head + data
            number = varint.decode(data)
            if number is None:
                stream.head = data  # at most 7 bytes
            else:
                stream.stream_type, offset = number
                data = data[offset:]
                self._begin(stream_id, number[0])
        # A type that is not critical has been forgotten by _begin.
        if stream_id in self._streams and stream.stream_type is not None:
            if stream.stream_type == StreamType.CONTROL:
                for frame_type, payload in self._control.feed(data):
                    self._control_frame(frame_type, payload)
            elif stream.stream_type == StreamType.QPACK_ENCODER:
                _ENCODER_STREAM.feed(data)
            else:
                if self._decoder_stream is None:
                    self._decoder_stream = qpack.DecoderStream()
                self._decoder_stream.feed(data, self._owner._count_idle)
        if end:
            self.end(stream_id)

    def _begin(self, stream_id: int, stream_type: int) -> None:
        """Act on the type of a unidirectional stream (RFC 9114, section 6.2)."""
        if stream_type in _CRITICAL:
            if sum(stream.stream_type == stream_type for stream in self._streams.values()) > 1:
                raise ConnectionFault(
                    ErrorCodes.H3_STREAM_CREATION_ERROR, f"second stream of type {StreamType(stream_type).name}"
                )
            return
        if stream_type == StreamType.PUSH:
            if self._is_client:  # section 7.2.7: we never allowed any push
                raise ConnectionFault(ErrorCodes.H3_ID_ERROR, "push stream, but no push was allowed")
            raise ConnectionFault(ErrorCodes.H3_STREAM_CREATION_ERROR, "push stream of a client")
        # Section 6.2: an unknown type is no error; reading is aborted so that nothing needs to be drained.
        self._owner._emit(Stop(stream_id, ErrorCodes.H3_STREAM_CREATION_ERROR))
        self._forget(stream_id)
        self._owner._count_refused()

    def receive_stray(self, stream_id: int, data: bytes, end: bool) -> None:
        """Client: a bidirectional stream of the server that is not a complete WebTransport data stream."""
        stream = self._streams.setdefault(stream_id, _PeerStream())
        stream.head += data[:16]
        number = varint.decode(stream.head)
        if number and number[0] != FrameType.WT_STREAM:
            # RFC 9114, section 6.1.
            raise ConnectionFault(ErrorCodes.H3_STREAM_CREATION_ERROR, "bidirectional stream of a server")
        # What ends inside the head of a data stream was abandoned before it meant anything.
        if number or end:
            self._owner._emit(Reset(stream_id, ErrorCodes.WT_BUFFERED_STREAM_REJECTED))
            self._owner._emit(Stop(stream_id, ErrorCodes.WT_BUFFERED_STREAM_REJECTED))
            self._forget(stream_id)
            self._owner._count_refused()

    def end(self, stream_id: int) -> None:
        """Take the end or the reset of a stream; of one that is not known, too."""
        stream = self._streams.get(stream_id)
        if stream is not None and stream.stream_type in _CRITICAL:
            raise ConnectionFault(ErrorCodes.H3_CLOSED_CRITICAL_STREAM, "the peer closed a critical stream")
        # RFC 9114, section 6.2: an end inside the type must be tolerated.
        if stream is not None:
            self._forget(stream_id)

    def _forget(self, stream_id: int) -> None:
        del self._streams[stream_id]
        self._owner._forget(stream_id)

    # -- control stream

    def _classify_control_frame(self, frame_type: int, length: int) -> Handling:
        """Refuse frames that may not come on a control stream here (RFC 9114, sections 6.2.1 and 7.2)."""
        if frame_type == FrameType.SETTINGS:
            if self._has_settings:
                raise ConnectionFault(ErrorCodes.H3_FRAME_UNEXPECTED, "second SETTINGS frame")
            if length > self._owner.limits.max_settings_size:
                raise ConnectionFault(
                    ErrorCodes.H3_EXCESSIVE_LOAD,
                    f"SETTINGS frame of {length} bytes exceeds {self._owner.limits.max_settings_size}",
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
        self._owner._count_idle()
        return Handling.SKIP

    def _control_frame(self, frame_type: int, payload: bytes) -> None:
        if frame_type == FrameType.SETTINGS:
            self._has_settings = True
            self._owner._take_settings(decode_settings(payload, is_client=self._is_client))
            return
        number = varint.decode(payload)
        if frame_type in _PRIORITY_UPDATES:
            if number is None:
                raise ConnectionFault(ErrorCodes.H3_FRAME_ERROR, "PRIORITY_UPDATE frame without an id")
            if frame_type == FrameType.PRIORITY_UPDATE_PUSH or number[0] % 4:
                raise ConnectionFault(ErrorCodes.H3_ID_ERROR, f"PRIORITY_UPDATE for {number[0]}, which is no request")
            self._owner._count_idle()
            return
        if number is None or number[1] != len(payload):
            raise ConnectionFault(ErrorCodes.H3_FRAME_ERROR, f"{FrameType(frame_type).name} frame is no single id")
        if frame_type == FrameType.GOAWAY:
            self._owner._take_goaway(number[0])
        elif frame_type == FrameType.CANCEL_PUSH:
            # RFC 9114, section 7.2.3: neither side ever promised or allowed a push.
            raise ConnectionFault(ErrorCodes.H3_ID_ERROR, f"CANCEL_PUSH for push {number[0]}, which does not exist")
        else:
            if number[0] < self._max_push_id:  # section 7.2.7
                raise ConnectionFault(ErrorCodes.H3_ID_ERROR, "MAX_PUSH_ID shrinks")
            self._max_push_id = number[0]
            self._owner._count_idle()
