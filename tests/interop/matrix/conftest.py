"""Preparing peers once per run, and the table at its end."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from . import peers, table
from .peer import Missing
from .rows import ROWS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from .peer import Peer

PROPERTY = "interop"


# Not for the whole session: what peers run in threads would go on next to the tests of other directories.
@pytest.fixture(scope="package")
def prepare() -> Iterator[Callable[[Peer], str | Missing]]:
    """``prepare(peer)`` gives its version, or why it cannot be had."""
    outcomes: dict[int, str | Missing] = {}
    prepared: list[Peer] = []

    def once(peer: Peer) -> str | Missing:
        if id(peer) not in outcomes:
            try:
                outcomes[id(peer)] = peer.prepare()
                prepared.append(peer)
            except Missing as missing:
                outcomes[id(peer)] = missing
        return outcomes[id(peer)]

    yield once
    for peer in prepared:
        peer.close()


@pytest.fixture
def cell(
    request: pytest.FixtureRequest,
    direction: table.Direction,
    peer: Peer,
    row_name: str,
    prepare: Callable[[Peer], str | Missing],
) -> None:
    """Tells the table which cell the test fills; skips when peer or row cannot be had."""
    try:
        version = prepare(peer)
    except Exception:
        request.node.user_properties.append((PROPERTY, table.Cell(direction, peer.name, row_name)))
        raise
    difference = peer.differences.get(row_name)
    outcome = table.Cell(direction, peer.name, row_name, version=version if isinstance(version, str) else "")
    if isinstance(version, Missing):
        outcome = replace(outcome, mark="missing", note=f"{peer.title} is missing: {version}")
    elif difference is not None:
        mark = "-" if difference.row is None else difference.mark
        outcome = replace(outcome, mark=mark, note=f"{peer.title}: {difference.note}")
    request.node.user_properties.append((PROPERTY, outcome))
    if isinstance(version, Missing) or (difference is not None and difference.row is None):
        pytest.skip(outcome.note)


def _cells(terminalreporter: pytest.TerminalReporter) -> Iterator[table.Cell]:
    """What ran, with what came of it; tests that were not about the matrix are left out."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, outcome in getattr(report, "user_properties", ()):
                if name == PROPERTY:
                    yield replace(outcome, mark="FAIL", note="") if report.failed else outcome


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    cells = list(_cells(terminalreporter))
    if not cells:
        return
    columns: tuple[tuple[table.Direction, tuple[Peer, ...]], ...] = (
        ("client", peers.CLIENTS),
        ("server", peers.SERVERS),
    )
    titles = {(direction, peer.name): peer.title for direction, column in columns for peer in column}
    text = table.render(cells, ROWS, titles)
    terminalreporter.section("interop matrix")
    terminalreporter.line(text)
    for note in dict.fromkeys(cell.note for cell in cells if cell.mark == "missing"):
        terminalreporter.line(f"MISSING: {note}", red=True, bold=True)
    path: Path | None = config.getoption("--interop-table")
    if path is not None:
        table.write(path, text)
