"""What docs/metrics.md shows does what the page says, and the dashboard asks for figures that there are."""

from __future__ import annotations

import asyncio
import json
import re
from itertools import combinations
from typing import TYPE_CHECKING, Any

import promql_parser
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

import wtio
import wtio.prometheus
from wtio.testing import Network, run

from .programs import ROOT
from .test_readme import blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = ROOT / "docs" / "metrics.md"
DASHBOARD = json.loads((ROOT / "docs" / "grafana-dashboard.json").read_text(encoding="utf-8"))


@pytest.fixture
def page() -> dict[str, Any]:
    names: dict[str, Any] = {}
    for code in blocks(PAGE, "python"):
        exec(compile(code, "docs/metrics.md", "exec"), names)
    return names


async def stay(session: wtio.WebTransportSession) -> None:
    await session.wait_closed()


def figures() -> dict[str, set[frozenset[str]]]:
    """Names of all samples, each with the names of its labels."""
    found: dict[str, set[frozenset[str]]] = {}

    async def main() -> None:
        network = Network()
        async with network.serve(stay) as server:
            # So that there is a status.
            server._service.request_rejected(404)
            for family in wtio.prometheus.ServerCollector(server).collect():
                for sample in family.samples:
                    found.setdefault(sample.name, set()).add(frozenset(sample.labels))

    run(main())
    return found


# -- the page


def test_a_server_of_the_page_is_scraped(
    page: dict[str, Any], certificate: wtio.DevCertificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = CollectorRegistry(auto_describe=True)
    shown: list[tuple[int, str]] = []
    monkeypatch.setattr("prometheus_client.start_http_server", lambda port, addr: shown.append((port, addr)))
    register = wtio.prometheus.register
    monkeypatch.setattr(wtio.prometheus, "register", lambda servers: register(servers, registry=registry))

    async def main() -> None:
        network = Network()
        monkeypatch.setattr(wtio, "serve", network.serve)
        serving = asyncio.ensure_future(page["serve"](stay, certificate.server_tls()))
        await asyncio.sleep(1)
        async with network.connect("https://localhost:4433/", tls=certificate.client_tls()):
            assert registry.get_sample_value("wtio_sessions_open") == 1
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving

    run(main())
    assert shown == [(9464, "127.0.0.1")]


def test_several_servers_of_the_page(page: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    registry = CollectorRegistry(auto_describe=True)
    register = wtio.prometheus.register
    monkeypatch.setattr(wtio.prometheus, "register", lambda servers: register(servers, registry=registry))

    async def main() -> None:
        network = Network()
        page["register_all"](network.serve(stay), network.serve(stay))
        for name in ("public", "internal"):
            assert registry.get_sample_value("wtio_sessions_open", {"server": name}) == 0

    run(main())


def test_spans_of_the_page(
    page: dict[str, Any], certificate: wtio.DevCertificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", lambda name, version, given=None: provider.get_tracer(name, version))

    async def main() -> None:
        network = Network()
        monkeypatch.setattr(wtio, "serve", network.serve)
        monkeypatch.setattr(wtio, "connect", network.connect)
        async with page["traced_server"](certificate.server_tls()):
            with provider.get_tracer("test").start_as_current_span("a visit"):
                await page["visit"]("https://localhost:4433/rooms/blue", certificate.client_tls())
            await asyncio.sleep(1)

    run(main())
    spans = exporter.get_finished_spans()
    assert sorted(span.name for span in spans) == ["CONNECT", "CONNECT /rooms/{room}", "a visit"]
    assert len({span.context.trace_id for span in spans if span.context is not None}) == 1
    rows = re.findall(r"^\| (`[a-z].*?) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    documented = {name for row in rows for name in re.findall(r"`([a-z.]+[a-z_]*)`", row) if "." in name}
    seen = {name for span in spans for name in (span.attributes or {})}
    assert seen <= documented
    assert documented - seen == {"error.type"}


def test_queries_of_the_page_name_figures() -> None:
    [queries] = blocks(PAGE, "promql")
    check_queries(queries.splitlines())


# -- the dashboard


def selectors(expression: Any) -> Iterator[Any]:
    """Every selector of time series in a parsed query."""
    if isinstance(expression, promql_parser.VectorSelector):
        yield expression
    for name in ("expr", "lhs", "rhs", "param", "vector_selector"):
        inner = getattr(expression, name, None)
        if inner is not None and not isinstance(inner, (str, int, float)):
            yield from selectors(inner)
    for inner in getattr(expression, "args", None) or ():
        yield from selectors(inner)


def check_queries(queries: list[str]) -> None:
    """They can be parsed, and name figures, with labels that they have."""
    known = figures()
    assert queries
    for query in queries:
        parsed = promql_parser.parse(query.replace("$__rate_interval", "5m"))
        found = list(selectors(parsed))
        assert found, query
        for selector in found:
            assert selector.name in known, query
            own = set().union(*known[selector.name])
            # Prometheus adds these two to whatever it scrapes.
            for matcher in selector.matchers.matchers:
                assert matcher.name in own | {"job", "instance"}, query
        for labels in re.findall(r" by \(([a-z, ]+)\)", query):
            for label in labels.split(", "):
                assert label in own | {"job", "instance"}, query


def panels() -> list[dict[str, Any]]:
    found = DASHBOARD["panels"]
    assert isinstance(found, list)
    return found


def test_every_query_of_the_dashboard_names_figures() -> None:
    queries = [target["expr"] for panel in panels() for target in panel["targets"]]
    check_queries(queries)
    named = {name for query in queries for name in re.findall(r"wtio_\w+", query)}
    # Nothing but the version is left out.
    assert named == set(figures()) - {"wtio_build_info"}
    for variable in DASHBOARD["templating"]["list"][1:]:
        (query, label) = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"]).groups()  # type: ignore[union-attr]
        check_queries([query])
        assert label == variable["name"]


def test_the_dashboard_is_one_that_grafana_can_load() -> None:
    # What Grafana's schema of dashboards asks for, version 39; more than that it takes as it is.
    assert {"title", "uid", "schemaVersion", "panels", "templating", "time", "annotations"} <= DASHBOARD.keys()
    assert DASHBOARD["id"] is None
    assert DASHBOARD["schemaVersion"] == 39
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource", "job", "instance"}
    assert len({panel["id"] for panel in panels()}) == len(panels())
    assert len({panel["title"] for panel in panels() if panel["type"] == "timeseries"}) > 10
    for panel in panels():
        assert panel["type"] in ("timeseries", "stat")
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)
        for owner in (panel, *panel["targets"]):
            assert owner["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        for target in panel["targets"]:
            used = set(re.findall(r"\$(\w+)", target["expr"])) - {"__rate_interval"}
            assert used <= variables
    for one, other in combinations((panel["gridPos"] for panel in panels()), 2):
        is_beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        is_above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert is_beside or is_above
