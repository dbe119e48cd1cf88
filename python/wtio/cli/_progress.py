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

    def line(self) -> str:
        """What is shown: amount, bar, rate and time."""
        elapsed = max(time.monotonic() - self._start, 1e-9)
        parts = [f"{self._what} {amount(self.done)}"]
        if self._total:
            share = min(1.0, self.done / self._total)
            parts[0] += f" of {amount(self._total)}"
            parts += [f"{share:4.0%}", f"[{'#' * round(share * _BAR):-<{_BAR}}]"]
        return "  ".join([*parts, per_second(self.done / elapsed), f"{elapsed:.1f} s"])


class _RichProgress(Progress):
    def __init__(self, what: str, total: int | None, bar: Any, task: Any) -> None:
        super().__init__(what, total, None)
        self._bar, self._task = bar, task

    def show(self) -> None:
        self._bar.update(self._task, completed=self.done)


@contextlib.contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Progress]:
    """Show a transfer while the block lasts. As with curl, not if standard output is the terminal, too.

    Args:
        what: Such as "sent".
        total: How many bytes it will be; None if nobody knows.
    """
    if not is_smart(sys.stderr) or sys.stdout.isatty():
        yield Progress(what, total, None)
        return
    rich = _rich(total)
    if rich is not None:
        with rich as bar:
            in_rich = _RichProgress(what, total, bar, bar.add_task(what, total=total))
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
    columns = [bars.TextColumn("{task.description}"), bars.DownloadColumn()]
    if total:
        columns += [bars.BarColumn(), bars.TaskProgressColumn()]
    return bars.Progress(
        *columns, bars.TransferSpeedColumn(), bars.TimeElapsedColumn(), console=console.Console(stderr=True)
    )
