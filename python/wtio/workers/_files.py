"""Files of a supervisor: the one with its process number, and the sources that it watches during development."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["PidFile", "changes"]

# Seconds between two looks at the sources.
_LOOK_EVERY: Final = 0.5
# Sources that are looked at; the others are not noticed.
_MOST_FILES: Final = 20_000


class PidFile:
    """A file with the number of this process, for scripts that send signals."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def write(self) -> None:
        """Write it, in one step.

        Raises:
            OSError: It cannot be written, or names another process that runs.
        """
        other = self._read()
        if other is not None and other != os.getpid() and _runs(other):
            raise OSError(f"pid file `{self._path}` names process {other}, which is running")
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        temporary.write_text(f"{os.getpid()}\n", encoding="ascii")
        temporary.replace(self._path)

    def remove(self) -> None:
        """Remove it, if it is still this process's."""
        if self._read() == os.getpid():
            self._path.unlink(missing_ok=True)

    def _read(self) -> int | None:
        try:
            text = self._path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            return None
        return int(text) if text.isdecimal() else None


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


async def changes(directory: str) -> AsyncIterator[None]:
    """Say whenever a Python file below a directory has changed, once it stays the same."""
    known = await asyncio.to_thread(_marks, directory)
    is_changing = False
    while True:
        await asyncio.sleep(_LOOK_EVERY)
        seen = await asyncio.to_thread(_marks, directory)
        if seen != known:
            known, is_changing = seen, True
        elif is_changing:
            is_changing = False
            yield


def _marks(directory: str) -> dict[str, tuple[int, int]]:
    """Time and size of each file. Hidden directories and virtual environments are left out."""
    marks: dict[str, tuple[int, int]] = {}
    for top, names, files in os.walk(directory):
        names[:] = [
            name
            for name in names
            if not name.startswith(".")
            and name not in ("__pycache__", "node_modules")
            and not os.path.exists(os.path.join(top, name, "pyvenv.cfg"))
        ]
        for name in files:
            if name.endswith(".py") and len(marks) < _MOST_FILES:
                path = os.path.join(top, name)
                try:
                    found = os.stat(path)
                except OSError:
                    continue
                marks[path] = (found.st_mtime_ns, found.st_size)
    return marks
