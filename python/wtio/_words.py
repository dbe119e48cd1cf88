"""Losses, TLS alerts, HTTP statuses, errors of the system and dates in words.

Errors, reports, logs and ``python -m wtio doctor`` take their words from here, so that the same thing is called the
same everywhere. ``protocol.codes`` names the codes of HTTP/3 and WebTransport. ``cli._advice`` says what to do about a
failed connection as a whole.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from dataclasses import dataclass
from typing import Final, NamedTuple

from wtio._core import CloseCause
from wtio.protocol.codes import ErrorCodes, describe

__all__ = [
    "ALERTS",
    "BIND_HINTS",
    "DAY",
    "GIVEN_UP",
    "NO_APPLICATION_PROTOCOL",
    "PORT_IS_TAKEN",
    "SELF_SIGNED",
    "SERVER_CLOSES",
    "STATUSES",
    "SYSTEM_ERRORS",
    "WHO",
    "Alert",
    "Loss",
    "Status",
    "SystemFault",
    "alert_name",
    "date",
    "describe_errno",
    "duration",
    "errno_name",
    "is_about_certificate",
    "is_about_issuer",
    "loss_in_words",
    "refusal_in_words",
    "status_hint",
    "system_error_hint",
]

SERVER_CLOSES: Final = "the server is closing"
"""Message with which a closing server cancels tasks of the application."""

DAY: Final = 24 * 3600
"""Seconds in a day."""

WHO: Final = {"peer": "the peer", "local": "this side", "transport": "the transport", "timeout": "a timeout"}
"""Who ended a session or connection."""


# -- TLS alerts


class Alert(NamedTuple):
    """A TLS alert."""

    name: str
    """Its name in the registry. Alerts that TLS 1.3 reserves keep the name that they had in older versions."""
    meaning: str = ""
    """Why a server may have ended a handshake with it, as a clause; empty if the name says it all."""
    is_about_certificate: bool = False
    """Whether the fault is a certificate, or the lack of one."""


NO_APPLICATION_PROTOCOL: Final = 120
"""Sent by a server that has no application protocol (ALPN) in common with the client."""

# RFC 8446, section 6; its appendix B.2 for the reserved ones; IANA's registry "TLS Alerts" for the later ones.
ALERTS: Final = {
    0: Alert("close_notify"),
    10: Alert("unexpected_message"),
    20: Alert("bad_record_mac"),
    21: Alert("decryption_failed"),
    22: Alert("record_overflow"),
    30: Alert("decompression_failure"),
    40: Alert("handshake_failure", "no common cipher or signature scheme; look at the server's TLS settings"),
    41: Alert("no_certificate", "the server misses a certificate of this client", True),
    42: Alert("bad_certificate", "the server does not take this client's certificate", True),
    43: Alert("unsupported_certificate", "the server does not take this kind of client certificate", True),
    44: Alert("certificate_revoked", "this client's certificate was revoked", True),
    45: Alert("certificate_expired", "this client's certificate has expired", True),
    46: Alert("certificate_unknown", "the server does not take this client's certificate", True),
    47: Alert(
        "illegal_parameter",
        "the server found a TLS field impossible; one of the two TLS libraries has a bug, or something in between "
        "changes packets",
    ),
    48: Alert("unknown_ca", "the server does not know the authority that issued this client's certificate", True),
    49: Alert("access_denied", "the server denies access to this client's certificate", True),
    50: Alert("decode_error"),
    51: Alert("decrypt_error", is_about_certificate=True),
    52: Alert("too_many_cids_requested"),
    60: Alert("export_restriction"),
    70: Alert("protocol_version", "the server does not speak TLS 1.3, which QUIC needs"),
    71: Alert("insufficient_security", "the server asks for stronger ciphers"),
    80: Alert("internal_error", "the server failed inside; its log may say why"),
    86: Alert("inappropriate_fallback", "the server suspects a downgrade attack"),
    90: Alert("user_canceled"),
    100: Alert("no_renegotiation"),
    109: Alert("missing_extension", "the server misses a TLS extension; it may not be meant for QUIC"),
    110: Alert("unsupported_extension"),
    111: Alert("certificate_unobtainable"),
    112: Alert(
        "unrecognized_name",
        "the server knows no host of this name (SNI); connect with the name that its certificate has, not with an "
        "address",
    ),
    113: Alert("bad_certificate_status_response", is_about_certificate=True),
    114: Alert("bad_certificate_hash_value", is_about_certificate=True),
    115: Alert("unknown_psk_identity"),
    116: Alert(
        "certificate_required", "the server asks for a client certificate, which only a program can give it", True
    ),
    117: Alert("general_error"),
    NO_APPLICATION_PROTOCOL: Alert("no_application_protocol"),
    121: Alert("ech_required"),
}


def alert_name(code: int) -> str:
    """Name a TLS alert, with its code."""
    name = ALERTS[code].name if code in ALERTS else "unknown"
    return f"{name} (TLS alert {code})"


def is_about_certificate(code: int) -> bool:
    """Whether the fault that a TLS alert names is a certificate, or the lack of one."""
    return code in ALERTS and ALERTS[code].is_about_certificate


SELF_SIGNED: Final = "it is self-signed, so no authority vouches for it"
"""Why a certificate is refused that is its own issuer."""

# What TLS libraries call it if the issuer is unknown, or if one of the same name is trusted that has another key.
_ABOUT_ISSUER: Final = frozenset({48, 51})


def is_about_issuer(code: int) -> bool:
    """Whether the fault that a TLS alert names is who issued a certificate."""
    return code in _ABOUT_ISSUER


# -- HTTP statuses


class Status(NamedTuple):
    """What an HTTP status means as the answer to a session request."""

    meaning: str
    """What the server says with it, as a clause."""
    advice: str
    """What to do about it, or a likely cause, as a clause."""


STATUSES: Final = {
    400: Status("the server finds the request malformed", "it may want other headers or an older draft"),
    401: Status("the server wants credentials", "pass them as a header"),
    403: Status("the server does not allow this origin or client", "see the `origin` and `headers` parameters"),
    404: Status("there is no WebTransport at this path", "check the path of the URL"),
    405: Status(
        "there is no WebTransport at this path", "check the path of the URL; the server may serve ordinary HTTP/3"
    ),
    421: Status("the server is not responsible for this host", "connect with the name that it is configured for"),
    429: Status("the server has as many sessions as it wants", "try again later, or raise its limit"),
    501: Status("the server does not know this kind of request", "WebTransport may be switched off"),
    503: Status(
        "the server is not ready", "its handler did not answer in time, or it is shutting down; try again later"
    ),
}


def status_hint(status: int, location: str = "elsewhere") -> str:
    """Explain an HTTP status other than 2xx in the answer to a session request; empty if it is not in the table.

    Args:
        status: The status.
        location: The target of a redirect, as the server gave it.
    """
    if 300 <= status < 400:
        return f"it redirects to {location}, which WebTransport never follows"
    known = STATUSES.get(status)
    return "" if known is None else f"{known.meaning}; {known.advice}"


# -- errors of the system


class SystemFault(NamedTuple):
    """The usual cause of an error of the system that keeps packets from being sent."""

    hint: str
    """The cause as a clause, to follow the system's own words."""
    advice: str = ""
    """The cause as sentences, also true if a router reported the error; empty if nothing more is known."""


