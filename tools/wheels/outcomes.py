"""A plugin of pytest that writes down what becomes of each test, and leaves out those of which it is written already.

A process that hangs or crashes prints no summary, so each test is written down as it begins and as it ends, into the
file WTIO_OUTCOMES: on each line a test's node ID and one of `began`, `passed`, `failed`, `skipped`, as a list in JSON.
A second process with the same file goes on behind the test that ended the first one.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def write(path: Path, node: str, outcome: str) -> None:
    """Add a line."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps([node, outcome]) + "\n")


def read(path: Path) -> dict[str, str]:
    """What became of each test. One that failed in any of its steps failed; one that only began is `began`."""
    outcomes: dict[str, str] = {}
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for node, outcome in map(json.loads, lines):
        if outcomes.get(node) != "failed":
            outcomes[node] = outcome
    return outcomes


def forget_unfinished(path: Path) -> None:
    """Leave only tests that have ended."""
    ended = {node: outcome for node, outcome in read(path).items() if outcome != "began"}
    path.unlink(missing_ok=True)
    for node, outcome in ended.items():
        write(path, node, outcome)


def _path() -> Path:
    return Path(os.environ["WTIO_OUTCOMES"])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what has run."""
    earlier = read(_path())
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in earlier])
    items[:] = [item for item in items if item.nodeid not in earlier]


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """A file that cannot be imported is a test that failed."""
    if report.failed:
        write(_path(), report.nodeid, "failed")


def pytest_runtest_logstart(nodeid: str) -> None:
    """A test begins."""
    write(_path(), nodeid, "began")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """A step of a test is over: setting up, the call, or tearing down."""
    if report.when == "call" or not report.passed:
        write(_path(), report.nodeid, report.outcome)
