"""Request streams: their frames, the bodies of ordinary requests, and how much is buffered.

If a request asks for a session, ``connect_streams`` takes over. The frames of the stream are still read here.
"""

from collections.abc import Iterator
from typing import Final, Literal

from wtio.protocol import messages, qpack
from wtio.protocol.codes import ErrorCodes
from wtio.protocol.faults import ConnectionFault, StreamFault
from wtio.protocol.frames import HTTP2_FRAME_TYPES, FrameType, Handling, RecordReader
from wtio.protocol.limits import SMALL_FRAME, Allowance, ProtocolLimits
from wtio.protocol.messages import Fields
from wtio.protocol.outbox import Outbox
from wtio.protocol.session import Session

__all__ = ["RequestStream", "Requests"]

_NEVER_ON_REQUEST_STREAMS: Final = HTTP2_FRAME_TYPES | {
    FrameType.CANCEL_PUSH,
    FrameType.SETTINGS,
    FrameType.GOAWAY,
    FrameType.MAX_PUSH_ID,
    FrameType.PRIORITY_UPDATE_REQUEST,
    FrameType.PRIORITY_UPDATE_PUSH,
}


class RequestStream:
    """One request stream and the reader of its frames."""

    __slots__ = (
        "_allowance",
        "_announced_body",
        "_body",
        "_is_client",
        "_max_field_section_size",
        "_reader",
        "answer_left",
        "counted",
        "discarded",
        "has_ended",
        "is_answering",
        "is_barren",
        "is_discarding",
        "is_ordinary",
        "is_over",
        "method",
        "phase",
        "session",
        "stream_id",
    )

    def __init__(self, stream_id: int, is_client: bool, limits: ProtocolLimits, allowance: Allowance) -> None:
        self.stream_id: int = stream_id
        self._is_client = is_client  # we are the client
        self._max_field_section_size = limits.max_field_section_size
        self._allowance = allowance  # of the connection
        self._reader = RecordReader()
        # What is expected: the header section, then the body, then nothing after the trailers. Set to "body" by whoever
        # acts on the header section.
        self.phase: Literal["head", "body", "end"] = "head"
        self.method: str = ""  # of the request; set with its header section
        self.session: Session | None = None  # set by ``ConnectStreams``, if the request asks for one
        self.is_barren: bool = False  # the current DATA frame is small, and has not completed a capsule so far
        self.has_ended: bool = False  # the peer has ended its side, but the request is not answered yet
        self.is_discarding: bool = False  # we have ended the session: what arrives is only counted, in ``discarded``
        self.is_over: bool = False  # freed; set by ``Requests.free``
        self.discarded: int = 0  # bytes
        self.counted: int = 0  # bytes of this stream in ``Requests.buffered``
        self.is_ordinary: bool = False  # it is a request for no session; set by ``Exchanges`` with its header section
        # Of an ordinary request: its content-length, and the bytes of its body so far.
        self._announced_body: int | None = None
        self._body = 0
        # Of its answer, set by ``Exchanges``: whether the header section was sent, and how many bytes of the announced
        # length are still to come; ``None`` if no length was announced.
        self.is_answering: bool = False
        self.answer_left: int | None = None

    @property
    def buffered(self) -> int:
        """Bytes that are kept: of an incomplete frame, and of capsules."""
        return self._reader.buffered + (self.session.buffered if self.session else 0)

    @property
    def at_boundary(self) -> bool:
        """Whether the bytes so far end with a complete frame."""
        return self._reader.at_boundary

    def read(self, data: bytes) -> Iterator[Fields | bytes]:
        """Take bytes; yield each header section, decoded, and each piece of the body.

        Trailers are checked and dropped. The iterator is lazy, so that the caller can act on one part before the next
        frame is judged.

        Raises:
            ConnectionFault: A frame is not allowed here, or malformed.
            StreamFault: The trailers are malformed, or the header section of a response or the trailers are too large.
            FieldSectionTooLargeError: The header section of a request is too large.
        """
        try:
            for frame_type, payload in self._reader.feed(data, self._classify):
                if frame_type == FrameType.DATA:
                    yield payload
                    continue
                fields = qpack.decode_field_section(payload, max_size=self._max_field_section_size)
                if self.phase == "head":
                    yield fields
                else:
                    self.phase = "end"
                    messages.check_trailers(fields)
        except qpack.FieldSectionTooLargeError:
            if not self._is_client and self.phase == "head":
                raise
            words = f"headers exceed {self._max_field_section_size} bytes"
            raise StreamFault(ErrorCodes.H3_EXCESSIVE_LOAD, words) from None  # RFC 9114, section 4.2.2

    def begin_body(self, content_length: int | None = None) -> None:
        """Note that the header section is complete. ``content_length`` is that of an ordinary request."""
        self.phase = "body"
        self._announced_body = content_length

    def count_body(self, size: int) -> None:
        """Count a piece of an ordinary request's body.

        Raises:
            StreamFault: The body is longer than its content-length.
        """
        self._body += size
        if self._announced_body is not None and self._body > self._announced_body:
            raise StreamFault(ErrorCodes.H3_MESSAGE_ERROR, "body is longer than content-length")

    def check_end(self) -> None:
        """Check that the peer may end its side here.

        Raises:
            ConnectionFault: The stream ended inside a frame.
            StreamFault: The stream ended before the message was complete.
        """
        if not self._reader.at_boundary:
            if self.phase == "head" and self._reader.may_be_data_stream:
                raise StreamFault(ErrorCodes.H3_REQUEST_INCOMPLETE, "stream ends inside its first varint")
            raise ConnectionFault(ErrorCodes.H3_FRAME_ERROR, "stream ends inside a frame")  # RFC 9114, section 7.1
        if self.phase == "head":
            code = ErrorCodes.H3_MESSAGE_ERROR if self._is_client else ErrorCodes.H3_REQUEST_INCOMPLETE
            raise StreamFault(code, "stream ends before a complete header section")
        if self._announced_body is not None and self._body != self._announced_body:
            raise StreamFault(ErrorCodes.H3_MESSAGE_ERROR, "body is shorter than content-length")

    def _classify(self, frame_type: int, length: int) -> Handling:
        """Refuse frames that may not come on a request stream here (RFC 9114, sections 4.1, 4.4 and 7.2)."""
        if frame_type == FrameType.DATA:
            if self.phase != "body":
                raise ConnectionFault(
                    ErrorCodes.H3_FRAME_UNEXPECTED,
                    "DATA before HEADERS" if self.phase == "head" else "DATA after trailers",
                )
            if self.is_barren:
                self._allowance.count_idle()
            self.is_barren = length < SMALL_FRAME
            return Handling.STREAM
        if frame_type == FrameType.HEADERS:
            # Section 4.4: on a CONNECT stream only DATA follows the header section.
            if self.phase == "end" or (self.phase == "body" and self.method == "CONNECT"):
                raise ConnectionFault(ErrorCodes.H3_FRAME_UNEXPECTED, "HEADERS after the last header section")
            if length > self._max_field_section_size:
                raise qpack.FieldSectionTooLargeError
            return Handling.COLLECT
        if frame_type == FrameType.WT_STREAM:
            # Draft 16, section 4.3: the signal opens a data stream, and the engine does not hand those to this layer.
            raise ConnectionFault(ErrorCodes.H3_FRAME_ERROR, "WebTransport stream signal inside a request stream")
        if frame_type == FrameType.PUSH_PROMISE and self._is_client:
            raise ConnectionFault(ErrorCodes.H3_ID_ERROR, "PUSH_PROMISE, but no push was allowed")
        if frame_type in _NEVER_ON_REQUEST_STREAMS or frame_type == FrameType.PUSH_PROMISE:
            raise ConnectionFault(ErrorCodes.H3_FRAME_UNEXPECTED, f"frame of type {frame_type} on a request stream")
        self._allowance.count_idle()
        return Handling.SKIP


