"""Servers in processes of their own on sockets that share an address: who serves whom, and what clients see of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.nat import nat

import wtio
from wtio._driver import Address
from wtio._resets import ResetResponder
from wtio._steering import is_supported, open_slots, places, steer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = pytest.mark.skipif(not is_supported(), reason="only Linux chooses among sockets by connection ID")

WORKER = Path(__file__).with_name("worker.py")
SECRET = "known to all workers and to nobody else"
SLOTS = 4
SECONDS = 30


class Workers:
    """Sockets at one address, and servers on some of them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.certificate = wtio.dev_certificate(directory=directory)
        self.sockets = open_slots(Address("127.0.0.1", 0, is_ipv6=False), SLOTS)
        self.address = self.sockets[0].getsockname()
        self.running: dict[int, subprocess.Popen[str]] = {}

    def start(self, *slots: int, io: str = "loop") -> None:
        """Start servers, and wait until they serve."""
        for slot in slots:
            fd = self.sockets[slot].fileno()
            self.running[slot] = subprocess.Popen(
                [sys.executable, str(WORKER), str(self.directory), str(fd), str(slot), io],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                pass_fds=[fd],
                env=os.environ | {"WTIO_SECRET": SECRET},
            )
        for slot in slots:
            output = self.running[slot].stdout
            assert output is not None
            assert output.readline() == "ready\n"

    def kill(self, slot: int) -> None:
        """End a server as the kernel does when memory is short."""
        with self.running.pop(slot) as process:
            process.kill()

    def steer(self, newcomers: Sequence[int]) -> None:
        steer(self.sockets[0], slots=SLOTS, newcomers=newcomers)

    def stand_in(self, slot: int) -> ResetResponder:
        return ResetResponder(self.sockets[slot], secret=wtio.Secret(SECRET.encode()), slot=slot)

    def connect(self, port: int | None = None, **options: Any) -> wtio.Connector:
        url = f"https://127.0.0.1:{port or self.address[1]}/"
        return wtio.connect(url, tls=self.certificate.client_tls(), **options)


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    workers = Workers(tmp_path)
    try:
        yield workers
    finally:
        for slot in list(workers.running):
            workers.kill(slot)
        for sock in workers.sockets:
            sock.close()


async def owner(session: wtio.WebTransportSession, data: bytes = b"?") -> int:
    """The slot whose server answers."""
    async with asyncio.timeout(SECONDS):
        stream = await session.create_bidirectional_stream()
        await stream.write_all(data=data, end_stream=True)
        slot, _, back = (await stream.read_all()).partition(b" ")
    assert back == data
    return int(slot)


async def send_until_closed(session: wtio.WebTransportSession) -> float:
    """Send every 50 ms, until the session has ended; when that was."""
    with contextlib.suppress(wtio.SessionClosed):
        while True:
            session.send_datagram(b"position")
            await asyncio.sleep(0.05)
    await session.wait_closed()
    return time.monotonic()


@pytest.mark.parametrize("io", ["loop", "thread"])
async def test_connections_stay_with_their_process_while_nats_give_their_clients_other_ports(
    workers: Workers, io: str
) -> None:
    workers.start(0, 1, io=io)
    workers.steer([0, 1])
    async with contextlib.AsyncExitStack() as stack:
        nats = [await stack.enter_async_context(nat(workers.address)) for _ in range(12)]
        sessions = [await stack.enter_async_context(workers.connect(one.port)) for one in nats]
        owners = [await owner(session) for session in sessions]
        assert set(owners) == {0, 1}
        # In between, the next generation takes over, and so does the one after that.
        workers.start(2, 3, io=io)
        for rebinding in range(20):
            if rebinding == 7:
                workers.steer([2, 3])
            if rebinding == 14:
                workers.steer([0, 1])
            await asyncio.gather(*(one.rebind() for one in nats))
            data = bytes([rebinding]) * 3000
            assert await asyncio.gather(*(owner(session, data) for session in sessions)) == owners


async def test_the_next_generation_takes_newcomers_while_the_old_one_serves(workers: Workers) -> None:
    workers.start(0, 1, 2, 3)
    workers.steer([0, 1])
    async with contextlib.AsyncExitStack() as stack:
        old = [await stack.enter_async_context(workers.connect()) for _ in range(10)]
        owners = [await owner(session) for session in old]
        workers.steer([2, 3])
        new = [await stack.enter_async_context(workers.connect()) for _ in range(10)]
        assert {await owner(session) for session in new} == {2, 3}
        assert [await owner(session) for session in old] == owners


