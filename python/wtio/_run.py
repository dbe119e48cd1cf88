"""``wtio.run``: a program with servers, from its start to its orderly end after SIGTERM or Ctrl-C.

::

    first signal ──► Timeouts.drain_delay ──► Server.close, with Timeouts.drain ──► the program's own end
    second signal, at any time ──► Server.abort, all tasks are cancelled

What a server does when it closes is ``server.Server``'s; which servers there are, ``_running`` knows.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable, Coroutine  # noqa: TC003 - for typing.get_type_hints
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, overload

from wtio._arguments import check_bool, check_code, check_text
from wtio._running import Running, running
from wtio.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from wtio._running import Stoppable

__all__ = ["run"]

_Result = TypeVar("_Result")

_logger = logging.getLogger("wtio.server")

# Ctrl-C; systemd, Docker and Kubernetes; Ctrl-Break on Windows.
_SIGNALS: Final = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)]
# What people want to know who have just pressed Ctrl-C.
_AT_ONCE: Final = "a second signal ends all at once"
# Seconds after which tasks are named in the log that go on although they were cancelled; and so many are named.
_PATIENCE: Final = 1.0
_MOST_NAMED: Final = 10
# What shells add to the number of a signal for the exit status of a process that it has ended.
_STATUS_OF_SIGNALS: Final = 128


@overload
def run(
    main: Server,
    *,
    code: int = 0,
    reason: str = "server is closing",
    debug: bool | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> None: ...
@overload
def run(
    main: Coroutine[Any, Any, _Result],
    *,
    code: int = 0,
    reason: str = "server is closing",
    debug: bool | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> _Result: ...
def run(
    main: Server | Coroutine[Any, Any, _Result],
    *,
    code: int = 0,
    reason: str = "server is closing",
    debug: bool | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> _Result | None:
    """Run a server, or a coroutine that starts servers, and close them in good order after SIGTERM or Ctrl-C.

    As ``asyncio.run``, and in the place of it: ``wtio.run(wtio.serve(handler, host, port, tls=tls))`` starts the server
    and returns when it is closed; ``wtio.run(main())`` runs a coroutine, and all servers that it and its tasks start
    are closed.

    After the first SIGTERM or SIGINT, each server serves as before for ``Timeouts.drain_delay`` (default 0 s), and is
    then closed: ``Server.close`` gives it ``Timeouts.drain`` (default 0 s). A coroutine that waits for a server
    (``Server.wait_closed``, ``async for request in server``) goes on when that is closed, and may take its time.
    Another one is cancelled when its servers are closed, or at once if it has none.

    A second signal ends all at once: sessions end without a code (``Server.abort``), tasks are cancelled. A third one
    does what it does to any Python program. As with ``asyncio.run``, a task that keeps its cancellation to itself holds
    up the end; the log names it after a second, and one more signal ends the program all the same.

    Signals are handled in the main thread only. On Windows, Ctrl-Break counts as well.

    Args:
        main: What ``wtio.serve`` returns, not started yet, or a coroutine.
        code: Application close code for all sessions that the signal ends, 0 … 2^32-1. Default 0.
        reason: Reason for these sessions, cut to 1024 bytes of UTF-8.
        debug: asyncio's debug mode; None (default) leaves it to the environment.
        loop_factory: Makes the event loop, such as ``uvloop.new_event_loop``; None (default) makes asyncio's own.

    Returns:
        The result of the coroutine; None for a server.

    Raises:
        KeyboardInterrupt: SIGINT, if the coroutine was cancelled because of it, or if it was the second signal.
        SystemExit: The same for SIGTERM: with status 0, or 143 for the second signal.
        RuntimeError: An event loop is running in this thread.
        ValueError: ``code`` is outside 32 bits.
        TypeError: An argument is of the wrong type.
        OSError: The server cannot listen, see ``wtio.serve``.
        BaseException: Whatever the coroutine raises.
    """
    try:
        _check(main, code, reason, debug, loop_factory)
    except BaseException:
        if asyncio.iscoroutine(main):
            main.close()  # otherwise Python warns about it, too
        raise
    program: _Program[_Result | None] = _Program(code, reason)
    coroutine = _serve(main) if isinstance(main, Server) else main
    with asyncio.Runner(debug=debug, loop_factory=loop_factory) as runner:
        task = runner.run(program.run(coroutine))
        # Nothing but their end, or a signal, ends the runner.
        left = asyncio.all_tasks(runner.get_loop())
        runner.get_loop().call_later(_PATIENCE, _report_unended, left)
    if program.ended_by is None:
        # Asked here, and not within the loop, so that an error comes without the loop's frames.
        return task.result()
    if program.ended_by == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(_STATUS_OF_SIGNALS + program.ended_by if program.is_forced else 0)


def _check(main: object, code: object, reason: object, debug: object, loop_factory: object) -> None:
    if not isinstance(main, Server) and not asyncio.iscoroutine(main):
        way = "; call it: run(main())" if callable(main) else ""
        raise TypeError(f"main must be a wtio.Server or a coroutine, not {type(main).__name__}{way}")
    check_code("code", code, "close code")
    check_text("reason", reason)
    if debug is not None:
        check_bool("debug", debug)
    if loop_factory is not None and not callable(loop_factory):
        raise TypeError(f"loop_factory must be a function or None, not {type(loop_factory).__name__}")
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError("wtio.run cannot be called while an event loop is running; await the server's methods instead")


def _note_end(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()


def _report_unended(tasks: set[asyncio.Task[Any]]) -> None:
    """Say why a program does not end whose tasks keep their cancellation to themselves."""
    names = sorted(task.get_name() for task in tasks if not task.done())
    if names:
        _logger.warning(
            "the program does not end before these tasks, which go on although they were cancelled; Ctrl-C or SIGTERM "
            "ends it: %s%s",
            "; ".join(names[:_MOST_NAMED]),
            f"; and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else "",
        )


async def _serve(server: Server) -> None:
    async with server:
        await server.wait_closed()


class _Program(Generic[_Result]):
    """One call of ``run``."""

    def __init__(self, code: int, reason: str) -> None:
        # For the sessions that a signal ends.
        self._code = code
        self._reason = reason
        # Which servers there are.
        self._running = Running()
        # The signals that have come, and whether there was a new one. ``_note`` adds them.
        self._signals: list[int] = []
        self._signalled = asyncio.Event()
        # The signal because of which the coroutine did not come to its own end; None if it did.
        self.ended_by: int | None = None
        # Whether that was the second one.
        self.is_forced = False

    def _note(self, number: int) -> None:
        self._signals.append(number)
        self._signalled.set()

    async def run(self, main: Coroutine[Any, Any, _Result]) -> asyncio.Task[_Result]:
        """Run a coroutine until it ends, or a second signal comes. Returns its task."""
        token = running.set(self._running)
        program = asyncio.create_task(main, name="wtio.run")
        # What it raises leaves ``run``, also by way of the loop (SystemExit), so asyncio needs to say nothing of it.
        program.add_done_callback(_note_end)
        running.reset(token)
        with self._handling_signals():
            if not await self._is_done(program):
                closing = asyncio.create_task(self._close(program))
                if not await self._is_done(program):
                    self.is_forced = True
                    self.ended_by = self._signals[1]
                    name = signal.Signals(self.ended_by).name
                    _logger.info("%s again: all sessions end at once, and all tasks are cancelled", name)
                    for server in self._running.servers:
                        server.abort()
                    # The runner cancels what is left.
                    return program
                await closing
        if program.cancelled() and self._signals:
            self.ended_by = self._signals[0]
        return program

    async def _is_done(self, program: asyncio.Task[_Result]) -> bool:
        """Wait for the end of the coroutine, or for another signal; whether it was the end."""
        self._signalled.clear()
        signalled = asyncio.create_task(self._signalled.wait())
        await asyncio.wait((program, signalled), return_when=asyncio.FIRST_COMPLETED)
        signalled.cancel()
        return program.done()

    async def _close(self, program: asyncio.Task[_Result]) -> None:
        """Close all servers. A coroutine that waits for none of them is cancelled then."""
        name = signal.Signals(self._signals[0]).name
        self._running.leaving.set()
        while waiting := [server for server in self._running.servers if not server.is_closing]:
            await asyncio.gather(*(self._close_server(server, name) for server in waiting))
        # Those that were being closed already.
        await asyncio.gather(*(server.close(self._code, self._reason) for server in list(self._running.servers)))
        if not (self._running.servers and self._running.is_awaited):
            program.cancel()

    async def _close_server(self, server: Stoppable, name: str) -> None:
        delay, drain = server.timeouts.drain_delay, server.timeouts.drain
        # Once it is closed, it does not know its addresses any more.
        shown = repr(server)
        if delay:
            words = "%s: %s serves on for %g s (Timeouts.drain_delay), and closes then; %s"
            _logger.info(words, name, shown, delay, _AT_ONCE)
            await asyncio.sleep(delay)
        if drain:
            words = (
                "%s: %s takes no new sessions; sessions open: %d; they have %g s to end (Timeouts.drain) before they "
                "are closed; %s"
            )
            _logger.info(words, name, shown, len(server.sessions), drain, _AT_ONCE)
        else:
            words = (
                "%s: %s closes; sessions open: %d; handlers have %g s to return (Timeouts.close) before they are "
                "cancelled; %s"
            )
            _logger.info(words, name, shown, len(server.sessions), server.timeouts.close, _AT_ONCE)
        await server.close(self._code, self._reason)
        _logger.info("%s is closed", shown)

    @contextmanager
    def _handling_signals(self) -> Iterator[None]:
        """Take signals until the block is left; none in another thread than the main one."""
        loop = asyncio.get_running_loop()
        with ExitStack() as stack:
            if threading.current_thread() is threading.main_thread():
                for number in _SIGNALS:
                    stack.callback(self._take_back, loop, number, signal.getsignal(number))
                    try:
                        loop.add_signal_handler(number, self._note, number)
                    except NotImplementedError:
                        # Loops on Windows have no such method.
                        signal.signal(number, partial(self._note_soon, loop))
            yield

    def _note_soon(self, loop: asyncio.AbstractEventLoop, number: int, _: FrameType | None) -> None:
        """Take a signal between any two instructions of the main thread."""
        loop.call_soon_threadsafe(self._note, number)

    @staticmethod
    def _take_back(loop: asyncio.AbstractEventLoop, number: int, before: Any) -> None:
        """Let a signal do again what it did before."""
        # On Windows the loop has not taken it.
        with suppress(NotImplementedError):
            loop.remove_signal_handler(number)
        # None: a handler that was not made by Python, and cannot be put back.
        if before is not None:
            signal.signal(number, before)
