"""Who subscribes to one topic in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wtio.hub._subscribers import DatagramSubscriber, StreamSubscriber
from wtio.stream import broadcast

if TYPE_CHECKING:
    from wtio.hub._messages import Encoded
    from wtio.hub._subscribers import Subscriber
    from wtio.stream import WebTransportSession

__all__ = ["Topic"]


class Topic:
    """The subscribers of one topic, in the order of their coming. Datagrams go to all that want them with one call."""

    __slots__ = ("_datagrams", "_streams")

    def __init__(self) -> None:
        # Those that get datagrams, with their sessions.
        self._datagrams: dict[DatagramSubscriber, WebTransportSession] = {}
        self._streams: dict[StreamSubscriber, None] = {}

    def __len__(self) -> int:
        return len(self._datagrams) + len(self._streams)

    def subscribers(self) -> list[Subscriber]:
        """All of them, as a copy."""
        return [*self._datagrams, *self._streams]

    def add(self, subscriber: Subscriber) -> None:
        """Begin to offer messages to a subscriber."""
        if isinstance(subscriber, StreamSubscriber):
            self._streams[subscriber] = None
        elif isinstance(subscriber, DatagramSubscriber):
            self._datagrams[subscriber] = subscriber.session

    def remove(self, subscriber: Subscriber) -> None:
        """Offer nothing more to a subscriber. Idempotent."""
        if isinstance(subscriber, StreamSubscriber):
            self._streams.pop(subscriber, None)
        elif isinstance(subscriber, DatagramSubscriber):
            self._datagrams.pop(subscriber, None)

    def offer(self, message: Encoded) -> list[StreamSubscriber]:
        """Offer a message to everybody. Return the subscribers that are full."""
        datagrams = self._datagrams
        if datagrams and broadcast(datagrams.values(), message.data) < len(datagrams):
            # Copies here and below, because those whose sessions are over leave.
            for missing in list(datagrams):
                missing.note_missed(message)
        full = []
        for subscriber in list(self._streams):
            subscriber.offer(message)
            if subscriber.is_full:
                full.append(subscriber)
        return full
