"""One datagram to many sessions at once."""

from __future__ import annotations

import threading

import pytest

import wtio
from wtio.testing import Network, run


def test_a_broadcast_reaches_all_and_passes_over_those_that_cannot_take_it() -> None:
    async def main() -> None:
        network, taken = Network(), []

        async def handler(session: wtio.WebTransportSession) -> None:
            taken.append(session)
            await session.wait_closed()

        async with network.serve(handler), network.serve(handler, port=4000), network.client() as client:
            one = await client.connect("https://localhost/")
            two = await client.connect("https://localhost:4000/")
            three = await client.connect("https://localhost/")
            assert wtio.broadcast(taken, b"all") == 3
            for session in (one, two, three):
                assert await session.receive_datagram() == b"all"
            assert wtio.broadcast(iter(taken), bytearray(5000)) == 0
            assert wtio.broadcast([], b"nobody") == 0
            await two.close()
            assert wtio.broadcast([*taken, taken[0]], b"left") == 3
            for session in (one, one, three):
                assert await session.receive_datagram() == b"left"
            await one.close()
            await three.close()

    run(main())


def test_a_full_queue_loses_its_oldest_datagrams_and_counts_them() -> None:
    async def main() -> None:
        network, taken = Network(), []

        async def handler(session: wtio.WebTransportSession) -> None:
            taken.append(session)
            await session.wait_closed()

        async with (
            network.serve(handler, limits=wtio.Limits(datagram_send_buffer=1500)),
            network.connect("https://localhost/") as session,
        ):
            for number in range(100):
                assert wtio.broadcast(taken, number.to_bytes(1) * 1000) == 1
            found = [await session.receive_datagram()]
            while found[-1][0] != 99:
                found.append(await session.receive_datagram())
            assert found == sorted(found)
            assert taken[0].stats().datagrams_dropped_outgoing == 100 - len(found) > 0

    run(main())


def test_sessions_of_another_loop_or_thread_raise_before_anybody_gets_anything() -> None:
    taken: list[wtio.WebTransportSession] = []

    async def handler(session: wtio.WebTransportSession) -> None:
        taken.append(session)
        await session.wait_closed()

    async def before() -> None:
        network = Network()
        async with network.serve(handler), network.connect("https://localhost/") as session:
            assert not session.is_closed

    async def main() -> None:
        network = Network()
        async with network.serve(handler), network.connect("https://localhost/") as session:
            [old, new] = taken
            with pytest.raises(RuntimeError, match="event loop"):
                wtio.broadcast([new, old], b"lost")
            raised: list[BaseException] = []

            def elsewhere() -> None:
                try:
                    wtio.broadcast([new], b"lost")
                except RuntimeError as error:
                    raised.append(error)

            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join()
            assert len(raised) == 1
            assert wtio.broadcast([new], b"kept") == 1
            assert await session.receive_datagram() == b"kept"

    run(before())
    run(main())
