"""Which web pages may use a server: the origins that browsers report (RFC 6454)."""

import ipaddress
import re
from typing import Final

__all__ = ["check_origin", "is_own_origin"]

_ORIGIN: Final = re.compile(r"([a-z][a-z0-9+.\-]*)://(\[[0-9a-f:.]+\]|[^\s/?#@:\[\]]+)(?::([0-9]{1,5}))?")
_DEFAULT_PORTS: Final = {"https": "443", "http": "80"}


def check_origin(origin: str) -> str:
    """Bring an origin that an application allows into the form in which browsers write it.

    Raises:
        ValueError: It is neither ``scheme://host[:port]`` nor ``null``.
    """
    lowered = origin.lower()
    parts = _split(lowered)
    if parts is None:
        if lowered == "null":
            return lowered
        raise ValueError(f"origin {origin!r} is not scheme://host[:port], without anything behind it")
    scheme, host, port = parts
    return f"{scheme}://{host}" if port == _DEFAULT_PORTS.get(scheme) else f"{scheme}://{host}:{port}"


def is_own_origin(origin: str, authority: str) -> bool:
    """Whether a page comes from the server itself.

    That is: from https and the same host and port, or, where the host is a loopback one, from any loopback host. Pages
    under development come from another port of the same machine, and nobody but its user can be there.

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
    """Take an origin apart: scheme, host, port."""
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
