"""A hub's side of its bus: who is connected, what waits to be sent, and what others sent that did not come.

Nothing here raises towards those who publish. A message is numbered per topic by the hub that publishes it, so that
every other one notices what it missed, whichever side had lost the bus.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Final

from wtio.protocol import varint

if TYPE_CHECKING:
    from collections.abc import Callable

    from wtio.config import HubLimits
    from wtio.hub._bus import Bus, BusConnection
    from wtio.hub._counts import Counts

__all__ = ["Link"]

_log: Final = logging.getLogger("wtio.hub")

# Bytes of the random name with which a hub marks what it publishes.
_NAME_SIZE: Final = 8
# Messages that are handed to the bus at once.
_BATCH: Final = 256
# What channels of topics begin with, and those on which a hub looks whether its bus still delivers.
_TOPIC: Final = "topic/"
_CHECK: Final = "check/"


class _Numbers:
    """The last number of each of several senders or topics, those of longest ago forgotten."""

    __slots__ = ("_last", "_limit")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # The one used last is at the end.
        self._last: OrderedDict[str | bytes, int] = OrderedDict()

    def replace(self, name: str | bytes, number: int) -> int | None:
        """Set the number of one, and return what it was; None if it is not known."""
        last = self._last.pop(name, None)
        self._last[name] = number
        if len(self._last) > self._limit:
            self._last.popitem(last=False)
        return last

    def next(self, name: str | bytes) -> int:
        """Count one up from 1."""
        number = (self._last.get(name) or 0) + 1
        self.replace(name, number)
        return number


class _Interest:
    """A topic with subscribers in this process."""

    __slots__ = ("is_confirmed", "numbers")

    def __init__(self, limit: int) -> None:
        # Set while the bus is known to deliver the topic here.
        self.is_confirmed = asyncio.Event()
        # The number of each sender's last message.
        self.numbers = _Numbers(limit)


class Link:
    """The connection of one hub to its bus, made again whenever it is lost."""

    __slots__ = (
        "_bus",
        "_confirmed",
        "_counts",
        "_deliver",
        "_echo",
        "_has_changes",
        "_has_output",
        "_interests",
        "_limits",
        "_lost_at",
        "_name",
        "_output",
        "_sent_numbers",
        "_touched",
        "_unsent_before",
        "is_up",
        "queued",
    )

    def __init__(self, bus: Bus, limits: HubLimits, counts: Counts, deliver: Callable[[str, bytes], None]) -> None:
        self._bus = bus
        self._limits = limits
        self._counts = counts
        # Takes a topic and an encoded message of another process. Never waits.
        self._deliver = deliver
        # In front of everything that this hub publishes, so that it knows its own messages when they come back.
        self._name = os.urandom(_NAME_SIZE)
        # Whether the bus is connected and delivers.
        self.is_up = False
        # Messages for the bus as channel and payload, and their bytes with those that are being handed over: at most
        # ``HubLimits.bus_queue``. None while the bus is down.
        self._output: deque[tuple[str, bytes]] = deque()
        self.queued = 0
        self._has_output = asyncio.Event()
        # Topics with subscribers here; those that the present connection has subscribed to; and those for which the
        # two may differ.
        self._interests: dict[str, _Interest] = {}
        self._confirmed: set[str] = set()
        self._touched: set[str] = set()
        self._has_changes = asyncio.Event()
        # How many messages this hub has published on each topic.
        self._sent_numbers = _Numbers(limits.topics)
        # Set when what this hub published to itself came back.
        self._echo = asyncio.Event()
        # When the bus went down, on the loop's clock, and how many messages had not been sent by then. None while it is
        # up, and before the first attempt has failed.
        self._lost_at: float | None = None
        self._unsent_before = 0

    # -- called by the hub; all but ``confirmed`` never wait

    def send(self, topic: str, message: bytes) -> None:
        """Hand a message to the bus, later. While the bus is down, only count it."""
        payload = b"".join((self._name, varint.encode(self._sent_numbers.next(topic)), message))
        if not self.is_up or self.queued + len(payload) > self._limits.bus_queue:
            self._counts.unsent += 1
            return
        self._output.append((_TOPIC + topic, payload))
        self.queued += len(payload)
        self._has_output.set()

    def want(self, topic: str) -> None:
        """Subscribe to a topic, which now has subscribers here."""
        self._interests[topic] = _Interest(self._limits.topics)
        self._touch(topic)

    def unwant(self, topic: str) -> None:
        """Take the subscription to a topic back, because its last subscriber here is gone."""
        del self._interests[topic]
        self._touch(topic)

    async def confirmed(self, topic: str) -> None:
        """Wait until the bus delivers a topic, for ``HubLimits.subscribe``, and not at all while it is down.

        Cancelling changes nothing.
        """
        interest = self._interests[topic]
        if not self.is_up or interest.is_confirmed.is_set():
            return
        try:
            async with asyncio.timeout(self._limits.subscribe):
                await interest.is_confirmed.wait()
        except TimeoutError:
            return

    def _touch(self, topic: str) -> None:
        self._touched.add(topic)
        self._has_changes.set()

    # -- the connection

    async def run(self) -> None:
        """Connect, and connect again whenever the connection is lost, until cancelled."""
        delay = self._limits.bus_reconnect
        while True:
            try:
                async with asyncio.timeout(self._limits.bus_answer):
                    connection = await self._bus.connect(self._receive)
            except Exception as error:
                reason = error
            else:
                reason = await self._use(connection)
                if self._lost_at is None:
                    delay = self._limits.bus_reconnect
            self._note_loss(reason)
            await asyncio.sleep(random.uniform(delay / 2, delay))
            delay = min(2 * delay, self._limits.bus_reconnect_longest)

    async def _use(self, connection: BusConnection) -> Exception:
        """Use a connection until it is lost, and return why it was."""
        reason: Exception = ConnectionError("the connection was closed")
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen(connection), name="wtio hub listens")
                await self._open(connection)
                self._come_up()
                for part in (self._send_all, self._subscribe_all, self._check_often):
                    group.create_task(part(connection), name="wtio hub and its bus")
        except* Exception as errors:
            reason = _first(errors)
        finally:
            self._go_down()
            await self._close(connection)
        return reason

    async def _listen(self, connection: BusConnection) -> None:
        await connection.listen()
        raise ConnectionError("the connection was closed")

    async def _open(self, connection: BusConnection) -> None:
        async with asyncio.timeout(self._limits.bus_answer):
            await connection.subscribe([_CHECK + self._name.hex()])
        await self._check(connection)

    async def _close(self, connection: BusConnection) -> None:
        try:
            async with asyncio.timeout(self._limits.bus_answer):
                await connection.close()
        except Exception as error:
            # It is lost anyway.
            _log.debug("closing the connection to %s failed: %r", self._bus.name, error)

    async def _check(self, connection: BusConnection) -> None:
        """Find out whether what is published comes back, which shows that both directions work."""
        self._echo.clear()
        async with asyncio.timeout(self._limits.bus_answer):
            await connection.publish([(_CHECK + self._name.hex(), self._name)])
            await self._echo.wait()

    async def _check_often(self, connection: BusConnection) -> None:
        while True:
            await asyncio.sleep(self._limits.bus_check)
            await self._check(connection)

    async def _send_all(self, connection: BusConnection) -> None:
        while True:
            await self._has_output.wait()
            batch = [self._output.popleft() for _ in range(min(len(self._output), _BATCH))]
            if not self._output:
                self._has_output.clear()
            try:
                async with asyncio.timeout(self._limits.bus_answer):
                    await connection.publish(batch)
            except BaseException:
                self._counts.unsent += len(batch)
                raise
            self.queued -= sum(len(payload) for _, payload in batch)

    async def _subscribe_all(self, connection: BusConnection) -> None:
        while True:
            await self._has_changes.wait()
            some = [self._touched.pop() for _ in range(min(len(self._touched), _BATCH))]
            if not self._touched:
                self._has_changes.clear()
            new = [topic for topic in some if topic in self._interests and topic not in self._confirmed]
            old = [topic for topic in some if topic not in self._interests and topic in self._confirmed]
            async with asyncio.timeout(self._limits.bus_answer):
                if new:
                    await connection.subscribe([_TOPIC + topic for topic in new])
                if old:
                    await connection.unsubscribe([_TOPIC + topic for topic in old])
            self._confirmed.update(new)
            self._confirmed.difference_update(old)
            for topic in some:
                # Not if its last subscriber has left meanwhile.
                if topic in self._interests and topic in self._confirmed:
                    self._interests[topic].is_confirmed.set()

    # -- up and down

    def _come_up(self) -> None:
        self.is_up = True
        self._touched = set(self._interests)
        if self._touched:
            self._has_changes.set()
        if self._lost_at is not None:
            _log.info(
                "%s is back after %.1f s; %d messages were not sent to it meanwhile",
                self._bus.name,
                asyncio.get_running_loop().time() - self._lost_at,
                self._counts.unsent - self._unsent_before,
            )
            self._lost_at = None

    def _go_down(self) -> None:
        if not self.is_up:
            return
        self.is_up = False
        self._counts.bus_lost += 1
        self._counts.unsent += len(self._output)
        self._output.clear()
        self.queued = 0
        self._has_output.clear()
        self._confirmed.clear()
        for interest in self._interests.values():
            interest.is_confirmed.clear()

    def _note_loss(self, reason: Exception) -> None:
        """Write one line when the bus goes down, however many attempts to connect follow."""
        if self._lost_at is None:
            self._lost_at = asyncio.get_running_loop().time()
            self._unsent_before = self._counts.unsent
            _log.warning(
                "%s is down (%s); messages reach subscribers of this process only, until it is back",
                self._bus.name,
                # Not its text, which may quote a URL with a password.
                type(reason).__name__,
            )

    # -- what arrives

    def _receive(self, channel: str, payload: bytes) -> None:
        """Take what arrives. Called by the connection; never waits or raises."""
        if channel == _CHECK + self._name.hex():
            self._echo.set()
            return
        sender = bytes(payload[:_NAME_SIZE])
        interest = self._interests.get(channel.removeprefix(_TOPIC))
        number = varint.decode(payload, _NAME_SIZE)
        if sender == self._name or interest is None or number is None:
            return
        last = interest.numbers.replace(sender, number[0])
        if last is not None and number[0] > last + 1:
            self._counts.missed += number[0] - last - 1
        self._counts.from_bus += 1
        self._deliver(channel.removeprefix(_TOPIC), payload[number[1] :])


def _first(errors: BaseExceptionGroup[Exception]) -> Exception:
    """The first of the errors in a group."""
    found: BaseException = errors
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, Exception)
    return found