async def test_sending_clients_of_a_killed_process_know_within_a_second_and_no_others_notice(workers: Workers) -> None:
    workers.start(0, 1)
    workers.steer(places([0, 1]))
    async with contextlib.AsyncExitStack() as stack:
        sessions = [await stack.enter_async_context(workers.connect()) for _ in range(16)]
        owners = [await owner(session) for session in sessions]
        lost = [session for session, slot in zip(sessions, owners, strict=True) if slot == 0]
        kept = [session for session, slot in zip(sessions, owners, strict=True) if slot == 1]
        assert lost
        assert kept
        sending = [asyncio.ensure_future(send_until_closed(session)) for session in lost]
        await asyncio.sleep(0.2)
        workers.steer(places([0, 1], {0}))
        workers.kill(0)
        killed = time.monotonic()
        responder = workers.stand_in(0)
        try:
            async with asyncio.timeout(SECONDS):
                ended = await asyncio.gather(*sending)
            assert "stateless reset" in (await lost[0].wait_closed()).reason
            assert {await owner(session) for session in kept} == {1}
            # Newcomers go elsewhere meanwhile.
            for _ in range(4):
                async with workers.connect() as session:
                    assert await owner(session) == 1
        finally:
            responder.close()
        print(f"{len(ended)} clients of a killed process know after {max(ended) - killed:.3f} s")
        assert max(ended) - killed < 1
        # Its successor has the same socket, and tells whoever has not sent anything yet.
        workers.start(0)
        workers.steer(places([0, 1]))
        fresh = [await stack.enter_async_context(workers.connect()) for _ in range(12)]
        assert {await owner(session) for session in fresh} == {0, 1}
        assert {await owner(session) for session in kept} == {1}


async def test_idle_clients_of_a_killed_process_know_once_its_successor_has_the_socket(workers: Workers) -> None:
    workers.start(0)
    workers.steer([0])
    async with workers.connect(timeouts=wtio.Timeouts(keep_alive=0.5)) as session:
        assert await owner(session) == 0
        workers.kill(0)
        workers.start(0)
        async with asyncio.timeout(SECONDS):
            assert "stateless reset" in (await session.wait_closed()).reason


async def test_a_handshake_whose_process_is_killed_before_it_answers_goes_on_with_another(workers: Workers) -> None:
    workers.start(0, 1)
    workers.steer([0])
    begun = asyncio.Event()

    def passes(_: bytes) -> bool:
        begun.set()
        return True

    # The process is stopped, not yet dead, when the first packets come to its socket.
    workers.running[0].send_signal(19)
    async with nat(workers.address, passes) as one:
        connecting = asyncio.ensure_future(workers.connect(one.port).__aenter__())
        await begun.wait()
        workers.steer(places([0, 1], {0}))
        workers.kill(0)
        responder = workers.stand_in(0)
        try:
            async with asyncio.timeout(SECONDS):
                session = await connecting
            assert await owner(session) == 1
            await session.close()
        finally:
            responder.close()


@pytest.mark.parametrize("first_to_the_old", [True, False])
async def test_a_client_hello_of_two_packets_with_the_switch_between_them_gets_through(
    workers: Workers, first_to_the_old: bool
) -> None:
    connection = pytest.importorskip("aioquic.quic.connection")
    configuration = pytest.importorskip("aioquic.quic.configuration")
    events = pytest.importorskip("aioquic.quic.events")
    # So many protocols do not fit into one packet.
    protocols = ["h3", *(f"{number:0250}" for number in range(6))]
    workers.start(0, 2)
    workers.steer([0])
    took = []
    for _ in range(5):
        client = connection.QuicConnection(
            configuration=configuration.QuicConfiguration(alpn_protocols=protocols, verify_mode=False)
        )
        began = time.monotonic()
        client.connect(workers.address, now=began)
        hello = [datagram for datagram, _ in client.datagrams_to_send(now=began)]
        assert len(hello) == 2
        loop = asyncio.get_running_loop()
        received: asyncio.Queue[bytes] = asyncio.Queue()

        class Socket(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, _: Any, received: asyncio.Queue[bytes] = received) -> None:
                received.put_nowait(data)

        transport, _ = await loop.create_datagram_endpoint(Socket, remote_addr=workers.address)
        workers.steer([0])
        transport.sendto(hello[0 if first_to_the_old else 1])
        workers.steer([2])
        transport.sendto(hello[1 if first_to_the_old else 0])
        is_complete = False
        async with asyncio.timeout(SECONDS):
            while not is_complete:
                for datagram, _ in client.datagrams_to_send(now=time.monotonic()):
                    transport.sendto(datagram)
                wait = (client.get_timer() or 0) - time.monotonic()
                try:
                    data = await asyncio.wait_for(received.get(), max(wait, 0.001))
                    client.receive_datagram(data, workers.address, now=time.monotonic())
                except TimeoutError:
                    client.handle_timer(now=time.monotonic())
                while (event := client.next_event()) is not None:
                    assert not isinstance(event, events.ConnectionTerminated), event
                    is_complete |= isinstance(event, events.HandshakeCompleted)
        took.append(time.monotonic() - began)
        client.close()
        for datagram, _ in client.datagrams_to_send(now=time.monotonic()):
            transport.sendto(datagram)
        transport.close()
    print("handshakes with the switch in the middle took", ", ".join(f"{one:.2f} s" for one in took))


@pytest.mark.parametrize(("ip", "options"), [("127.0.0.1", [(0, 11)]), ("::1", [(41, 25), (0, 11)])])
async def test_whoever_answered_for_a_process_leaves_its_socket_as_a_server_needs_it(
    ip: str, options: list[tuple[int, int]]
) -> None:
    # A server does not read the network's errors (IP_RECVERR). They would fail its packets to others.
    (sock,) = open_slots(Address(ip, 0, is_ipv6=":" in ip), 1)
    with sock:
        for _ in range(2):
            responder = ResetResponder(sock, secret=wtio.Secret(SECRET.encode()), slot=0)
            assert any(sock.getsockopt(*option) for option in options)
            responder.close()
            assert not any(sock.getsockopt(*option) for option in options)
        responder.close()
    responder.close()
