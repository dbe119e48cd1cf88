"""Devious baton (draft-frindell-webtrans-devious-baton-00): its test vectors, its errors, and games of chance."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import wtio
from wtio import testing
from wtio.cli._baton import (
    MOST_BATONS,
    PATH,
    Arrival,
    BadRequest,
    Game,
    GameEnd,
    MessageReader,
    Player,
    Request,
    SessionCode,
    StreamCode,
    decode_message,
    encode_message,
    encode_varint,
    parse_request,
)
from wtio.cli._status import Status
from wtio.cli.baton import answer

from .programs import url_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .programs import Start


# -- messages and requests


@given(st.integers(0, 255), st.integers(0, 20_000), st.lists(st.integers(1, 500)))
def test_messages_are_read_from_any_pieces(baton: int, padding: int, pieces: list[int]) -> None:
    data = encode_message(baton, padding)
    assert decode_message(data) == baton
    reader = MessageReader()
    for size in pieces:
        reader.feed(data[:size])
        data = data[size:]
    reader.feed(data)
    assert reader.finish() == baton


@pytest.mark.parametrize("size", [0, 63, 64, 16_383, 16_384, 2**30 - 1, 2**30, 2**62 - 1])
def test_padding_of_any_announced_length_is_not_kept(size: int) -> None:
    reader = MessageReader()
    reader.feed(encode_varint(size))
    for _ in range(10):
        reader.feed(bytes(min(size, 1000)) if size > 10_000 else b"")
    with pytest.raises(GameEnd, match="before its baton") as caught:
        reader.finish()
    assert caught.value.code == SessionCode.BRUH


@pytest.mark.parametrize("data", [b"", b"\x40", b"\x00", b"\x02a", b"\x02ab"])
def test_an_incomplete_message_is_bruh(data: bytes) -> None:
    with pytest.raises(GameEnd) as caught:
        decode_message(data)
    assert caught.value.code == SessionCode.BRUH


def test_bytes_after_the_baton_are_bruh() -> None:
    with pytest.raises(GameEnd, match="1 bytes follow") as caught:
        decode_message(b"\x01a\x07b")
    assert caught.value.code == SessionCode.BRUH


def test_numbers_beyond_62_bits_are_no_varint() -> None:
    with pytest.raises(ValueError, match="62 bits"):
        encode_varint(2**62)


@pytest.mark.parametrize(
    ("query", "request_"),
    [
        ("", Request()),
        ("?version=0", Request()),
        ("?baton=1&count=64", Request(64, 1)),
        ("?baton=255&unknown=x", Request(1, 255)),
        ("?baton=007", Request(1, 7)),
    ],
)
def test_requests_are_understood(query: str, request_: Request) -> None:
    assert parse_request(PATH + query) == request_
    assert parse_request(request_.path) == request_


REFUSED = [
    ("?baton=0", 400),
    ("?baton=256", 400),
    ("?baton=x", 400),
    ("?baton=", 400),
    ("?baton=-1", 400),
    ("?baton=1&baton=2", 400),
    ("?baton=%D9%A3", 400),
    ("?count=0", 400),
    (f"?count={MOST_BATONS + 1}", 400),
    ("?count=" + 5000 * "9", 400),
    ("?version=1", 400),
    ("?version=one", 400),
    ("/more", 404),
]


@pytest.mark.parametrize(("query", "status"), REFUSED)
def test_bad_requests_are_refused(query: str, status: int) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_request(PATH + query)
    assert caught.value.status == status


def test_the_server_refuses_on_the_wire() -> None:
    async def main() -> None:
        network = testing.Network()
        async with network.serve() as server, asyncio.TaskGroup() as tasks:
            for query, status in REFUSED:
                connecting = asyncio.ensure_future(_connect(network, PATH + query))
                tasks.create_task(answer(await anext(server)))
                with pytest.raises(wtio.SessionRejectedError) as caught:
                    await connecting
                assert caught.value.status == status

    testing.run(main())


# -- whole games


@dataclass
class Record:
    """What both players said, and how the session ended on both sides."""

    messages: list[tuple[str, int, str]] = field(default_factory=list)
    datagrams: list[tuple[str, int]] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    ends: dict[str, wtio.CloseInfo] = field(default_factory=dict)

    def note(self, side: str, line: str) -> None:
        if found := re.fullmatch(r"received (\d+) on (.*)", line):
            self.messages.append((side, int(found[1]), found[2]))
        elif found := re.fullmatch(r"received (\d+) in a datagram", line):
            self.datagrams.append((side, int(found[1])))
        else:
            self.lost.append(line)


async def _connect(network: testing.Network, path: str) -> wtio.WebTransportSession:
    return await network.connect(f"https://localhost{path}")


async def play(
    network: testing.Network, request: Request, chosen: int | None = None, deviousness: float = 0.0
) -> Record:
    """A game between two players of ours; ``chosen`` is the server's choice where the client leaves it to it."""
    record = Record()

    async def take_part(side: str, session: wtio.WebTransportSession, game: Request) -> None:
        player = Player(session, game, deviousness=deviousness, tell=lambda line: record.note(side, line))
        record.ends[side] = await player.play()

    async with network.serve() as server:
        connecting = asyncio.ensure_future(_connect(network, request.path))
        incoming = await anext(server)
        wanted = parse_request(incoming.path)
        session = await incoming.accept()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(take_part("server", session, Request(wanted.count, wanted.baton or chosen)))
            tasks.create_task(take_part("client", await connecting, request))
    return record