class Requests:
    """The open request streams of one connection, in the order in which they began."""

    __slots__ = ("_allowance", "_is_client", "_limits", "_outbox", "_streams", "buffered", "next_id")

    def __init__(self, is_client: bool, limits: ProtocolLimits, allowance: Allowance, outbox: Outbox) -> None:
        self._is_client = is_client  # we are the client
        self._limits = limits
        # Shared with the rest of the connection: what the peer may still repeat, and where outputs go.
        self._allowance = allowance
        self._outbox = outbox
        # Bounded by what the client may have open at once.
        self._streams: dict[int, RequestStream] = {}
        self.buffered: int = 0  # bytes kept for all streams; updated by ``account`` and ``free``
        self.next_id: int = 0  # above the ID of every request stream so far

    def open(self, stream_id: int) -> RequestStream:
        """Add a new stream."""
        stream = self._streams[stream_id] = RequestStream(stream_id, self._is_client, self._limits, self._allowance)
        self.next_id = max(self.next_id, stream_id + 4)
        return stream

    def get(self, stream_id: int) -> RequestStream | None:
        """Find a stream."""
        return self._streams.get(stream_id)

    def session(self, stream_id: int) -> tuple[RequestStream, Session] | None:
        """Find a session and its stream."""
        stream = self._streams.get(stream_id)
        return (stream, stream.session) if stream and stream.session else None

    def is_fresh(self, stream_id: int) -> bool:
        """Whether this may be the ID of a new request: of a client's bidirectional stream that was not used before."""
        return not stream_id % 4 and stream_id not in self._streams and not self._outbox.is_freed(stream_id)

    def __iter__(self) -> Iterator[RequestStream]:
        """Iterate over a copy, because streams may be freed meanwhile."""
        return iter(list(self._streams.values()))

    def account(self, stream: RequestStream) -> None:
        """Update how many bytes are kept for a stream.

        Raises:
            ConnectionFault: H3_EXCESSIVE_LOAD, if all streams together exceed ``max_buffered``.
        """
        kept = stream.buffered
        self.buffered += kept - stream.counted
        stream.counted = kept
        if self.buffered > self._limits.max_buffered:
            raise ConnectionFault(
                ErrorCodes.H3_EXCESSIVE_LOAD, f"incomplete frames exceed {self._limits.max_buffered} bytes"
            )

    def free(self, stream: RequestStream) -> None:
        """Remove a stream that has ended on both sides, or that we want nothing more from."""
        stream.is_over = True
        self.buffered -= stream.counted
        del self._streams[stream.stream_id]
        self._outbox.free(stream.stream_id)

    def refuse(self, stream: RequestStream, code: int) -> None:
        """Reset and stop a stream without a session."""
        self._outbox.reset(stream.stream_id, code)
        self._outbox.stop(stream.stream_id, code)
        self.free(stream)
        self._allowance.count_refused()

    def answer(self, stream: RequestStream, payload: bytes) -> None:
        """Send the last or the only bytes of an answer to a request without a session, and end the stream."""
        self._outbox.send(stream.stream_id, payload, end=True)
        if not stream.has_ended:
            # RFC 9114, section 4.1: the rest of the request is not needed.
            self._outbox.stop(stream.stream_id, ErrorCodes.H3_NO_ERROR)
        self.free(stream)

    def clear(self) -> None:
        """Remove all streams, because the connection is over."""
        self._streams.clear()
