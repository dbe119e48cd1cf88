"""What a hub and its subscriptions share: the topics, the link to the bus, and the tasks that work for them."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from wtio._waiting import check_loop
from wtio.errors import LocalProtocolError
from wtio.hub._counts import Counts, HubStats
from wtio.hub._link import Link
from wtio.hub._messages import Encoded, key_of
from wtio.hub._topic import Topic

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from wtio.config import HubLimits
    from wtio.hub._bus import Bus
    from wtio.hub._subscribers import StreamSubscriber, Subscriber

__all__ = ["HubState"]

_log: Final = logging.getLogger("wtio.hub")


class HubState:
    """The state of one hub. Only its event loop may use it, except for ``stats``."""

    __slots__ = ("_link", "_loop", "_tasks", "_topics", "counts", "is_closed", "limits")

    def __init__(self, bus: Bus | None, limits: HubLimits) -> None:
        self.limits: HubLimits = limits
        self.counts: Counts = Counts()
        # Whether ``close`` was called; nothing begins any more then.
        self.is_closed: bool = False
        # By name. A topic without subscribers is not here.
        self._topics: dict[str, Topic] = {}
        # None without a bus.
        self._link = None if bus is None else Link(bus, limits, self.counts, self._take)
        # The loop that used the hub first; None before.
        self._loop: asyncio.AbstractEventLoop | None = None
        # What runs for the bus (one task) and for subscribers, which bound theirs.
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to use the hub on this loop, unless it is in use already.

        Raises:
            LocalProtocolError: The hub is closed.
            RuntimeError: It belongs to another loop.
        """
        if self.is_closed:
            raise LocalProtocolError("this hub is closed; make another one")
        if self._loop is not None:
            check_loop(self._loop, "this hub")
            return
        self._loop = asyncio.get_running_loop()
        if self._link is not None:
            self.spawn(self._link.run())

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task that ends with the hub, and whose failure is logged."""
        assert self._loop is not None
        task = self._loop.create_task(work, name="wtio hub")
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _log.error("a task of a hub failed, a defect of wtio or of a bus", exc_info=error)

    # -- topics

    def add(self, topic: str, subscriber: Subscriber) -> None:
        """Begin to offer messages to a subscriber."""
        if topic not in self._topics:
            self._topics[topic] = Topic()
            if self._link is not None:
                self._link.want(topic)
        self._topics[topic].add(subscriber)

    def remove(self, topic: str, subscriber: Subscriber) -> None:
        """Offer nothing more to a subscriber. Idempotent."""
        found = self._topics.get(topic)
        if found is None:
            return
        found.remove(subscriber)
        if not found:
            del self._topics[topic]
            if self._link is not None:
                self._link.unwant(topic)

    async def confirmed(self, topic: str) -> None:
        """Wait until the bus delivers a topic, for ``HubLimits.subscribe`` at most. Cancelling changes nothing."""
        if self._link is not None:
            await self._link.confirmed(topic)

    def publish(self, topic: str, message: Encoded) -> list[StreamSubscriber]:
        """Offer a message to everybody here, and hand it to the bus. Return the subscribers that are full."""
        self.counts.published += 1
        full = self._offer(topic, message)
        if self._link is not None:
            self._link.send(topic, message.data)
        return full

    def _offer(self, topic: str, message: Encoded) -> list[StreamSubscriber]:
        found = self._topics.get(topic)
        return [] if found is None else found.offer(message)

    def _take(self, topic: str, data: bytes) -> None:
        """Deliver a message of another process. There is nobody who could wait for those that are full."""
        try:
            key = key_of(data)
        except ValueError:
            _log.debug("what came from the bus for topic %r is no message", topic)
            return
        self._offer(topic, Encoded(key, data))

    # -- the end

    async def close(self) -> None:
        """End all subscriptions, and everything that runs."""
        check_loop(self._loop, "this hub")
        self.is_closed = True
        for topic in list(self._topics.values()):
            for subscriber in topic.subscribers():
                subscriber.give_up()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=self.limits.bus_answer)

    def stats(self) -> HubStats:
        """Return a snapshot of the numbers."""
        link, counts = self._link, self.counts
        return HubStats(
            topics=len(self._topics),
            subscriptions=sum(map(len, list(self._topics.values()))),
            is_bus_connected=link is not None and link.is_up,
            bus_queued=0 if link is None else link.queued,
            published=counts.published,
            from_bus=counts.from_bus,
            unsent=counts.unsent,
            missed=counts.missed,
            bus_lost=counts.bus_lost,
            replaced=counts.replaced,
            expired=counts.expired,
            too_large=counts.too_large,
            closed_as_too_slow=counts.closed_as_too_slow,
        )
