"""Qlogs over real sockets, whoever receives and writes: the event loop, or a thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.qlogs import read_qlog

import wtio

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

SIZE = 200_000


async def echo(session: wtio.WebTransportSession) -> None:
    async def answer(stream: wtio.WebTransportStream) -> None:
        await stream.write(data=await stream.read_all(), end_stream=True)

    await session.serve_streams(answer)


async def test_files_are_whole_when_connections_are_over(
    io: str, certificate: wtio.DevCertificate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QLOGDIR", str(tmp_path))
    async with wtio.serve(echo, "127.0.0.1", 0, tls=certificate.server_tls(), io=io) as server:
        url = f"https://127.0.0.1:{server.addresses[0][1]}/"
        async with wtio.connect(url, tls=certificate.client_tls(), io=io) as session:
            stream = await session.create_bidirectional_stream()
            await stream.write_all(data=bytes(SIZE), end_stream=True)
            assert len(await stream.read_all()) == SIZE
    check(tmp_path)


def check(directory: Path) -> None:
    files = sorted(directory.iterdir())
    assert sorted(path.stem.rpartition("-")[2] for path in files) == ["client", "server"]
    for path in files:
        _, events = read_qlog(path)
        names = [event["name"] for event in events]
        assert names.count("quic:packet_sent") > SIZE / 65_000
        assert names.count("webtransport:session_closed") == 1
        (closed,) = [event["data"] for event in events if event["name"] == "webtransport:session_closed"]
        assert closed["stream_bytes_received"] == closed["stream_bytes_sent"] == SIZE
