"""Header sections of requests and responses: which are well-formed, and which headers wtio writes itself.

A malformed message is an error of its stream, H3_MESSAGE_ERROR (RFC 9114, section 4.1.2).
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from wtio.protocol.codes import ErrorCodes
from wtio.protocol.faults import StreamFault

__all__ = [
    "Fields",
    "Request",
    "check_headers",
    "check_trailers",
    "content_length",
    "read_request",
    "read_response",
    "values_of",
]

Fields: TypeAlias = list[tuple[str, str]]
"""Fields of a header section in their order, names in lower case. Bytes above 127 are Latin-1."""

_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z]+")
# RFC 9110, section 5.5 (field-content): visible characters, with spaces or tabs between but not around them.
_VALUE: Final = re.compile(r"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
_METHOD: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+\-.]*")
_AUTHORITY: Final = re.compile(r"[\x21-\x7e]+")
_PATH: Final = re.compile(r"/[\x21\x22\x24-\x7e]*")  # no fragment
_STATUS: Final = re.compile(r"[1-9][0-9]{2}")
_LENGTH: Final = re.compile(r"[0-9]{1,18}")
# RFC 9114, section 4.2.
_CONNECTION_SPECIFIC: Final = frozenset(
    ("connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade")
)
_REQUEST_PSEUDO: Final = frozenset((":method", ":scheme", ":authority", ":path", ":protocol"))


@dataclass(frozen=True, slots=True)
class Request:
    """A well-formed request. Parts that a kind of request does not have are empty strings."""

    method: str
    scheme: str
    authority: str
    path: str
    protocol: str
    headers: Fields
    content_length: int | None


def values_of(headers: Iterable[tuple[str, str]], name: str) -> list[str]:
    """Return the values of all lines of a field, in order."""
    return [value for field, value in headers if field == name]


def _malformed(reason: str) -> StreamFault:
    return StreamFault(ErrorCodes.H3_MESSAGE_ERROR, reason)


def _split(fields: Fields, allowed: Collection[str]) -> tuple[dict[str, str], Fields]:
    """Separate pseudo-headers from headers and check every field."""
    pseudo: dict[str, str] = {}
    headers: Fields = []
    for field in fields:
        name, value = field
        if name[:1] == ":":
            if headers:
                raise _malformed(f"pseudo-header {name} after other fields")
            if name not in allowed:
                raise _malformed(f"pseudo-header {name} is not allowed here")
            if name in pseudo:
                raise _malformed(f"pseudo-header {name} comes twice")
            pseudo[name] = value
            continue
        if not _NAME.fullmatch(name):
            raise _malformed(f"{name!r} is no lower-case field name")
        if not _VALUE.fullmatch(value):
            raise _malformed(f"value of {name} has characters that are not allowed")
        if name in _CONNECTION_SPECIFIC or (name == "te" and value != "trailers"):
            raise _malformed(f"field {name} has no place in HTTP/3")
        headers.append(field)
    return pseudo, headers


def content_length(headers: Iterable[tuple[str, str]]) -> int | None:
    """Return the value of content-length, or ``None`` without one.

    Raises:
        ValueError: It is not one number.
    """
    values = set(values_of(headers, "content-length"))
    if not values:
        return None
    value = values.pop()
    if values or not _LENGTH.fullmatch(value):
        raise ValueError("content-length is not one number")
    return int(value)


def read_request(fields: Fields) -> Request:
    """Read the header section of a request.

    Raises:
        StreamFault: H3_MESSAGE_ERROR if it is malformed.

    Source: RFC 9114, sections 4.2, 4.3.1 and 4.4; RFC 9220, section 3.
    """
    pseudo, headers = _split(fields, _REQUEST_PSEUDO)
    method = pseudo.get(":method", "")
    if not _METHOD.fullmatch(method):
        raise _malformed("request without a valid :method")
    protocol = pseudo.get(":protocol")
    if protocol is not None and (method != "CONNECT" or not _METHOD.fullmatch(protocol)):
        raise _malformed(":protocol needs a token and the method CONNECT")
    if len(values_of(headers, "origin")) > 1:
        raise _malformed("more than one Origin")
    scheme = pseudo.get(":scheme", "")
    path = pseudo.get(":path", "")
    authority = _authority(pseudo, headers)
    if method == "CONNECT" and protocol is None:
        if ":scheme" in pseudo or ":path" in pseudo or ":authority" not in pseudo:
            raise _malformed("CONNECT without :protocol has :authority alone")
    else:
        if not _SCHEME.fullmatch(scheme):
            raise _malformed("request without a valid :scheme")
        if scheme.lower() in ("http", "https") and not authority:
            raise _malformed("request without :authority")
        if protocol is not None and ":authority" not in pseudo:
            raise _malformed("extended CONNECT without :authority")
        if not _PATH.fullmatch(path) and not (path == "*" and method == "OPTIONS"):
            raise _malformed("request without a valid :path")
    try:
        length = content_length(headers)
    except ValueError as error:
        raise _malformed(str(error)) from None
    return Request(method, scheme, authority, path, protocol or "", headers, length)


def _authority(pseudo: dict[str, str], headers: Fields) -> str:
    """Return the authority from :authority or else Host; if both exist, they must agree (RFC 9114, section 4.3.1)."""
    authority = pseudo.get(":authority")
    hosts = values_of(headers, "host")
    if len(hosts) > 1:
        raise _malformed("more than one Host")
    if authority is not None and not _AUTHORITY.fullmatch(authority):
        raise _malformed(":authority is empty or has characters that are not allowed")
    if authority is not None and hosts and hosts[0].lower() != authority.lower():
        raise _malformed(":authority and Host differ")
    found = authority if authority is not None else "".join(hosts)
    if "@" in found:
        raise _malformed("authority with user information")
    return found


def read_response(fields: Fields) -> tuple[int, Fields]:
    """Read the header section of a response: status and headers.

    Raises:
        StreamFault: H3_MESSAGE_ERROR if it is malformed. In HTTP/3, status 101 is malformed.

    Source: RFC 9114, sections 4.2, 4.3.2 and 4.5.
    """
    pseudo, headers = _split(fields, (":status",))
    status = pseudo.get(":status", "")
    if not _STATUS.fullmatch(status) or status == "101":
        raise _malformed("response without a valid :status")
    return int(status), headers


def check_trailers(fields: Fields) -> None:
    """Check a trailer section, which has no pseudo-headers.

    Raises:
        StreamFault: H3_MESSAGE_ERROR if it is malformed.
    """
    _split(fields, ())


def check_headers(headers: Iterable[tuple[str, str]], reserved: Collection[str] = ()) -> Fields:
    """Check header fields that an application wants to send, and convert their names to lower case.

    Args:
        headers: Names and values.
        reserved: Names that this library writes itself.

    Raises:
        ValueError: A name or value cannot be sent.
    """
    checked: Fields = []
    for name, value in headers:
        lowered = name.lower()
        if lowered in _CONNECTION_SPECIFIC or lowered == "te":
            raise ValueError(f"header {name!r} has no place in HTTP/3")
        if lowered in reserved:
            raise ValueError(f"header {name!r} is written by the library; use the parameter for it")
        if not _NAME.fullmatch(lowered):
            raise ValueError(f"{name!r} is no header name")
        if not _VALUE.fullmatch(value):
            # Without the value, which may be a token: errors are logged.
            raise ValueError(f"the value of header {name!r} has characters or blanks that cannot be sent")
        checked.append((lowered, value))
    return checked


def check_target(authority: str, path: str) -> None:
    """Check the target of a request that we send.

    Raises:
        ValueError: ``authority`` or ``path`` cannot be sent.
    """
    if not _AUTHORITY.fullmatch(authority) or "@" in authority:
        raise ValueError(f"authority {authority!r} is not a host with an optional port")
    if not _PATH.fullmatch(path):
        raise ValueError("the path does not begin with '/' or has characters that must be percent-encoded")
