"""Figures of all workers, added up: totals that do not go down when a worker ends, and what there is now.

What a worker counted after its last report is lost if it is killed. What it had open then counts as ended: sessions and
connections as lost with it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from wtio._stats import ServerStats, SessionCounts, server_stats

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Totals", "from_message", "to_message"]

# A server that has not begun: its mappings have all of their causes.
_NONE = server_stats([], SessionCounts(), None, sessions=0, waiting=0)
_FIELDS = dataclasses.fields(ServerStats)


def to_message(stats: ServerStats) -> dict[str, Any]:
    """As JSON can have it."""
    return dataclasses.asdict(stats)


def from_message(figures: Mapping[str, Any]) -> ServerStats:
    """Read what ``to_message`` made in another process, perhaps of another version: what is not there is 0.

    Raises:
        ValueError: It is something else.
    """
    values: dict[str, Any] = {}
    for field in _FIELDS:
        default = getattr(_NONE, field.name)
        value = figures.get(field.name, default)
        if isinstance(default, Mapping):
            # JSON has no other keys than text.
            keys = int if field.name == "sessions_rejected_total" else str
            if not isinstance(value, Mapping):
                raise ValueError(f"the figures of a worker have no mapping {field.name}")
            value = {keys(name): int(number) for name, number in value.items()}
        elif value is not None:
            value = int(value)
        values[field.name] = value
    return ServerStats(**values)


def add_up(figures: Iterable[ServerStats]) -> ServerStats:
    """Add up the figures of several servers."""
    values: dict[str, Any] = {field.name: getattr(_NONE, field.name) for field in _FIELDS}
    for one in figures:
        for name, sum_ in values.items():
            value = getattr(one, name)
            if isinstance(sum_, Mapping):
                values[name] = dict(sum_) | {key: sum_.get(key, 0) + number for key, number in value.items()}
            elif value is not None:
                values[name] = value if sum_ is None else sum_ + value
    return ServerStats(**values)


def ended(last: ServerStats) -> ServerStats:
    """What is left of a worker that is over: its totals, in which what it had open has ended."""
    gone: dict[str, Any] = {
        field.name: None if field.name.startswith("memory_") else 0
        for field in _FIELDS
        if not field.name.endswith("_total")
    }
    return dataclasses.replace(
        last,
        **gone,
        connections_closed_total=_more(last.connections_closed_total, "local", last.connections_open),
        handshakes_failed_total=_more(last.handshakes_failed_total, "local", last.connections_half_open),
        sessions_closed_total=_more(last.sessions_closed_total, "transport", last.sessions_open),
    )


def _more(counts: Mapping[str, int], cause: str, number: int) -> dict[str, int]:
    return {**counts, cause: counts.get(cause, 0) + number}


class Totals:
    """The figures of all workers that a supervisor has had. One sum stands for all that are over."""

    def __init__(self) -> None:
        # By worker: what those that run have reported last.
        self._running: dict[object, ServerStats] = {}
        # The sum of the others.
        self._ended = _NONE

    def note(self, worker: object, stats: ServerStats) -> None:
        """A worker has reported."""
        self._running[worker] = stats

    def note_end(self, worker: object) -> None:
        """A worker is over."""
        last = self._running.pop(worker, None)
        if last is not None:
            self._ended = add_up((self._ended, ended(last)))

    def sum(self) -> ServerStats:
        """Add up what is known now."""
        return add_up((self._ended, *self._running.values()))
