"""The ordinary requests of one connection and their answers, on a server: their frames, their lengths, and their ends.

A request arrives as ``RequestReceived``, then ``BodyReceived`` for each piece of its body, then ``BodyEnded``. The body
is read on demand: once the header section is complete, the driver hands in further bytes of the stream only as the
application asks for them. The answer is written with ``compose``, ``begin`` and ``send``, or at once with ``answer``;
``abort`` breaks it off. Both directions may be under way at the same time (RFC 9114, section 4.1).

If the client takes a request back, or its body breaks a rule, ``RequestTerminated`` is the last event. There is none
after our own ``abort``, nor after the end of the answer, nor when the whole connection ends.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from wtio.protocol import messages
from wtio.protocol.codes import ErrorCodes, describe
from wtio.protocol.faults import StreamFault
from wtio.protocol.frames import FrameType, encode_record
from wtio.protocol.handshake import RESPONSE_RESERVED, headers_frame, rejection
from wtio.protocol.limits import Allowance
from wtio.protocol.outbox import (
    BodyEnded,
    BodyReceived,
    Outbox,
    RequestReceived,
    RequestRefused,
    RequestTerminated,
)
from wtio.protocol.request import Requests, RequestStream
from wtio.protocol.settings import Terms

__all__ = ["ANSWER_RESERVED", "AnswerHead", "Exchanges"]

ANSWER_RESERVED: Final = RESPONSE_RESERVED - {"content-length"}
"""Fields of an answer to an ordinary request that applications cannot set. They may announce the length of a body."""

# Statuses whose answers have no content (RFC 9110, sections 15.3.5, 15.3.6 and 15.4.5).
_WITHOUT_CONTENT: Final = frozenset((204, 205, 304))


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """The header section of an answer, ready to be sent."""

    payload: bytes
    """The HEADERS frame."""
    has_content: bool
    """Whether a body follows; an answer to HEAD and some statuses have none."""
    length: int | None
    """How many bytes of body have to follow; ``None`` if any number may."""


class Exchanges:
    """The requests of one connection that ask for no session."""

    __slots__ = ("_allowance", "_outbox", "_requests", "_terms")

    def __init__(self, terms: Terms, allowance: Allowance, outbox: Outbox, requests: Requests) -> None:
        # All are the connection's. What both sides have announced: how large a header section may be.
        self._terms = terms
        # Counts requests that came to nothing: of these, a peer may send only so many.
        self._allowance = allowance
        # Where outputs and events go.
        self._outbox = outbox
        # All request streams, those of sessions included.
        self._requests = requests

    # -- state

    def awaits_head(self, stream_id: int) -> bool:
        """Whether a request has begun, and its header section is not complete."""
        stream = self._requests.get(stream_id)
        return stream is not None and stream.phase == "head"

    def is_on_demand(self, stream_id: int) -> bool:
        """Whether what arrives on a stream is the body of an ordinary request, to be read as somebody asks for it."""
        stream = self._requests.get(stream_id)
        return stream is not None and stream.is_ordinary

    # -- what the client does

    def take_request(self, stream: RequestStream, request: messages.Request) -> None:
        """Report a request, of which the header section is complete."""
        stream.is_ordinary = True
        self._outbox.report(
            RequestReceived(
                stream.stream_id,
                request.method,
                request.path,
                request.headers,
                scheme=request.scheme,
                authority=request.authority,
                content_length=request.content_length,
            )
        )

    def take_body(self, stream: RequestStream, data: bytes) -> None:
        """Report a piece of the body.

        Raises:
            StreamFault: The body is longer than its content-length.
        """
        stream.count_body(len(data))
        self._outbox.report(BodyReceived(stream.stream_id, data))

    def take_end(self, stream: RequestStream) -> None:
        """Report the end of the body, after trailers that may have followed it."""
        stream.has_ended = True
        self._outbox.report(BodyEnded(stream.stream_id))

    def take_reset(self, stream: RequestStream, code: int) -> None:
        """Take the client's RESET_STREAM: it gives the request up, and the rest of the answer is not worth sending."""
        self._outbox.reset(stream.stream_id, ErrorCodes.H3_REQUEST_CANCELLED)
        self._end(stream, f"the client reset the request with {describe(code)}")

    def take_stop(self, stream: RequestStream, code: int) -> None:
        """Take the client's STOP_SENDING: the answer is not wanted."""
        self._outbox.reset(stream.stream_id, ErrorCodes.H3_REQUEST_CANCELLED)
        self._outbox.stop(stream.stream_id, ErrorCodes.H3_REQUEST_CANCELLED)
        self._end(stream, f"the client stopped the answer with {describe(code)}")

    def fail(self, stream: RequestStream, fault: StreamFault) -> None:
        """End an exchange because the client broke a rule (RFC 9114, section 4.1.2)."""
        self._outbox.reset(stream.stream_id, fault.code)
        self._outbox.stop(stream.stream_id, fault.code)
        self._end(stream, fault.reason)

    def expire_head(self, stream_id: int) -> None:
        """Answer 408 to a request if its header section is still incomplete."""
        stream = self._requests.get(stream_id)
        if stream is not None and stream.phase == "head":
            self._requests.answer(stream, headers_frame(rejection(408)))
            self._outbox.report(RequestRefused(stream_id, 408))
            self._allowance.count_refused()

    def _end(self, stream: RequestStream, reason: str) -> None:
        if stream.is_ordinary:
            self._outbox.report(RequestTerminated(stream.stream_id, reason))
        is_answered = stream.is_answering
        self._requests.free(stream)
        # A client that leaves during an answer has had some use of it. One that leaves before that has cost work for
        # nothing, and a flood of these has to end.
        if not is_answered:
            self._allowance.count_refused()

    # -- what the application does

    def answer(self, stream: RequestStream, status: int, headers: Sequence[tuple[str, str]], body: bytes) -> None:
        """Send a whole answer, and end the stream.

        Raises:
            ValueError: A header cannot be sent, or the header section is larger than the client takes.
        """
        head = self.compose(stream.method, status, headers, len(body))
        payload = head.payload
        if body and head.has_content:
            payload += encode_record(FrameType.DATA, body)
        self._requests.answer(stream, payload)

    def compose(self, method: str, status: int, headers: Sequence[tuple[str, str]], size: int | None) -> AnswerHead:
        """Put the header section of an answer together, for ``begin``. Nothing is sent.

        Args:
            method: Method of the request.
            status: 200 to 599.
            headers: Further header fields; names are lowered. They may announce ``content-length``.
            size: Length of the body in bytes; ``None`` if it is not known.

        Raises:
            ValueError: A header cannot be sent, ``content-length`` is not ``size``, or the header section is larger
                than the client takes.

        Source: RFC 9110, section 8.6.
        """
        fields = [(":status", str(status)), *messages.check_headers(headers, ANSWER_RESERVED)]
        has_content = status not in _WITHOUT_CONTENT and method != "HEAD"
        length = messages.content_length(fields)
        if status in (204, 205):
            fields = [field for field in fields if field[0] != "content-length"]
            if status == 205:
                fields.append(("content-length", "0"))
        elif length is None:
            # In 304 and in answers to HEAD it is the length that a GET would bring, which is hardly that of no body.
            if size or (has_content and size is not None):
                fields.append(("content-length", str(size)))
            length = size
        elif has_content and size is not None and length != size:
            raise ValueError(f"content-length is {length}, but the body has {size} bytes")
        if headers:  # our own few fields go out even to a peer that announces a senseless limit
            self._terms.check_size(fields)
        return AnswerHead(headers_frame(fields), has_content, length if has_content else None)

    def begin(self, stream_id: int, head: AnswerHead) -> None:
        """Send the header section of an answer. No-op on a request that is over."""
        stream = self._requests.get(stream_id)
        if stream is not None:
            stream.is_answering = True
            stream.answer_left = head.length
            self._outbox.send(stream_id, head.payload)

    def send(self, stream_id: int, data: bytes, *, end: bool) -> None:
        """Send a piece of an answer's body, and the end of the answer if ``end``. No-op on a request that is over.

        If the request has not ended, the client is told to send no more of it (RFC 9114, section 4.1).

        Raises:
            ValueError: The body is longer or shorter than announced; nothing was sent.
        """
        stream = self._requests.get(stream_id)
        if stream is None:
            return
        left = stream.answer_left
        if left is not None:
            left -= len(data)
            if left < 0:
                raise ValueError("the body is longer than its content-length")
            if end and left:
                raise ValueError(f"the body is {left} bytes shorter than its content-length")
            stream.answer_left = left
        payload = encode_record(FrameType.DATA, data) if data else b""
        if end:
            self._requests.answer(stream, payload)
        elif payload:
            self._outbox.send(stream_id, payload)

    def abort(self, stream_id: int, code: int) -> None:
        """Reset an answer, and stop its request. No-op on a request that is over."""
        stream = self._requests.get(stream_id)
        if stream is not None:
            self._outbox.reset(stream_id, code)
            if not stream.has_ended:
                self._outbox.stop(stream_id, code)
            self._requests.free(stream)