SYSTEM_ERRORS: Final = {
    errno.EPERM: SystemFault(
        "a firewall rule of this machine",
        "A firewall rule of this machine forbids it; QUIC needs UDP out to this port, and the answers in.",
    ),
    errno.EACCES: SystemFault(
        "a firewall rule or route of this machine forbids it",
        "A rule or route of this machine, or of a router on the way, forbids it.",
    ),
    errno.EMSGSIZE: SystemFault(
        "a link of this machine carries less than the 1200 bytes that QUIC needs",
        "The link carries less than the 1200 bytes that QUIC needs in a packet; raise its MTU.",
    ),
    errno.ENOBUFS: SystemFault("a queue of this machine's network is full"),
    errno.ENETUNREACH: SystemFault(
        "it has no route to that network, or no address of that family",
        "This machine, or a router on the way, has no route to that network. Is the machine online? For an IPv6 "
        "address, does it have IPv6?",
    ),
    errno.EHOSTUNREACH: SystemFault("its route there leads nowhere, or the next host does not answer"),
    errno.ENETDOWN: SystemFault("the interface is down", "The network interface is down."),
    errno.ENOMEM: SystemFault("the kernel is short of memory for sockets"),
}

BIND_HINTS: Final = {
    errno.EADDRINUSE: "another program uses it: choose another port, or 0 for any free one",
    errno.EACCES: "ports below 1024 need a privilege",
    errno.EADDRNOTAVAIL: "the address is not one of this machine",
}
"""What to do if a server cannot bind its socket, by error number, as a clause."""

PORT_IS_TAKEN: Final = frozenset({errno.EADDRINUSE, 10013})
"""The error numbers of a port that somebody has. 10013 is Windows' WSAEACCES: what one gets if another socket has the
port exclusively, as ours do. No other system has an error of that number."""

if sys.platform == "win32":
    # Sockets have an EACCES of their own there, and ports below 1024 are like any others.
    BIND_HINTS[errno.WSAEACCES] = "another program has it for itself, or Windows reserves it: choose another port"


