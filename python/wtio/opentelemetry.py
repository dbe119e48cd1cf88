"""Spans of OpenTelemetry for sessions. Needs ``pip install wtio[opentelemetry]``, which is the API alone.

``traced`` wraps what serves sessions, and ``session_span`` is for programs that want to say themselves when a span
begins and ends, such as clients. Without an SDK they do nothing. ``import wtio`` does not load this module.
docs/metrics.md has the attributes.

Source: OpenTelemetry's semantic conventions for HTTP.
"""

from __future__ import annotations

import functools
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

try:
    from opentelemetry import propagate, trace
except ImportError as _error:
    raise ImportError("wtio.opentelemetry needs opentelemetry-api; install wtio[opentelemetry]") from _error

import wtio
from wtio._arguments import check_instance, check_some_handler
from wtio._log import shown_path
from wtio._routes import Routes
from wtio._site import Site
from wtio.errors import SessionClosed
from wtio.session import WebTransportSession

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from contextlib import AbstractContextManager

    from opentelemetry.util.types import AttributeValue

    from wtio._http import HttpRequest, HttpResponse
    from wtio._request import SessionRequest
    from wtio.config import Timeouts

__all__ = ["session_span", "traced"]

_Handler = TypeVar("_Handler", bound="Callable[..., Awaitable[object]]")

_logger: Final = logging.getLogger("wtio.opentelemetry")
# Whether a failure of the tracing was written to the log, which happens once in a process.
_told: list[bool] = []


@overload
def traced(handler: Site, *, tracer_provider: trace.TracerProvider | None = None) -> Site: ...
@overload
def traced(handler: _Handler, *, tracer_provider: trace.TracerProvider | None = None) -> _Handler: ...
def traced(handler: Any, *, tracer_provider: trace.TracerProvider | None = None) -> Any:
    """Give each session that a handler serves a span, from its acceptance until the handler has returned.

    ::

        wtio.serve(wtio.opentelemetry.traced(router), port=4433, tls=tls)

        @router.session("/rooms/{room}")
        @wtio.opentelemetry.traced
        async def talk(session: wtio.WebTransportSession, room: str) -> None: ...

    The span is the current one in the handler, so that spans of yours are below it. Its parent is what the request's
    ``traceparent`` header says, or whatever the global propagator reads; without one it is a root. Requests that are
    refused have no span. Cancelling the handler ends the span. A failure of the tracing is logged once, and ends no
    session.

    Args:
        handler: What ``serve`` or ``Router.session`` takes. Of a ``wtio.Router``, the spans have the route's pattern as
            ``http.route``. Sessions that an ASGI application has accepted are its own and have none.
        tracer_provider: Where spans go; None (default) means the global one.

    Returns:
        A handler or site like the one given, for the same place.

    Raises:
        TypeError: An argument is of the wrong type.
    """
    _check_provider(tracer_provider)
    if isinstance(handler, Site):
        return _TracedSite(handler, tracer_provider)
    check_some_handler("handler", handler)

    @functools.wraps(handler)
    async def serve(session: WebTransportSession, *arguments: Any, **named: Any) -> object:
        with _span(session, None, tracer_provider):
            return await handler(session, *arguments, **named)

    return serve


def session_span(
    session: WebTransportSession, *, tracer_provider: trace.TracerProvider | None = None
) -> AbstractContextManager[trace.Span]:
    """Give a session a span that lasts until the block is left.

    ::

        with wtio.opentelemetry.session_span(session) as span: ...

    On a client it is below the current span. ``opentelemetry.propagate.inject`` puts that into the headers for
    ``wtio.connect``, so that a server's span has the same parent. On a server, everything is as with ``traced``.

    Args:
        session: The session, just established.
        tracer_provider: Where the span goes; None (default) means the global one.

    Raises:
        TypeError: An argument is of the wrong type.
    """
    check_instance("session", session, WebTransportSession, "from wtio.connect or wtio.serve", optional=False)
    _check_provider(tracer_provider)
    return _span(session, None, tracer_provider)


def _check_provider(provider: object) -> None:
    check_instance("tracer_provider", provider, trace.TracerProvider, "such as TracerProvider() of the SDK")


