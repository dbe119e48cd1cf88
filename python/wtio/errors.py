"""All errors of wtio. Everything that can go wrong, on one page.

::

    WebTransportError
    ├── ConnectError (ConnectionError)           there was no session: .report .errno
    │   ├── InvalidURLError (ValueError)         .url
    │   ├── NameResolutionError                  .host
    │   ├── CertificateError                     .path
    │   ├── ConnectionRefused (ConnectionRefusedError)
    │   ├── HandshakeTimeout (TimeoutError)      .timeout
    │   ├── RequirementsNotMetError              .missing
    │   └── SessionRejectedError                 .status .headers
    ├── SessionClosed (ConnectionError)          .code .reason .closed_by
    │   ├── SessionClosedOK                      ended cleanly with code 0
    │   └── SessionClosedError                   with another code, or without a close
    ├── StreamError                              .stream_id
    │   ├── StreamResetError (ConnectionResetError)   .error_code .wire_code .partial
    │   ├── StreamStoppedError (BrokenPipeError)      .error_code .wire_code
    │   ├── StreamClosedError                    this side was finished, reset or stopped here
    │   └── ReadLimitError (asyncio.LimitOverrunError)   .limit .setting
    ├── HttpRequestError                         the body of an ordinary HTTP/3 request
    │   ├── ContentTooLargeError                 .limit .size
    │   ├── RequestTimeout (TimeoutError)        .timeout
    │   └── ClientGoneError (ConnectionResetError)    nobody is there to be answered
    ├── StreamCreditError                        the peer allows no further stream now
    ├── DatagramTooLargeError (ValueError)       .size .limit
    ├── ProtocolError
    │   ├── LocalProtocolError                   a call that makes no sense in this state
    │   └── RemoteProtocolError                  .error_code
    └── BusyError (RuntimeError)                 two tasks in one read or one write

Built-in errors that calls also raise: ``TimeoutError``, ``asyncio.CancelledError``, ``asyncio.IncompleteReadError``,
``TypeError``, ``ValueError``, and ``OSError`` if a socket cannot be opened.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from wtio._words import WHO
from wtio.protocol.codes import describe_application

if TYPE_CHECKING:
    from wtio.report import ConnectionReport

ClosedBy: TypeAlias = Literal["peer", "local", "transport"]
"""Who ended a session: the other side's application, this side's application, or neither (the connection was lost)."""

_Error = TypeVar("_Error", bound="WebTransportError")


def _rebuild(cls: type[_Error], arguments: tuple[Any, ...], attributes: dict[str, Any]) -> _Error:
    error = cls.__new__(cls)
    error.args = arguments
    for name, value in attributes.items():
        setattr(error, name, value)
    return error


class WebTransportError(Exception):
    """Base of all errors that wtio defines."""

    # Keyword-only constructors break the default pickling of exceptions, which process pools need.
    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__.copy())


class ConnectError(WebTransportError, ConnectionError):
    """A client could not establish a session; subclasses say at which step."""

    report: ConnectionReport | None = None
    """Everything known about the attempt: addresses, certificate, settings, who ended it and why. None if it failed
    before the host was looked up, because of a bad URL or a certificate file that cannot be used."""
    errno: int | None
    """The system's error number, such as ``errno.ENETUNREACH``, if it or the network (ICMP) refused to deliver, or
    ``errno.ENOENT``, if it could not read a file; of a NameResolutionError the number of the look-up, such as
    ``socket.EAI_NONAME``. None otherwise."""

    def __reduce__(self) -> tuple[Any, ...]:
        # OSError keeps its number in a slot of its own, not in __dict__.
        attributes = self.__dict__.copy()
        if self.errno is not None:
            attributes["errno"] = self.errno
        return _rebuild, (type(self), self.args, attributes)


class InvalidURLError(ConnectError, ValueError):
    """WebTransport cannot connect to this URL."""

    url: str
    """The URL, unchanged."""

    def __init__(self, message: str, *, url: str) -> None:
        super().__init__(message)
        self.url = url


class NameResolutionError(ConnectError):
    """The host name has no address."""

    host: str
    """The name that was looked up."""

    def __init__(self, message: str, *, host: str) -> None:
        super().__init__(message)
        self.host = host


class CertificateError(ConnectError):
    """A certificate is not trusted (client), or a certificate, key or trust file cannot be used (both sides)."""

    path: str | None
    """The file at fault, or None if it is the peer's certificate or did not come from a file."""

    def __init__(self, message: str, *, path: str | None = None) -> None:
        super().__init__(message)
        self.path = path


class ConnectionRefused(ConnectError, ConnectionRefusedError):
    """The server accepts no new connection, or the network reports that nothing listens (``errno`` ECONNREFUSED)."""


class HandshakeTimeout(ConnectError, TimeoutError):
    """There was no session within ``Timeouts.connect``; the message says which step was reached."""

    timeout: float
    """The limit that passed, in seconds."""

    def __init__(self, message: str, *, timeout: float) -> None:
        super().__init__(message)
        self.timeout = timeout


