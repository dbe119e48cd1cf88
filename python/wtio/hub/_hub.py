"""The hub and its subscriptions, as an application sees them. Policies and buses have modules of their own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from wtio._arguments import check_instance
from wtio._waiting import Flag
from wtio.config import HubLimits
from wtio.errors import LocalProtocolError
from wtio.hub._bus import Bus
from wtio.hub._messages import check_key, check_topic, encode
from wtio.hub._policies import Policy, everything
from wtio.hub._state import HubState
from wtio.hub._subscribers import Place, Subscriber, make_subscriber
from wtio.stream import WebTransportSession

if TYPE_CHECKING:
    from types import TracebackType

    from wtio._buffer import Buffer
    from wtio.hub._counts import HubStats

__all__ = ["Hub", "Subscription"]


class Hub:
    """Delivers what is published on a topic to all sessions that subscribe to it.

    Subscribers in this process get a message first, without the bus. While the bus is down, they still do: nothing
    raises, one line in the log (``wtio.hub``) says so, and the hub connects again, at most 0.25 s after the bus
    has returned. Messages that were published meanwhile do not reach other processes later; ``stats`` counts them on
    both sides.

    A hub may be made anywhere. It belongs to the event loop that uses it first, and connects to its bus then. ``async
    with hub`` or ``close`` ends it.

    Args:
        bus: What connects the hubs of several processes: a ``RedisBus``, ``NatsBus`` or ``MemoryBus``. None (default)
            for one process.
        limits: Sizes and durations; None (default) means ``HubLimits()``.

    Raises:
        TypeError: An argument is of the wrong type.
    """

    __slots__ = ("_state",)

    def __init__(self, bus: Bus | None = None, *, limits: HubLimits | None = None) -> None:
        check_instance("bus", bus, Bus, "such as wtio.hub.RedisBus(url)")
        check_instance("limits", limits, HubLimits, "such as wtio.hub.HubLimits(patience=1)")
        self._state = HubState(bus, HubLimits() if limits is None else limits)

    async def publish(self, topic: str, data: Buffer, *, key: str = "") -> None:
        """Deliver a message to all subscribers of a topic, here and in other processes.

        Waits only for subscribers of this process with ``everything`` whose queue is full, for ``HubLimits.patience``
        at most; they are closed as too slow then. Never waits for the bus, and never raises because of it.

        Cancelling ends the wait; the message has been taken for everybody.

        Args:
            topic: Its name: 1 to 255 bytes of UTF-8, printable.
            data: Bytes-like and contiguous, possibly empty. Copied. With topic and key at most ``HubLimits.message``.
            key: For ``latest``: the thing that ``data`` is the newest state of. At most 255 bytes. Default empty.

        Raises:
            TypeError: An argument is of the wrong type.
            ValueError: An argument is out of its range.
            LocalProtocolError: The hub is closed.
        """
        check_topic(topic)
        if key != "":
            check_key(key)
        state = self._state
        message = encode(topic, key, data, state.limits.message)
        state.start()
        full = state.publish(topic, message)
        if full:
            deadline = asyncio.get_running_loop().time() + state.limits.patience
            for subscriber in full:
                await subscriber.room(deadline)

    def subscribe(self, session: WebTransportSession, topic: str, *, policy: Policy = everything) -> Subscription:
        """Subscribe a session to a topic for the time of an ``async with``.

        Args:
            session: Who gets the messages, normally a session of a server.
            topic: Its name: 1 to 255 bytes of UTF-8, printable.
            policy: What happens if the session is slow. Default ``everything``.

        Returns:
            The subscription, which begins in ``async with``.

        Raises:
            TypeError: An argument is of the wrong type.
            ValueError: ``topic`` is empty, too long or not printable.
        """
        check_instance("session", session, WebTransportSession, "such as the one of a handler", optional=False)
        check_topic(topic)
        check_instance("policy", policy, Policy, "such as wtio.hub.latest()", optional=False)
        return Subscription(self._state, session, topic, policy)

    def stats(self) -> HubStats:
        """Return a snapshot of the hub's numbers. Never fails, even after the end."""
        return self._state.stats()

    async def close(self) -> None:
        """End all subscriptions and leave the bus. Sessions stay open. Idempotent.

        What subscribers have not been sent is given up. Takes at most ``HubLimits.bus_answer``. Cancelling closes the
        hub all the same, but does not wait for the bus.
        """
        await self._state.close()

    async def __aenter__(self) -> Self:
        self._state.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._state.close()

    def __repr__(self) -> str:
        stats = self._state.stats()
        state = "closed" if self._state.is_closed else "open"
        return f"<Hub topics={stats.topics} subscriptions={stats.subscriptions} {state}>"


class Subscription:
    """A session's subscription to a topic, from the beginning of its ``async with`` to the end.

    Entering waits until the bus delivers the topic here, for ``HubLimits.subscribe`` at most; cancelled, there is no
    subscription. Leaving sends what was published before, for ``HubLimits.patience`` at most; cancelled, or if the body
    raised, it gives that up. The subscription ends earlier if the session does, if the peer stops the stream of
    ``everything``, and if the hub is closed.
    """

    __slots__ = ("_has_ended", "_policy", "_session", "_state", "_subscriber", "_topic")

    def __init__(self, state: HubState, session: WebTransportSession, topic: str, policy: Policy) -> None:
        self._state = state
        # Who gets the messages of which topic, and how.
        self._session = session
        self._topic = topic
        self._policy = policy
        # What sends the messages; None before and after the subscription.
        self._subscriber: Subscriber | None = None
        # Set when the subscription has ended.
        self._has_ended = Flag()

    @property
    def topic(self) -> str:
        """The topic's name."""
        return self._topic

    @property
    def session(self) -> WebTransportSession:
        """The session that gets the messages."""
        return self._session

    @property
    def policy(self) -> Policy:
        """What happens if the session is slow."""
        return self._policy

    @property
    def is_active(self) -> bool:
        """Whether messages are being delivered: entered, and not ended."""
        return self._subscriber is not None

    async def wait_ended(self) -> None:
        """Wait until nothing more is delivered, for any reason. Cancelling changes nothing.

        The end of a session is noticed with the next message at the latest.
        """
        await self._has_ended.wait()

    def _end(self) -> None:
        if self._subscriber is not None:
            self._state.remove(self._topic, self._subscriber)
        self._subscriber = None
        self._has_ended.set()

    async def __aenter__(self) -> Self:
        if self._subscriber is not None or self._has_ended.is_set:
            raise LocalProtocolError("a subscription is entered once; call Hub.subscribe again")
        state = self._state
        state.start()
        place = Place(self._session, self._topic, state.limits, state.counts, spawn=state.spawn, leave=self._end)
        subscriber = self._subscriber = make_subscriber(self._policy, place)
        state.add(self._topic, subscriber)
        try:
            await state.confirmed(self._topic)
        except BaseException:
            subscriber.give_up()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        subscriber = self._subscriber
        if subscriber is None:
            return
        self._end()
        if error is None and not self._session.is_closed:
            await subscriber.finish()
        else:
            subscriber.stop()

    def __repr__(self) -> str:
        state = "active" if self.is_active else "ended" if self._has_ended.is_set else "new"
        return f"<Subscription {self._topic!r} {self._policy.name} session={self._session.log_id} {state}>"
