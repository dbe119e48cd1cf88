"""A server's figures as Prometheus scrapes them, over HTTP, read by prometheus_client's own parsers."""

from __future__ import annotations

import asyncio
import dataclasses
import urllib.request
from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

import wtio
import wtio.prometheus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client.metrics_core import Metric

LABELS = {"sessions_rejected_total": "status", "streams_opened_total": "kind", "streams_received_total": "kind"}
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@contextmanager
def scraped(registry: CollectorRegistry) -> Iterator[str]:
    """The URL at which prometheus_client shows a registry, from a thread of its own."""
    httpd, thread = prometheus_client.start_http_server(0, addr="127.0.0.1", registry=registry)
    try:
        yield f"http://127.0.0.1:{httpd.server_port}/metrics"
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


def scrape(url: str, accept: str) -> str:
    request = urllib.request.Request(url, headers={"accept": accept})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(answer.read().decode())


def samples(families: Iterable[Metric]) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def expected(stats: wtio.ServerStats, **labels: str) -> Samples:
    """What a scrape has to show of a snapshot."""
    found: Samples = {}
    for field in dataclasses.fields(stats):
        value = getattr(stats, field.name)
        counts = value if isinstance(value, Mapping) else {None: value}
        for name, count in counts.items():
            own = {} if name is None else {LABELS.get(field.name, "cause"): str(name)}
            if count is not None:
                found[f"wtio_{field.name}", frozenset((labels | own).items())] = count
    return found


async def visit(url: str, certificate: wtio.DevCertificate) -> None:
    async with wtio.connect(url, tls=certificate.client_tls()) as session:
        stream = await session.create_bidirectional_stream()
        await stream.write(data=bytes(1000), end_stream=True)
        session.send_datagram(b"x")
        await session.wait_closed()


async def admit(request: wtio.SessionRequest) -> None:
    if request.path == "/no":
        await request.reject(418)


async def handler(session: wtio.WebTransportSession) -> None:
    stream = await anext(session.incoming_bidirectional_streams())
    await stream.read_all()


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text; version=1.0.0"])
async def test_a_scrape_has_every_figure(accept: str, certificate: wtio.DevCertificate) -> None:
    registry = CollectorRegistry(auto_describe=True)
    async with wtio.serve(handler, "127.0.0.1", 0, tls=certificate.server_tls(), admit=admit) as server:
        assert isinstance(wtio.prometheus.register(server, registry=registry), wtio.prometheus.ServerCollector)
        url = f"https://127.0.0.1:{server.addresses[0][1]}/"
        await visit(url, certificate)
        with pytest.raises(wtio.SessionRejectedError):
            await wtio.connect(f"{url}no", tls=certificate.client_tls())
    stats = server.stats()
    with scraped(registry) as address:
        text = await asyncio.to_thread(scrape, address, accept)
    families = list((parse_text if accept == "text/plain" else parse_openmetrics)(text))
    found = samples(families)
    assert found.pop(("wtio_build_info", frozenset({("version", wtio.__version__)}))) == 1
    assert found == expected(stats)
    assert found["wtio_sessions_opened_total", frozenset()] == 1
    assert found["wtio_sessions_rejected_total", frozenset({("status", "418")})] == 1
    assert found["wtio_streams_received_total", frozenset({("kind", "bidirectional")})] == 1
    assert found["wtio_connections_closed_total", frozenset({("cause", "application")})] >= 1
    kinds = {family.name: family.type for family in families}
    units = {family.name: family.unit for family in families}
    for field in dataclasses.fields(stats):
        name = f"wtio_{field.name}".removesuffix("_total")
        assert kinds[name] == ("counter" if field.name.endswith("_total") else "gauge")
        if accept != "text/plain":
            assert units[name] == ("bytes" if name.endswith("_bytes") else "")
    assert all(family.documentation for family in families)


async def test_several_servers_are_told_apart_and_may_come_and_go(certificate: wtio.DevCertificate) -> None:
    registry = CollectorRegistry(auto_describe=True)
    servers: dict[str, wtio.Server] = {}
    collector = wtio.prometheus.register(servers, registry=registry)
    assert not samples(registry.collect())
    limits = wtio.Limits(server_memory=None)
    async with (
        wtio.serve(handler, "127.0.0.1", 0, tls=certificate.server_tls()) as public,
        wtio.serve(handler, "127.0.0.1", 0, tls=certificate.server_tls(), limits=limits) as internal,
    ):
        servers |= {"public": public, "internal": internal}
        await visit(f"https://127.0.0.1:{internal.addresses[0][1]}/", certificate)
        with scraped(registry) as address:
            text = await asyncio.to_thread(scrape, address, "text/plain")
        found = samples(parse_text(text))
        assert found["wtio_sessions_opened_total", frozenset({("server", "public")})] == 0
        assert found["wtio_sessions_opened_total", frozenset({("server", "internal")})] == 1
        assert ("wtio_memory_limit_bytes", frozenset({("server", "public")})) in found
        assert ("wtio_memory_limit_bytes", frozenset({("server", "internal")})) not in found
        del servers["internal"]
        assert ("wtio_sessions_open", frozenset({("server", "internal")})) not in samples(registry.collect())
    registry.unregister(collector)
    assert not list(registry.collect())


async def test_what_is_registered_twice_is_refused(server: wtio.Server) -> None:
    registry = CollectorRegistry(auto_describe=True)
    wtio.prometheus.register(server, registry=registry)
    with pytest.raises(ValueError, match="wtio_sessions_open"):
        wtio.prometheus.register(server, registry=registry)


async def test_a_scrape_that_fails_does_nothing_to_the_server(
    server: wtio.Server, url: str, certificate: wtio.DevCertificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = CollectorRegistry(auto_describe=True)
    wtio.prometheus.register(server, registry=registry)

    def fail(_: object) -> None:
        raise RuntimeError("a fault of the figures")

    monkeypatch.setattr(wtio.Server, "stats", fail)
    with scraped(registry) as address, pytest.raises(urllib.error.HTTPError) as caught:
        await asyncio.to_thread(scrape, address, "text/plain")
    caught.value.close()
    assert caught.value.code == 500
    connecting = asyncio.ensure_future(_open(url, certificate))
    session = await (await anext(server)).accept()
    await session.wait_closed()
    await connecting


async def _open(url: str, certificate: wtio.DevCertificate) -> None:
    async with wtio.connect(url, tls=certificate.client_tls()):
        pass


def test_the_library_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib
    import sys

    for module, needed, extra in (
        ("wtio.prometheus", "prometheus_client", "prometheus"),
        ("wtio.opentelemetry", "opentelemetry", "opentelemetry"),
    ):
        importlib.import_module(module)
        with monkeypatch.context() as patch:
            patch.delitem(sys.modules, module)
            patch.setitem(sys.modules, needed, None)
            with pytest.raises(ImportError, match=rf"install wtio\[{extra}\]"):
                importlib.import_module(module)
