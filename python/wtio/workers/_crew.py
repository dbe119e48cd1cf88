"""Workers in generations: those that newcomers go to, and older ones whose sessions are coming to their end.

::

                 deploy: the new ones are ready                     all sessions are over, or WorkerLimits.drain
    starting ─────────────────────────────────► current ──────────► leaving ─────────────────────────────► gone
        │                                        │   ▲
        └─ CannotStart: gone, nothing changes    └───┘ a worker that dies is started again on its slot

``Crew`` decides which process has which slot, and tells ``Slots`` where newcomers go. What a process is told is in
``_process``; why anything is done (signals, changed files) is in ``_supervisor``.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from wtio.workers._process import CannotStart, Worker, start_worker
from wtio.workers._totals import Totals

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from wtio._stats import ServerStats
    from wtio.config import WorkerLimits
    from wtio.workers._settings import Settings
    from wtio.workers._slots import Slots

__all__ = ["Crew"]

_logger = logging.getLogger("wtio.workers")

# Seconds beyond all timeouts after which a worker that should have ended is killed.
_GRACE: Final = 5.0
# Seconds that a worker has to end if it was told to do so at once.
_AT_ONCE: Final = 5.0


class _Generation:
    """Workers that were started together, one for each of some slots."""

    def __init__(self, number: int, slots: Sequence[int]) -> None:
        # Counts deployments, from 1 on, for the log.
        self.number = number
        self.slots = slots
        # By slot: the process that has it. Missing while there is none, between a death and a new start.
        self.workers: dict[int, Worker] = {}
        # One for each slot: they start workers again, and end when the generation leaves.
        self.keepers: list[asyncio.Task[None]] = []


class Crew:
    """All workers of a supervisor."""

    def __init__(self, count: int, settings: Settings, limits: WorkerLimits, slots: Slots) -> None:
        # Workers in a generation.
        self._count = count
        self._settings = settings
        self._limits = limits
        self._slots = slots
        # What all workers have counted.
        self.totals = Totals()
        # Those that newcomers go to; None before the start.
        self._current: _Generation | None = None
        # All whose processes have not ended, the current one included.
        self._generations: list[_Generation] = []
        # How many there have been.
        self._deployments = 0
        # One deployment at a time; and the one that waits for its turn and has not begun to read code.
        self._lock = asyncio.Lock()
        self._next: asyncio.Task[bool] | None = None
        # Set whenever a slot becomes free.
        self._freed = asyncio.Event()
        # Tasks that wait for old generations to end.
        self._leaving: set[asyncio.Task[None]] = set()
        # Whether ``close`` was called.
        self._is_closing = False

    # -- facts

    @property
    def workers(self) -> list[Worker]:
        """All processes that have not ended."""
        return [worker for generation in self._generations for worker in generation.workers.values()]

    @property
    def is_serving(self) -> bool:
        """Whether newcomers find a worker."""
        return not self._is_closing and any(worker.is_ready for worker in self._current_workers())

    def _current_workers(self) -> list[Worker]:
        return [] if self._current is None else list(self._current.workers.values())

    @property
    def in_words(self) -> str:
        """How things are, for ``systemctl status``."""
        current = self._current
        ready = sum(worker.is_ready for worker in self._current_workers())
        old = len(self.workers) - len(self._current_workers())
        words = f"deployment {0 if current is None else current.number}: {ready} of {self._count} workers serve"
        return f"{words}, {old} older ones drain" if old else words

    async def stats(self) -> ServerStats:
        """Ask all workers for their figures, for a second at most, and add up what is known."""
        if asking := [asyncio.ensure_future(worker.report()) for worker in self.workers if worker.is_ready]:
            _, late = await asyncio.wait(asking, timeout=1)
            for one in late:
                one.cancel()
        return self.totals.sum()

    # -- deployments

    async def start(self) -> None:
        """Start the first generation.

        Raises:
            CannotStart: It does not serve.
        """
        free = self._free_slots()
        # From the first moment: until there are workers, newcomers wait at their sockets.
        self._slots.steer(free[: self._count], ())
        # Clients may be left of an earlier run with the same secret.
        for slot in free[self._count :]:
            self._slots.answer(slot)
        self._current = await self._start_generation(free[: self._count])

    async def deploy(self) -> bool:
        """Start new code, and send newcomers there once it serves. Calls before it begins to start are one.

        Returns:
            Whether it serves. If not, that was logged, and everything is as before.
        """
        if self._next is None:
            self._next = asyncio.create_task(self._deploy(), name="wtio deployment")
        return await asyncio.shield(self._next)

    async def _deploy(self) -> bool:
        async with self._lock:
            try:
                slots = await self._wait_for_slots()
            finally:
                # From now on, a further request is about later code.
                self._next = None
            try:
                fresh = await self._start_generation(slots)
            except CannotStart as error:
                if not self._is_closing:
                    _logger.error("the new code does not start, the old code serves on: %s", error)
                return False
            if self._is_closing:
                return False  # it was told to end, too
            old, self._current = self._current, fresh
            self._steer_newcomers()
            _logger.info("deployment %d serves", fresh.number)
            assert old is not None
            self._retire(old)
            return True

    def _free_slots(self) -> list[int]:
        taken = {slot for generation in self._generations for slot in generation.slots}
        return [slot for slot in range(self._slots.count) if slot not in taken]

    async def _wait_for_slots(self) -> list[int]:
        is_told = False
        while len(free := self._free_slots()) < self._count:
            if not is_told:
                is_told = True
                _logger.warning(
                    "the deployment waits for older workers, whose sessions may go on for up to %g s "
                    "(WorkerLimits.drain): %d of %d slots are free, and %d are needed; SIGTERM ends a worker sooner: "
                    "%s",
                    self._limits.drain,
                    len(free),
                    self._slots.count,
                    self._count,
                    ", ".join(str(worker.pid) for worker in self.workers if worker.is_leaving) or "they are starting",
                )
            self._freed.clear()
            await self._freed.wait()
        return free[: self._count]

    async def _start_generation(self, slots: Sequence[int]) -> _Generation:
        """Start workers on these slots, all or none.

        Raises:
            CannotStart: One of them does not serve.
        """
        self._deployments += 1
        generation = _Generation(self._deployments, slots)
        self._generations.append(generation)
        try:
            async with asyncio.timeout(self._limits.start):
                for slot in slots:
                    await self._start_worker(generation, slot)
                await _all_or_first_failure([worker.wait_ready() for worker in generation.workers.values()])
        except TimeoutError:
            await self._kill(generation)
            raise CannotStart(self._too_long()) from None
        except BaseException:
            await self._kill(generation)
            raise
        generation.keepers = [
            asyncio.create_task(self._keep(generation, slot), name=f"wtio slot {slot}") for slot in slots
        ]
        return generation

    async def _start_worker(self, generation: _Generation, slot: int) -> Worker:
        try:
            worker = await start_worker(
                slot,
                self._slots.descriptors(slot),
                self._settings,
                self._slots.leave,
                self._slots.allow_bundles,
                self._note_figures,
            )
        except OSError as error:
            raise CannotStart(f"there can be no further process: {error}") from error
        generation.workers[slot] = worker
        worker.gone.add_done_callback(lambda _: self._note_end(generation, worker))
        return worker

    def _note_figures(self, worker: Worker, stats: ServerStats) -> None:
        if not worker.gone.done():
            self.totals.note(worker, stats)
        if stats.packets_astray_total:
            self._slots.refuse_bundles()

    def _note_end(self, generation: _Generation, worker: Worker) -> None:
        """A process is over, for whatever reason."""
        self.totals.note_end(worker)
        if generation.workers.get(worker.slot) is worker:
            del generation.workers[worker.slot]
        if self._is_closing:
            return
        if generation is self._current:
            self._steer_newcomers()
        self._slots.answer(worker.slot)

    def _steer_newcomers(self) -> None:
        """Send newcomers to the current workers that serve."""
        if self._current is not None and not self._is_closing:
            ready = {worker.slot for worker in self._current_workers() if worker.is_ready}
            self._slots.steer(self._current.slots, [slot for slot in self._current.slots if slot not in ready])

    # -- death, and what follows

    async def _keep(self, generation: _Generation, slot: int) -> None:
        """Have a worker on this slot, whatever becomes of those that were there before."""
        loop = asyncio.get_running_loop()
        # Workers in a row that have not lived long.
        deaths = 0
        while True:
            worker = generation.workers[slot]
            words = await asyncio.shield(worker.gone)
            lived = loop.time() - (loop.time() if worker.ready_at is None else worker.ready_at)
            deaths = 0 if lived > self._limits.restart_longest else deaths + 1
            delay = 0.0 if deaths <= 1 else self._delay(deaths - 2)
            _logger.error("worker %d of slot %d %s; another one is started in %g s", worker.pid, slot, words, delay)
            await asyncio.sleep(delay)
            while (problem := await self._start_again(generation, slot)) is not None:
                deaths += 1
                delay = self._delay(deaths - 1)
                _logger.error("slot %d has no worker, which is tried again in %g s: %s", slot, delay, problem)
                await asyncio.sleep(delay)
            self._steer_newcomers()

    async def _start_again(self, generation: _Generation, slot: int) -> str | None:
        """Start one more worker for a slot; why there is none, in words, or None."""
        try:
            async with asyncio.timeout(self._limits.start):
                worker = await self._start_worker(generation, slot)
                await worker.wait_ready()
        except (CannotStart, TimeoutError) as error:
            await self._kill_worker(generation.workers.get(slot))
            return str(error) or self._too_long()
        _logger.info("worker %d serves slot %d", worker.pid, slot)
        return None

    def _too_long(self) -> str:
        return f"it takes longer than {self._limits.start:g} s (WorkerLimits.start)"

    def _delay(self, doublings: int) -> float:
        """Seconds before the next start."""
        # 64 doublings of the shortest wait are longer than any that is allowed.
        return min(self._limits.restart * 2.0 ** min(doublings, 64), self._limits.restart_longest)

    async def watch(self) -> None:
        """Kill workers that have not been heard of for too long. Runs until it is cancelled."""
        silence = self._limits.silence
        while silence is not None:
            await asyncio.sleep(self._limits.report)
            now = asyncio.get_running_loop().time()
            for worker in self.workers:
                if worker.is_ready and now - worker.heard_at > silence:
                    _logger.error(
                        "worker %d of slot %d has not reported anything for %g s (WorkerLimits.silence), and is killed",
                        worker.pid,
                        worker.slot,
                        now - worker.heard_at,
                    )
                    worker.kill()

    # -- ends

    def _retire(self, generation: _Generation) -> None:
        """Let the sessions of a generation come to their end."""
        for keeper in generation.keepers:
            keeper.cancel()
        for worker in generation.workers.values():
            worker.drain(self._limits.drain)
        longest = self._limits.settle + self._settings.timeouts.handshake + self._limits.drain + self._longest_end()
        task = asyncio.create_task(self._see_off(generation, longest), name=f"wtio end of {generation.number}")
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    def _longest_end(self) -> float:
        """Seconds that a worker may take once its sessions have had their time."""
        return 3 * self._settings.timeouts.close + self._settings.timeouts.lifespan + _GRACE

    async def _see_off(self, generation: _Generation, longest: float) -> None:
        """Wait for the end of a generation, and kill what is left of it after so many seconds."""
        if generation.keepers:
            await asyncio.wait(generation.keepers)
        if ending := [worker.gone for worker in generation.workers.values()]:
            await asyncio.wait(ending, timeout=longest)
        await self._kill(generation)

    async def _kill(self, generation: _Generation) -> None:
        """End all processes of a generation that are left. Its slots are free then."""
        for worker in list(generation.workers.values()):
            await self._kill_worker(worker)
        if generation in self._generations:
            self._generations.remove(generation)
        self._freed.set()

    @staticmethod
    async def _kill_worker(worker: Worker | None) -> None:
        if worker is not None and not worker.gone.done():
            worker.kill()
            await asyncio.wait((worker.gone,))

    def reload_certificates(self) -> list[asyncio.Future[str | None]]:
        """Let all workers read their certificates again; what is wrong with them, in words, or None, from each."""
        return [asyncio.ensure_future(worker.reload_certificates()) for worker in self.workers if worker.is_ready]

    async def close(self) -> None:
        """Let all workers shut down in good order, in bounded time."""
        timeouts = self._settings.timeouts
        await self._end_all(Worker.stop, timeouts.drain_delay + timeouts.drain + self._longest_end())

    async def abort(self) -> None:
        """Let all workers shut down at once."""
        await self._end_all(Worker.abort, _AT_ONCE)

    async def _end_all(self, way: Callable[[Worker], None], longest: float) -> None:
        self._is_closing = True
        if self._next is not None:
            self._next.cancel()
        for generation in self._generations:
            for keeper in generation.keepers:
                keeper.cancel()
        for worker in self.workers:
            way(worker)
        await asyncio.gather(*(self._see_off(generation, longest) for generation in list(self._generations)))


async def _all_or_first_failure(waits: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Wait for all, or raise what the first one raises that fails."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
