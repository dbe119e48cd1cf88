"""The policies at work: what becomes of a message that is offered to one subscriber.

A subscriber never makes its topic wait: ``offer`` takes a message or counts it. With ``everything``, whoever
publishes may then ask for room. What a subscriber cannot send at once is bounded by ``HubLimits``. The topic itself
sends datagrams, to all that want them with one call.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Final

from wtio._log import session_name
from wtio.errors import SessionClosed, StreamError
from wtio.hub._messages import EXPIRED_CODE, REPLACED_CODE, TOO_SLOW_CODE

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from wtio.config import HubLimits
    from wtio.hub._counts import Counts
    from wtio.hub._messages import Encoded
    from wtio.hub._policies import Policy
    from wtio.stream import WebTransportSendStream, WebTransportSession

__all__ = ["DatagramSubscriber", "Place", "StreamSubscriber", "Subscriber", "make_subscriber"]

_log: Final = logging.getLogger("wtio.hub")

# Bytes of messages that are written at once, so that many small ones cost one call. Larger messages go by themselves.
_WRITE: Final = 65_536


class Place:
    """What a subscriber may use of its hub."""

    __slots__ = ("counts", "leave", "limits", "session", "spawn", "topic")

    def __init__(
        self,
        session: WebTransportSession,
        topic: str,
        limits: HubLimits,
        counts: Counts,
        *,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        leave: Callable[[], None],
    ) -> None:
        self.session: WebTransportSession = session
        self.topic: str = topic
        self.limits: HubLimits = limits
        self.counts: Counts = counts
        # Starts a task that the hub cancels when it closes, and whose failure it logs.
        self.spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]] = spawn
        # Ends the subscription: nothing more is offered. Idempotent.
        self.leave: Callable[[], None] = leave


class Subscriber:
    """One subscription, as its topic sees it."""

    __slots__ = ("_place",)

    def __init__(self, place: Place) -> None:
        self._place = place

    async def finish(self) -> None:
        """Send what was taken, for ``HubLimits.patience`` at most. Cancelling gives the rest up."""
        return

    def stop(self) -> None:
        """Give up what was not sent."""
        return

    def give_up(self) -> None:
        """End the subscription, and give up what was not sent."""
        self._place.leave()
        self.stop()


class StreamSubscriber(Subscriber, ABC):
    """One that gets its messages on streams."""

    __slots__ = ()

    @abstractmethod
    def offer(self, message: Encoded) -> None:
        """Take a message. Never waits and never raises."""

    @property
    def is_full(self) -> bool:
        """Whether whoever publishes should wait for ``room``."""
        return False

    async def room(self, deadline: float) -> None:
        """Wait for room until the loop's clock shows ``deadline``. Then the subscriber is too slow."""
        return


