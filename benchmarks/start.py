"""How long a program waits for its imports: what wtio adds to a start of Python with asyncio.

    python -m benchmarks.start

Each line is the median of 20 starts of new interpreters; the lines take turns. Modules are compiled before. The time is
that of the process from its start to its end.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

STARTS = 20
BASE = "import asyncio"
BAR = 25.0
PROGRAMS = {
    "import wtio": "import asyncio, wtio",
    "from wtio import serve": "import asyncio; from wtio import serve",
    "from wtio import connect": "import asyncio; from wtio import connect",
    "from wtio import *": "import asyncio; from wtio import *",
}


def _start(source: str) -> float:
    # As a program that is installed: its modules are compiled once.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", source], check=True, env=environment, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - began) * 1000


def measure(starts: int = STARTS) -> dict[str, float]:
    """Median milliseconds above ``import asyncio`` for each program, and of that one itself under its own name."""
    sources = {BASE: BASE, **PROGRAMS}
    for source in sources.values():
        _start(source)
    times: dict[str, list[float]] = {name: [] for name in sources}
    for _ in range(starts):
        for name, source in sources.items():
            times[name].append(_start(source))
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {name: median if name == BASE else median - medians[BASE] for name, median in medians.items()}


def report(measured: dict[str, float]) -> str:
    """As lines of text."""
    lines = [f"start of a program: `{BASE}` takes {measured[BASE]:.0f} ms; above it, median of {STARTS} starts"]
    for name in PROGRAMS:
        is_held = name == "import wtio"
        verdict = f"  (bar {BAR:.0f}: {'met' if measured[name] <= BAR else 'MISSED'})" if is_held else ""
        lines.append(f"  {name:26}{measured[name]:6.1f} ms{verdict}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(report(measure()))
