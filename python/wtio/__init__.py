"""WebTransport for Python: streams and datagrams over HTTP/3, between programs and with browsers.

``connect`` makes a client session, ``serve`` a server; ``Client`` makes many sessions over few sockets and connections.
Sessions give streams and datagrams. Everything
public is importable from here. ``wtio.errors`` shows all that can go wrong, ``wtio.config`` all that can be tuned.
"""

import typing

from wtio import _core
from wtio._facts import CloseInfo, SessionFacts, SessionStats
from wtio._memory import ServerMemory
from wtio._run import run
from wtio._sockets import systemd_sockets
from wtio._stats import ServerStats
from wtio.client import Client, Connector, connect
from wtio.config import Limits, Timeouts
from wtio.errors import (
    BusyError,
    CertificateError,
    ClientGoneError,
    ConnectError,
    ConnectionRefused,
    ContentTooLargeError,
    DatagramTooLargeError,
    HandshakeTimeout,
    HttpRequestError,
    InvalidURLError,
    LocalProtocolError,
    NameResolutionError,
    ProtocolError,
    ReadLimitError,
    RemoteProtocolError,
    RequestTimeout,
    RequirementsNotMetError,
    SessionClosed,
    SessionClosedError,
    SessionClosedOK,
    SessionRejectedError,
    StreamClosedError,
    StreamCreditError,
    StreamError,
    StreamResetError,
    StreamStoppedError,
    WebTransportError,
)
from wtio.report import ConnectionReport
from wtio.secret import Secret
from wtio.server import HttpRequest, HttpResponse, Server, SessionRequest, serve
from wtio.session import IncomingDatagrams, IncomingStreams, WebTransportSession
from wtio.steering import ServerId
from wtio.stream import (
    BODY_RAISED_CODE,
    Buffer,
    ErrorCodes,
    StreamDiagnostics,
    StreamDirection,
    WebTransportReceiveStream,
    WebTransportSendStream,
    WebTransportStream,
    broadcast,
)
from wtio.tls import ClientTLS, DevCertificate, ServerTLS, dev_certificate

if typing.TYPE_CHECKING:
    from wtio.routing import Router

__version__ = _core.VERSION

__all__ = [
    "BODY_RAISED_CODE",
    "Buffer",
    "BusyError",
    "CertificateError",
    "Client",
    "ClientGoneError",
    "ClientTLS",
    "CloseInfo",
    "ConnectError",
    "ConnectionRefused",
    "ConnectionReport",
    "Connector",
    "ContentTooLargeError",
    "DatagramTooLargeError",
    "DevCertificate",
    "ErrorCodes",
    "HandshakeTimeout",
    "HttpRequest",
    "HttpRequestError",
    "HttpResponse",
    "IncomingDatagrams",
    "IncomingStreams",
    "InvalidURLError",
    "Limits",
    "LocalProtocolError",
    "NameResolutionError",
    "ProtocolError",
    "ReadLimitError",
    "RemoteProtocolError",
    "RequestTimeout",
    "RequirementsNotMetError",
    "Router",
    "Secret",
    "Server",
    "ServerId",
    "ServerMemory",
    "ServerStats",
    "ServerTLS",
    "SessionClosed",
    "SessionClosedError",
    "SessionClosedOK",
    "SessionFacts",
    "SessionRejectedError",
    "SessionRequest",
    "SessionStats",
    "StreamClosedError",
    "StreamCreditError",
    "StreamDiagnostics",
    "StreamDirection",
    "StreamError",
    "StreamResetError",
    "StreamStoppedError",
    "Timeouts",
    "WebTransportError",
    "WebTransportReceiveStream",
    "WebTransportSendStream",
    "WebTransportSession",
    "WebTransportStream",
    "broadcast",
    "connect",
    "dev_certificate",
    "run",
    "serve",
    "systemd_sockets",
]

if not typing.TYPE_CHECKING:  # to a type checker it would mean that every name exists

    def __getattr__(name: str) -> object:
        """Load what few programs need when it is first asked for."""
        if name != "Router":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from wtio.routing import Router

        return Router