class _Everything(StreamSubscriber):
    """All messages on one stream, written by one task."""

    __slots__ = ("_has_room", "_has_work", "_is_last", "_queue", "_size", "_task")

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        # What is not written yet, and its bytes with those that are being written: at most twice
        # ``HubLimits.subscriber_queue`` and one message.
        self._queue: deque[bytes] = deque()
        self._size = 0
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._has_work = asyncio.Event()
        # Whether nothing more will be offered, so that the stream ends behind what is queued.
        self._is_last = False
        self._task = place.spawn(self._run())

    def offer(self, message: Encoded) -> None:
        if self._size > 2 * self._place.limits.subscriber_queue:
            self._too_slow()
            return
        self._queue.append(message.data)
        self._size += len(message.data)
        self._has_work.set()
        if self.is_full:
            self._has_room.clear()

    @property
    def is_full(self) -> bool:
        return self._size > self._place.limits.subscriber_queue

    async def room(self, deadline: float) -> None:
        try:
            async with asyncio.timeout_at(deadline):
                await self._has_room.wait()
        except TimeoutError:
            self._too_slow()

    async def finish(self) -> None:
        self._is_last = True
        self._has_work.set()
        try:
            await asyncio.wait({self._task}, timeout=self._place.limits.patience)
        finally:
            self.stop()

    def stop(self) -> None:
        self._task.cancel()
        self._queue.clear()
        self._has_room.set()

    def _too_slow(self) -> None:
        if self._task.cancelling() or self._task.done():
            return
        place = self._place
        place.counts.closed_as_too_slow += 1
        name = session_name(place.session.log_id, place.session.path)
        _log.info("%s: closed, too slow for topic %r", name, place.topic)
        place.leave()
        self.stop()
        place.spawn(place.session.close(TOO_SLOW_CODE, "too slow"))

    async def _run(self) -> None:
        try:
            # A subscriber that gets nothing costs its peer no stream.
            await self._has_work.wait()
            if not self._queue:
                return
            # Cancelled in the middle of a message, the stream is reset.
            async with await self._place.session.create_unidirectional_stream() as stream:
                await self._write_all(stream)
        except (SessionClosed, StreamError):
            # The session is over, or the peer wants no more.
            self._place.leave()
        finally:
            self._has_room.set()

    async def _write_all(self, stream: WebTransportSendStream) -> None:
        queue = self._queue
        while True:
            if not queue:
                if self._is_last:
                    return
                self._has_work.clear()
                await self._has_work.wait()
                continue
            batch = [queue.popleft()]
            size = len(batch[0])
            while queue and size + len(queue[0]) <= _WRITE:
                batch.append(queue.popleft())
                size += len(batch[-1])
            await stream.write(data=batch[0] if len(batch) == 1 else b"".join(batch))
            self._size -= size
            if not self.is_full:
                self._has_room.set()


class _Feed:
    """The updates of one key on their way to one subscriber."""

    __slots__ = ("begun", "is_running", "stream", "update")

    def __init__(self) -> None:
        # The newest update if it is not begun yet. A newer one takes its place.
        self.update: bytes | None = None
        # The stream of the update before it, and when that was begun, on the loop's clock.
        self.stream: WebTransportSendStream | None = None
        self.begun = 0.0
        # Whether a task sends ``update``.
        self.is_running = False


class _Latest(StreamSubscriber):
    """The newest message of each key, on a stream that is reset when there is a newer one."""

    __slots__ = ("_feeds", "_key", "_tasks")

    def __init__(self, place: Place, key: str | None) -> None:
        super().__init__(place)
        self._key = key
        # At most ``HubLimits.updates``, by key, the one that changed last at the end.
        self._feeds: OrderedDict[str, _Feed] = OrderedDict()
        # At most one for each feed.
        self._tasks: set[asyncio.Task[None]] = set()

    def offer(self, message: Encoded) -> None:
        if self._key is not None and message.key != self._key:
            return
        feed = self._feeds.get(message.key)
        if feed is None:
            feed = self._new_feed(message.key)
        if feed is None:
            self._place.counts.replaced += 1
            return
        self._feeds.move_to_end(message.key)
        if feed.update is not None:
            self._place.counts.replaced += 1
        feed.update = message.data
        if not feed.is_running:
            feed.is_running = True
            task = self._place.spawn(self._run(feed))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _new_feed(self, key: str) -> _Feed | None:
        """Make room for another key. None if updates of so many others are being sent that there is none."""
        if len(self._feeds) >= self._place.limits.updates:
            idle = next((known for known, feed in self._feeds.items() if not feed.is_running), None)
            if idle is None:
                return None
            stream = self._feeds.pop(idle).stream
            if stream is not None:
                # It is still the newest of its key, and may be read.
                self._place.spawn(stream.close())
        feed = self._feeds[key] = _Feed()
        return feed

    async def finish(self) -> None:
        try:
            if self._tasks:
                await asyncio.wait(list(self._tasks), timeout=self._place.limits.patience)
            for feed in self._feeds.values():
                # What is under way is still the newest, and may be read.
                if feed.stream is not None and not feed.is_running:
                    await feed.stream.close()
        finally:
            self.stop()

    def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        # Dropping the streams that are not finished resets them.
        self._feeds.clear()

    async def _run(self, feed: _Feed) -> None:
        try:
            while feed.update is not None:
                await self._retire(feed)
                stream = await self._place.session.create_unidirectional_stream()
                # The newest, after however long the wait for a stream was.
                update, feed.update = feed.update, None
                feed.stream, feed.begun = stream, asyncio.get_running_loop().time()
                await self._write(feed, stream, update)
        except SessionClosed:
            self._place.leave()
        finally:
            feed.is_running = False

    async def _write(self, feed: _Feed, stream: WebTransportSendStream, update: bytes) -> None:
        rest = memoryview(update)
        try:
            while rest:
                try:
                    async with asyncio.timeout(self._place.limits.patience):
                        await stream.write(data=rest)
                    return
                except TimeoutError:
                    rest = rest[stream.last_write_accepted :]
                    if feed.update is not None:
                        self._place.counts.replaced += 1
                        return
        except StreamError:
            # The viewer does not want this one.
            return

    async def _retire(self, feed: _Feed) -> None:
        """Take the update before back, unless the viewer has it."""
        stream = feed.stream
        if stream is None or not stream.can_write:
            return
        left = feed.begun + self._place.limits.patience - asyncio.get_running_loop().time()
        if left > 0 and stream.diagnostics().send_buffered:
            # The path is slow, not the viewer. If every update gave way to the next one, none would arrive whole.
            try:
                async with asyncio.timeout(left):
                    await stream.wait_acked()
            except TimeoutError:
                self._place.counts.replaced += 1
            except StreamError:
                return
        await stream.reset(error_code=REPLACED_CODE)


