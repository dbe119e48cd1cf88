"""What a hub counts. Its parts add to one ``Counts``; ``HubStats`` is what the application sees."""

from __future__ import annotations

from dataclasses import dataclass

from wtio._arguments import sealed

__all__ = ["Counts", "HubStats"]


class Counts:
    """Counters of one hub, each explained at the field of the same name in ``HubStats``."""

    __slots__ = (
        "bus_lost",
        "closed_as_too_slow",
        "expired",
        "from_bus",
        "missed",
        "published",
        "replaced",
        "too_large",
        "unsent",
    )

    def __init__(self) -> None:
        self.published: int = 0
        self.from_bus: int = 0
        self.unsent: int = 0
        self.missed: int = 0
        self.bus_lost: int = 0
        self.replaced: int = 0
        self.expired: int = 0
        self.too_large: int = 0
        self.closed_as_too_slow: int = 0


@sealed
@dataclass(frozen=True, slots=True, kw_only=True)
class HubStats:
    """A snapshot of a hub's numbers. Counts begin with the hub."""

    topics: int
    """Topics with subscribers in this process."""
    subscriptions: int
    """Subscriptions in this process."""
    is_bus_connected: bool
    """Whether the bus is connected now; False without a bus."""
    bus_queued: int
    """Bytes that wait to be handed to the bus."""
    published: int
    """Messages published here."""
    from_bus: int
    """Messages of other processes that came from the bus."""
    unsent: int
    """Messages published here that the bus did not confirm to have taken: it was down, or the queue was full."""
    missed: int
    """Messages of other processes on topics with subscribers here that did not come: gaps in their numbering."""
    bus_lost: int
    """How often a connection to the bus was lost."""
    replaced: int
    """Updates of ``latest`` that gave way to a newer one before they were sent."""
    expired: int
    """Messages of ``within`` that were given up, for each subscriber."""
    too_large: int
    """Messages that were too large for a subscriber's datagrams."""
    closed_as_too_slow: int
    """Sessions closed because they read too slowly for ``everything``."""
