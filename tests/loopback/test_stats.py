"""Figures of a server that is busy, read from another thread."""

from __future__ import annotations

import asyncio
import threading

import pytest
from tests.support.totals import Watch

import wtio

MAX_ROUNDS = 100


async def echo(session: wtio.WebTransportSession) -> None:
    async def answer(stream: wtio.WebTransportStream) -> None:
        await stream.write(data=await stream.read_all(), end_stream=True)

    await session.serve_streams(answer, datagrams=session.send_datagram)


@pytest.mark.parametrize("io", ["loop", "thread"])
async def test_no_total_goes_down_for_another_thread(io: str, certificate: wtio.DevCertificate) -> None:
    failures: list[BaseException] = []
    done = threading.Event()
    looks = 0

    def look_on(watch: Watch) -> None:
        nonlocal looks
        try:
            while not done.wait(0.001):
                watch.look()
                looks += 1
        except BaseException as error:
            failures.append(error)

    async def visit(client: wtio.Client, url: str) -> None:
        async with client.connect(url) as session:
            for _ in range(3):
                stream = await session.create_bidirectional_stream()
                await stream.write(data=bytes(20_000), end_stream=True)
                assert len(await stream.read_all()) == 20_000
                session.send_datagram(b"x")

    server = await wtio.serve(echo, "127.0.0.1", 0, tls=certificate.server_tls(), io=io)
    url = f"https://127.0.0.1:{server.addresses[0][1]}/"
    thread = threading.Thread(target=look_on, args=(Watch(server, is_on_loop=False),))
    thread.start()
    try:
        async with wtio.Client(tls=certificate.client_tls()) as client:
            rounds = 0
            # At least four rounds, and as many as the other thread needs for looks in between:
            # how often it gets its turn is up to the interpreter and the machine.
            while rounds < 4 or (looks < 4 and not failures and rounds < MAX_ROUNDS):
                await asyncio.gather(*(visit(client, url) for _ in range(5)))
                rounds += 1
        await server.close()
    finally:
        done.set()
        await asyncio.to_thread(thread.join)
    assert not failures
    assert looks > 3
    stats = Watch(server).look()
    assert stats.sessions_opened_total == 5 * rounds
    assert stats.stream_received_bytes_total == stats.stream_sent_bytes_total == 5 * rounds * 60_000