UNI, PEERS, OURS = "a unidirectional stream", "the peer's bidirectional stream", "a bidirectional stream of ours"

VECTORS = {
    255: ([("client", 255, UNI), ("server", 0, PEERS)], []),
    251: (
        [
            ("client", 251, UNI),
            ("server", 252, PEERS),
            ("client", 253, OURS),
            ("server", 254, UNI),
            ("client", 255, PEERS),
            ("server", 0, OURS),
        ],
        [("client", 252), ("server", 253)],
    ),
    250: (
        [
            ("client", 250, UNI),
            ("server", 251, PEERS),
            ("client", 252, OURS),
            ("server", 253, UNI),
            ("client", 254, PEERS),
            ("server", 255, OURS),
            ("client", 0, UNI),
        ],
        [],
    ),
}


@pytest.mark.parametrize("start", VECTORS)
@pytest.mark.parametrize("is_asked_for", [True, False])
def test_vectors(start: int, is_asked_for: bool) -> None:
    messages, datagrams = VECTORS[start]

    async def main() -> None:
        request = Request(1, start if is_asked_for else None)
        record = await play(testing.Network(), request, chosen=start)
        assert record.messages == messages
        # The server's copy of the final 0 overtakes the end of the session, or it does not.
        assert [entry for entry in record.datagrams if entry != ("client", 0)] == datagrams
        ender = messages[-1][0]
        for side, end in record.ends.items():
            assert (end.code, end.reason) == (0, "")
            assert end.closed_by == ("local" if side == ender else "peer")

    testing.run(main())


@given(start=st.integers(200, 255), count=st.integers(1, MOST_BATONS), seed=st.integers(0, 2**32))
@settings(max_examples=12, deadline=None)
@pytest.mark.unmeasured
def test_every_game_ends_without_an_error(start: int, count: int, seed: int) -> None:
    async def main() -> None:
        network = testing.Network(seed=seed, loss=0.05, reorder=0.1, jitter=0.005)
        record = await play(network, Request(count, start))
        assert {end.code for end in record.ends.values()} == {0}
        received = sorted(baton for _, baton, _ in record.messages)
        assert received == sorted(baton % 256 for baton in range(start, 257) for _ in range(count))

    testing.run(main())


