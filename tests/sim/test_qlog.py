"""Qlogs: files of new connections in ``QLOGDIR``, and of live sessions from our own layer."""

from __future__ import annotations

import asyncio
import re
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.qlogs import EVENTS, read_qlog

import wtio
from wtio import testing
from wtio.testing import Network

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

SECRETS = ("s3cret-query", "s3cret-header", "s3cret-protocol", "s3cret-payload", "s3cret-datagram", "s3cret-reason")
HANDLING = {"authorization": "Bearer s3cret-header", "cookie": "a=s3cret-header"}
URL = "https://localhost/rooms/blue?token=s3cret-query"


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "qlogs"
    path.mkdir()
    monkeypatch.setenv("QLOGDIR", str(path))
    monkeypatch.setattr("wtio._qlog_directory._told", set())
    return path


async def echo(session: wtio.WebTransportSession) -> None:
    async def answer(stream: wtio.WebTransportStream) -> None:
        await stream.write(data=await stream.read_all(), end_stream=True)

    await session.serve_streams(answer, datagrams=session.send_datagram)


async def refuse(request: wtio.SessionRequest) -> None:
    if request.path.startswith("/no"):
        await request.reject(403)


async def talk(session: wtio.WebTransportSession) -> None:
    for size in (1, 2000):
        stream = await session.create_bidirectional_stream()
        await stream.write(data=b"s3cret-payload" * size, end_stream=True)
        await stream.read_all()
    session.send_datagram(b"s3cret-datagram")
    # The network may lose it.
    with suppress(TimeoutError):
        async with asyncio.timeout(5):
            await session.receive_datagram()
    broken = await session.create_bidirectional_stream()
    await broken.write(data=b"s3cret-payload")
    await broken.reset(error_code=3)


async def visit(network: Network, during: Callable[[wtio.WebTransportSession], Any] = lambda _: None) -> None:
    async with network.serve(echo, admit=refuse):
        async with network.connect(URL, headers=HANDLING, protocols=["token.s3cret-protocol"]) as session:
            result = during(session)
            if asyncio.iscoroutine(result):
                await result
            await talk(session)
            await session.close(7, "s3cret-reason")
        with pytest.raises(wtio.SessionRejectedError):
            await network.connect("https://localhost/no?token=s3cret-query")
        await asyncio.sleep(1)


def run(program: Callable[[Network], Coroutine[Any, Any, None]], **conditions: Any) -> None:
    async def main() -> None:
        await program(Network(**conditions))

    testing.run(main())


def names(events: list[dict[str, Any]]) -> set[str]:
    return {event["name"] for event in events}


