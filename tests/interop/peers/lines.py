"""What peers' programs in Python share: reports as lines of JSON on standard output, and the end of standard input."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine


def print_line(line: dict[str, object]) -> None:
    print(json.dumps(line), flush=True)


async def reported(script: Coroutine[Any, Any, dict[str, object]]) -> dict[str, object]:
    """The client's report, or the error that took its place."""
    try:
        return await script
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


async def until_the_end_of_input() -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def read() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=read, daemon=True).start()
    await ended.wait()
