"""One request stream: where its reader stands, and which frames may come next."""

from typing import TYPE_CHECKING, Final, Literal, Protocol

from wtio.protocol.codes import ErrorCodes
from wtio.protocol.faults import ConnectionFault
from wtio.protocol.frames import HTTP2_FRAME_TYPES, FrameType, Handling, RecordReader
from wtio.protocol.limits import SMALL_FRAME, ProtocolLimits
from wtio.protocol.qpack import FieldSectionTooLargeError

if TYPE_CHECKING:
    from wtio.protocol import messages
    from wtio.protocol.session import Session

__all__ = ["RequestStream"]

_NEVER_ON_REQUEST_STREAMS: Final = HTTP2_FRAME_TYPES | {
    FrameType.CANCEL_PUSH,
    FrameType.SETTINGS,
    FrameType.GOAWAY,
    FrameType.MAX_PUSH_ID,
    FrameType.PRIORITY_UPDATE_REQUEST,
    FrameType.PRIORITY_UPDATE_PUSH,
}


class Owner(Protocol):
    """What a request stream needs from its connection (``H3Connection``)."""

    is_client: bool
    limits: ProtocolLimits

    def _count_idle(self) -> None: ...


class RequestStream:
    """A request stream: where its reader stands, and the session or ordinary request on it."""

    __slots__ = (
        "_owner",
        "announced_body",
        "body",
        "capsules",
        "counted",
        "discarded",
        "held",
        "held_end",
        "interim",
        "is_barren",
        "is_discarding",
        "is_over",
        "method",
        "phase",
        "protocols",
        "reader",
        "request",
        "require_protocol",
        "responded",
        "saw_close",
        "session",
        "stream_id",
    )

    def __init__(self, stream_id: int, owner: Owner) -> None:
        self.stream_id = stream_id
        self._owner = owner
        self.reader = RecordReader(self._classify)
        self.capsules: RecordReader | None = None
        self.session: Session | None = None
        # Header section awaited, then body, then nothing after the trailers.
        self.phase: Literal["head", "body", "end"] = "head"
        self.request: messages.Request | None = None  # server: kept while the session is parked
        self.method = ""
        self.protocols: tuple[str, ...] = ()  # client: what was offered
        self.require_protocol = False
        self.interim = 0
        self.is_barren = False  # the DATA frame that is being read is small, and has not completed a capsule
        # Server: capsules from before the session was accepted, at most ``max_held_capsules``.
        self.held: list[tuple[int, bytes]] | None = None
        self.held_end = False
        self.saw_close = False  # WT_CLOSE_SESSION was read: nothing may follow
        self.is_discarding = False  # we have ended our side; what comes is only counted
        self.is_over = False
        self.discarded = 0
        self.counted = 0  # bytes of this stream in the connection's account of buffers
        self.responded = False  # ordinary request: we have answered
        self.announced_body: int | None = None  # content-length
        self.body = 0

    def buffered(self) -> int:
        """Bytes that this stream keeps."""
        kept = self.reader.buffered + sum(len(value) for _, value in self.held or ())
        return kept + self.capsules.buffered if self.capsules else kept

    def _classify(self, frame_type: int, length: int) -> Handling:
        """Refuse frames that may not come on a request stream here (RFC 9114, sections 4.1, 4.4 and 7.2)."""
        if frame_type == FrameType.DATA:
            if self.phase != "body":
                raise ConnectionFault(
                    ErrorCodes.H3_FRAME_UNEXPECTED,
                    "DATA before HEADERS" if self.phase == "head" else "DATA after trailers",
                )
            if self.is_barren:
                self._owner._count_idle()
            self.is_barren = length < SMALL_FRAME
            return Handling.STREAM
        if frame_type == FrameType.HEADERS:
            # Section 4.4: on a CONNECT stream only DATA follows the header section.
            if self.phase == "end" or (self.phase == "body" and (self.session or self.method == "CONNECT")):
                raise ConnectionFault(ErrorCodes.H3_FRAME_UNEXPECTED, "HEADERS after the last header section")
            if length > self._owner.limits.max_field_section_size:
                raise FieldSectionTooLargeError
            return Handling.COLLECT
        if frame_type == FrameType.WT_STREAM:
            # Draft 16, section 4.3: the signal stands at the head of its stream, and such streams do not come here.
            raise ConnectionFault(ErrorCodes.H3_FRAME_ERROR, "WebTransport stream signal inside a request stream")
        if frame_type == FrameType.PUSH_PROMISE and self._owner.is_client:
            raise ConnectionFault(ErrorCodes.H3_ID_ERROR, "PUSH_PROMISE, but no push was allowed")
        if frame_type in _NEVER_ON_REQUEST_STREAMS or frame_type == FrameType.PUSH_PROMISE:
            raise ConnectionFault(ErrorCodes.H3_FRAME_UNEXPECTED, f"frame of type {frame_type} on a request stream")
        self._owner._count_idle()
        return Handling.SKIP
