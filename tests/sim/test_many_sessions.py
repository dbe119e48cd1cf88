"""Many sessions on one connection: each costs the same however many there are, and their end holds nobody up."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests.protocol.pair import CHROMIUM, DRAFT15_CLIENT, FLOW_CONTROL, close, connect, server
from tests.protocol.raw import RawPeer, RawStream, raw_client, settle

import wtio
from wtio import testing
from wtio._connection.base import Connection
from wtio._connection.sessions import ENDS_PER_ITERATION
from wtio._core import CloseCause
from wtio._words import Loss
from wtio.protocol import varint
from wtio.protocol.codes import ErrorCodes
from wtio.protocol.limits import ProtocolLimits
from wtio.testing import Network

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

OURS: Final = os.path.dirname(wtio.__file__)
LIMITS: Final = wtio.Limits(sessions_per_connection=5000, bidirectional_streams=5000)
# Open, for which a peer gets more than the first 100 (crates/engine/src/peer_credit.rs).
MANY_STREAMS: Final = 25
FLOW_CLIENT: Final = [*DRAFT15_CLIENT, *FLOW_CONTROL]


class Counter:
    """Bytecode instructions of the library that were run."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, frame: FrameType, event: str, _: object) -> Any:
        if event == "call":
            if not frame.f_code.co_filename.startswith(OURS):
                return None
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
        elif event == "opcode":
            self.count += 1
        return self


@contextmanager
def counted() -> Iterator[Counter]:
    counter, before = Counter(), sys.gettrace()
    sys.settrace(counter)
    try:
        yield counter
    finally:
        sys.settrace(before)


def assert_linear(cost: dict[int, int]) -> None:
    """Twice as many cost twice as much; going through all others for each would make it four times."""
    (_, one), (_, two) = sorted(cost.items())
    assert two < 2.2 * one, cost


@pytest.mark.unmeasured
def test_a_session_costs_the_protocol_the_same_however_many_there_are() -> None:
    cost = {}
    for count in (200, 400):
        side = server(CHROMIUM, max_sessions=count)
        with counted() as counter:
            for number in range(0, 4 * count, 4):
                side.receive(number, connect(token="webtransport"))
                side.h3.accept(number)
                side.collect()
            for number in range(0, 4 * count, 4):
                side.receive(number, close(), True)
        assert side.close_code is None
        assert side.h3.sessions == 0
        cost[count] = counter.count
    assert_linear(cost)


def test_a_parked_request_costs_the_same_however_many_there_are() -> None:
    cost = {}
    for count in (200, 400):
        limits = ProtocolLimits(max_parked_requests=count)
        side = server(None, limits=limits, max_sessions=count)
        with counted() as counter:
            for number in range(0, 4 * count, 4):
                side.receive(number, connect())
                assert side.h3.parked == number // 4 + 1
        cost[count] = counter.count
    assert_linear(cost)


@pytest.mark.unmeasured
@pytest.mark.parametrize("how", ["closed", "lost"])
@pytest.mark.unaudited("its peer is a raw one, which keeps streams")
def test_a_session_costs_a_server_the_same_however_many_there_are(how: str) -> None:
    async def main(count: int) -> int:
        network = Network()
        async with (
            network.serve(held, limits=LIMITS, timeouts=wtio.Timeouts(idle=5)) as served,
            raw_client(network, FLOW_CLIENT, limits=LIMITS) as peer,
        ):
            with counted() as counter:
                streams = await opened(peer, count)
                assert len(served.sessions) == count
                if how == "closed":
                    for stream in streams:
                        stream.send(close(), end=True)
                    await settle()
                else:
                    network._wire.send = lambda *_: None  # type: ignore[method-assign]
                    await asyncio.sleep(30)
            assert not served._service.tasks
            return counter.count

    assert_linear({count: testing.run(main(count)) for count in (150, 300)})


async def held(session: wtio.WebTransportSession) -> None:
    await session.wait_closed()


async def opened(peer: RawPeer, count: int) -> list[RawStream]:
    streams = []
    for number in range(count):
        streams.append(peer.request())
        if number % 50 == 49:
            await settle()
    await settle()
    return streams


@pytest.mark.unaudited("its peer is a raw one, which keeps streams")
def test_a_lost_connection_ends_its_sessions_in_slices_and_at_once_for_whoever_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count = 5 * ENDS_PER_ITERATION + 1
    left: list[int] = []
    ends: list[wtio.CloseInfo] = []
    late: list[bytes] = []
    end = Connection._end

    def lost(connection: Connection, loss: Loss) -> None:
        if connection.is_client:
            return end(connection, loss)
        sessions = list(connection.sessions)
        end(connection, loss)
        # No task has been woken yet, and every call raises the same.
        assert {session.close_info for session in sessions} == {sessions[0].close_info}
        assert sessions[-1].close_info is not None
        with pytest.raises(wtio.SessionClosed):
            sessions[-1].send_datagram(b"x")

        def count_iteration() -> None:
            left.append(len(connection.sessions))
            if connection.sessions:
                connection.loop.call_soon(count_iteration)

        count_iteration()

    async def handler(session: wtio.WebTransportSession) -> None:
        if session.session_id % 8:
            with pytest.raises(wtio.SessionClosed):
                await session.receive_datagram()
        ends.append(await session.wait_closed())
        if not session.session_id % 8:
            late.append(await session.receive_datagram())

    monkeypatch.setattr(Connection, "_end", lost)

    async def main() -> None:
        network = Network()
        async with (
            network.serve(handler, limits=LIMITS, timeouts=wtio.Timeouts(idle=5)) as served,
            raw_client(network, FLOW_CLIENT, limits=LIMITS) as peer,
        ):
            await opened(peer, count)
            for session in served.sessions:
                peer.add_session(session.session_id)
                if not session.session_id % 8:
                    assert peer.core.send_datagram(session.session_id, b"late") == 0
            await settle()
            connection = next(iter(served._service.connections))
            network._wire.send = lambda *_: None  # type: ignore[method-assign]
            await asyncio.sleep(30)
            assert connection.lost.is_set
            assert not served._service.connections
            assert not served._service.tasks

    testing.run(main())
    assert [before - after for before, after in pairwise(left)] == [ENDS_PER_ITERATION] * 4 + [1]
    assert len(ends) == count
    assert len(set(ends)) == 1
    assert late == [b"late"] * len(range(0, 4 * count, 8))