class _TracedSite(Site):
    """A site whose sessions have spans. All decisions are those of the site."""

    __slots__ = ("_provider", "_site")

    def __init__(self, site: Site, provider: trace.TracerProvider | None) -> None:
        self._site = site
        # Where spans go; None for the global one.
        self._provider = provider

    async def handle(self, session: WebTransportSession, root: str) -> object:
        """Serve a session."""
        route = self._site.session_pattern(session.path, root) if isinstance(self._site, Routes) else None
        with _span(session, route, self._provider):
            return await self._site.handle(session, root)

    async def admit(self, request: SessionRequest, root: str = "") -> object:
        """Ask the site."""
        return await self._site.admit(request, root)

    def http(self, request: HttpRequest, root: str = "") -> HttpResponse | Awaitable[HttpResponse | None] | None:
        """Ask the site."""
        return self._site.http(request, root)

    async def start(self, timeouts: Timeouts) -> None:
        """Start the site."""
        await self._site.start(timeouts)

    def abort(self) -> None:
        """Abort the site."""
        self._site.abort()

    async def stop(self) -> None:
        """Stop the site."""
        await self._site.stop()


# -- one span


@contextmanager
def _span(
    session: WebTransportSession, route: str | None, provider: trace.TracerProvider | None
) -> Iterator[trace.Span]:
    span = _begin(session, route, provider)
    # What the application raises is in the log, with its text; that may say more than is for a tracing system.
    with trace.use_span(span, end_on_exit=False, record_exception=False, set_status_on_exception=False):
        failure: BaseException | None = None
        try:
            yield span
        except BaseException as error:
            failure = error
            raise
        finally:
            _end(span, session, failure)


def _begin(session: WebTransportSession, route: str | None, provider: trace.TracerProvider | None) -> trace.Span:
    """Begin a span. If that fails, the session goes on with one that does nothing."""
    try:
        tracer = trace.get_tracer("wtio", wtio.__version__, provider)
        name = "CONNECT" if route is None else f"CONNECT {route}"
        if session.is_client:
            return tracer.start_span(name, kind=trace.SpanKind.CLIENT, attributes=_attributes(session, route))
        carrier: dict[str, list[str]] = {}
        for header, value in session.request_headers:
            carrier.setdefault(header, []).append(value)
        context = propagate.extract(carrier)
        attributes = _attributes(session, route)
        return tracer.start_span(name, context=context, kind=trace.SpanKind.SERVER, attributes=attributes)
    except Exception as error:
        _note_failure(error)
        return trace.INVALID_SPAN


def _attributes(session: WebTransportSession, route: str | None) -> dict[str, AttributeValue]:
    """What is known at the beginning. No query, no header and no subprotocol: each may have a token."""
    ip, port = session.remote_address
    host, own_port = _host_and_port(session.authority)
    attributes: dict[str, AttributeValue] = {
        "http.request.method": "CONNECT",
        "http.response.status_code": session.facts.status,
        "url.scheme": "https",
        "url.path": shown_path(session.path),
        "server.address": host,
        "server.port": own_port,
        "network.peer.address": ip,
        "network.peer.port": port,
        "network.protocol.name": "http",
        "network.protocol.version": "3",
        "network.transport": "quic",
        "wtio.session.id": session.log_id,
        "wtio.session.dialect": session.dialect,
    }
    if route is not None:
        attributes["http.route"] = route
    return attributes


def _host_and_port(authority: str) -> tuple[str, int]:
    host, colon, port = authority.rpartition(":")
    # The colons of an IPv6 address are in brackets.
    if colon and port.isdecimal():
        return host, int(port)
    return authority, 443


def _end(span: trace.Span, session: WebTransportSession, failure: BaseException | None) -> None:
    """End a span with what is known at the end. A failure of that concerns nobody but the log."""
    try:
        if span.is_recording():
            stats = session.stats()
            span.set_attribute("wtio.session.received_bytes", stats.stream_bytes_received)
            span.set_attribute("wtio.session.sent_bytes", stats.stream_bytes_sent)
            span.set_attribute("wtio.session.received_datagrams", stats.datagrams_received)
            span.set_attribute("wtio.session.sent_datagrams", stats.datagrams_sent)
            if (info := session.close_info) is not None:
                span.set_attribute("wtio.session.closed_by", info.closed_by)
                if info.code is not None:
                    span.set_attribute("wtio.session.close_code", info.code)
            # A handler that ends because its session ended has not failed, nor has one that is cancelled.
            is_fault = isinstance(failure, Exception) and not (isinstance(failure, SessionClosed) and session.is_closed)
            if is_fault:
                kind = type(failure)
                name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
                span.set_attribute("error.type", name)
                span.set_status(trace.StatusCode.ERROR)
        span.end()
    except Exception as error:
        _note_failure(error)


def _note_failure(error: Exception) -> None:
    if _told:
        return
    _told.append(True)
    _logger.error("tracing failed, and the session goes on; further failures are not logged", exc_info=error)
