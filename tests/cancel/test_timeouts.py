"""Timeouts in a loop over real sockets, on every loop: what programs do that poll."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Any

import pytest

import wtio

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

Sessions = tuple[wtio.WebTransportSession, wtio.WebTransportSession]

READS: dict[str, Callable[[wtio.WebTransportReceiveStream], Coroutine[Any, Any, bytes]]] = {
    "read": lambda stream: stream.read(),
    "readexactly": lambda stream: stream.readexactly(n=7),
    "readline": lambda stream: stream.readline(),
    "readuntil": lambda stream: stream.readuntil(separator=b"\n\n"),
}


async def trickle(writer: wtio.WebTransportSendStream, data: bytes, chance: random.Random) -> None:
    position = 0
    while position < len(data):
        size = chance.choice((1, 3, 20, 2000))
        await writer.write(data=data[position : position + size])
        position += size
        await asyncio.sleep(chance.choice((0, 0, 0.0005, 0.002)))
    await writer.close()


@pytest.mark.parametrize("how", ["timeout", "wait_for", "cancel"])
@pytest.mark.parametrize("name", READS)
@pytest.mark.unmeasured
async def test_timeouts_of_reads_lose_no_byte(pair: Sessions, name: str, how: str) -> None:
    client, server = pair
    chance = random.Random(f"{name} {how}")
    data = bytes(chance.choices(b"abcdefg\n", k=20_000))
    writer = await client.create_unidirectional_stream()
    reader = await anext(aiter(server.incoming_unidirectional_streams()))
    writing: asyncio.Future[None] | None = None
    received = bytearray()
    while True:
        patience = chance.choice((0, 0.0003, 0.001))
        try:
            if how == "timeout":
                async with asyncio.timeout(patience):
                    piece = await READS[name](reader)
            elif how == "wait_for":
                piece = await asyncio.wait_for(READS[name](reader), patience or 0.0001)
            else:
                task = asyncio.ensure_future(READS[name](reader))
                asyncio.get_running_loop().call_later(patience, task.cancel)
                piece = await task
        except (TimeoutError, asyncio.CancelledError):
            # Nothing is written before the first timeout, so that there is one.
            writing = writing or asyncio.ensure_future(trickle(writer, data, chance))
            # A timeout of 0 alone would leave the writer no time.
            await asyncio.sleep(0)
            continue
        except asyncio.IncompleteReadError as error:
            received += error.partial
            break
        if not piece:
            break
        received += piece
    assert received == data
    assert writing is not None
    await writing


async def test_timeouts_of_writes_lose_no_byte(server: wtio.Server, url: str, certificate: wtio.DevCertificate) -> None:
    limits = wtio.Limits(stream_send_buffer=4096)
    connecting = asyncio.ensure_future(connect(url, certificate, limits))
    accepted = await (await anext(aiter(server))).accept()
    client = await connecting
    chance = random.Random(5)
    data = chance.randbytes(3_000_000)
    writer = await client.create_unidirectional_stream()

    async def read() -> bytes:
        reader = await anext(aiter(accepted.incoming_unidirectional_streams()))
        received = bytearray()
        while chunk := await reader.read(max_bytes=50_000):
            received += chunk
            await asyncio.sleep(0.0005)
        return bytes(received)

    reading = asyncio.ensure_future(read())
    view = memoryview(data)
    position = timeouts = 0
    while position < len(data):
        method = chance.choice((writer.write, writer.write_all))
        try:
            async with asyncio.timeout(chance.choice((0, 0.001, 0.005))):
                await method(data=view[position : position + 200_000])
        except TimeoutError:
            timeouts += 1
            await asyncio.sleep(0)
        position += writer.last_write_accepted
    await writer.close()
    assert await reading == data
    assert timeouts > 0
    await client.close()


async def connect(url: str, certificate: wtio.DevCertificate, limits: wtio.Limits) -> wtio.WebTransportSession:
    return await wtio.connect(url, tls=certificate.client_tls(), limits=limits)


async def test_timeouts_of_datagrams_lose_none(pair: Sessions) -> None:
    client, server = pair
    count = 500

    async def send() -> None:
        for number in range(count):
            client.send_datagram(b"%d" % number)
            if number % 5 == 0:
                await asyncio.sleep(0.001)

    sending = asyncio.ensure_future(send())
    received: list[int] = []
    while len(received) < count:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(random.Random(len(received)).choice((0, 0.0005))):
                received.append(int(await server.receive_datagram()))
        await asyncio.sleep(0)
    assert received == list(range(count))
    await sending


async def test_cancelled_task_group_leaves_the_session_usable(pair: Sessions) -> None:
    client, server = pair

    class Stop(Exception):
        pass

    async def stop() -> None:
        await asyncio.sleep(0.01)
        raise Stop

    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012
        async with asyncio.TaskGroup() as group:
            group.create_task(server.receive_datagram())
            group.create_task(anext_of(server.incoming_bidirectional_streams()))
            group.create_task(server.wait_closed())
            group.create_task(stop())
    assert caught.group_contains(Stop)
    stream = await client.create_bidirectional_stream()
    await stream.write(data=b"alive", end_stream=True)
    assert await (await anext_of(server.incoming_bidirectional_streams())).read_all() == b"alive"


async def anext_of(items: Any) -> Any:
    return await anext(aiter(items))
