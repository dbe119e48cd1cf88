"""Which web pages may use a server: the origins that browsers report (RFC 6454; the WHATWG's URL Standard)."""

import ipaddress
import re
from typing import Final, NoReturn

from wtio.protocol.host import parse_host

__all__ = ["allowed_form", "check_origin", "is_own_origin"]

_NULL: Final = "null"
# The origin of pages from files: ``null`` in most browsers, this in some parts of Chromium and some app shells.
_FILE: Final = "file://"
_ORIGIN: Final = re.compile(r"([a-z][a-z0-9+.\-]*)://(\[[0-9a-f:.]+\]|[^\s/?#@:\[\]]+)(?::([0-9]{1,5}))?")
_ALLOWED: Final = re.compile(r"([a-z][a-z0-9+.\-]*)://(\[[^\s/?#@\[\]]+\]|[^\s/?#@:\[\]]+)(?::([0-9]+))?")
_MOST_PORT: Final = 65_535
# Schemes whose hosts are hosts of the network; in other schemes, only the scheme knows what a host means.
_DEFAULT_PORTS: Final = {"https": "443", "http": "80", "ftp": "21"}
# Schemes of pages for which browsers report ``null``, or the origin of another page.
_OPAQUE: Final = frozenset(("about", "blob", "data", "filesystem", "javascript", "view-source"))


def check_origin(origin: str) -> str:
    """Convert an origin that an application allows to the form that browsers send.

    Args:
        origin: ``scheme://host[:port]``, also of extensions and shells (``chrome-extension://…``,
            ``tauri://localhost``), or ``null``.

    Raises:
        ValueError: No page has such an origin; the message says what to write instead.
    """

    def refuse(why: str) -> NoReturn:
        raise ValueError(f"origins: {origin!r} is not scheme://host[:port], without anything behind it: {why}")

    lowered = origin.lower()
    if lowered == _NULL:
        return lowered
    scheme = lowered.partition(":")[0]
    if scheme == "file":
        refuse("pages from files report `null`; write 'null', which allows every other page without an origin, too")
    if scheme in _OPAQUE:
        refuse(f"pages of the scheme `{scheme}` report `null` or the origin of the page that made them")
    if scheme in ("ws", "wss"):
        page = "https" if scheme == "wss" else "http"
        refuse(f"no page is loaded from `{scheme}`; write that of the page, such as {page + origin[len(scheme) :]!r}")
    if "*" in lowered:
        refuse("there are no patterns; name each origin, allow all with '*', or decide by SessionRequest.origin")
    found = _ALLOWED.fullmatch(lowered)
    if found is None:
        refuse("such as 'https://example.org:8443'")
    scheme, host, port = found[1], found[2], found[3] or ""
    if len(port.lstrip("0")) > 5 or int(port or "0") > _MOST_PORT:
        refuse(f"its port is above {_MOST_PORT}")
    try:
        host = parse_host(host) if scheme in _DEFAULT_PORTS or host.startswith("[") else _named(host)
    except ValueError as error:
        refuse(f"the host {error}")
    port = str(int(port)) if port else ""
    return f"{scheme}://{host}:{port}" if port and port != _DEFAULT_PORTS.get(scheme) else f"{scheme}://{host}"


def _named(host: str) -> str:
    """A host that only its scheme understands, such as the identifier of an extension."""
    if not host.isascii() or not host.isprintable() or " " in host:
        raise ValueError("has characters that browsers escape; write it as they do")
    return host


def allowed_form(origin: str) -> str:
    """Convert the value of an Origin header to the form of ``check_origin``, to look it up among the allowed ones."""
    lowered = origin.lower()
    # Allowing ``null`` also allows pages from files: anybody can make a page that reports ``null``.
    return _NULL if lowered == _FILE else lowered


def is_own_origin(origin: str, authority: str) -> bool:
    """Whether a page comes from the server itself.

    That is a page from https with the same host and port or, if the host is a loopback one, from any loopback host.
    During development, pages are served from another port of the same machine, which only its user can reach.

    Args:
        origin: Value of the Origin header.
        authority: Host and port of the request.
    """
    page = _split(origin.lower())
    own = _split(f"https://{authority.lower()}")
    if page is None or own is None:
        return False
    return page == own or (_is_loopback(page[1]) and _is_loopback(own[1]))


def _split(origin: str) -> tuple[str, str, str] | None:
    """Split an origin into scheme, host and port."""
    found = _ORIGIN.fullmatch(origin)
    if not found:
        return None
    return found[1], found[2], found[3] or _DEFAULT_PORTS.get(found[1], "")


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761, section 6.3
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
