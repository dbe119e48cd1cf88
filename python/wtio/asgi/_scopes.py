"""What an application is told about a request: the part of a scope that requests and sessions share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wtio._headers import Headers
    from wtio.asgi._types import Scope

__all__ = ["make_scope"]

_ASGI: Final = "3.0"


class _Asked(Protocol):
    """An ordinary request, or one for a session."""

    @property
    def path(self) -> str: ...
    @property
    def authority(self) -> str: ...
    @property
    def headers(self) -> Headers: ...
    @property
    def remote_address(self) -> tuple[str, int]: ...


def make_scope(
    asked: _Asked, kind: str, version: str, *, scheme: str, root: str, state: Mapping[str, Any] | None
) -> Scope:
    """Put a scope together.

    Args:
        asked: The request.
        kind: ``type`` of the scope.
        version: Version of the specification that it follows.
        scheme: Such as ``https``.
        root: Where the application is mounted.
        state: What the lifespan has left for requests; None without one.

    Source: the ASGI specification, HTTP connection scope.
    """
    path, _, query = asked.path.partition("?")
    scope: Scope = {
        "type": kind,
        "asgi": {"version": _ASGI, "spec_version": version},
        "http_version": "3",
        "scheme": scheme,
        "path": unquote(path),
        "raw_path": path.encode("latin-1"),
        "query_string": query.encode("latin-1"),
        "root_path": root,
        "headers": _headers(asked),
        "client": asked.remote_address,
        # Which of its addresses a request came to, a server does not know.
        "server": None,
        "extensions": {},
    }
    if state is not None:
        scope["state"] = dict(state)
    return scope


def _headers(asked: _Asked) -> list[tuple[bytes, bytes]]:
    """All headers as bytes: first ``host``, which is the authority, and one ``cookie``, which may come in several."""
    lines = [(b"host", asked.authority.encode("latin-1"))]
    cookies = []
    for name, value in asked.headers:
        if name == "cookie":
            cookies.append(value)
        elif name != "host":
            lines.append((name.encode("latin-1"), value.encode("latin-1")))
    if cookies:
        # RFC 9114, section 4.2.1: for anybody who does not know HTTP/3, they are one.
        lines.append((b"cookie", "; ".join(cookies).encode("latin-1")))
    return lines
