"""What connection IDs look like, so that packets can be steered by them (RFC 9000, section 5.1).

A server behind others at the same address has IDs of this layout; all other IDs are random from the first byte::

    first octet · server ID (0 to 8 bytes) · slot (0 or 1 byte) · random bytes and a tag

The first octet has the configuration in its three high bits, and in the others how many bytes follow, as in QUIC-LB
(draft-ietf-quic-load-balancers-21, section 3). A balancer reads the server ID in the plain form of that draft (section
5.2), with configuration 0; what follows is its nonce. Without a server ID there is nothing for a balancer to read, and
the first octet has the codepoint that says so. The slot is for sockets of one host (``_steering``).

The engine makes the IDs, and recognizes its own by their tag (crates/engine/src/quic/ids.rs).
"""

from __future__ import annotations

from typing import Final, NamedTuple

# Configurations of QUIC-LB: the one that balancers are set up with, and the one for IDs that none can read.
_CONFIGURATION: Final = 0
_UNROUTABLE: Final = 7
# Below the configuration, the first octet has this many bits for the length.
_LENGTH_BITS: Final = 5
# Bytes behind the server ID: what AWS's balancer expects, with room for a slot, six random bytes and the tag.
_NONCE: Final = 10
# Bytes of IDs that nobody steers by.
_UNSTEERED: Final = 8


class ConnectionIds(NamedTuple):
    """The connection IDs of one endpoint."""

    prefix: bytes
    """What they begin with. Empty: nobody steers by them."""
    length: int
    """Their length in bytes."""


def connection_ids(server_id: bytes, slot: int | None) -> ConnectionIds:
    """Return what the IDs of a server look like. ``server_id`` may be empty."""
    if not server_id and slot is None:
        return ConnectionIds(b"", _UNSTEERED)
    configuration = _CONFIGURATION if server_id else _UNROUTABLE
    following = len(server_id) + _NONCE
    first_octet = configuration << _LENGTH_BITS | following
    return ConnectionIds(bytes([first_octet, *server_id, *(() if slot is None else (slot,))]), 1 + following)