class _Within(StreamSubscriber):
    """Each message on a stream of its own, for a limited time."""

    __slots__ = ("_seconds", "_tasks")

    def __init__(self, place: Place, seconds: float) -> None:
        super().__init__(place)
        self._seconds = seconds
        # What is under way, the oldest first: at most ``HubLimits.updates``.
        self._tasks: dict[asyncio.Task[None], None] = {}

    def offer(self, message: Encoded) -> None:
        if len(self._tasks) >= self._place.limits.updates:
            oldest = next(iter(self._tasks))
            del self._tasks[oldest]
            oldest.cancel()
            self._place.counts.expired += 1
        task = self._place.spawn(self._send(message.data))
        self._tasks[task] = None
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)

    async def finish(self) -> None:
        try:
            if self._tasks:
                await asyncio.wait(list(self._tasks), timeout=self._place.limits.patience)
        finally:
            self.stop()

    def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()

    async def _send(self, data: bytes) -> None:
        stream = None
        try:
            async with asyncio.timeout(self._seconds):
                stream = await self._place.session.create_unidirectional_stream()
                await stream.write(data=data, end_stream=True)
                await stream.wait_acked()
        except TimeoutError:
            self._place.counts.expired += 1
        except StreamError:
            # The peer does not want it.
            return
        except SessionClosed:
            self._place.leave()
        finally:
            if stream is not None:
                # Nothing happens to a stream that is acknowledged.
                await stream.reset(error_code=EXPIRED_CODE)


class DatagramSubscriber(Subscriber):
    """One that gets each message as a datagram, together with the others of its topic."""

    __slots__ = ()

    @property
    def session(self) -> WebTransportSession:
        """Who gets the datagrams."""
        return self._place.session

    def note_missed(self, message: Encoded) -> None:
        """A message did not reach everybody: see whether this is why, and leave if the session is over."""
        session = self._place.session
        if session.is_closed:
            self._place.leave()
        elif len(message.data) > session.max_datagram_size:
            self._place.counts.too_large += 1


def make_subscriber(policy: Policy, place: Place) -> Subscriber:
    """Make the subscriber of a policy."""
    if policy.name == "latest":
        return _Latest(place, policy.key)
    if policy.seconds is not None:
        return _Within(place, policy.seconds)
    return DatagramSubscriber(place) if policy.name == "datagram" else _Everything(place)
