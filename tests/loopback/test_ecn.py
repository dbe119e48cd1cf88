"""ECN marks on real sockets, through a relay that sees them, takes them off, or drops the packets that carry one.

What both sides make of such paths, and how soon, is tested in virtual time (crates/engine/tests/ecn.rs).
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import wtio

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the relay sees marks as Linux shows them")

# As Linux has it; the module socket does not.
IP_RECVTOS = 13
ECN_BITS = 0b11


class Relay:
    """A UDP path between one client and a server that can see ECN bits."""

    def __init__(self, server: tuple[str, int]) -> None:
        self.drops_marked = False
        self.bleaches = False
        # From client to server and back: packets by their ECN field.
        self.seen = {"there": [0, 0, 0, 0], "back": [0, 0, 0, 0]}
        self._front, self._rear = socket.socket(type=socket.SOCK_DGRAM), socket.socket(type=socket.SOCK_DGRAM)
        for side in self._front, self._rear:
            side.setblocking(False)
            side.setsockopt(socket.IPPROTO_IP, IP_RECVTOS, 1)
            side.bind(("127.0.0.1", 0))
        self._rear.connect(server)
        self.port: int = self._front.getsockname()[1]
        loop = asyncio.get_running_loop()
        loop.add_reader(self._front, self._pass, self._front, self._rear, "there")
        loop.add_reader(self._rear, self._pass, self._rear, self._front, "back")

    def close(self) -> None:
        for side in self._front, self._rear:
            asyncio.get_running_loop().remove_reader(side)
            side.close()

    def _pass(self, source: socket.socket, target: socket.socket, direction: str) -> None:
        data, ancillary, _, sender = source.recvmsg(65536, 64)
        if source is self._front:
            self._client = sender
        ecn = next(value[0] & ECN_BITS for level, kind, value in ancillary if (level, kind) == (0, socket.IP_TOS))
        self.seen[direction][ecn] += 1
        if ecn and self.drops_marked:
            return
        mark = struct.pack("i", 0 if self.bleaches else ecn)
        address = self._client if target is self._front else None
        target.sendmsg([data], [(socket.IPPROTO_IP, socket.IP_TOS, mark)], 0, address)


@pytest.fixture
async def relay(server: wtio.Server) -> AsyncIterator[Relay]:
    relay = Relay(server.addresses[0])
    yield relay
    relay.close()


@pytest.fixture
def url(relay: Relay) -> str:
    return f"https://127.0.0.1:{relay.port}/"


async def exchange(pair: tuple[wtio.WebTransportSession, wtio.WebTransportSession], size: int) -> None:
    """Data both ways, and everything acknowledged."""
    for sender, receiver in (pair, reversed(pair)):
        data = bytes(range(256)) * (size // 256)
        stream = await sender.create_unidirectional_stream()
        taking = asyncio.ensure_future(anext(receiver.incoming_unidirectional_streams()))
        sending = asyncio.ensure_future(stream.write_all(data=data, end_stream=True))
        assert await (await taking).read_all() == data
        await sending
        await stream.wait_acked()


async def test_packets_carry_marks_both_ways(
    pair: tuple[wtio.WebTransportSession, wtio.WebTransportSession], relay: Relay
) -> None:
    await exchange(pair, 100_000)
    for counts in relay.seen.values():
        assert counts[2] > 30
        assert counts[0] == counts[1] == counts[3] == 0


async def test_a_session_goes_on_when_its_path_begins_to_drop_marked_packets(
    pair: tuple[wtio.WebTransportSession, wtio.WebTransportSession], relay: Relay
) -> None:
    await exchange(pair, 10_000)
    relay.drops_marked = True
    await exchange(pair, 100_000)
    marked = {direction: counts[2] for direction, counts in relay.seen.items()}
    await exchange(pair, 100_000)
    assert {direction: counts[2] for direction, counts in relay.seen.items()} == marked, "marks are not tried again"


async def test_marks_that_do_not_arrive_are_given_up(
    pair: tuple[wtio.WebTransportSession, wtio.WebTransportSession], relay: Relay
) -> None:
    await exchange(pair, 10_000)
    relay.bleaches = True
    await exchange(pair, 100_000)
    marked = {direction: counts[2] for direction, counts in relay.seen.items()}
    await exchange(pair, 100_000)
    assert {direction: counts[2] for direction, counts in relay.seen.items()} == marked