class RequirementsNotMetError(ConnectError):
    """The peer speaks QUIC but lacks something that WebTransport needs."""

    missing: tuple[str, ...]
    """What is missing, in words, for instance ``("SETTINGS_ENABLE_WEBTRANSPORT",)``."""

    def __init__(self, message: str, *, missing: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.missing = missing


class SessionRejectedError(ConnectError):
    """The server answered the CONNECT request with a status other than 2xx."""

    status: int
    """The HTTP status code."""
    headers: tuple[tuple[str, str], ...]
    """The response's headers in order, names in lower case."""

    def __init__(self, message: str, *, status: int, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


class SessionClosed(WebTransportError, ConnectionError):
    """The session has ended. Every pending call and every later one raises this, with the same attributes."""

    code: int | None
    """The application's close code (0 … 2^32-1), or None if the session ended without one. If wtio sends such a code by
    itself, as 258 when a handler raises, the message of the error says when."""
    reason: str
    """The application's reason, or a description of wtio's if the connection was lost."""
    closed_by: ClosedBy
    """``"peer"``, ``"local"`` or ``"transport"``."""

    def __init__(self, *, code: int | None, reason: str, closed_by: ClosedBy) -> None:
        words = f"session closed by {WHO[closed_by]}"
        if code is not None:
            words += f" with code {describe_application(code)}"
        super().__init__(f"{words}: {reason}" if reason else words)
        self.code = code
        self.reason = reason
        self.closed_by = closed_by


class SessionClosedOK(SessionClosed):
    """The session ended cleanly: one of the two applications closed it with code 0."""


class SessionClosedError(SessionClosed):
    """The session ended with another code than 0, or without a close (connection lost, aborted, protocol error)."""


class StreamError(WebTransportError):
    """One stream cannot do what was asked; the session goes on."""

    stream_id: int | None
    """The QUIC stream ID."""

    def __init__(self, message: str, *, stream_id: int | None = None) -> None:
        super().__init__(message)
        self.stream_id = stream_id


class StreamResetError(StreamError, ConnectionResetError):
    """The peer reset its sending side; whatever it had promised to deliver was delivered first."""

    error_code: int | None
    """The peer application's code (0 … 2^32-1), or None if the wire code has no application meaning."""
    wire_code: int
    """The code in the QUIC frame."""
    partial: bytes
    """Bytes of an incomplete ``readexactly``, ``readuntil`` or ``readline`` that arrived before the reset."""

    def __init__(
        self,
        message: str,
        *,
        error_code: int | None,
        wire_code: int,
        partial: bytes = b"",
        stream_id: int | None = None,
    ) -> None:
        super().__init__(message, stream_id=stream_id)
        self.error_code = error_code
        self.wire_code = wire_code
        self.partial = partial


class StreamStoppedError(StreamError, BrokenPipeError):
    """The peer no longer wants to receive on this stream."""

    error_code: int | None
    """The peer application's code (0 … 2^32-1), or None if the wire code has no application meaning."""
    wire_code: int
    """The code in the QUIC frame."""

    def __init__(self, message: str, *, error_code: int | None, wire_code: int, stream_id: int | None = None) -> None:
        super().__init__(message, stream_id=stream_id)
        self.error_code = error_code
        self.wire_code = wire_code


class StreamClosedError(StreamError):
    """This program has already finished, reset or stopped this side of the stream."""


class ReadLimitError(StreamError, asyncio.LimitOverrunError):
    """More bytes than the limit arrived without an end or separator. All of them are still in the stream."""

    limit: int
    """The limit in bytes."""
    setting: str
    """Name of the parameter or setting that holds it."""
    consumed: int
    """As in asyncio: how many bytes to read to get past the limit."""

    def __init__(self, message: str, *, limit: int, setting: str, stream_id: int | None = None) -> None:
        # asyncio's own constructor has another signature; its attribute is set below.
        Exception.__init__(self, message)
        self.stream_id = stream_id
        self.limit = limit
        self.setting = setting
        self.consumed = limit


class HttpRequestError(WebTransportError):
    """The body of an ordinary HTTP/3 request cannot be read, or its answer cannot be sent."""


class ContentTooLargeError(HttpRequestError):
    """The body is larger than its reader allows; what has arrived is kept. Uncaught in a hook, the answer is 413."""

    limit: int
    """The limit in bytes."""
    size: int | None
    """Size in bytes as the client announces it, less what was read before; None if it does not."""

    def __init__(self, message: str, *, limit: int, size: int | None) -> None:
        super().__init__(message)
        self.limit = limit
        self.size = size


class RequestTimeout(HttpRequestError, TimeoutError):
    """The client sent no more of a body for ``Timeouts.http_body``. Uncaught in a hook, the answer is 408."""

    timeout: float
    """The limit that passed, in seconds."""

    def __init__(self, message: str, *, timeout: float) -> None:
        super().__init__(message)
        self.timeout = timeout


class ClientGoneError(HttpRequestError, ConnectionResetError):
    """The client has given its request up, broke a rule, took nothing of the answer for too long, or is lost.

    Tasks of a hook's own see this error; the hook itself is cancelled. No answer is sent any more.
    """


class StreamCreditError(WebTransportError):
    """The peer allows no further stream at the moment, and the caller did not want to wait."""


class DatagramTooLargeError(WebTransportError, ValueError):
    """A datagram does not fit; nothing was sent."""

    size: int
    """Size of the datagram in bytes."""
    limit: int
    """Largest size that would fit now, in bytes."""

    def __init__(self, message: str, *, size: int, limit: int) -> None:
        super().__init__(message)
        self.size = size
        self.limit = limit


class ProtocolError(WebTransportError):
    """A rule of the protocol was broken; subclasses say by whom."""


class LocalProtocolError(ProtocolError):
    """This program asked for something that makes no sense in this state, such as accepting a request twice."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the rules; usually the cause (``__cause__``) of a ConnectError or SessionClosedError."""

    error_code: int
    """The HTTP/3, QUIC or WebTransport error code that names the violation."""

    def __init__(self, message: str, *, error_code: int) -> None:
        super().__init__(message)
        self.error_code = error_code


class BusyError(WebTransportError, RuntimeError):
    """Another task is already in a read (or a write) of the same stream. Use one task per direction, or a lock."""
