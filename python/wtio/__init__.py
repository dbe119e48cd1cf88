"""WebTransport for Python: streams and datagrams over HTTP/3, between programs and with browsers.

``connect`` makes a client session, ``serve`` a server; ``Client`` makes many sessions over few sockets and connections.
Sessions give streams and datagrams. Everything public is importable from here, and loaded when it is first named.
``wtio.errors`` shows all that can go wrong, ``wtio.config`` all that can be tuned.
"""

import importlib
import typing

# Loaded at once: if the extension is missing or broken, `import wtio` says so.
from wtio import _core

if typing.TYPE_CHECKING:
    from wtio import testing as testing  # no name of __all__, or a star would load it
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
    from wtio.routing import Router
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

# Where each name is defined. What is imported above for type checkers, a program loads when it first asks for it: the
# whole takes twice as long as asyncio.
_HOMES: typing.Final = {
    name: module
    for module, names in {
        "wtio._facts": "CloseInfo SessionFacts SessionStats",
        "wtio._memory": "ServerMemory",
        "wtio._run": "run",
        "wtio._sockets": "systemd_sockets",
        "wtio._stats": "ServerStats",
        "wtio.client": "Client Connector connect",
        "wtio.config": "Limits Timeouts",
        "wtio.errors": (
            "BusyError CertificateError ClientGoneError ConnectError ConnectionRefused ContentTooLargeError "
            "DatagramTooLargeError HandshakeTimeout HttpRequestError InvalidURLError LocalProtocolError "
            "NameResolutionError ProtocolError ReadLimitError RemoteProtocolError RequestTimeout "
            "RequirementsNotMetError SessionClosed SessionClosedError SessionClosedOK SessionRejectedError "
            "StreamClosedError StreamCreditError StreamError StreamResetError StreamStoppedError "
            "WebTransportError"
        ),
        "wtio.report": "ConnectionReport",
        "wtio.routing": "Router",
        "wtio.secret": "Secret",
        "wtio.server": "HttpRequest HttpResponse Server SessionRequest serve",
        "wtio.session": "IncomingDatagrams IncomingStreams WebTransportSession",
        "wtio.steering": "ServerId",
        "wtio.stream": (
            "BODY_RAISED_CODE Buffer ErrorCodes StreamDiagnostics StreamDirection WebTransportReceiveStream "
            "WebTransportSendStream WebTransportStream broadcast"
        ),
        "wtio.tls": "ClientTLS DevCertificate ServerTLS dev_certificate",
    }.items()
    for name in names.split()
}

# Modules that may be named after `import wtio` alone.
_MODULES: typing.Final = frozenset(
    {"client", "config", "errors", "protocol", "report", "routing", "secret", "server", "session", "steering", "stream"}
    | {"testing", "tls"}
)

if not typing.TYPE_CHECKING:  # to a type checker it would mean that every name exists

    def __getattr__(name: str) -> object:
        """Load a public name or module when it is first asked for."""
        if name in _MODULES:
            return importlib.import_module(f"wtio.{name}")
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(importlib.import_module(home), name)
        return value

    def __dir__() -> list[str]:
        """List what can be asked for, loaded or not."""
        return sorted({*globals(), *_HOMES, *_MODULES})
