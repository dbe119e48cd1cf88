"""Standard input and output beside an event loop.

Files and terminals cannot be awaited on every system, so threads read and write them. They are daemon threads, because
a read from a terminal cannot be interrupted, and the program need not wait for it. Each makes one call at a time and
only when asked, so nothing piles up between it and the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from wtio.cli._terminal import is_smart

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["Aside", "Lines", "has_prompt", "read_input", "write_output"]

_Result = TypeVar("_Result")
CHUNK: Final = 256 * 1024
_HISTORY: Final = 1000


class Aside:
    """A thread that makes blocking calls, one after the other. Cancelling an ``ask`` does not end its call."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=f"wtio {name}", daemon=True).start()

    def _run(self) -> None:
        while True:
            self._calls.get()()

    async def ask(self, function: Callable[..., _Result], *arguments: Any) -> _Result:
        """Call a function in the thread and return what it returns."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[_Result] = loop.create_future()

        def settle(result: _Result | None, error: Exception | None) -> None:
            if answer.done():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(result)  # type: ignore[arg-type]

        def call() -> None:
            result, failure = None, None
            try:
                result = function(*arguments)
            except Exception as error:
                failure = error
            # The loop may be closed before the call returns.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, result, failure)

        self._calls.put(call)
        return await answer


def read_input() -> bytes:
    """Read what standard input has, at most ``CHUNK`` bytes; empty at its end."""
    return os.read(0, CHUNK)


def write_output(data: bytes, file: int = 1) -> None:
    """Write all bytes to a descriptor, by default standard output, past Python's buffer."""
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def has_prompt() -> bool:
    """Whether somebody sits there and types."""
    return sys.stdin.isatty() and is_smart(sys.stdout)


class Lines:
    """Lines of standard input; at a prompt, readline edits them, if there is one, and keeps them for next time."""

    def __init__(self, prompt: str | None, words: Sequence[str] = ()) -> None:
        """Begin to read when asked.

        Args:
            prompt: What is shown where somebody types; None if nobody does.
            words: What Tab completes at the beginning of a line.
        """
        self._prompt = prompt
        self._words = words
        self._thread = Aside("standard input")
        # Whether the prompt is in the last line of the terminal, with what was typed behind it.
        self._is_open = False

    async def next(self) -> str | None:
        """The next line without its end; None when there is no further one."""
        return await self._thread.ask(self._read)

    def _read(self) -> str | None:
        if self._prompt is None:
            line = sys.stdin.readline()
            return line.rstrip("\r\n") if line else None
        self._is_open = True
        try:
            line = input(self._prompt)
        except EOFError:
            return None
        self._is_open = False
        return line

    @contextlib.contextmanager
    def editing(self) -> Iterator[None]:
        """While it lasts, lines are edited; afterwards the terminal is as before, and the history is kept."""
        if self._prompt is None:
            yield
            return
        readline = _readline()
        if readline is not None:
            readline.parse_and_bind("tab: complete")
            readline.set_completer_delims(" ")
            readline.set_completer(self._complete)
            readline.set_history_length(_HISTORY)
            with contextlib.suppress(OSError):
                readline.read_history_file(_history())
        try:
            with _same_terminal(is_edited=readline is not None) as before, self._stopping(before, readline):
                yield
        finally:
            if self._is_open:
                # What comes next begins a line of its own.
                print(flush=True)
            if readline is not None:
                with contextlib.suppress(OSError):
                    _history().parent.mkdir(parents=True, exist_ok=True)
                    _history().touch(mode=0o600)
                    readline.write_history_file(_history())

    @contextlib.contextmanager
    def _stopping(self, before: Any, readline: Any) -> Iterator[None]:
        """While it lasts, Ctrl-Z gives the terminal back as it was, and ``fg`` brings the prompt back.

        Args:
            before: What the terminal was like, for termios; None on systems without it.
            readline: The module that edits lines; None without it.
        """
        if before is None or signal.getsignal(signal.SIGTSTP) is not signal.SIG_DFL:
            # Whoever started this does not want it to stop.
            yield
            return
        import termios

        loop = asyncio.get_running_loop()

        def stop() -> None:
            ours = termios.tcgetattr(0)
            termios.tcsetattr(0, termios.TCSADRAIN, before)
            loop.remove_signal_handler(signal.SIGTSTP)
            # To this thread, so that it does not get any further than here.
            signal.pthread_kill(threading.get_ident(), signal.SIGTSTP)
            loop.add_signal_handler(signal.SIGTSTP, stop)
            termios.tcsetattr(0, termios.TCSADRAIN, ours)
            if self._is_open:
                # Readline does not know that anything else was shown. Where it knows the cursor to be is behind what
                # was typed, unless somebody moved it.
                print(f"{self._prompt}{'' if readline is None else readline.get_line_buffer()}", end="", flush=True)

        loop.add_signal_handler(signal.SIGTSTP, stop)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGTSTP)

    def _complete(self, text: str, state: int) -> str | None:
        found = [word for word in self._words if text and word.startswith(text)]
        return found[state] if state < len(found) else None


def _readline() -> Any:
    try:
        import readline
    except ImportError:
        return None
    return readline


def _history() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "wtio" / "history"


@contextlib.contextmanager
def _same_terminal(*, is_edited: bool) -> Iterator[Any]:
    """Undo what a line editor that is still waiting has done to the terminal; gives what it was like before.

    Between two lines, the terminal does not understand what is typed: all of it, a Ctrl-D too, is for the editor, which
    comes back in a moment. Echo stays on, because readline takes its absence for a wish.
    """
    try:
        import termios
    except ImportError:
        yield None
        return
    before = termios.tcgetattr(0)
    between = termios.tcgetattr(0)
    if is_edited:
        between[3] &= ~termios.ICANON
        termios.tcsetattr(0, termios.TCSADRAIN, between)
    try:
        yield before
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
        # Readline asks terminals to mark what is pasted.
        sys.stdout.write("\x1b[?2004l")
        sys.stdout.flush()