@given(start=st.integers(1, 255), count=st.integers(1, 8), seed=st.integers(0, 2**32))
@settings(max_examples=12, deadline=None)
def test_batons_that_are_given_up_count_as_ended(start: int, count: int, seed: int) -> None:
    random.seed(seed)

    async def main() -> None:
        record = await play(testing.Network(seed=seed), Request(count, start), deviousness=0.05)
        assert {end.code for end in record.ends.values()} == {0}

    testing.run(main())


# -- single rules, against a peer that the test plays itself


@contextlib.asynccontextmanager
async def player(
    side: str, request: Request, limits: wtio.Limits | None = None, patience: float = 30.0
) -> AsyncIterator[tuple[wtio.WebTransportSession, asyncio.Task[wtio.CloseInfo], list[str]]]:
    """The peer's session, the running game of ``side``, and what it said."""
    said: list[str] = []
    async with testing.session_pair(limits=limits) as (client, server):
        ours, peer = (client, server) if side == "client" else (server, client)
        game = Player(ours, request, patience=patience, tell=said.append)
        async with asyncio.TaskGroup() as tasks:
            yield peer, tasks.create_task(game.play()), said


async def send(peer: wtio.WebTransportSession, data: bytes) -> None:
    stream = await peer.create_unidirectional_stream()
    await stream.write(data=data, end_stream=True)


async def receive(stream: wtio.WebTransportReceiveStream) -> int:
    return decode_message(await stream.read_all())


def test_truncated_padding_is_bruh() -> None:
    async def main() -> None:
        async with player("client", Request(1, 7)) as (peer, game, _):
            await send(peer, b"\x05abc")
            end = await peer.wait_closed()
            assert (end.code, end.reason) == (SessionCode.BRUH, "BRUH: the message ends before its baton")
            assert (await game).closed_by == "local"

    testing.run(main())


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_datagram_with_a_truncated_message_is_bruh(side: str) -> None:
    async def main() -> None:
        async with player(side, Request(1, 7)) as (peer, _, _):
            peer.send_datagram(b"\x05abc")
            assert (await peer.wait_closed()).code == SessionCode.BRUH

    testing.run(main())


@pytest.mark.parametrize("baton", [0, 6, 8])
def test_an_unexpected_first_value_is_sus(baton: int) -> None:
    async def main() -> None:
        async with player("client", Request(1, 7)) as (peer, _, _):
            await send(peer, encode_message(baton))
            assert (await peer.wait_closed()).code == SessionCode.SUS

    testing.run(main())


def test_a_wrong_answer_is_sus() -> None:
    async def main() -> None:
        async with player("client", Request(1, 7)) as (peer, _, _):
            await send(peer, encode_message(7))
            stream = await anext(peer.incoming_bidirectional_streams())
            assert await receive(stream) == 8
            await stream.write(data=encode_message(8), end_stream=True)
            end = await peer.wait_closed()
            assert (end.code, end.reason) == (SessionCode.SUS, "SUS: 8 came as the answer to 8")

    testing.run(main())


def test_more_batons_than_asked_for_are_sus() -> None:
    async def main() -> None:
        async with player("client", Request(1, None)) as (peer, _, _):
            await send(peer, encode_message(7))
            await send(peer, encode_message(7))
            assert (await peer.wait_closed()).code == SessionCode.SUS

    testing.run(main())


def test_no_credit_for_a_stream_is_da_yamn() -> None:
    async def main() -> None:
        async with player("server", Request(3, 7), limits=wtio.Limits(unidirectional_streams=2)) as (peer, _, _):
            assert (await peer.wait_closed()).code == SessionCode.DA_YAMN

    testing.run(main())


def test_waiting_too_long_is_bored() -> None:
    async def main() -> None:
        async with player("client", Request(1, 7), patience=5) as (peer, _, _):
            started = asyncio.get_running_loop().time()
            end = await peer.wait_closed()
            assert (end.code, end.reason) == (SessionCode.BORED, "no message for 5 s")
            assert asyncio.get_running_loop().time() - started == pytest.approx(5, abs=0.5)

    testing.run(main())