def errno_name(number: int) -> str:
    """Give the symbol of an error number of the system."""
    return errno.errorcode.get(number, f"errno {number}")


def describe_errno(number: int) -> str:
    """Name an error of the system: words and symbol."""
    return f"{_words_of(number).lower()} ({errno_name(number)})"


def _words_of(number: int) -> str:
    if sys.platform == "win32" and number >= errno.WSABASEERR:
        # The C library does not know the errors of sockets.
        from ctypes import FormatError

        return FormatError(number).rstrip(".")
    return os.strerror(number)


def system_error_hint(number: int) -> str:
    """Give the usual cause of an error of the system as a clause; empty if it is not known."""
    return SYSTEM_ERRORS[number].hint if number in SYSTEM_ERRORS else ""


# -- losses


@dataclass(frozen=True, slots=True)
class Loss:
    """How a connection ended."""

    cause: CloseCause
    code: int
    """A code of HTTP/3, QUIC or TLS, or the error number of the system, as the cause has it; 0 if it has none."""
    reason: str
    """The reason given by the peer, or by this side."""
    is_remote: bool = False
    """For ``CloseCause.UNREACHABLE``: whether the network says so, and not this system."""


GIVEN_UP: Final = Loss(CloseCause.LOCAL, 0, "")
"""The loss of a connection that this side closes and whose end the engine has not reported yet."""


def loss_in_words(loss: Loss, *, idle: float) -> str:
    """Explain why a connection was lost.

    Args:
        loss: How it ended.
        idle: This side's ``Timeouts.idle``, in seconds.
    """
    code = loss.code
    said = f": {loss.reason}" if loss.reason else ""
    match loss.cause:
        case CloseCause.APPLICATION:
            return f"the peer closed the connection with {describe(code)}{said}"
        case CloseCause.TRANSPORT if code == ErrorCodes.APPLICATION_ERROR:
            # RFC 9000, section 10.2.3: the application's own code and reason must not show in packets of the handshake.
            return (
                "the peer closed the connection before the handshake was complete (APPLICATION_ERROR, 0xc), and does "
                "not say why; a server does so when a handshake takes too long, or when it has no room or is closing"
            )
        case CloseCause.TRANSPORT:
            return f"the peer's QUIC stack closed the connection with {_transport_error(code)}{said}"
        case CloseCause.PROTOCOL:
            return f"the peer broke the rules of QUIC ({_transport_error(code)}){said}"
        case CloseCause.TLS:
            return f"TLS failed with {alert_name(code)}{said}"
        case CloseCause.IDLE:
            return f"nothing was heard of the peer for too long (Timeouts.idle is {idle:g} s on this side)"
        case CloseCause.RESET:
            return "the peer has forgotten the connection (stateless reset)"
        case CloseCause.VERSION:
            return "the peer speaks no QUIC version of ours"
        case CloseCause.UNREACHABLE:
            return _unreachable_in_words(code, is_remote=loss.is_remote)
        case CloseCause.REFUSED:
            return f"the server takes no new connection{said}"
        case _:
            return f"this side closed the connection with {describe(code)}{said}"


def refusal_in_words(loss: Loss) -> str:
    """Explain the alert with which a server refused a client's certificate, or the lack of one, and what to do."""
    meaning = ALERTS[loss.code].meaning if loss.code in ALERTS else ""
    said = f"; it says: {loss.reason}" if loss.reason else ""
    words = f"{meaning}: {alert_name(loss.code)}" if meaning else alert_name(loss.code)
    return f"{words}{said}; ClientTLS(certfile=..., keyfile=...) is what a client shows"


def _unreachable_in_words(number: int, *, is_remote: bool) -> str:
    words = describe_errno(number)
    if is_remote:
        if number == errno.ECONNREFUSED:
            return f"nothing listens at this UDP port: {words}; does the server run, and is this its port?"
        return f"the network answers that it cannot deliver there: {words}"
    hint = system_error_hint(number)
    return f"this machine cannot send there: {words}" + (f"; {hint}" if hint else "")


def _transport_error(code: int) -> str:
    # RFC 9000, section 20.1: 0x100 to 0x1ff carry TLS alerts.
    return alert_name(code - 0x100) if 0x100 <= code <= 0x1FF else describe(code)


# -- dates


def date(seconds: int) -> str:
    """Write Unix seconds as a date and time, in UTC."""
    try:
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
    except (OverflowError, OSError, ValueError):
        return f"Unix time {seconds}"


def duration(seconds: float) -> str:
    """Write a length of time with one unit that fits."""
    for size, unit in ((DAY, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
