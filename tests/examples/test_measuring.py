"""`wtio bench` and `wtio load`, as somebody runs them against `wtio serve`."""

from __future__ import annotations

import asyncio
import json
import math
import os
from typing import TYPE_CHECKING

import pytest
from tests.support.ports import free_port

import wtio
from wtio.cli import main
from wtio.cli._echo import echo
from wtio.cli._figures import Times, amount, milliseconds
from wtio.cli._status import Status
from wtio.cli.serve import _limits

from .programs import url_of
from .terminals import sitting_at

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from .programs import Start


async def answer(session: wtio.WebTransportSession) -> None:
    """Echo, or do what the path says."""
    match session.path:
        case "/mute":
            await session.wait_closed()
        case "/lossy":
            count = 0

            async def datagram(data: bytes) -> None:
                nonlocal count
                count += 1
                if count % 2:
                    session.send_datagram(data)

            async def stream(stream: wtio.WebTransportStream) -> None:
                async for data in stream:
                    await stream.write(data=data)

            await session.serve_streams(stream, datagrams=datagram)
        case "/end":

            async def whole(stream: wtio.WebTransportStream) -> None:
                await stream.write(data=await stream.read_all(), end_stream=True)

            await session.serve_streams(whole)
        case "/short":

            async def short(stream: wtio.WebTransportStream) -> None:
                await stream.write(data=(await stream.read())[:5], end_stream=True)

            await session.serve_streams(short)
        case "/close":
            await session.close(9, "enough")
        case "/restart":
            await asyncio.sleep(0.1)
            await session.close(0, "restart")
        case _:
            await echo(session)


@pytest.fixture
async def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    certificate = wtio.dev_certificate(directory=tmp_path / "cache" / "wtio")
    async with wtio.serve(answer, "127.0.0.1", 0, tls=certificate.server_tls()) as server:
        yield f"https://127.0.0.1:{server.addresses[0][1]}/"


async def run(*arguments: str) -> int:
    """Run a command in a thread of its own: it has an event loop of its own."""
    return await asyncio.to_thread(main, arguments)


