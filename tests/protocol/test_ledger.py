"""The ledger of session flow control in the engine: what counts, what is granted, what is too much (section 5).

Two raw peers, so that either side can do what the library never would.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

import wtio
from wtio import testing
from wtio._core import EngineEvent
from wtio.protocol.frames import data_stream_header
from wtio.testing import Network

from .raw import RawPeer, RawStream, raw_client, raw_options, raw_server, settle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

EXCEEDED = (EngineEvent.CreditExceeded, 0)


@asynccontextmanager
async def peers() -> AsyncIterator[tuple[RawPeer, RawPeer]]:
    """A client and a server with nothing but QUIC between them."""
    network = Network()
    async with raw_server(network, None) as servers, raw_client(network, None) as client:
        await settle()
        yield client, servers[0]


def open_stream(peer: RawPeer, *, bidirectional: bool = True) -> RawStream | None:
    """Open a data stream of session 0 as the library does, within its limits."""
    core = peer.core.open_stream(bidirectional, data_stream_header(0, bidirectional=bidirectional), 0)
    return None if core is None else RawStream(core, 0)


def controlled(
    peer: RawPeer,
    *,
    send_limit: int = 1000,
    receive_window: int = 1000,
    send_streams: tuple[int, int] = (10, 10),
    receive_streams: tuple[int, int] = (10, 10),
) -> None:
    limits = wtio.Limits(
        session_receive_window=receive_window,
        session_bidirectional_streams=receive_streams[0],
        session_unidirectional_streams=receive_streams[1],
    )
    peer.core.add_session(0, raw_options(limits), (send_limit, *send_streams))


@pytest.mark.parametrize("bidirectional", [True, False])
def test_r65_r66_streams_are_counted_for_ever_and_never_opened_beyond_the_limit(bidirectional: bool) -> None:
    async def main() -> None:
        async with peers() as (client, server):
            client.open(b"the CONNECT stream is not counted", bidirectional=True)
            controlled(client, send_streams=(2, 2))
            controlled(server)
            streams = [open_stream(client, bidirectional=bidirectional) for _ in range(3)]
            assert [stream is None for stream in streams] == [False, False, True]
            for stream in streams[:2]:
                assert stream is not None
                stream.send(b"x", end=True)
            await settle()
            for stream in server.data_streams:
                assert stream.data == b"x"
                if bidirectional:
                    stream.core.finish()
            await settle()
            assert open_stream(client, bidirectional=bidirectional) is None
            client.core.set_send_streams(0, bidirectional, 3)
            assert open_stream(client, bidirectional=bidirectional) is not None
            assert open_stream(client, bidirectional=bidirectional) is None
            # The other kind has a count of its own.
            assert open_stream(client, bidirectional=not bidirectional) is not None

    testing.run(main())


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("how", ["open", "ended", "reset"])
def test_r65_r67_stream_beyond_the_limit_is_noticed_however_the_others_ended(bidirectional: bool, how: str) -> None:
    async def main() -> None:
        async with peers() as (client, server):
            controlled(server, receive_streams=(3, 3))
            for _ in range(3):
                stream = client.open_data_stream(0, b"x", bidirectional=bidirectional)
                await settle()
                if how == "ended":
                    stream.core.finish()
                elif how == "reset":
                    stream.core.reset(0)
            await settle()
            assert EXCEEDED not in server.credit
            client.open_data_stream(0, b"x", bidirectional=bidirectional)
            await settle()
            assert EXCEEDED in server.credit

    testing.run(main())


def test_r73_streams_that_are_over_are_granted_anew_unasked() -> None:
    async def main() -> None:
        async with peers() as (client, server):
            controlled(server, receive_streams=(4, 4))
            for _ in range(4):
                client.open_data_stream(0, b"x").core.finish()
            await settle()
            assert [stream.data for stream in server.data_streams] == [b"x"] * 4
            server.data_streams.clear()
            await settle()
            granted = [event for event in server.credit if event[0] == EngineEvent.StreamsDue]
            assert granted[-1][1:] == (0, False, 8)
            client.open_data_stream(0, b"x")
            await settle()
            assert EXCEEDED not in server.credit

    testing.run(main())


def test_r70_r71_sender_keeps_to_the_limit_which_is_of_payload_alone() -> None:
    async def main() -> None:
        async with peers() as (client, server):
            controlled(client, send_limit=10)
            controlled(server)
            streams = [open_stream(client, bidirectional=bidirectional) for bidirectional in (True, False, True)]
            for stream in streams:
                assert stream is not None
                stream.core.write(b"abcde", 0)
            await settle()
            # All three heads, but ten bytes of payload.
            assert sorted(len(stream.data) for stream in server.data_streams) == [0, 5, 5]
            client.core.set_send_limit(0, 12)
            await settle()
            assert sum(len(stream.data) for stream in server.data_streams) == 12
            client.core.set_send_limit(0, 15)
            await settle()
            assert [stream.data for stream in server.data_streams] == [b"abcde"] * 3

    testing.run(main())


def test_r74_sender_says_when_it_is_blocked_and_at_which_limit() -> None:
    async def main() -> None:
        async with peers() as (client, server):
            controlled(client, send_limit=10)
            controlled(server)
            stream = open_stream(client)
            assert stream is not None
            stream.core.write(b"0123456789", 0)
            await settle()
            assert not client.credit
            stream.core.write(b"!", 0)
            await settle()
            assert client.credit == [(EngineEvent.CreditBlocked, 0, 10)]

    testing.run(main())


@pytest.mark.parametrize("beyond", [0, 1])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_r70_r71_receiver_counts_payload_alone(beyond: int, bidirectional: bool) -> None:
    async def main() -> None:
        async with peers() as (client, server):
            controlled(server, receive_window=10)
            client.open_data_stream(0, b"01234", bidirectional=bidirectional)
            client.open_data_stream(0, b"56789" + b"!" * beyond, bidirectional=bidirectional)
            await settle()
            assert (EXCEEDED in server.credit) == bool(beyond)

    testing.run(main())


@pytest.mark.parametrize("beyond", [0, 1])
def test_r70_reset_stream_counts_its_final_size_without_the_head(beyond: int) -> None:
    async def main() -> None:
        async with peers() as (client, server):
            controlled(server, receive_window=10)
            stream = client.open_data_stream(0, b"01234567")
            await settle()
            stream.core.reset(0)
            client.open_data_stream(0, b"89" + b"!" * beyond)
            await settle()
            assert (EXCEEDED in server.credit) == bool(beyond)

    testing.run(main())


def test_r73_data_that_was_read_is_granted_anew_unasked() -> None:
    async def main() -> None:
        async with peers() as (client, server):
            controlled(server, receive_window=100)
            stream = client.open_data_stream(0, bytes(100))
            await settle()
            assert not server.credit
            assert len(server.data_streams[0].data) == 100
            await settle()
            assert (EngineEvent.CreditDue, 0, 200) in server.credit
            stream.send(bytes(100))
            await settle()
            assert EXCEEDED not in server.credit

    testing.run(main())


def test_r77_limits_of_zero_wait_for_credit() -> None:
    async def main() -> None:
        async with peers() as (client, server):
            controlled(client, send_limit=0, send_streams=(0, 0))
            controlled(server)
            assert open_stream(client) is None
            client.core.set_send_streams(0, True, 1)
            stream = open_stream(client)
            assert stream is not None
            stream.core.write(b"patience", 0)
            await settle()
            assert [stream.data for stream in server.data_streams] == [b""]
            client.core.set_send_limit(0, 8)
            await settle()
            assert [stream.data for stream in server.data_streams] == [b"patience"]

    testing.run(main())


def test_r78_reset_before_the_head_arrived_is_counted_by_both_sides_alike() -> None:
    async def main() -> None:
        network = Network(loss=0.3, reorder=0.3, seed=5)
        async with raw_server(network, None) as servers, raw_client(network, None) as client:
            await settle()
            server = servers[0]
            controlled(client, send_streams=(64, 64))
            controlled(server, receive_streams=(64, 64))
            for _ in range(64):
                stream = open_stream(client, bidirectional=False)
                assert stream is not None
                stream.core.reset(0x52E4A40FA8DB)
            for _ in range(20):
                await settle()
            assert len(server.data_streams) == 64
            assert EXCEEDED not in server.credit
            assert {stream.reset_code for stream in server.data_streams} == {0x52E4A40FA8DB}
            server.data_streams.clear()
            await settle()
            granted = [event for event in server.credit if event[0] == EngineEvent.StreamsDue]
            # After 1, 2, 4, 8, 16, 32 and 64 of them credit is announced: the last one has to count, too.
            assert granted[-1][1:] == (0, False, 128)

    testing.run(main())
