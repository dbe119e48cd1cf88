"""Spans of OpenTelemetry for sessions, made by its SDK."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import wtio
import wtio.opentelemetry
from wtio import testing
from wtio.opentelemetry import session_span, traced
from wtio.testing import Network

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan

SECRET = "s3cret"


class Spans:
    """What ends up in a tracing system."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    @property
    def ended(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()


@pytest.fixture
def spans() -> Spans:
    return Spans()


async def stay(session: wtio.WebTransportSession) -> None:
    await session.wait_closed()


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_a_session_has_a_span_with_what_the_conventions_name(spans: Spans) -> None:
    router = wtio.Router()

    @router.session("/rooms/{room}")
    async def talk(session: wtio.WebTransportSession, room: str) -> None:
        stream = await anext(session.incoming_bidirectional_streams())
        await stream.write(data=await stream.read_all(), end_stream=True)
        await session.wait_closed()

    inner = wtio.Router()
    inner.session("/{number:int}")(stay)
    router.mount("/deep", inner)

    async def main() -> None:
        network = Network()
        async with network.serve(traced(router, tracer_provider=spans.provider)):
            headers = {"authorization": f"Bearer {SECRET}"}
            url = f"https://localhost/rooms/blue?token={SECRET}"
            async with network.connect(url, headers=headers, protocols=[f"token.{SECRET}"]) as session:
                session.send_datagram(b"x")
                stream = await session.create_bidirectional_stream()
                await stream.write(data=bytes(1000), end_stream=True)
                await stream.read_all()
                await session.close(7, SECRET)
            async with network.connect("https://localhost/deep/5"):
                pass
            with pytest.raises(wtio.SessionRejectedError):
                await network.connect("https://localhost/nowhere")
            await asyncio.sleep(1)

    testing.run(main())
    talked, deep = spans.ended
    assert talked.name == "CONNECT /rooms/{room}"
    assert talked.kind is trace.SpanKind.SERVER
    assert talked.parent is None
    found = attributes(talked)
    assert found.pop("network.peer.port") > 0
    assert found.pop("network.peer.address")
    assert found.pop("wtio.session.id") > 0
    assert found == {
        "http.request.method": "CONNECT",
        "http.response.status_code": 200,
        "http.route": "/rooms/{room}",
        "url.scheme": "https",
        "url.path": "/rooms/blue",
        "server.address": "localhost",
        "server.port": 443,
        "network.protocol.name": "http",
        "network.protocol.version": "3",
        "network.transport": "quic",
        "wtio.session.dialect": "draft15",
        "wtio.session.received_bytes": 1000,
        "wtio.session.sent_bytes": 1000,
        "wtio.session.received_datagrams": 1,
        "wtio.session.sent_datagrams": 0,
        "wtio.session.closed_by": "peer",
        "wtio.session.close_code": 7,
    }
    assert talked.status.status_code is trace.StatusCode.UNSET
    assert not talked.events
    assert deep.name == "CONNECT /deep/{number:int}"
    for span in spans.ended:
        assert SECRET not in span.to_json()


def test_traceparent_of_a_request_is_the_parent_of_its_session(spans: Spans) -> None:
    tracer = spans.provider.get_tracer("test")

    async def main() -> None:
        network = Network()
        async with network.serve(traced(stay, tracer_provider=spans.provider)):
            with tracer.start_as_current_span("visit"):
                headers: dict[str, str] = {}
                propagate.inject(headers)
                async with network.connect(headers=headers) as session:
                    with session_span(session, tracer_provider=spans.provider):
                        session.send_datagram(b"x")
            async with network.connect(headers={"traceparent": "nonsense"}):
                pass
            await asyncio.sleep(1)

    testing.run(main())
    by_kind = {span.kind: span for span in spans.ended if span.kind is not trace.SpanKind.SERVER}
    served, orphan = [span for span in spans.ended if span.kind is trace.SpanKind.SERVER]
    visit = by_kind[trace.SpanKind.INTERNAL]
    assert visit.context is not None
    for span in (served, by_kind[trace.SpanKind.CLIENT]):
        assert span.parent is not None
        assert (span.parent.trace_id, span.parent.span_id) == (visit.context.trace_id, visit.context.span_id)
    assert by_kind[trace.SpanKind.CLIENT].name == "CONNECT"
    assert orphan.parent is None


def test_spans_of_a_handler_are_below_that_of_its_session(spans: Spans) -> None:
    tracer = spans.provider.get_tracer("test")
    router = wtio.Router()

    @router.session("/rooms/{room}")
    @traced
    async def plain(session: wtio.WebTransportSession, room: str) -> None:
        # Nobody has set up a provider, so this is a span that does nothing.
        assert not trace.get_current_span().is_recording()

    async def work(session: wtio.WebTransportSession) -> None:
        with tracer.start_as_current_span("work"):
            await asyncio.sleep(1)

    async def main() -> None:
        network = Network()
        async with network.serve(traced(work, tracer_provider=spans.provider)), network.connect() as session:
            await session.wait_closed()
        async with network.serve(router), network.connect("https://localhost/rooms/blue") as session:
            await session.wait_closed()

    testing.run(main())
    inner, outer = spans.ended
    assert inner.name == "work"
    assert inner.parent is not None
    assert outer.context is not None
    assert inner.parent.span_id == outer.context.span_id
    # The handler returned first, and its session was closed after that.
    assert "wtio.session.closed_by" not in attributes(outer)


@pytest.mark.unaudited("its sessions are closed with an error")
def test_a_handler_that_fails_makes_an_error_without_its_text(spans: Spans) -> None:
    async def fail(session: wtio.WebTransportSession) -> None:
        raise ValueError(SECRET)

    async def end(session: wtio.WebTransportSession) -> None:
        await session.receive_datagram()

    async def main() -> None:
        network = Network()
        async with network.serve(traced(fail, tracer_provider=spans.provider)), network.connect() as session:
            await session.wait_closed()
        async with network.serve(traced(end, tracer_provider=spans.provider)):
            async with network.connect():
                pass
            await asyncio.sleep(1)

    testing.run(main())
    failed, ended = spans.ended
    assert failed.status.status_code is trace.StatusCode.ERROR
    assert attributes(failed)["error.type"] == "ValueError"
    assert SECRET not in failed.to_json()
    assert ended.status.status_code is trace.StatusCode.UNSET
    assert "error.type" not in attributes(ended)


@pytest.mark.unaudited("its server ends at once")
def test_a_cancelled_handler_ends_its_span(spans: Spans) -> None:
    async def main() -> None:
        network = Network()
        server = await network.serve(traced(stay_forever, tracer_provider=spans.provider))
        async with network.connect():
            await asyncio.sleep(1)
            server.abort()
            await server.wait_closed()

    async def stay_forever(session: wtio.WebTransportSession) -> None:
        await asyncio.Event().wait()

    testing.run(main())
    (span,) = spans.ended
    assert span.status.status_code is trace.StatusCode.UNSET


class Failing(SpanExporter):
    """Raises whatever it is asked for."""

    def export(self, spans: Sequence[ReadableSpan]) -> Any:
        raise RuntimeError("a fault of the exporter")


class FailingProcessor(SimpleSpanProcessor):
    """Raises before the SDK can catch it."""

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        raise RuntimeError("a fault at the start")

    def on_end(self, span: ReadableSpan) -> None:
        raise RuntimeError("a fault at the end")


class FailingAtTheEnd(SimpleSpanProcessor):
    def on_end(self, span: ReadableSpan) -> None:
        raise RuntimeError("a fault at the end")


@pytest.mark.parametrize("kind", [SimpleSpanProcessor, FailingProcessor, FailingAtTheEnd])
def test_tracing_that_fails_ends_no_session(
    kind: type[SimpleSpanProcessor], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("wtio.opentelemetry._told", [])
    provider = TracerProvider()
    provider.add_span_processor(kind(Failing()))

    async def echo(session: wtio.WebTransportSession) -> None:
        session.send_datagram(await session.receive_datagram())
        await session.wait_closed()

    async def main() -> None:
        network = Network()
        async with network.serve(traced(echo, tracer_provider=provider)):
            for _ in range(2):
                async with network.connect() as session:
                    session.send_datagram(b"x")
                    assert await session.receive_datagram() == b"x"

    testing.run(main())
    ours = [record for record in caplog.records if record.name == "wtio.opentelemetry"]
    assert [record.levelno for record in ours] == ([] if kind is SimpleSpanProcessor else [logging.ERROR])
    assert not [record for record in caplog.records if record.name == "wtio.server"]