async def test_bench_measures_all_that_comes_back(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert await run("bench", url, "--dev", "--seconds", "0.2", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["stream"]["count"] > 0
    assert facts["stream"]["min"] <= facts["stream"]["p50"] <= facts["stream"]["p99"] <= facts["stream"]["max"]
    assert facts["throughput"]["bytes"] > 0
    assert facts["datagrams"]["sent"] > 0
    assert facts["datagrams"]["times"]["count"] == facts["datagrams"]["received"]
    assert facts["draft"] == "draft15"


async def test_bench_that_a_server_cuts_short_is_no_success(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert await run("bench", f"{url}restart", "--dev", "--seconds", "0.2", "--json") == Status.CLOSED
    output = capsys.readouterr()
    assert "restart" in output.err
    facts = json.loads(output.out)
    # What was not measured is no zero.
    assert (facts["throughput"], facts["datagrams"]) == (None, None)


async def test_bench_shows_what_is_lost(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert await run("bench", f"{url}lossy", "--dev", "--seconds", "0.2", "--rate", "100") == 0
    text = capsys.readouterr().out
    assert "there and back" in text
    lost = float(text.rpartition("lost (")[2].rpartition("%")[0])
    assert lost >= 40


async def test_bench_at_a_terminal_shows_figures_while_it_runs(url: str) -> None:
    async with sitting_at(
        *("-m", "wtio", "bench", url, "--dev", "--seconds", "0.5"), environment=dict(os.environ), columns=30
    ) as terminal:
        await terminal.until("throughput")
        assert "datagrams" not in terminal.text, "that comes later"
        assert await terminal.finish() == 0
        await terminal.until("lost (")
        assert "Traceback" not in terminal.text


async def test_ctrl_c_ends_a_measurement(url: str) -> None:
    for command in ("bench", "load"):
        async with sitting_at("-m", "wtio", command, url, "--dev", environment=dict(os.environ)) as terminal:
            await terminal.until("session")
            before = len(terminal.text)
            terminal.type("\x03")
            assert await terminal.finish() == Status.INTERRUPTED
            # What was measured until then is printed, and the shell's prompt follows on a line of its own.
            while "session" not in terminal.text[before:] or not terminal.text.endswith("\n"):
                await terminal.more()
            assert "Traceback" not in terminal.text


async def test_servers_that_return_nothing_are_said_to(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--dev", "--seconds", "0.1", "--timeout", "0.3")
    assert await run("bench", f"{url}mute", *arguments) == Status.NO_ANSWER
    assert "as `wtio serve` does" in capsys.readouterr().err


async def test_servers_that_answer_only_after_the_end_are_measured_by_streams(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run("bench", f"{url}end", "--dev", "--seconds", "0.2", "--timeout", "2", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["stream_per_message"] is True
    assert facts["stream"]["count"] > 0
    assert facts["throughput"]["bytes"] > 0
    course = ("--sessions", "3", "--ramp", "0", "--hold", "0.5", "--rate", "10", "--timeout", "2")
    assert await run("load", f"{url}end", "--dev", *course) == 0
    output = capsys.readouterr().out
    assert "3 at most, 3 in all\n" in output
    assert (
        output.count("\n             one stream per message: the server answers only after the end of a stream\n") == 1
    )
    assert "\nfailed       0\n" in output


async def test_a_stream_that_ends_early_is_an_error(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--dev", "--seconds", "0.1", "--timeout", "1")
    assert await run("bench", f"{url}short", *arguments) == Status.FAILED
    assert "error: the server ended a stream after 5 of 64 bytes; it has to return them, as" in capsys.readouterr().err


async def test_load_ends_at_once_if_its_first_session_cannot_be_opened(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    nobody = f"https://127.0.0.1:{free_port()}/"
    for where, status in ((nobody, Status.NO_CONNECTION), (url, Status.NOT_TRUSTED)):
        said = []
        for command in (("load", "--hold", "3600"), ("bench",)):
            trust = ("--dev",) if where == nobody else ()
            assert await run(command[0], where, *command[1:], *trust) == status
            output, errors = capsys.readouterr()
            assert output == ""
            said.append(errors)
        assert said[0] == said[1]
        assert said[0].startswith("error: ")


async def test_load_at_a_narrow_terminal_shows_reasons_whole_while_it_runs(url: str) -> None:
    course = ("--sessions", "2", "--ramp", "0", "--hold", "3600")
    async with sitting_at(
        *("-m", "wtio", "load", f"{url}close", "--dev", *course), environment=dict(os.environ), columns=30
    ) as terminal:
        await terminal.until("failed: session closed by the peer with code 9: enough")
        await terminal.until("failed       2")
        terminal.type("\x03")
        assert await terminal.finish() == Status.INTERRUPTED
        assert terminal.text.count("failed: session") == 1


async def test_load_opens_and_closes_as_the_course_says(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    stages = ("--stage", "0.3:20", "--stage", "0.2:20", "--stage", "0.2:5", "--stage", "0.2:10")
    assert await run("load", url, "--dev", *stages, "--rate", "20", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["sessions"] == {"opened": facts["connect"]["count"], "most": 20}
    assert facts["sessions"]["opened"] >= 20
    assert facts["messages"] == facts["times"]["count"] > 0
    assert (facts["failed"], facts["lost"]) == (0, 0)


@pytest.mark.parametrize(
    "way", [("--dev",), ("--dev", "--datagrams"), ("--pool", "--dangerously-trust-any-certificate")]
)
async def test_load_has_lines_for_people(url: str, capsys: pytest.CaptureFixture[str], way: tuple[str, ...]) -> None:
    course = ("--sessions", "5", "--ramp", "0.1", "--hold", "0.5", "--rate", "10")
    assert await run("load", url, *course, *way) == 0
    text = capsys.readouterr().out
    assert "5 at most, 5 in all" in text
    assert "\nfailed       0\n" in text


async def test_load_names_options_that_do_not_go_together(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert await run("load", url, "--dev", "--pool", "--ramp", "0", "--hold", "0") == Status.USAGE
    assert "error: " in capsys.readouterr().err


async def test_load_closes_its_sessions_in_good_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = []

    async def handle(session: wtio.WebTransportSession) -> None:
        try:
            await echo(session)
        finally:
            ends.append((await session.wait_closed()).code)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    certificate = wtio.dev_certificate(directory=tmp_path / "cache" / "wtio")
    async with wtio.serve(handle, "127.0.0.1", 0, tls=certificate.server_tls()) as server:
        url = f"https://127.0.0.1:{server.addresses[0][1]}/"
        assert await run("load", url, "--dev", "--stage", "0.1:5", "--stage", "0.3:2", "--stage", "0.1:2") == 0
        async with asyncio.timeout(30):
            while len(ends) < 5:  # noqa: ASYNC110 - they are counted elsewhere
                await asyncio.sleep(0.01)
    assert ends == [0] * 5


async def test_load_against_a_server_that_returns_nothing_is_no_success(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    course = ("--sessions", "2", "--ramp", "0", "--hold", "0.3", "--timeout", "2")
    assert await run("load", f"{url}mute", "--dev", *course) == Status.NO_ANSWER
    output, errors = capsys.readouterr()
    assert "\nsessions     2 at most, 2 in all\n" in output
    assert f"error: no message came back; does {url}mute return what it gets" in errors


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_two_thousand_sessions_are_loaded_evenly_and_all_end_well(start: Start) -> None:
    course = ("--sessions", "2000", "--ramp", "20", "--hold", "20", "--rate", "0.5", "--timeout", "60")
    async with start("-m", "wtio", "serve", "--port", "0", "--no-page") as server:
        url = await url_of(server)
        output = server.process.stdout
        assert output is not None
        begun = ends = descriptors = 0

        async def watch() -> None:
            nonlocal begun, ends, descriptors
            # A pipe that nobody reads would hold the server up.
            while line := await output.readline():
                begun += b": session " in line
                ends += b"closed by peer, code 0" in line
                if begun == 2000 and not descriptors:
                    descriptors = len(os.listdir(f"/proc/{server.process.pid}/fd"))

        watching = asyncio.create_task(watch())
        try:
            async with start("-m", "wtio", "load", url, "--dev", *course, "--json") as load:
                assert load.process.stdout is not None
                async with asyncio.timeout(600):
                    text = (await load.process.stdout.read()).decode()
                assert await load.finish() == 0, text
            async with asyncio.timeout(300):
                while ends < 2000:  # noqa: ASYNC110 - they are counted elsewhere
                    await asyncio.sleep(0.05)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
    facts = json.loads(text)
    assert facts["sessions"] == {"opened": 2000, "most": 2000}
    assert (facts["failed"], facts["lost"], facts["connect"]["count"]) == (0, 0, 2000)
    # One at once, and then one each two seconds while all are there.
    assert facts["messages"] == facts["times"]["count"] > 5000
    for times in (facts["connect"], facts["times"]):
        assert 0 < times["min"] <= times["p50"] <= times["p90"] <= times["p99"] <= times["max"] < 60
    assert 0 < descriptors < 50, "sessions share sockets"


async def test_this_machine_alone_is_not_bounded_by_its_address(start: Start) -> None:
    assert _limits("localhost").connections_per_address is None
    assert _limits("127.0.0.1").sessions_per_address is None
    assert _limits("::1").connections_per_address is None
    for host in ("0.0.0.0", "::", "", "192.0.2.1", "example.org"):
        assert _limits(host) == wtio.Limits()


async def test_load_counts_failures_by_their_reason(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    course = ("--sessions", "5", "--ramp", "0", "--hold", "0.5")
    assert await run("load", f"{url}close", "--dev", *course, "--json") == Status.FAILED
    facts = json.loads(capsys.readouterr().out)
    assert facts["failures"] == {"session closed by the peer with code 9: enough": 5}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("bench", "https://localhost:9/", "--seconds", "0"), "--seconds is 0"),
        (("bench", "https://localhost:9/", "--size", "3"), "--size is 3"),
        (("bench", "https://localhost:9/", "--rate", "0"), "--rate is 0"),
        (("load", "https://localhost:9/", "--stage", "x"), "--stage is `x`; it must be SECONDS:SESSIONS"),
        (("load", "https://localhost:9/", "--sessions", "-1"), "--sessions is -1; it must be 1 to 100000"),
        (("load", "https://localhost:9/", "--hold", "-1"), "--hold is -1; it must be 0 to 86400 seconds"),
        (("load", "https://localhost:9/", "--ramp", "-1"), "--ramp is -1; it must be 0 to 86400 seconds"),
        (("load", "https://localhost:9/", "--stage", "1:200000"), "--stage asks for 200000 sessions"),
        (("load", "https://localhost:9/", "--rate", "0"), "--rate is 0"),
        (("load", "https://localhost:9/", "--size", "0"), "--size is 0"),
    ],
)
def test_mistakes_are_named(arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == Status.USAGE
    assert words in capsys.readouterr().err


def test_percentiles_are_right_within_one_per_cent() -> None:
    times = Times()
    assert math.isnan(times.percentile(0.5))
    assert times.words() == "none"
    for number in range(1, 10_001):
        times.add(number / 1000)
    for share in (0.01, 0.5, 0.9, 0.99, 1.0):
        assert times.percentile(share) == pytest.approx(share * 10, rel=0.011)
    assert (times.count, times.least, times.most) == (10_000, 0.001, 10.0)
    assert times.facts()["mean"] == pytest.approx(5.0005)


def test_sizes_and_times_for_people() -> None:
    assert [amount(size) for size in (0, 999, 1000, 2.5e9)] == ["0 B", "999 B", "1.0 kB", "2.5 GB"]
    assert [milliseconds(value) for value in (0.0001234, 0.01234, 1.234)] == ["0.123 ms", "12.34 ms", "1234 ms"]
