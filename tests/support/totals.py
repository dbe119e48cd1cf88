"""Totals of a server, looked at again and again."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import wtio


def totals(stats: wtio.ServerStats) -> dict[tuple[str, object], int]:
    """Every total by itself, by field and cause."""
    found: dict[tuple[str, object], int] = {}
    for field in dataclasses.fields(stats):
        value: Any = getattr(stats, field.name)
        if field.name.endswith("_total"):
            counts = value if isinstance(value, Mapping) else {None: value}
            found |= {(field.name, cause): number for cause, number in counts.items()}
    return found


def check_sums(stats: wtio.ServerStats, *, with_sessions: bool) -> None:
    """What came in is there still or has ended."""
    assert stats.connections_opened_total == stats.connections_open + sum(stats.connections_closed_total.values())
    assert stats.connections_accepted_total == (
        stats.connections_opened_total + stats.connections_half_open + sum(stats.handshakes_failed_total.values())
    )
    if with_sessions:
        assert stats.sessions_opened_total == stats.sessions_open + sum(stats.sessions_closed_total.values())


class Watch:
    """Looks at a server again and again: no total is ever smaller than before."""

    def __init__(self, server: wtio.Server, *, is_on_loop: bool = True) -> None:
        self._server = server
        # Otherwise the server's loop may be in the middle of counting something of a session.
        self._is_on_loop = is_on_loop
        self._last: dict[tuple[str, object], int] = {}

    def look(self) -> wtio.ServerStats:
        stats = self._server.stats()
        now = totals(stats)
        shrunk = {name: (number, now.get(name)) for name, number in self._last.items() if now.get(name, -1) < number}
        assert not shrunk
        self._last = now
        check_sums(stats, with_sessions=self._is_on_loop)
        return stats

    async def look_every(self, seconds: float) -> None:
        while True:
            self.look()
            await asyncio.sleep(seconds)