def of(events: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [event["data"] for event in events if event["name"] == name]


def test_each_new_connection_of_either_side_has_a_file_of_the_drafts_events(directory: Path) -> None:
    run(visit, seed=5, loss=0.03)
    files = sorted(directory.iterdir())
    assert len(files) == 4
    seen = set()
    sides = []
    for path in files:
        assert re.fullmatch(r"\d+-\d+-\d+-(client|server)\.sqlog", path.name)
        if sys.platform != "win32":
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        head, events = read_qlog(path)
        side = head["trace"]["vantage_point"]["type"]
        assert path.stem.endswith(side)
        assert head["title"] == f"wtio: a connection ({side})"
        sides.append(side)
        seen |= names(events)
        (state,) = of(events, "quic:connection_state_updated")[-1:]
        assert state["new"] in ("closed", "closing")
    assert sorted(sides) == ["client", "client", "server", "server"]
    # Everything that can be but the end of a file that is full.
    assert seen == set(EVENTS) - {"loglevel:warning"}


def test_the_events_tell_what_happened(directory: Path) -> None:
    run(visit)
    served, client = [
        next(read_qlog(path)[1] for path in sorted(directory.iterdir()) if side in path.name)
        for side in ("server", "client")
    ]
    for events in (served, client):
        (opened,) = of(events, "webtransport:session_opened")
        assert (opened["path"], opened["status"], opened["dialect"]) == ("/rooms/blue", 200, "draft15")
        (closed,) = of(events, "webtransport:session_closed")
        assert closed["session_id"] == opened["session_id"] == 0
        assert (closed["code"], closed["closed_by"]) == (7, "local" if events is client else "peer")
        streams = [one["stream_id"] for one in of(events, "webtransport:stream_opened")]
        assert len(streams) == 3
        states = [one for one in of(events, "quic:stream_state_updated") if one["stream_id"] == streams[0]]
        assert {"data_sent", "data_received", "data_read"} <= {one["new"] for one in states}
        assert len(of(events, "http3:datagram_created")) == len(of(events, "http3:datagram_parsed")) == 1
        remote = next(one for one in of(events, "http3:parameters_set") if one["initiator"] == "remote")
        assert remote["h3_datagram"] == 1
        times = [one["smoothed_rtt"] for one in of(events, "quic:recovery_metrics_updated") if "smoothed_rtt" in one]
        # Milliseconds: the path takes 10 each way.
        assert 19 < times[-1] < 60
        # Of the session's; whoever looks at credit before a connection closes opens others.
        resets = [one for one in of(events, "quic:stream_state_updated") if one["new"] == "reset_sent"]
        assert [one["stream_id"] for one in resets if one["stream_id"] in streams] == streams[2:]


@pytest.mark.unaudited("no session comes about")
def test_a_handshake_that_fails_has_a_file_too(directory: Path) -> None:
    async def program(network: Network) -> None:
        async with network.serve(echo):
            with pytest.raises(wtio.CertificateError):
                await network.connect(URL, tls=wtio.ClientTLS(certificate_hashes=["00" * 32]))
            await asyncio.sleep(10)

    run(program)
    ends: dict[str, dict[str, Any]] = {}
    for path in directory.iterdir():
        head, events = read_qlog(path)
        assert "webtransport:session_opened" not in names(events)
        ends.setdefault(head["trace"]["vantage_point"]["type"], of(events, "quic:connection_closed")[0])
    assert ends["client"]["initiator"] == "local"
    assert ends["server"]["initiator"] == "remote"
    # The alert certificate_unknown (RFC 8446, section 6).
    assert {one["connection_error"] for one in ends.values()} == {"crypto_error_0x12e"}


def test_no_file_has_a_secret(directory: Path, tmp_path: Path) -> None:
    run(visit, seed=3, loss=0.05)
    live = tmp_path / "live.sqlog"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("QLOGDIR")
        run(lambda network: visit(network, lambda session: session.start_qlog(live)))
    for path in (*directory.iterdir(), live):
        content = path.read_text()
        assert len(content) > 5000
        for secret in SECRETS:
            assert secret not in content
            assert secret.encode().hex() not in content


def test_a_warning_says_that_qlogs_are_written(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(visit)
    told = [(record.name, record.levelname) for record in caplog.records if "qlog" in record.getMessage()]
    assert sorted(told) == [("wtio.client", "WARNING"), ("wtio.server", "WARNING")]
    assert all(f"`{directory}`" in record.getMessage() for record in caplog.records if "qlog" in record.getMessage())


def test_a_directory_that_is_none_is_a_warning_and_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("QLOGDIR", str(tmp_path / "missing"))
    monkeypatch.setattr("wtio._qlog_directory._told", set())
    run(visit)
    told = [record.getMessage() for record in caplog.records if "qlog" in record.getMessage()]
    assert len(told) == 2
    assert all("is no directory that can be written to" in message for message in told)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [None, ""])
def test_without_the_variable_nothing_is_written_or_said(
    value: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    if value is None:
        monkeypatch.delenv("QLOGDIR", raising=False)
    else:
        monkeypatch.setenv("QLOGDIR", value)
    run(visit)
    assert not caplog.records
    assert not list(tmp_path.iterdir())


def test_a_live_session_is_written_from_our_own_layer_and_the_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "live.sqlog"

    def begin(session: wtio.WebTransportSession) -> None:
        session.start_qlog(path)
        with pytest.raises(wtio.LocalProtocolError, match="is being written"):
            session.start_qlog(tmp_path / "other.sqlog")

    run(lambda network: visit(network, begin))
    head, events = read_qlog(path)
    assert head["title"] == "wtio: a connection from its own layer (client)"
    assert head["trace"]["vantage_point"] == {"name": "wtio, above QUIC", "type": "client"}
    assert "there are no packets" in head["description"]
    assert not [name for name in names(events) if "packet" in name]
    (opened,) = of(events, "webtransport:session_opened")
    assert opened["is_earlier"] is True
    assert len(of(events, "webtransport:stream_opened")) == 3
    assert len(of(events, "webtransport:session_closed")) == 1
    assert of(events, "http3:datagram_created")
    assert of(events, "quic:recovery_metrics_updated")
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["live.sqlog"]


def test_a_live_qlog_can_be_ended_and_begun_again(tmp_path: Path) -> None:
    async def during(session: wtio.WebTransportSession) -> None:
        session.stop_qlog()  # there is none
        for number in range(2):
            session.start_qlog(str(tmp_path / f"{number}.sqlog"))
            async with await session.create_unidirectional_stream() as stream:
                await stream.write(data=b"x")
            await asyncio.sleep(1)
            session.stop_qlog()
        await session.create_unidirectional_stream()

    async def take(session: wtio.WebTransportSession) -> None:
        await session.wait_closed()

    async def program(network: Network) -> None:
        async with network.serve(take), network.connect() as session:
            await during(session)

    run(program)
    for number in range(2):
        _, events = read_qlog(tmp_path / f"{number}.sqlog")
        assert len(of(events, "webtransport:stream_opened")) == 1


def test_a_file_that_cannot_be_made_is_an_error_of_the_system(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("something else")

    async def program(network: Network) -> None:
        async with network.serve(echo):
            async with network.connect() as session:
                with pytest.raises(FileExistsError):
                    session.start_qlog(taken)
                with pytest.raises(FileNotFoundError):
                    session.start_qlog(tmp_path / "no" / "where")
                await talk(session)
            with pytest.raises(wtio.SessionClosed):
                session.start_qlog(tmp_path / "late")
            session.stop_qlog()

    run(program)
    assert taken.read_text() == "something else"
    assert [one.name for one in tmp_path.iterdir()] == ["taken"]


FULL = """
import resource
import sys
from pathlib import Path
sys.path[:0] = [{root!r}]
# What is imported later must not be written as bytecode: Python would leave half of it.
sys.dont_write_bytecode = True
from tests.sim.test_qlog import run, visit
# Beyond that the system refuses to write, as it does on a disk that is full; Python ignores the signal.
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
run(visit, seed=3)
print(*[path.stat().st_size for path in Path(sys.argv[1]).iterdir()])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limits")
def test_a_full_disk_ends_the_file_and_no_connection(directory: Path) -> None:
    program = FULL.format(root=str(Path(__file__).parents[2]))
    result = subprocess.run(
        [sys.executable, "-c", program, str(directory)], capture_output=True, text=True, check=True, timeout=60
    )
    sizes = [int(size) for size in result.stdout.split()]
    assert len(sizes) == 4
    assert max(sizes) <= 20_000
    assert max(sizes) > 1000
