"""What docs/logging-and-counters.md shows is so: lines, fields, counters and programs."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import re
from typing import TYPE_CHECKING, Any

import pytest

import wtio
from wtio.testing import Network, run

from .programs import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = (ROOT / "docs" / "logging-and-counters.md").read_text(encoding="utf-8")


def table(heading: str) -> list[list[str]]:
    """The rows of the table with this first heading, without the headings."""
    _, _, rest = PAGE.partition(f"\n| {heading} |")
    rows = rest.partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def names_in(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


@pytest.fixture
def page(caplog: pytest.LogCaptureFixture) -> Iterator[dict[str, Any]]:
    """The names that the page defines; what it does to loggers is taken back."""
    logger = logging.getLogger("wtio.server")
    filters = list(logger.filters)
    names: dict[str, Any] = {}
    for code in re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE):
        exec(compile(code, "docs/logging-and-counters.md", "exec"), names)
    yield names
    logger.filters[:] = filters


async def stay(session: wtio.WebTransportSession) -> None:
    await session.wait_closed()


async def fail(session: wtio.WebTransportSession) -> None:
    raise ValueError("a fault of the application")


async def one_session(network: Network) -> None:
    async with network.serve(stay), network.connect("https://localhost/rooms/1?token=x"):
        await asyncio.sleep(1)


def as_pattern(line: str) -> str:
    """A line of the page, with any number and address in place of its own."""
    return re.sub(r"(\d+\\\.)+\d+|\d+", "[0-9a-f.:]+", re.escape(line))


def test_lines_look_as_on_the_page(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "wtio")

    async def read_all(stream: wtio.WebTransportStream) -> None:
        await stream.read_all()

    async def handler(session: wtio.WebTransportSession) -> None:
        await session.serve_streams(read_all)

    async def main() -> None:
        network = Network()
        async with network.serve(handler), network.connect("https://localhost/rooms/1?token=x") as session:
            stream = await session.create_bidirectional_stream()
            await stream.write(data=b"x")
            await stream.reset(error_code=7)
            await asyncio.sleep(1)

    run(main())
    shown = [line for block in re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
    assert len(shown) == 5
    for line in shown:
        assert any(re.fullmatch(as_pattern(line), message) for message in caplog.messages), line


def test_the_filter_takes_the_lines_of_sessions_away_and_no_others(
    page: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "wtio.server")

    async def fail(session: wtio.WebTransportSession) -> None:
        await (await anext(session.incoming_bidirectional_streams())).read_all()

    async def main() -> None:
        network = Network()
        async with network.serve(fail), network.connect() as session:
            stream = await session.create_bidirectional_stream()
            await stream.reset()
            await session.wait_closed()

    run(main())
    (message,) = [record.getMessage() for record in caplog.records if record.name == "wtio.server"]
    assert "ended early" in message


def test_fields_are_those_of_the_table_and_json_has_them(
    page: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("wtio.server").removeFilter(page["is_about_no_session"])
    caplog.set_level(logging.DEBUG, "wtio")

    async def main() -> None:
        network = Network()
        await one_session(network)
        limits = wtio.Limits(sessions=1)
        async with network.serve(stay, limits=limits), network.connect():
            with pytest.raises(wtio.SessionRejectedError):
                await network.connect()
        async with network.serve(fail), network.connect() as session:
            await session.wait_closed()
        async with network.serve(stay):
            with pytest.raises(wtio.CertificateError):
                await network.connect(tls=wtio.ClientTLS(certificate_hashes=["00" * 32]))

    run(main())
    expected: dict[str, set[str]] = {}
    for kinds, text in table("`kind`"):
        names = set(names_in(text)) | (expected["session opened"] if "the same" in text else set())
        expected |= {kind: names | {"kind"} for kind in names_in(kinds) if kind != "admit"}
    documented = {name for names, _ in table("field") for name in names_in(names)} | {"kind"}
    assert set(page["FIELDS"]) == documented
    plain = set(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
    seen = {}
    formatter = page["JsonFormatter"]()
    for record in caplog.records:
        if hasattr(record, "kind"):
            fields = set(vars(record)) - plain
            assert fields == expected[record.kind], record.kind
            assert fields <= documented
            seen[record.kind] = json.loads(formatter.format(record))
            assert seen[record.kind].keys() >= fields | {"time", "level", "logger", "message"}
    assert set(seen) == set(expected) - {"left out"}
    assert seen["session ended"]["path"] == "/"


def test_a_traceback_is_in_json(page: dict[str, Any]) -> None:
    try:
        raise ValueError("a fault of the application")
    except ValueError as error:
        record = logging.makeLogRecord({"exc_info": (type(error), error, error.__traceback__)})
    assert "a fault of the application" in json.loads(page["JsonFormatter"]().format(record))["traceback"]


def test_every_counter_and_every_cause_is_on_the_page() -> None:
    rows = [*table("counter"), *table("gauge")]
    listed = [name for names, _ in rows for name in names_in(names)]
    assert sorted(listed) == sorted(field.name for field in dataclasses.fields(wtio.ServerStats))
    assert all(name.endswith("_total") for names, _ in table("counter") for name in names_in(names))
    assert not any(name.endswith("_total") for names, _ in table("gauge") for name in names_in(names))
    words = {name for _, text in rows for name in names_in(text)}

    async def main() -> None:
        async with Network().serve(stay) as server:
            for field in dataclasses.fields(wtio.ServerStats):
                value = getattr(server.stats(), field.name)
                if isinstance(value, dict):
                    assert set(value) <= words, field.name

    run(main())


def test_alerts_name_counters_that_exist() -> None:
    fields = {field.name for field in dataclasses.fields(wtio.ServerStats)}
    rows = table("sign")
    assert len(rows) > 8
    for row in rows:
        for name in names_in(" ".join(row)):
            counter = name.partition("{")[0]
            if counter.endswith(("_total", "_open", "_bytes")):
                assert counter in fields, name


async def test_prometheus_reads_the_figures(page: dict[str, Any], server: wtio.Server, url: str) -> None:
    metrics = await page["serve_metrics"](server, 0)
    port = metrics.sockets[0].getsockname()[1]
    async with metrics:
        for _ in range(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n")
            answer = (await reader.read()).decode()
            writer.close()
        head, _, body = answer.partition("\r\n\r\n")
        assert head.startswith("HTTP/1.1 200 OK")
        assert f"content-length: {len(body)}" in head
        # One that leaves at once.
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(0.05)
    lines = body.splitlines()
    assert "# TYPE wtio_sessions_opened_total counter" in lines
    assert "# TYPE wtio_sessions_open gauge" in lines
    assert 'wtio_connections_refused_total{cause="capacity"} 0' in lines
    for line in lines:
        # The text format, as Prometheus describes it.
        assert re.fullmatch(
            r'# TYPE [a-z_]+ (counter|gauge)|[a-z_]+(\{(cause|status|kind)="[a-z0-9]+"\})? [0-9]+', line
        ), line
    for field in dataclasses.fields(wtio.ServerStats):
        assert f"wtio_{field.name}" in body


def test_the_sysctl_is_that_of_the_doctor() -> None:
    from wtio.cli._advice import RULES
    from wtio.report import BufferReport

    from .test_advice import HEALTHY

    small = dataclasses.replace(HEALTHY, udp_buffers=BufferReport(asked=4 * 1024 * 1024, receive=1, send=1))
    _, rule = RULES["small_udp_buffers"]
    (command,) = re.findall(r"^sysctl .*$", PAGE, re.MULTILINE)
    assert command in (rule(small) or "")
