"""Secrets in the file that SSLKEYLOGFILE names: another program reads with them what it recorded."""

from __future__ import annotations

import asyncio
import ipaddress
import shutil
import stat
import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import wtio
from wtio import testing
from wtio.testing import Network

if TYPE_CHECKING:
    from pathlib import Path

SENT = b"this is written on a stream", b"this is sent as a datagram"


class Recording:
    """The packets of a simulated network, in a file for packet analysers (pcap)."""

    # Its magic number, version 2.4, whole packets, and those are of IP (LINKTYPE_RAW).
    HEAD = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)

    def __init__(self, network: Network) -> None:
        self.content = self.HEAD
        self._send = network._wire.send
        network._wire.send = self._record  # type: ignore[method-assign]

    def _record(self, source: tuple[str, int], destination: tuple[str, int], data: bytes, ecn: int) -> None:
        self._send(source, destination, data, ecn)
        udp = struct.pack(">HHHH", source[1], destination[1], 8 + len(data), 0) + data
        addresses = b"".join(ipaddress.ip_address(ip).packed for ip, _ in (source, destination))
        packet = struct.pack(">BBHHHBBH", 0x45, ecn, 20 + len(udp), 0, 0, 64, 17, 0) + addresses + udp
        seconds, rest = divmod(asyncio.get_running_loop().time(), 1)
        self.content += struct.pack("<IIII", int(seconds), int(rest * 1e6), len(packet), len(packet)) + packet


async def exchange(network: Network) -> None:
    """A session with something on a stream and in a datagram."""

    async def handler(session: wtio.WebTransportSession) -> None:
        stream = await anext(session.incoming_bidirectional_streams())
        assert await stream.read_all() == SENT[0]
        assert await session.receive_datagram() == SENT[1]

    async with network.serve(handler), network.connect("https://127.0.0.1/hidden?token=secret") as session:
        session.send_datagram(SENT[1])
        stream = await session.create_bidirectional_stream()
        await stream.write(data=SENT[0], end_stream=True)
        await session.wait_closed()


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "secrets.txt"
    monkeypatch.setenv("SSLKEYLOGFILE", str(path))
    monkeypatch.setattr("wtio._key_log._told", set())
    return path


@pytest.mark.skipif(
    shutil.which("tshark") is None, reason="tshark is missing, which reads the recording (apt-get install tshark)"
)
def test_tshark_reads_a_recorded_session(secrets: Path, tmp_path: Path) -> None:
    recording = b""

    async def main() -> None:
        nonlocal recording
        network = Network()
        recorder = Recording(network)
        await exchange(network)
        recording = recorder.content

    testing.run(main())
    captured = tmp_path / "session.pcap"
    captured.write_bytes(recording)
    command = ["tshark", "-r", str(captured), "-d", "udp.port==443,quic", "-T", "fields"]
    command += ["-e", "quic.stream_data", "-e", "quic.dg"]

    def read(*options: str) -> str:
        return subprocess.run([*command, *options], capture_output=True, text=True, check=True, timeout=60).stdout

    with_secrets, without = read("-o", f"tls.keylog_file:{secrets}"), read()
    for text in (*SENT, b"/hidden?token=secret"):
        assert text not in recording
        assert text.hex() in with_secrets
        assert text.hex() not in without


def messages(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.name, record.levelname) for record in caplog.records]


def test_a_warning_says_that_secrets_are_written_once_for_clients_and_at_each_start_of_a_server(
    secrets: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        network = Network()
        await exchange(network)
        await exchange(network)
        await exchange(network)

    testing.run(main())
    assert sorted(messages(caplog)) == [("wtio.client", "WARNING"), *[("wtio.server", "WARNING")] * 3]
    assert all(f"`{secrets}`" in record.getMessage() for record in caplog.records)
    if sys.platform != "win32":
        assert stat.S_IMODE(secrets.stat().st_mode) == 0o600
    # Four secrets of TLS 1.3, of each side of each connection.
    lines = secrets.read_text().splitlines()
    assert {line.split()[0] for line in lines} >= {
        "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
        "SERVER_HANDSHAKE_TRAFFIC_SECRET",
        "CLIENT_TRAFFIC_SECRET_0",
        "SERVER_TRAFFIC_SECRET_0",
    }
    assert len({line.split()[1] for line in lines}) == 3


def test_a_file_for_secrets_that_cannot_be_opened_is_a_warning_and_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path))
    testing.run(exchange(Network()))
    assert ("wtio.server", "WARNING") in messages(caplog)
    # Windows does not say that it is one.
    why = "" if sys.platform == "win32" else "Is a directory"
    assert all(f"cannot be opened: {why}" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("value", [None, ""])
def test_without_the_variable_nothing_is_said(
    value: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if value is None:
        monkeypatch.delenv("SSLKEYLOGFILE", raising=False)
    else:
        monkeypatch.setenv("SSLKEYLOGFILE", value)
    testing.run(exchange(Network()))
    assert not caplog.records
