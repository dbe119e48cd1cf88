"""Floods that cost their sender next to nothing: after ten times as much, the server's process is no larger.

A raw peer, aioquic with frames of our own, sends what no library would send; the server is another process, whose
memory is looked at from outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from types import MethodType
from typing import TYPE_CHECKING

import pytest
from aioquic.buffer import encode_uint_var
from aioquic.quic.events import ConnectionTerminated, StopSendingReceived
from tests.interop import aioquic_peer

import wtio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from aioquic.quic.connection import QuicConnection
    from aioquic.quic.events import QuicEvent
    from aioquic.quic.packet_builder import QuicPacketBuilder

MORE_MEMORY = 1024 * 1024
# Frames of the first flood. What a stream's window allows is enough for a hundred times as many, a byte each and gaps.
FRAMES = 20_000
# Bytes of frames in a packet.
PACKET = 1100
AT_ONCE = 50

pytestmark = pytest.mark.timeout(240)

UNI_STREAM = encode_uint_var(0x54)
STREAM_WITH_OFFSET_AND_LENGTH = 0x0E
RESET_STREAM = 0x04
DATAGRAM_WITH_LENGTH = 0x31
FINAL_SIZE_ERROR = 0x06


def resident(process: subprocess.Popen[str]) -> int:
    """Bytes of memory of the process."""
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.fixture(params=["loop", "thread"])
def victim(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server in a process of its own, and its port."""
    top = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.soak.victim", str(tmp_path), request.param],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=top,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(top / "python"), str(top)])},
    ) as process:
        assert process.stdout is not None
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


class RawPeer:
    """A session on aioquic whose connection also sends frames that are given as bytes."""

    def __init__(self, session: aioquic_peer.PeerSession) -> None:
        self.session = session
        self.protocol = session._protocol
        self.quic: QuicConnection = self.protocol.quic
        self.stopped: set[int] = set()
        self.closed: ConnectionTerminated | None = None
        self._received = self.protocol.quic_event_received
        self.protocol.quic_event_received = self._note  # type: ignore[method-assign]
        self.quic._write_datagram_frame = MethodType(_write_frames, self.quic)  # type: ignore[method-assign]

    def _note(self, event: QuicEvent) -> None:
        if isinstance(event, StopSendingReceived):
            self.stopped.add(event.stream_id)
        elif isinstance(event, ConnectionTerminated):
            self.closed = event
        self._received(event)

    def open(self, session_id: int) -> int:
        """Open a unidirectional stream, on which nothing is sent but by ``send``, whatever the other side says."""
        stream = self.quic.get_next_available_stream_id(is_unidirectional=True)
        self.quic.send_stream_data(stream, UNI_STREAM + encode_uint_var(session_id) + b"x")
        # At once: what ``send`` sends would come first otherwise.
        self.protocol.transmit()
        self.quic._streams[stream].sender.reset = lambda error_code: None  # type: ignore[method-assign]
        return stream

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for what packets bring, or the end of the connection."""
        while not condition() and self.closed is None:
            await self.protocol.wait_progress()

    async def send(self, frames: Iterator[bytes]) -> None:
        """Send frames, as many in a packet as there is room for, until the other side has processed all of them."""
        packet = b""
        for frame in itertools.chain(frames, [b""]):
            if packet and (not frame or len(packet) + len(frame) > PACKET):
                self.quic._datagrams_pending.append(packet)
                packet = b""
                if len(self.quic._datagrams_pending) >= AT_ONCE:
                    self.protocol.transmit()
                    await self.until(lambda: not self.quic._datagrams_pending)
                if self.closed is not None:
                    return
            packet += frame
        self.protocol.transmit()
        await self.until(lambda: not self.quic._datagrams_pending)
        for _ in range(3):
            # Its acknowledgement comes after the others were processed.
            if self.closed is None:
                await self.protocol.ping()


def _write_frames(quic: QuicConnection, builder: QuicPacketBuilder, data: bytes, frame_type: int) -> bool:
    """In place of aioquic's way to write a DATAGRAM frame: all of the bytes, whatever frames they are."""
    buffer = builder.start_frame(data[0], capacity=len(data) - 1)
    buffer.push_bytes(data[1:])
    return True


@contextlib.asynccontextmanager
async def raw_peer(port: int, path: str) -> AsyncIterator[RawPeer]:
    async with aioquic_peer.connect("127.0.0.1", port, path) as session:
        yield RawPeer(session)


def fragment(stream: int, offset: int) -> bytes:
    """A STREAM frame with a single byte."""
    head = bytes([STREAM_WITH_OFFSET_AND_LENGTH]) + encode_uint_var(stream) + encode_uint_var(offset)
    return head + b"\x01x"


