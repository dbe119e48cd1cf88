"""What an idle session keeps in memory: thousands of them may be open at once."""

from __future__ import annotations

import asyncio
import gc
from collections import deque
from enum import Enum
from typing import TYPE_CHECKING

from wtio import testing

if TYPE_CHECKING:
    from wtio.session import WebTransportSession

# The modules whose objects belong to one connection or one session.
OWN = ("wtio._connection.", "wtio._session_state", "wtio._waiting", "wtio._reporting", "wtio.protocol.", "wtio.stream")
# What all connections of a client share.
SHARED = ("wtio._connection.sockets",)


def own_containers(session: WebTransportSession) -> list[object]:
    """Everything that sessions and connections of this side keep things in, by following references."""
    seen: set[int] = set()
    containers: list[object] = []
    waiting: list[object] = [session]
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        module = type(one).__module__
        if isinstance(one, (list, dict, set, deque)):
            containers.append(one)
        elif isinstance(one, Enum) or (not isinstance(one, tuple) and (not module.startswith(OWN) or module in SHARED)):
            continue
        waiting += gc.get_referents(one)
    return containers


async def idle() -> None:
    network = testing.Network()
    accepted: list[WebTransportSession] = []

    async def handle(session: WebTransportSession) -> None:
        accepted.append(session)
        async for _ in session.incoming_bidirectional_streams():
            pass

    async with network.serve(handle), network.connect() as session:
        await asyncio.sleep(1)
        for side in (session, *accepted):
            containers = own_containers(side)
            assert containers, "nothing was looked at"
            # An empty deque takes 640 bytes, a set 216. A dict is left where one is needed for most of the time.
            unused = [one for one in containers if isinstance(one, deque) or (not one and not isinstance(one, dict))]
            assert not unused, f"{side!r} keeps {unused}"


def test_an_idle_session_keeps_no_container_that_it_does_not_use() -> None:
    testing.run(idle())