@pytest.mark.unaudited("its peer is a raw one, which keeps streams")
def test_a_request_on_a_connection_that_was_lost_meanwhile_is_void() -> None:
    async def main() -> None:
        network = Network()
        async with (
            network.serve(limits=LIMITS, timeouts=wtio.Timeouts(idle=5, request=60)) as served,
            raw_client(network, FLOW_CLIENT, limits=LIMITS) as peer,
        ):
            for _ in range(ENDS_PER_ITERATION + 1):
                peer.request()
                await (await anext(aiter(served))).accept()
            peer.request()
            request = await anext(aiter(served))
            connection = next(iter(served._service.connections))
            connection.abandon(Loss(CloseCause.LOCAL, 0, ""), 0, "")
            assert connection.sessions
            with pytest.raises(wtio.SessionClosed):
                await request.accept()
            await connection.lost.wait()
            assert not connection.sessions

    testing.run(main())


@pytest.mark.unaudited("its peer is a raw one, which keeps streams")
def test_early_streams_of_many_sessions_cost_the_same_each() -> None:
    async def main(count: int) -> int:
        network = Network()
        limits = wtio.Limits(early_streams=5000, unidirectional_streams=5000)
        async with (
            network.serve(held, limits=limits) as served,
            raw_client(network, FLOW_CLIENT, limits=limits) as peer,
        ):
            await settle()
            with counted() as counter:
                for number in range(count):
                    peer.open(b"\x40\x54" + varint.encode(400 + 4 * number))
                    if number == MANY_STREAMS:
                        await settle()
                await settle()
                connection = next(iter(served._service.connections))
                peer.driver.drive()
                peer.close()
                await settle()
            assert connection.is_lost
            return counter.count

    assert_linear({count: testing.run(main(count)) for count in (200, 400)})


@pytest.mark.parametrize("limits", [{"sessions_per_connection": 3}, {"sessions": 3}, {}])
@pytest.mark.unaudited("its peer is a raw one, which keeps streams")
def test_sessions_beyond_the_limit_of_a_connection_are_refused(limits: dict[str, int]) -> None:
    allowed = min(wtio.Limits(**limits).sessions_per_connection, wtio.Limits(**limits).sessions)

    async def main() -> None:
        network = Network()
        async with (
            network.serve(held, limits=wtio.Limits(**limits)) as served,
            raw_client(network, FLOW_CLIENT) as peer,
        ):
            streams = await opened(peer, allowed + 2)
            refused = [stream for stream in streams if stream.reset_code is not None]
            assert refused == streams[allowed:]
            assert {stream.reset_code for stream in refused} == {ErrorCodes.H3_REQUEST_REJECTED}
            assert len(served.sessions) == allowed

    testing.run(main())


def test_a_client_dials_again_when_a_connection_has_its_sessions() -> None:
    async def main() -> None:
        network = Network()
        limits = wtio.Limits(sessions_per_connection=2)
        async with network.serve(held), network.client(limits=limits) as client:
            sessions = [await client.connect("https://localhost/", allow_pooling=True) for _ in range(5)]
            assert client.connections == 3
            assert not any(session.is_closed for session in sessions)

    testing.run(main())


@pytest.mark.unaudited("its peer is a raw one, which keeps streams")
def test_handlers_that_outlive_their_sessions_are_bounded() -> None:
    async def main() -> None:
        network = Network()
        never = asyncio.Event()

        async def stays(_: wtio.WebTransportSession) -> None:
            await never.wait()

        async with (
            network.serve(stays, limits=wtio.Limits(sessions=5)) as served,
            raw_client(network, FLOW_CLIENT) as peer,
        ):
            answers = []
            for _ in range(12):
                stream = peer.request()
                await settle()
                answers.append(stream.fields[":status"])
                stream.core.reset(ErrorCodes.H3_REQUEST_CANCELLED)
                await settle()
            assert answers == ["200"] * 10 + ["429"] * 2
            assert len(served._service.tasks) == 10
            never.set()

    testing.run(main())


@pytest.mark.unaudited("its peer is a raw one, which keeps streams")
def test_sessions_that_their_client_does_not_end_are_bounded() -> None:
    async def main() -> None:
        network = Network()
        limits = wtio.Limits(sessions_per_connection=4, bidirectional_streams=10)

        async def leaves(session: wtio.WebTransportSession) -> None:
            await session.close()

        async with (
            network.serve(leaves, limits=limits, timeouts=wtio.Timeouts(close=1000)) as served,
            raw_client(network, FLOW_CLIENT) as peer,
        ):
            await settle()
            connection = next(iter(served._service.connections))
            most = 0
            while peer.closed is None and (core := peer.core.open_stream(True, b"", None)):
                peer.raw_streams[core.id] = RawStream(core)
                peer.raw_streams[core.id].send(connect())
                await settle()
                most = max(most, len(connection.sessions))
                assert most < 100
            assert 4 < most <= 4 + 10 + 5

    testing.run(main())
