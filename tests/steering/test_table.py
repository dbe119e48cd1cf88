"""Which socket gets which packet, as the kernel decides: raw packets over loopback."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from wtio._driver import Address
from wtio._steering import is_supported, open_slots, places, program, steer

from .packets import client_ids, id_of, is_even, long, owners, short

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(not is_supported(), reason="only Linux chooses among sockets by connection ID")

V4 = Address("127.0.0.1", 0, is_ipv6=False)
V6 = Address("::1", 0, is_ipv6=True)
EVERYWHERE = Address("::", 0, is_ipv6=True)
SLOTS = 6
# linux/udp.h
UDP_SEGMENT = 103
UDP_GRO = 104


@contextlib.contextmanager
def opened(address: Address = V4, slots: int = SLOTS, *, dual_stack: bool = False) -> Iterator[list[socket.socket]]:
    sockets = open_slots(address, slots, dual_stack=dual_stack)
    try:
        yield sockets
    finally:
        for sock in sockets:
            sock.close()


@pytest.mark.parametrize("server_id", [b"", b"\x07", b"ab", b"abc", b"abcde", b"server 7"])
def test_packets_with_an_id_of_a_slot_come_to_its_socket(server_id: bytes) -> None:
    with opened() as sockets:
        steer(sockets[0], slots=SLOTS, newcomers=[2], server_id=server_id)
        for header in (long, short):
            ids = [id_of(slot, server_id, seed=seed) for seed in range(20) for slot in range(SLOTS)]
            # A socket of its own for each round of slots: addresses play no part.
            for start in range(0, len(ids), SLOTS):
                assert owners(sockets, map(header, ids[start : start + SLOTS])) == list(range(SLOTS))


@pytest.mark.parametrize("address", [V4, V6, EVERYWHERE])
def test_it_is_so_with_every_kind_of_address(address: Address) -> None:
    with opened(address, dual_stack=address is EVERYWHERE) as sockets:
        steer(sockets[0], slots=SLOTS, newcomers=[3, 4, 5])
        assert len({sock.getsockname()[1] for sock in sockets}) == 1
        packets = [short(id_of(slot)) for slot in range(SLOTS)]
        assert owners(sockets, packets) == list(range(SLOTS))
        assert set(owners(sockets, map(long, client_ids(100, 1)))) == {3, 4, 5}
        if address is EVERYWHERE:
            # Packets over IPv4 come to the same sockets.
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as source:
                source.connect(("127.0.0.1", sockets[0].getsockname()[1]))
                for slot in range(SLOTS):
                    source.send(short(id_of(slot)))
                    sockets[slot].settimeout(30)
                    assert sockets[slot].recvfrom(100)[1][0] == "::ffff:127.0.0.1"


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("newcomers", [[3, 4, 5], [0, 1, 2, 3, 4, 5], [5, 1], [4, 0, 2]])
def test_newcomers_are_spread_evenly_over_the_slots_that_take_them(seed: int, newcomers: list[int]) -> None:
    with opened() as sockets:
        steer(sockets[0], slots=SLOTS, newcomers=newcomers)
        ids = [one for length in (8, 18, 20) for one in client_ids(200, seed, length)]
        found = owners(sockets, map(long, ids))
        print(f"{len(ids)} newcomers of seed {seed}, by slot: {[found.count(slot) for slot in newcomers]}")
        assert is_even(found, newcomers)


def test_ids_that_differ_in_few_places_are_spread_as_well() -> None:
    with opened() as sockets:
        steer(sockets[0], slots=SLOTS, newcomers=[0, 1, 2, 3])
        for place in range(8):
            ids = [bytes(place) + bytes([number]) + bytes(7 - place) for number in range(256)]
            assert is_even(owners(sockets, map(long, ids)), [0, 1, 2, 3])


def test_all_packets_of_a_newcomer_come_to_the_same_socket() -> None:
    with opened() as sockets:
        steer(sockets[0], slots=SLOTS, newcomers=[0, 1, 2])
        ids = client_ids(100, 4)
        found = owners(sockets, map(long, ids))
        # The second one comes from another address, which a NAT may do, and has another length.
        assert owners(sockets, (long(one, 1100) for one in ids)) == found


@pytest.mark.parametrize("server_id", [b"", b"server 7"])
def test_an_id_of_a_client_that_looks_like_ours_is_a_newcomers(server_id: bytes) -> None:
    newcomers = [3, 4, 5]
    ours = id_of(1, server_id)
    changed = [
        ours[:at] + bytes([ours[at] ^ bit]) + ours[at + 1 :] for at in range(len(server_id) + 1) for bit in (1, 128)
    ]
    with opened() as sockets:
        steer(sockets[0], slots=SLOTS, newcomers=newcomers, server_id=server_id)
        assert owners(sockets, [long(ours), short(ours)]) == [1, 1]
        # Another configuration or length in the first octet, or another server ID.
        for header in (long, short):
            assert set(owners(sockets, map(header, changed))) <= set(newcomers)
        # The right octets in an ID of another length.
        others = [ours[:-1], ours[:-3], (ours + bytes(9))[:20]]
        assert set(owners(sockets, map(long, others))) <= set(newcomers)
        # Slots that there are not.
        beyond = [id_of(slot, server_id) for slot in (SLOTS, SLOTS + 1, 100, 255)]
        for header in (long, short):
            assert set(owners(sockets, map(header, beyond))) <= set(newcomers)


def test_of_random_ids_of_19_and_20_bytes_none_is_taken_for_one_of_a_slot() -> None:
    with opened() as sockets:
        steer(sockets[0], slots=SLOTS, newcomers=[5], server_id=b"server 7")
        for length in (19, 20):
            ids = [bytes([18]) + one[1:] for one in client_ids(500, 5, length)]
            assert set(owners(sockets, map(long, ids))) == {5}


def test_the_next_generation_takes_newcomers_at_once_and_connections_stay() -> None:
    with opened() as sockets:
        ids = client_ids(300, 6)
        for generation in ([0, 1, 2], [3, 4, 5], [0, 1, 2], [3, 4, 5]):
            steer(sockets[generation[-1]], slots=SLOTS, newcomers=generation)
            found = owners(sockets, map(long, ids))
            assert set(found) == set(generation)
            # A newcomer has the same place in each generation.
            assert [generation.index(slot) for slot in found] == [slot % 3 for slot in found]
            if generation == [0, 1, 2]:
                places_before = found
            else:
                assert [slot - 3 for slot in found] == places_before
            packets = [header(id_of(slot, seed=9)) for header in (long, short) for slot in range(SLOTS)]
            assert owners(sockets, packets) == [*range(SLOTS), *range(SLOTS)]
            print(f"{len(ids)} newcomers for slots {generation}: {[found.count(slot) for slot in range(SLOTS)]}")


@pytest.mark.parametrize("down", [{1}, {0, 2}, {3}])
def test_when_a_slot_goes_down_only_its_newcomers_go_elsewhere(down: set[int]) -> None:
    generation = [0, 1, 2, 3]
    with opened() as sockets:
        ids = client_ids(1200, 7)
        steer(sockets[0], slots=SLOTS, newcomers=places(generation))
        before = owners(sockets, map(long, ids))
        steer(sockets[0], slots=SLOTS, newcomers=places(generation, down))
        after = owners(sockets, map(long, ids))
    up = [slot for slot in generation if slot not in down]
    assert is_even(after, up)
    assert all(was == now for was, now in zip(before, after, strict=True) if was not in down)
    moved = [now for was, now in zip(before, after, strict=True) if was in down]
    assert len(up) == 1 or is_even(moved, up)


def test_the_largest_table_is_taken_by_the_kernel() -> None:
    with opened(slots=256) as sockets:
        for newcomers in (places(range(256), {9}), places(range(40), {9, 11}), places([*range(0, 256, 9)], {9})):
            steer(sockets[0], slots=256, newcomers=newcomers)
            assert set(owners(sockets, map(long, client_ids(500, 8)))) <= set(newcomers)
            assert owners(sockets, [short(id_of(slot)) for slot in (0, 9, 255)]) == [0, 9, 255]


def test_packets_that_are_too_short_for_quic_come_to_a_newcomers_socket() -> None:
    with opened() as sockets:
        steer(sockets[0], slots=SLOTS, newcomers=[4], server_id=b"server 7")
        runts = [random.Random(size).randbytes(size) for size in range(30)]
        assert set(owners(sockets, runts)) == {4}
        # Longer than the packet is.
        assert set(owners(sockets, [bytes([0xC3, 0, 0, 0, 1, 255]), bytes([0xC3, 0, 0, 0, 1, 19, 18])])) == {4}


@pytest.mark.parametrize("has_gro", [False, True])
def test_a_burst_that_the_kernel_cuts_comes_whole_to_its_socket(has_gro: bool) -> None:
    with opened() as sockets, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as source:
        steer(sockets[0], slots=SLOTS, newcomers=[4])
        source.setsockopt(socket.SOL_UDP, UDP_SEGMENT, 100)
        for sock in sockets:
            sock.setsockopt(socket.SOL_UDP, UDP_GRO, has_gro)
            sock.settimeout(30)
        for slot in range(SLOTS):
            burst = b"".join(short(id_of(slot, seed=seed), 100) for seed in range(16))
            source.sendto(burst, sockets[0].getsockname())
            received = b""
            while len(received) < len(burst):
                received += sockets[slot].recv(65_536)
            assert received == burst


def test_a_socket_that_joins_later_gets_nothing() -> None:
    with opened() as sockets, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        steer(sockets[0], slots=SLOTS, newcomers=[0, 1, 2])
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind(sockets[0].getsockname())
        found = owners([*sockets, stranger], [*map(long, client_ids(200, 1)), *map(short, client_ids(200, 2))])
        assert set(found) == {0, 1, 2}


def test_an_address_in_use_is_not_shared() -> None:
    with opened() as sockets:
        taken = Address("127.0.0.1", sockets[0].getsockname()[1], is_ipv6=False)
        with pytest.raises(OSError, match="in use"):
            open_slots(taken, 2)


def test_wrong_slots_are_named() -> None:
    for given, words in (
        ({"slots": 0, "newcomers": [0]}, "slots is 0"),
        ({"slots": 257, "newcomers": [0]}, "slots is 257"),
        ({"slots": 2, "newcomers": []}, "newcomers has 0 places"),
        ({"slots": 2, "newcomers": [0, 2]}, "slots are 0 to 1"),
    ):
        with pytest.raises(ValueError, match=words):
            program(**given)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no slot for newcomers"):
        places([0, 1], {0, 1})


def test_a_packet_of_a_connection_meets_few_instructions() -> None:
    # None of them loops: this bounds what steering costs.
    for server_id, most in ((b"", 14), (b"server 7", 18)):
        table = program(slots=256, newcomers=places(range(16), {3}), server_id=server_id)
        assert next(itertools.compress(itertools.count(1), (one.code == 0x16 for one in table))) <= most


WITHOUT_PRIVILEGES = """
import os, sys
from wtio._driver import Address
from wtio._steering import open_slots, steer
from tests.steering.packets import client_ids, id_of, long, owners, short
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
capabilities = [line for line in open("/proc/self/status") if line.startswith("CapEff")]
sockets = open_slots(Address("127.0.0.1", 0, False), 6)
steer(sockets[0], slots=6, newcomers=[3, 4, 5])
print(int(capabilities[0].split()[1], 16), owners(sockets, [short(id_of(slot)) for slot in range(6)]),
    sorted(set(owners(sockets, map(long, client_ids(100, 1))))))
"""


def test_it_needs_no_privileges() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PRIVILEGES], capture_output=True, text=True, check=False, cwd=os.getcwd()
    )
    assert done.stdout == "0 [0, 1, 2, 3, 4, 5] [3, 4, 5]\n", done.stderr
