"""What one session may send: so many bytes per second, and so many in all."""

from __future__ import annotations

import asyncio

import pytest

import wtio
from wtio import testing
from wtio.testing import Network

RATE = 100_000
SIZE = 200_000
PATTERN = bytes(range(250)) * (SIZE // 250)


def limits(**values: int) -> wtio.Limits:
    return wtio.Limits(stream_receive_window=32_768, **values)


@pytest.mark.parametrize("way", ["read", "read_all", "readexactly"])
@pytest.mark.parametrize("sessions", [1, 3])
def test_streams_are_read_at_the_rate_of_their_session_and_nothing_is_lost(sessions: int, way: str) -> None:
    seconds: list[float] = []

    async def read(stream: wtio.WebTransportReceiveStream) -> bytes:
        if way == "read_all":
            return await stream.read_all()
        if way == "readexactly":
            return await stream.readexactly(n=SIZE // 2)
        data = b""
        while piece := await stream.read():
            data += piece
        return data

    async def serve(session: wtio.WebTransportSession) -> None:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        streams = [await anext(session.incoming_unidirectional_streams()) for _ in range(2)]
        for data in await asyncio.gather(*map(read, streams)):
            assert data == PATTERN[: SIZE // 2]
        seconds.append(loop.time() - begin)
        await session.wait_closed()

    async def send(session: wtio.WebTransportSession) -> None:
        for _ in range(2):
            stream = await session.create_unidirectional_stream()
            asyncio.ensure_future(stream.write(data=PATTERN[: SIZE // 2], end_stream=True))  # noqa: RUF006

    async def main() -> None:
        network = Network()
        async with (
            network.serve(serve, limits=limits(session_receive_rate=RATE)),
            network.client() as client,
        ):
            opened = [await client.connect("https://localhost/", allow_pooling=True) for _ in range(sessions)]
            await asyncio.gather(*map(send, opened))
            await asyncio.sleep(10)
            for session in opened:
                await session.close()

    testing.run(main())
    assert len(seconds) == sessions
    for took in seconds:
        assert SIZE / RATE - 0.5 <= took <= SIZE / RATE + 0.5


def test_streams_of_one_session_share_its_rate() -> None:
    async def main() -> None:
        async with testing.session_pair(limits=limits(session_receive_rate=RATE)) as (client, server):
            counts = [0] * 4

            async def read(number: int) -> None:
                stream = await anext(server.incoming_unidirectional_streams())
                while data := await stream.read():
                    counts[number] += len(data)

            async def write() -> None:
                stream = await client.create_unidirectional_stream()
                await stream.write(data=PATTERN, end_stream=True)

            tasks = [asyncio.create_task(read(number)) for number in range(4)]
            tasks += [asyncio.create_task(write()) for _ in range(4)]
            await asyncio.sleep(4)
            assert sum(counts) <= 4.2 * RATE
            assert min(counts) >= 0.8 * RATE
            await asyncio.gather(*tasks)
            assert counts == [SIZE] * 4

    testing.run(main())


def test_a_read_at_the_limit_of_the_rate_can_be_cancelled_and_loses_no_byte() -> None:
    async def main() -> None:
        async with testing.session_pair(limits=limits(session_receive_rate=1000)) as (client, server):
            stream = await client.create_unidirectional_stream()
            await stream.write(data=PATTERN[:5000], end_stream=True)
            reading = await anext(server.incoming_unidirectional_streams())
            data = b""
            cancelled = 0
            while len(data) < 5000:
                try:
                    async with asyncio.timeout(0.03):
                        data += await reading.read()
                except TimeoutError:
                    cancelled += 1
            assert data == PATTERN[:5000]
            assert cancelled > 50
            assert await reading.read() == b""

    testing.run(main())


@pytest.mark.parametrize("kind", ["stream", "datagrams"])
def test_a_session_that_sends_more_than_it_may_in_all_is_closed_with_a_code(kind: str) -> None:
    async def serve(session: wtio.WebTransportSession) -> None:
        if session.path == "/modest":
            stream = await anext(session.incoming_unidirectional_streams())
            assert await stream.read_all() == bytes(1000)
        await session.wait_closed()

    async def main() -> None:
        network = Network()
        async with (
            network.serve(serve, limits=wtio.Limits(session_receive_bytes=1000)) as server,
            network.client() as client,
        ):
            modest = await client.connect("https://localhost/modest", allow_pooling=True)
            stream = await modest.create_unidirectional_stream()
            await stream.write(data=bytes(1000), end_stream=True)
            greedy = await client.connect("https://localhost/greedy", allow_pooling=True)
            if kind == "stream":
                stream = await greedy.create_unidirectional_stream()
                await stream.write(data=bytes(1000))
                await asyncio.sleep(1)
                assert not greedy.is_closed
                await stream.write(data=b"1")
            else:
                for _ in range(11):
                    greedy.send_datagram(bytes(100))
            info = await greedy.wait_closed()
            assert (info.code, info.closed_by) == (263, "peer")
            assert info.reason == "the peer sent more than 1000 bytes (Limits.session_receive_bytes)"
            assert not modest.is_closed
            assert len(server.sessions) == 1
            await modest.close()

    testing.run(main())