def reset(stream: int, size: int) -> bytes:
    return bytes([RESET_STREAM]) + encode_uint_var(stream) + encode_uint_var(0x170D7B68) + encode_uint_var(size)


def datagram(session_id: int) -> bytes:
    """A DATAGRAM frame without payload."""
    head = encode_uint_var(session_id // 4)
    return bytes([DATAGRAM_WITH_LENGTH]) + encode_uint_var(len(head)) + head


async def measure(
    process: subprocess.Popen[str], flood: Callable[[int, int], Awaitable[None]], frames: int = FRAMES
) -> list[int]:
    """Memory after one flood and after ten."""
    sizes = []
    for first, count in ((0, frames), (frames, 9 * frames)):
        await flood(first, count)
        sizes.append(resident(process))
    print(f"after {frames} frames {sizes[0] / 2**20:.2f} MiB, after {10 * frames} {sizes[1] / 2**20:.2f} MiB")
    return sizes


async def test_fragments_of_a_stopped_stream_are_not_remembered(victim: tuple[subprocess.Popen[str], int]) -> None:
    process, port = victim
    async with raw_peer(port, "/stop") as peer:
        stream = peer.open(peer.session.session_id)
        await peer.until(lambda: stream in peer.stopped)

        async def flood(first: int, count: int) -> None:
            await peer.send(fragment(stream, 10 + 2 * number) for number in range(first, first + count))

        sizes = await measure(process, flood)
        assert peer.closed is None
        assert sizes[1] - sizes[0] < MORE_MEMORY


@pytest.mark.long
async def test_two_million_fragments_of_a_stopped_stream_are_not_remembered(
    victim: tuple[subprocess.Popen[str], int],
) -> None:
    process, port = victim
    async with raw_peer(port, "/stop") as peer:
        stream = peer.open(peer.session.session_id)
        await peer.until(lambda: stream in peer.stopped)

        async def flood(first: int, count: int) -> None:
            await peer.send(fragment(stream, 10 + 2 * number) for number in range(first, first + count))

        sizes = await measure(process, flood, 10 * FRAMES)
        assert peer.closed is None
        assert sizes[1] - sizes[0] < MORE_MEMORY


async def test_fragments_of_a_refused_stream_are_not_remembered(victim: tuple[subprocess.Popen[str], int]) -> None:
    # Of a session that there never was, more streams than are kept for it.
    process, port = victim
    async with raw_peer(port, "/ignore") as peer:
        streams = [peer.open(4000) for _ in range(70)]
        await peer.until(lambda: streams[-1] in peer.stopped)
        stream = streams[-1]

        async def flood(first: int, count: int) -> None:
            await peer.send(fragment(stream, 10 + 2 * number) for number in range(first, first + count))

        sizes = await measure(process, flood)
        assert peer.closed is None
        assert sizes[1] - sizes[0] < MORE_MEMORY


@pytest.mark.parametrize("path", ["/ignore", "/keep"])
async def test_fragments_of_a_reset_stream_are_not_remembered(
    victim: tuple[subprocess.Popen[str], int], path: str
) -> None:
    process, port = victim
    async with raw_peer(port, path) as peer:
        stream = peer.open(peer.session.session_id)
        await peer.send(iter([reset(stream, 2**21)]))

        async def flood(first: int, count: int) -> None:
            await peer.send(fragment(stream, 10 + 2 * number) for number in range(first, first + count))

        sizes = await measure(process, flood)
        assert peer.closed is None
        assert sizes[1] - sizes[0] < MORE_MEMORY


@pytest.mark.parametrize("path", ["/ignore", "/keep"])
async def test_data_beyond_a_reset_ends_the_connection(victim: tuple[subprocess.Popen[str], int], path: str) -> None:
    process, port = victim
    async with raw_peer(port, path) as peer:
        stream = peer.open(peer.session.session_id)
        await peer.send(iter([reset(stream, 2**21)]))

        async def flood(first: int, count: int) -> None:
            await peer.send(fragment(stream, 2**40 + 2 * number) for number in range(first, first + count))

        sizes = await measure(process, flood)
        assert peer.closed is not None
        assert peer.closed.error_code == FINAL_SIZE_ERROR
        assert sizes[1] - sizes[0] < MORE_MEMORY


@pytest.mark.parametrize("reliable", [True, False])
async def test_streams_that_are_reset_and_never_taken_use_up_credit(
    victim: tuple[subprocess.Popen[str], int], reliable: bool
) -> None:
    # A client that keeps to the limits.
    process, port = victim
    tls = wtio.ClientTLS(dangerously_trust_any_certificate=True)
    async with wtio.connect(f"https://127.0.0.1:{port}/ignore", tls=tls, reset_stream_at=reliable) as session:
        opened = 0

        async def flood(first: int, count: int) -> None:
            nonlocal opened
            for _ in range(count):
                stream = await open_if_allowed(session)
                if stream is None:
                    return
                await stream.write(data=b"x")
                await stream.reset(error_code=1)
                opened += 1

        sizes = await measure(process, flood, 1000)
        assert opened <= wtio.Limits().unidirectional_streams
        assert sizes[1] - sizes[0] < MORE_MEMORY


async def open_if_allowed(session: wtio.WebTransportSession) -> wtio.WebTransportSendStream | None:
    """Open a stream if there is credit for it, now or behind everything that was sent before."""
    with contextlib.suppress(wtio.StreamCreditError):
        return await session.create_unidirectional_stream(wait_until_available=False)
    echo = await session.create_bidirectional_stream()
    await echo.write(data=b"?", end_stream=True)
    await echo.read_all()
    with contextlib.suppress(wtio.StreamCreditError):
        return await session.create_unidirectional_stream(wait_until_available=False)
    return None


async def test_datagrams_of_no_session_do_not_pile_up_behind_a_blocked_loop(
    victim: tuple[subprocess.Popen[str], int],
) -> None:
    process, port = victim
    async with raw_peer(port, "/block") as peer:
        await peer.send(iter([datagram(peer.session.session_id)]))

        async def flood(first: int, count: int) -> None:
            await peer.send(datagram(4 * (1000 + number)) for number in range(first, first + count))

        sizes = await measure(process, flood)
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        await peer.protocol.ping()
        assert peer.closed is None
        assert sizes[1] - sizes[0] < MORE_MEMORY


# What a half-open connection takes at most, and how many there may be: unvalidated ones, all, and those that are over.
HALF_OPEN = 64 * 1024
JUST_OVER = 256


def most_memory(kind: str) -> int:
    """What a flood of first packets may take."""
    limits = wtio.Limits()
    half_open = limits.half_open_connections if kind == "shown" else limits.unvalidated_connections
    return (half_open + JUST_OVER) * HALF_OPEN


async def flood_with_newcomers(process: subprocess.Popen[str], port: int, kind: str, count: int) -> list[float]:
    """Let a flood of first packets loose on a server while clients come and go; seconds that each took to get in."""
    tls = wtio.ClientTLS(dangerously_trust_any_certificate=True)
    url = f"https://127.0.0.1:{port}/ignore"
    taken = []
    with subprocess.Popen(  # noqa: ASYNC220 - it takes no time that anybody waits for
        [sys.executable, "-m", "tests.soak.flooder", str(port), kind, str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    ) as flooder:
        try:
            assert flooder.stdin is not None
            assert flooder.stdout is not None
            assert flooder.stdout.readline() == "ready\n"
            async with wtio.connect(url, tls=tls) as old:
                flooder.stdin.write("\n")
                flooder.stdin.flush()
                end = asyncio.create_task(asyncio.to_thread(flooder.stdout.readline))
                while not end.done():
                    began = time.monotonic()
                    async with wtio.connect(url, tls=tls):
                        taken.append(time.monotonic() - began)
                    # As fast as it goes would be a flood itself.
                    await asyncio.sleep(0.02)
                answers = int(await end)
                stream = await old.create_bidirectional_stream()
                await stream.write(data=b"still here", end_stream=True)
                assert await stream.read_all() == b"still here"
        finally:
            flooder.kill()
    size = resident(process)
    print(
        f"{count} first packets, {kind}: {len(taken)} clients got in meanwhile, the slowest in {max(taken):.2f} s; "
        f"{answers} answers were seen; the server has {size / 2**20:.0f} MiB"
    )
    return taken


@pytest.mark.parametrize("kind", ["forged", "one", "shown"])
async def test_a_flood_of_first_packets_keeps_nobody_out_and_takes_bounded_memory(
    victim: tuple[subprocess.Popen[str], int], kind: str
) -> None:
    process, port = victim
    before = resident(process)
    assert await flood_with_newcomers(process, port, kind, 5000)
    assert resident(process) - before < most_memory(kind)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["forged", "one", "shown"])
async def test_twenty_thousand_first_packets_keep_nobody_out_and_take_no_more_memory(
    victim: tuple[subprocess.Popen[str], int], kind: str
) -> None:
    process, port = victim
    before = resident(process)
    assert await flood_with_newcomers(process, port, kind, 20_000)
    assert resident(process) - before < most_memory(kind)