def test_a_baton_that_the_peer_gives_up_counts_as_ended() -> None:
    async def main() -> None:
        async with player("client", Request(2, 7)) as (peer, _, said):
            await send(peer, encode_message(7))
            stream = await anext(peer.incoming_bidirectional_streams())
            await stream.stop_receiving(error_code=StreamCode.IDC)
            await stream.reset(error_code=StreamCode.I_LIED)
            # The other baton is still in play.
            await send(peer, encode_message(7))
            assert await receive(await anext(peer.incoming_bidirectional_streams())) == 8
            assert "the peer gave a bidirectional stream of ours up with code 3" in said

    testing.run(main())


def test_a_stopped_message_is_reset_with_whatever() -> None:
    async def main() -> None:
        async with testing.session_pair() as (client, server):
            said: list[str] = []
            game = asyncio.ensure_future(Player(server, Request(1, 7), padding=0, tell=said.append).play())
            stream = await anext(client.incoming_unidirectional_streams())
            assert await receive(stream) == 7
            mine = await client.create_bidirectional_stream()
            await mine.stop_receiving(error_code=StreamCode.IDC)
            await mine.write(data=encode_message(8), end_stream=True)
            end = await client.wait_closed()
            assert (end.code, end.reason) == (0, "")
            assert "the peer did not want 9, with code 1" in said
            await game

    testing.run(main())


def test_a_reset_of_the_peers_stream_is_answered_with_whatever() -> None:
    async def main() -> None:
        async with player("server", Request(2, 7)) as (peer, _, _):
            assert await receive(await anext(peer.incoming_unidirectional_streams())) == 7
            stream = await peer.create_bidirectional_stream()
            await stream.reset(error_code=StreamCode.I_LIED)
            with pytest.raises(wtio.StreamResetError) as caught:
                await stream.read_all()
            assert caught.value.error_code == StreamCode.WHATEVER

    testing.run(main())


def test_the_last_baton_lost_ends_the_session_without_an_error() -> None:
    async def main() -> None:
        async with player("client", Request(1, 7)) as (peer, _, _):
            stream = await peer.create_unidirectional_stream()
            await stream.reset(error_code=StreamCode.I_LIED)
            end = await peer.wait_closed()
            assert (end.code, end.closed_by) == (0, "peer")

    testing.run(main())


@pytest.mark.parametrize("reason", ["", "game over"])
def test_a_peer_may_end_with_code_0_and_any_words(reason: str) -> None:
    async def main() -> None:
        async with player("client", Request(1, 7)) as (peer, game, _):
            await peer.close(0, reason)
            assert await game == wtio.CloseInfo(0, reason, "peer")

    testing.run(main())


def test_a_server_has_to_choose() -> None:
    async def main() -> None:
        async with testing.session_pair() as (_, server):
            with pytest.raises(ExceptionGroup) as caught:
                await Player(server, Request()).play()
            assert caught.group_contains(ValueError, match="has to choose")

    testing.run(main())


def test_expectations_are_per_stream_kind() -> None:
    game = Game(is_client=False, count=1, start=7)
    game.sent(7, None)
    with pytest.raises(GameEnd, match="nobody expected 8 on a unidirectional stream"):
        game.received(8, Arrival.UNIDIRECTIONAL)


# -- the programs


async def test_client_and_server_over_loopback(start: Start) -> None:
    async with start("-m", "wtio", "baton", "--serve", "--port", "0") as server:
        url = await url_of(server)
        async with start("-m", "wtio", "baton", url, "--dev", "--baton", "250", "--count", "3") as client:
            assert await client.finish() == 0, client.output
        assert client.output.count("received 0 on a unidirectional stream") == 3
        assert client.output.endswith("ended by local with code 0\n")
        await server.until("ended by peer with code 0")
        async with start("-m", "wtio", "baton", url, "--dev", "--count", "1000") as client:
            assert await client.finish() == Status.REFUSED
        assert "with status 400" in client.output
