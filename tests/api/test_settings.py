"""Each limit and each timeout has the effect that it promises: none of them is accepted and ignored.

In virtual time where time matters. What limits reading, writing and datagrams is tested with these.
"""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
from blockbuster import blockbuster_ctx

import wtio
import wtio.testing

from .support import first, opened, outcome, port_of


async def wait_closed(session: wtio.WebTransportSession) -> None:
    """A handler."""
    await session.wait_closed()


async def fill(
    network: wtio.testing.Network, limits: wtio.Limits, sender: wtio.Limits, streams: int
) -> list[wtio.StreamDiagnostics]:
    """Write as much as goes on some streams that nobody reads."""
    async with network.serve(limits=limits) as server:
        connecting = asyncio.ensure_future(opened(network.connect(limits=sender)))
        accepted = await (await anext(aiter(server))).accept()
        client = await connecting
        writers = [await client.create_unidirectional_stream() for _ in range(streams)]
        writings = [asyncio.ensure_future(writer.write(data=bytes(10_000_000))) for writer in writers]
        readers = [await first(accepted.incoming_unidirectional_streams()) for _ in writers]
        await asyncio.sleep(5)
        numbers = [writer.diagnostics() for writer in writers]
        assert not any(writing.done() for writing in writings)
        for writing in writings:
            writing.cancel()
        await asyncio.gather(*writings, return_exceptions=True)
        del readers
        await client.abort()
        return numbers


GENEROUS = wtio.Limits(stream_receive_window=2**24, connection_receive_window=2**24, connection_send_buffer=2**24)


@pytest.mark.unaudited("its connections end by CONNECTION_CLOSE while a session is open")
def test_stream_receive_window() -> None:
    limits = dataclasses.replace(GENEROUS, stream_receive_window=50_000)
    [numbers] = wtio.testing.run(fill(wtio.testing.Network(), limits, GENEROUS, 1))
    assert 49_900 <= numbers.bytes_sent <= 50_000


@pytest.mark.unaudited("its connections end by CONNECTION_CLOSE while a session is open")
def test_connection_receive_window() -> None:
    limits = dataclasses.replace(GENEROUS, connection_receive_window=100_000)
    numbers = wtio.testing.run(fill(wtio.testing.Network(), limits, GENEROUS, 5))
    assert 99_000 <= sum(each.bytes_sent for each in numbers) <= 100_000


@pytest.mark.unaudited("its connections end by CONNECTION_CLOSE while a session is open")
def test_stream_send_buffer() -> None:
    limits = dataclasses.replace(GENEROUS, stream_receive_window=50_000)
    sender = dataclasses.replace(GENEROUS, stream_send_buffer=30_000)
    [numbers] = wtio.testing.run(fill(wtio.testing.Network(), limits, sender, 1))
    assert numbers.send_buffered == 30_000


@pytest.mark.unaudited("its connections end by CONNECTION_CLOSE while a session is open")
def test_connection_send_buffer() -> None:
    limits = dataclasses.replace(GENEROUS, stream_receive_window=50_000)
    sender = dataclasses.replace(GENEROUS, stream_send_buffer=60_000, connection_send_buffer=70_000)
    numbers = wtio.testing.run(fill(wtio.testing.Network(), limits, sender, 5))
    # Each of five streams may hold 16 KiB beyond the limit of all; without it they would hold 300 000.
    assert sum(each.send_buffered for each in numbers) <= 70_000 + 5 * 16_384
    # None of them is shut out for good.
    assert all(each.bytes_sent for each in numbers)


@pytest.mark.parametrize("form", ["bidirectional", "unidirectional"])
@pytest.mark.parametrize("most", [0, 1, 7])
def test_streams_at_once(form: str, most: int) -> None:
    async def main() -> None:
        limits = wtio.Limits(**{f"{form}_streams": most})
        async with wtio.testing.session_pair(limits=limits) as pair:
            for session in pair:
                kept = []
                with pytest.raises(wtio.StreamCreditError):  # noqa: PT012
                    while True:
                        kept.append(await getattr(session, f"create_{form}_stream")(wait_until_available=False))
                assert len(kept) == most

    wtio.testing.run(main())


@pytest.mark.parametrize("most", [1200, 1300])
def test_max_mtu(most: int) -> None:
    async def main() -> tuple[int, int]:
        async with wtio.testing.session_pair(limits=wtio.Limits(max_mtu=most)) as (client, server):
            stream = await client.create_unidirectional_stream()
            await stream.write(data=bytes(200_000), end_stream=True)
            assert await (await first(server.incoming_unidirectional_streams())).read_all() == bytes(200_000)
            await asyncio.sleep(5)
            return client.stats().mtu, client.max_datagram_size

    mtu, datagram = wtio.testing.run(main())
    assert mtu == most
    assert most - 60 < datagram < most


def test_initial_mtu() -> None:
    async def main() -> None:
        limits = wtio.Limits(initial_mtu=1400)
        async with wtio.testing.session_pair(limits=limits) as (client, _):
            assert client.stats().mtu >= 1400

    wtio.testing.run(main())


