"""How far a transfer is, in the last line of a terminal on standard error; with rich, if that is installed."""

from __future__ import annotations

import contextlib
import importlib
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from wtio.cli._figures import amount, per_second
from wtio.cli._terminal import Board, is_smart

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Progress", "progress"]

_EACH: Final = 0.1  # seconds between two looks at the screen
_BAR: Final = 24


class Progress:
    """Counts bytes, and shows them now and then."""

    def __init__(self, what: str, total: int | None, board: Board | None) -> None:
        # What is under way, such as "sent"; how many bytes it will be, None if nobody knows; where it is shown.
        self._what = what
        self._total = total
        self._board = board
        self.done = 0
        self._start = time.monotonic()
        self._shown = 0.0

    def add(self, size: int) -> None:
        """Count bytes that have gone."""
        self.done += size
        now = time.monotonic()
        if now - self._shown >= _EACH:
            self._shown = now
            self.show()

    def show(self) -> None:
        """Show how far it is."""
        if self._board is not None:
            self._board.show([self.line()])

    def head(self) -> str:
        """What stands before the bar: amounts, and the share if it is known."""
        words = f"{self._what} {amount(self.done)}"
        if self._total:
            words += f" of {amount(self._total)}  {min(1.0, self.done / self._total):4.0%}"
        return words

    def tail(self) -> str:
        """What stands behind it: rate and time."""
        elapsed = max(time.monotonic() - self._start, 1e-9)
        return f"{per_second(self.done / elapsed)}  {elapsed:.1f} s"

    def line(self) -> str:
        """All of it, with a bar if the total is known."""
        bar = []
        if self._total:
            bar = [f"[{'#' * round(min(1.0, self.done / self._total) * _BAR):-<{_BAR}}]"]
        return "  ".join([self.head(), *bar, self.tail()])


class _RichProgress(Progress):
    def __init__(self, what: str, total: int | None, bar: Any, task: Any) -> None:
        super().__init__(what, total, None)
        self._bar, self._task = bar, task

    def show(self) -> None:
        self._bar.update(self._task, completed=self.done, description=self.head(), tail=self.tail())


@contextlib.contextmanager
def progress(what: str, total: int | None = None, *, is_printed: bool = False) -> Iterator[Progress]:
    """Show a transfer while the block lasts.

    Args:
        what: Such as "sent".
        total: How many bytes it will be; None if nobody knows.
        is_printed: Whether standard output gets the bytes. As with curl, nothing is shown then if that is a terminal.
    """
    if not is_smart(sys.stderr) or (is_printed and sys.stdout.isatty()):
        yield Progress(what, total, None)
        return
    rich = _rich(total)
    if rich is not None:
        with rich as bar:
            in_rich = _RichProgress(what, total, bar, bar.add_task(what, total=total, tail=""))
            yield in_rich
            in_rich.show()
        return
    shown = Progress(what, total, Board(sys.stderr))
    try:
        yield shown
    finally:
        shown.show()


def _rich(total: int | None) -> Any:
    """A progress bar of rich; None without it."""
    try:
        bars, console = importlib.import_module("rich.progress"), importlib.import_module("rich.console")
    except ImportError:
        return None
    # Its bar with our words, which its own columns would write in other units.
    bar = [bars.BarColumn()] if total else []
    return bars.Progress(
        bars.TextColumn("{task.description}"),
        *bar,
        bars.TextColumn("{task.fields[tail]}"),
        console=console.Console(stderr=True),
        # Otherwise what is meant for standard output would go to standard error while the bar is there.
        redirect_stdout=False,
    )
