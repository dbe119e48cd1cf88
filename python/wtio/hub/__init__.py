"""Fan-out: what one handler publishes on a topic reaches all sessions that subscribe to it, in every process.

A ``Hub`` delivers to the sessions of its own process first, and hands the message to a bus (Redis, NATS, or the memory
of one process) for the others. A subscriber's policy says what happens if it is slow: ``everything``, ``latest``,
``within`` or ``datagram``. History is the bus's business, not the hub's. ``import wtio`` does not load this package,
and redis-py and nats-py are imported only for ``RedisBus`` and ``NatsBus``.
"""

from __future__ import annotations

from wtio.config import HubLimits
from wtio.hub._bus import Bus, BusConnection
from wtio.hub._counts import HubStats
from wtio.hub._hub import Hub, Subscription
from wtio.hub._memory_bus import MemoryBus
from wtio.hub._messages import EXPIRED_CODE, REPLACED_CODE, TOO_SLOW_CODE, Message, MessageReader, decode_message
from wtio.hub._nats_bus import NatsBus
from wtio.hub._policies import Policy, datagram, everything, latest, within
from wtio.hub._redis_bus import RedisBus

__all__ = [
    "EXPIRED_CODE",
    "REPLACED_CODE",
    "TOO_SLOW_CODE",
    "Bus",
    "BusConnection",
    "Hub",
    "HubLimits",
    "HubStats",
    "MemoryBus",
    "Message",
    "MessageReader",
    "NatsBus",
    "Policy",
    "RedisBus",
    "Subscription",
    "datagram",
    "decode_message",
    "everything",
    "latest",
    "within",
]
