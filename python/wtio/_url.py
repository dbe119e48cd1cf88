"""URLs of sessions: parsed as browsers do, and shown without parts that may be secret."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn
from urllib.parse import parse_qsl, quote, unquote

from wtio._arguments import check_text
from wtio.errors import InvalidURLError
from wtio.protocol.host import parse_host

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Target", "parse_query", "parse_url", "without_query", "without_secrets"]

_DEFAULT_PORT: Final = 443
_MOST_PORT: Final = 65_535
# Spaces and control characters.
_BLANK: Final = re.compile(r"[\x00-\x20\x7f]")
# RFC 3986, appendix B.
_PARTS: Final = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.\-]*):)?(?://([^/?#]*))?([^?#]*)(\?[^#]*)?(#.*)?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Target:
    """The parts of a URL."""

    url: str
    """For messages: without the query, which may contain a token."""
    host: str
    """Name in ASCII, or IP address without brackets."""
    port: int
    authority: str
    path: str
    zone: str = ""
    """Of a link-local address: the interface, by name or number. It means nothing to the server and is not sent."""

    @property
    def where(self) -> str:
        """The host with its zone: what is looked up."""
        return f"{self.host}%{self.zone}" if self.zone else self.host


def without_query(text: str) -> str:
    """Remove the query and fragment of a URL or path: they may contain tokens, and logs are passed around."""
    return re.split(r"[?#]", text, maxsplit=1)[0]


def parse_query(path: str) -> tuple[tuple[str, str], ...]:
    """Return the pairs in the query of a path, in order, decoded. Never fails, whatever a client sends."""
    return tuple(parse_qsl(path.partition("?")[2], keep_blank_values=True))


def without_secrets(url: str) -> str:
    """Remove the query, fragment and user of a URL that came from elsewhere."""
    return re.sub(r"^([^/]*//)[^/\\]*@", r"\1", without_query(url))


def parse_url(url: str) -> Target:
    """Parse a WebTransport URL.

    Raises:
        InvalidURLError: It is not ``https://host[:port][/path][?query]``.
        TypeError: It is not a str.

    Source: draft-ietf-webtrans-http3-16, section 3.2; the WHATWG's URL Standard, for the host; RFC 6874, for zones.
    """
    if not isinstance(url, str):
        raise TypeError(f"url must be str, not {type(url).__name__}")

    def invalid(why: str) -> NoReturn:
        # A password may contain any character, so everything before the last @ is left out.
        shown = re.sub(r"^([A-Za-z][A-Za-z0-9+.\-]*:)?(//)?.*@", r"\1\2…@", without_query(url), flags=re.DOTALL)
        hint = _meant(shown)
        raise InvalidURLError(
            f"invalid URL `{shown}`: {why}; expected https://host[:port][/path][?query]"
            + (f", which would be `{hint}`" if hint else ""),
            url=url,
        )

    if _BLANK.search(url):
        invalid("it contains a space or control character")
    try:
        check_text("url", url)
    except ValueError:
        invalid("it contains half a surrogate pair, which is no text")
    found = _PARTS.fullmatch(url)
    assert found is not None  # every part may be missing
    scheme, where, path, query, fragment = found.groups()
    if (scheme or "").lower() != "https":
        # What is a port in `localhost:4433` is read as a path.
        has_scheme = scheme and not re.match(r"\d+(?:/|$)", path)
        invalid(f"the scheme is `{scheme.lower()}`, not `https`" if has_scheme else "it has no scheme")
    if where is not None and "@" in where:
        invalid("it contains a user name; send credentials in `headers`")
    if fragment is not None:
        invalid("it contains a fragment, which cannot be sent")
    without_zone, zone = _split_zone(where or "", invalid)
    host, port = _host_and_port(without_zone, invalid)
    if zone and not ipaddress.IPv6Address(host.strip("[]")).is_link_local:
        invalid("only link-local addresses (fe80::) have a zone")
    # Characters outside ASCII and a few others are escaped; existing escapes are kept.
    path = quote(path or "/", safe="/%:@!$&'()*+,;=~-._[]|")
    authority = host if port == _DEFAULT_PORT else f"{host}:{port}"
    shown = f"https://{authority}{path}"
    if zone:
        shown = shown.replace("]", f"%25{quote(zone)}]", 1)
    if query is not None:
        path += "?" + quote(query[1:], safe="/%:@!$&'()*+,;=~-._?[]|")
    return Target(shown, host.strip("[]"), port, authority, path, zone)


def _meant(url: str) -> str:
    """The URL that somebody meant who wrote another scheme or none; empty if there is none. Secrets are left out."""
    found = re.fullmatch(r"(?:(?:http|wss?|quic|h3):)?(?://)?(?P<rest>(?!\w+://)[^/@][^@]*)", url, re.IGNORECASE)
    if found is None or url.lower().startswith("https:"):
        return ""
    try:
        return parse_url(f"https://{found['rest']}").url
    except InvalidURLError:
        return ""


def _split_zone(where: str, invalid: Callable[[str], NoReturn]) -> tuple[str, str]:
    """Take the zone out of an address in brackets; empty if it has none."""
    found = re.match(r"\[([^\]%]*)%([^\]]*)\]", where)
    if found is None:
        return where, ""
    zone = unquote(found[2][2:])
    if not found[2].startswith("25") or not zone or re.search(r"[%/\s\x00-\x1f]", zone):
        invalid("a zone is written as in [fe80::1%25eth0]: %25, then the interface")
    return f"[{found[1]}]{where[found.end() :]}", zone


def _host_and_port(where: str, invalid: Callable[[str], NoReturn]) -> tuple[str, int]:
    """Split host and port; the host is returned as it is sent on the wire."""
    end = where.find("]") + 1 if where.startswith("[") else -1
    if end == 0:
        invalid("an IPv6 address lacks its closing bracket")
    if end < 0:
        end = where.find(":")
        end = len(where) if end < 0 else end
        if ":" in where[end + 1 :]:
            invalid("the host contains a colon; write IPv6 addresses in brackets, or the port is no number")
    host, rest = where[:end], where[end:]
    if not host:
        invalid("it has no host")
    port = _DEFAULT_PORT
    if rest[1:]:
        if rest[0] != ":" or not (rest[1:].isascii() and rest[1:].isdigit()):
            invalid("the port is no number")
        digits = rest[1:].lstrip("0") or "0"
        if len(digits) > 5 or int(digits) > _MOST_PORT:
            invalid(f"the port is above {_MOST_PORT}")
        port = int(digits)
        if port == 0:
            invalid("port 0 cannot be connected to")
    elif rest not in ("", ":"):
        invalid("the port is no number")
    try:
        return parse_host(host), port
    except ValueError as error:
        invalid(f"the host {error}")
