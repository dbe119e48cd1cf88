"""Several UDP sockets at one address, and the program by which the kernel chooses among them (Linux, SO_REUSEPORT).

Each socket is a slot: socket number n gets the packets with connection IDs of slot n, wherever they come from. So a
connection stays with its process, also when its client's address changes. All other packets are newcomers'. They are
spread over the slots that take newcomers, by a hash of the connection ID that the client has chosen: all packets that
it sends before it knows an ID of the server's have the same one. Which slots these are can change at any time, and
changes nothing for connections.

The program is one of classic BPF (SO_ATTACH_REUSEPORT_CBPF), which needs no privileges. It sees the UDP payload.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from array import array
from typing import TYPE_CHECKING, Final, NamedTuple

from wtio._connection_ids import connection_ids
from wtio.config import LARGEST_SLOT

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from wtio._driver import Address

# asm-generic/socket.h. Python has no name for it.
_SO_ATTACH_REUSEPORT_CBPF: Final = 51

# A long header (RFC 8999, section 5.1) has this bit in its first byte.
_LONG_HEADER: Final = 0x80
# Where a long header has the length of the destination connection ID, which follows at once.
_ID_LENGTH_AT: Final = 5
_ID_IN_LONG_HEADER: Final = 6
# A short header has it behind its first byte (RFC 8999, section 5.2).
_ID_IN_SHORT_HEADER: Final = 1
# No QUIC packet is shorter (RFC 9001, section 5.4.2). The kernel ends a program that reads beyond a packet with 0.
_SHORTEST_PACKET: Final = 21
# Two words become one by multiplication with 2^32 divided by the golden ratio, as an odd number. Then each bit is made
# to depend on all others: shifts and factors alternate, as at the end of MurmurHash3.
_JOIN: Final = 0x9E3779B1
_MIX: Final = ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1))
# Most places in the table of newcomers: each takes two instructions, of the 4096 that the kernel allows.
_MOST_PLACES: Final = 1024
# Instructions, as in linux/bpf_common.h. The accumulator is A, the index register X, M[0] a word of memory.
_LOAD_BYTE: Final = 0x30  # A = byte k
_LOAD_LENGTH: Final = 0x80  # A = length of the packet
_LOAD_WORD_AT: Final = 0x40  # A = big-endian word X + k
_LOAD_HALF_AT: Final = 0x48
_LOAD_BYTE_AT: Final = 0x50
_SET_INDEX: Final = 0x01  # X = k
_INDEX_FROM_MEMORY: Final = 0x61  # X = M[k]
_STORE: Final = 0x02  # M[k] = A
_COPY_TO_INDEX: Final = 0x07  # X = A
_XOR_INDEX: Final = 0xAC  # A ^= X
_MULTIPLY: Final = 0x24  # A *= k
_SHIFT_RIGHT: Final = 0x74
_MODULO: Final = 0x94
_ADD: Final = 0x04
_IF_EQUAL: Final = 0x15
_IF_AT_LEAST: Final = 0x35
_IF_BITS: Final = 0x45
_RETURN: Final = 0x06  # k
_RETURN_A: Final = 0x16


class Instruction(NamedTuple):
    """One of classic BPF. Jumps count the instructions that are left out."""

    code: int
    if_true: int
    if_false: int
    k: int


def is_supported() -> bool:
    """Whether this system can choose among sockets by connection ID."""
    return sys.platform == "linux"


def open_slots(address: Address, slots: int, *, dual_stack: bool = False) -> list[socket.socket]:
    """Bind several sockets to one address. Port 0 becomes a free port, the same for all.

    They belong together until the last one is closed. Leave all of them open: if one is closed, the kernel moves the
    last one into its place.

    Args:
        address: Where to bind.
        slots: How many, 1 to 256.
        dual_stack: Whether sockets of IPv6 serve IPv4, too.

    Raises:
        OSError: The address is in use, not this machine's, or may not be used.
    """
    if not is_supported():
        raise OSError(errno.ENOPROTOOPT, "only Linux can choose among sockets by connection ID")
    # Without this, the group could be one that another process of this user has opened: its sockets would be the first.
    with socket.socket(_family(address), socket.SOCK_DGRAM) as alone:
        _bind(alone, address, address.port, dual_stack)
        port = alone.getsockname()[1]
    sockets: list[socket.socket] = []
    try:
        for _ in range(slots):
            sock = socket.socket(_family(address), socket.SOCK_DGRAM)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            _bind(sock, address, port, dual_stack)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _family(address: Address) -> int:
    return socket.AF_INET6 if address.is_ipv6 else socket.AF_INET


def _bind(sock: socket.socket, address: Address, port: int, dual_stack: bool) -> None:
    if address.is_ipv6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual_stack)
    ip, _, zone = address.ip.partition("%")
    number = int(zone) if zone.isdigit() else socket.if_nametoindex(zone) if zone else 0
    sock.bind((ip, port, 0, number) if address.is_ipv6 else (ip, port))


def steer(sock: socket.socket, *, slots: int, newcomers: Sequence[int], server_id: bytes = b"") -> None:
    """Tell the kernel how to choose among sockets that share an address. It takes effect at once, for all of them.

    Args:
        sock: Any of the sockets.
        slots: How many there are.
        newcomers: Slots that take new connections, in their order; see ``places``.
        server_id: The server ID in the connection IDs; empty without one.

    Raises:
        OSError: The kernel does not take it.
        ValueError: A slot is not among the sockets, or there are no newcomers.
    """
    instructions = program(slots=slots, newcomers=newcomers, server_id=server_id)
    code = array("B", b"".join(struct.pack("HBBI", *one) for one in instructions))
    # struct sock_fprog: how many, and where they are. The kernel copies them.
    fprog = struct.pack("HP", len(instructions), code.buffer_info()[0])
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, fprog)


def places(generation: Sequence[int], down: Collection[int] = ()) -> list[int]:
    """Return newcomers for ``steer``: the slots of a generation, without those that are down.

    If a slot goes down, others take its newcomers in equal shares, and no other newcomer changes its slot. Neither does
    one change its worker when the next generation of as many slots takes over: it goes to the one in the same place.

    Args:
        generation: All slots of the workers that take newcomers.
        down: Slots that have no worker now.

    Raises:
        ValueError: All are down.
    """
    up = [slot for slot in generation if slot not in down]
    if not up:
        raise ValueError("there is no slot for newcomers; give it one that is not down")
    if len(up) == len(generation) or len(up) * len(generation) > _MOST_PLACES:
        return up
    # The remainder of a hash by a multiple of their number, divided by their number, has the same remainder.
    table = list(generation) * len(up)
    return [slot if slot not in down else up[place // len(generation)] for place, slot in enumerate(table)]


def program(*, slots: int, newcomers: Sequence[int], server_id: bytes = b"") -> list[Instruction]:
    """Return the program of ``steer``, which returns the number of a socket."""
    if not 1 <= slots <= LARGEST_SLOT + 1:
        raise ValueError(f"slots is {slots}; it must be between 1 and {LARGEST_SLOT + 1}")
    if not 1 <= len(newcomers) <= _MOST_PLACES:
        raise ValueError(f"newcomers has {len(newcomers)} places; it must have 1 to {_MOST_PLACES}")
    if not all(0 <= slot < slots for slot in newcomers):
        raise ValueError(f"newcomers is {list(newcomers)}; slots are 0 to {slots - 1}")
    ours = _if_ours(slots, server_id)
    length = connection_ids(server_id, 0).length
    return [
        Instruction(_LOAD_LENGTH, 0, 0, 0),
        Instruction(_IF_AT_LEAST, 1, 0, _SHORTEST_PACKET),
        Instruction(_RETURN, 0, 0, newcomers[0]),
        # X is where the connection ID begins.
        Instruction(_SET_INDEX, 0, 0, _ID_IN_SHORT_HEADER),
        Instruction(_LOAD_BYTE, 0, 0, 0),
        Instruction(_IF_BITS, 0, 3, _LONG_HEADER),
        Instruction(_SET_INDEX, 0, 0, _ID_IN_LONG_HEADER),
        Instruction(_LOAD_BYTE, 0, 0, _ID_LENGTH_AT),
        Instruction(_IF_EQUAL, 0, len(ours), length),
        *ours,
        *_choose_by_hash(newcomers),
    ]


def _if_ours(slots: int, server_id: bytes) -> list[Instruction]:
    """Return the slot in an ID of ours; fall through with any other ID."""
    prefix = connection_ids(server_id, 0).prefix[:-1]
    loads = {1: _LOAD_BYTE_AT, 2: _LOAD_HALF_AT, 4: _LOAD_WORD_AT}
    checks: list[tuple[int, int, int]] = []
    at = 0
    while at < len(prefix):
        size = max(size for size in loads if size <= len(prefix) - at)
        checks.append((loads[size], at, int.from_bytes(prefix[at : at + size], "big")))
        at += size
    total = 2 * len(checks) + 3
    found: list[Instruction] = []
    for load, offset, value in checks:
        found.append(Instruction(load, 0, 0, offset))
        found.append(Instruction(_IF_EQUAL, 0, total - len(found) - 1, value))
    found.append(Instruction(_LOAD_BYTE_AT, 0, 0, len(prefix)))
    found.append(Instruction(_IF_AT_LEAST, 1, 0, slots))
    found.append(Instruction(_RETURN_A, 0, 0, 0))
    return found


def _choose_by_hash(newcomers: Sequence[int]) -> list[Instruction]:
    """Choose by the first eight bytes of the ID: a client's first one has at least as many (RFC 9000, section 7.2)."""
    hashed = [
        Instruction(_LOAD_WORD_AT, 0, 0, 0),
        Instruction(_MULTIPLY, 0, 0, _JOIN),
        Instruction(_STORE, 0, 0, 0),
        Instruction(_LOAD_WORD_AT, 0, 0, 4),
        Instruction(_INDEX_FROM_MEMORY, 0, 0, 0),
        Instruction(_XOR_INDEX, 0, 0, 0),
    ]
    for shift, factor in _MIX:
        hashed += [
            Instruction(_COPY_TO_INDEX, 0, 0, 0),
            Instruction(_SHIFT_RIGHT, 0, 0, shift),
            Instruction(_XOR_INDEX, 0, 0, 0),
            Instruction(_MULTIPLY, 0, 0, factor),
        ]
    hashed.append(Instruction(_MODULO, 0, 0, len(newcomers)))
    first = newcomers[0]
    if list(newcomers) == list(range(first, first + len(newcomers))):
        return [*hashed, Instruction(_ADD, 0, 0, first), Instruction(_RETURN_A, 0, 0, 0)]
    for place, slot in enumerate(newcomers[:-1]):
        hashed += [Instruction(_IF_EQUAL, 0, 1, place), Instruction(_RETURN, 0, 0, slot)]
    return [*hashed, Instruction(_RETURN, 0, 0, newcomers[-1])]