@pytest.mark.unaudited("no session comes of its connections")
def test_pending_requests() -> None:
    async def main() -> None:
        network = wtio.testing.Network()
        async with network.serve(limits=wtio.Limits(pending_requests=2)) as server:
            waiting = [asyncio.ensure_future(outcome(opened(network.connect()))) for _ in range(2)]
            await asyncio.sleep(1)
            error = await outcome(opened(network.connect()))
            assert isinstance(error, wtio.SessionRejectedError)
            assert error.status == 429
            for _ in waiting:
                await (await anext(aiter(server))).reject(404)
            await asyncio.gather(*waiting)

    wtio.testing.run(main())


# -- timeouts


def elapsed(start: float) -> float:
    return asyncio.get_running_loop().time() - start


def test_timeout_of_connect() -> None:
    async def main() -> None:
        network = wtio.testing.Network()
        network.conditions.blackout = True
        async with network.serve(wait_closed):
            start = asyncio.get_running_loop().time()
            error = await outcome(opened(network.connect(timeouts=wtio.Timeouts(connect=3))))
            assert isinstance(error, wtio.HandshakeTimeout)
            assert elapsed(start) == pytest.approx(3, abs=0.1)

    wtio.testing.run(main())


@pytest.mark.parametrize("keep_alive", [None, 1.0])
@pytest.mark.unaudited("its connection is lost")
def test_timeout_of_silence(keep_alive: float | None) -> None:
    async def main() -> None:
        timeouts = wtio.Timeouts(idle=4, keep_alive=keep_alive)
        async with wtio.testing.session_pair(timeouts=timeouts) as (client, server):
            await asyncio.sleep(20)
            assert client.is_closed is server.is_closed is (keep_alive is None)

    wtio.testing.run(main())


@pytest.mark.trap("C2")
@pytest.mark.unaudited("nothing passes when its session ends")
def test_timeout_of_close() -> None:
    # The peer does not answer.
    async def main() -> None:
        network = wtio.testing.Network()
        async with wtio.testing.session_pair(network, timeouts=wtio.Timeouts(close=0.5)) as (client, _):
            network.conditions.blackout = True
            start = asyncio.get_running_loop().time()
            await client.close(1)
            assert elapsed(start) < 2

    wtio.testing.run(main())


@pytest.mark.unaudited("no session comes of its connection")
def test_timeout_of_requests() -> None:
    async def main() -> None:
        network = wtio.testing.Network()
        async with network.serve(timeouts=wtio.Timeouts(request=2)) as server:
            asking = asyncio.ensure_future(outcome(opened(network.connect())))
            request = await anext(aiter(server))
            error = await asking
            assert isinstance(error, wtio.SessionRejectedError)
            assert error.status == 503
            with pytest.raises(wtio.LocalProtocolError):
                await request.accept()

    wtio.testing.run(main())


def test_timeout_of_datagrams() -> None:
    async def main() -> None:
        network = wtio.testing.Network(bandwidth=20_000)
        async with wtio.testing.session_pair(network, timeouts=wtio.Timeouts(datagram_send=0.5)) as (client, _):
            for _ in range(200):
                client.send_datagram(bytes(1000))
            await asyncio.sleep(5)
            client.send_datagram(b"")
            await asyncio.sleep(5)
            assert client.stats().datagrams_expired_outgoing > 50

    wtio.testing.run(main())


def test_start_of_the_next_address() -> None:
    async def main() -> None:
        network = wtio.testing.Network()
        # The first address of the name is nobody's.
        network.add_host("two.example", "::2", "127.0.0.1")
        async with network.serve(wait_closed, "127.0.0.1"):
            start = asyncio.get_running_loop().time()
            tls = wtio.ClientTLS(dangerously_trust_any_certificate=True)
            timeouts = wtio.Timeouts(attempt_delay=2)
            async with network.connect("https://two.example/", tls=tls, timeouts=timeouts) as session:
                assert session.remote_address[0] == "127.0.0.1"
                assert 2 <= elapsed(start) < 3

    wtio.testing.run(main())


# -- nothing blocks the loop


async def test_nothing_blocks_the_loop(certificate: wtio.DevCertificate) -> None:
    # Files of certificates are read when the two objects are made; from then on nothing may block.
    server_tls, client_tls = certificate.server_tls(), certificate.client_tls()

    async def echo(session: wtio.WebTransportSession) -> None:
        async for stream in session.incoming_bidirectional_streams():
            async for chunk in stream:
                await stream.write(data=chunk)
            await stream.close()

    with blockbuster_ctx("wtio"):
        async with wtio.serve(echo, "localhost", 0, tls=server_tls) as server:
            async with wtio.connect(f"https://localhost:{port_of(server)}/", tls=client_tls) as session:
                stream = await session.create_bidirectional_stream()
                writing = asyncio.ensure_future(stream.write_all(data=bytes(3_000_000), end_stream=True))
                assert await stream.read_all() == bytes(3_000_000)
                await writing
                session.send_datagram(b"x")
                await session.drain()
                await session.close(1, "done")
            with pytest.raises(wtio.ConnectError):
                await wtio.connect("https://localhost:1/", tls=client_tls, timeouts=wtio.Timeouts(connect=0.2))
