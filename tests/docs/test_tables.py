"""Tables of the reference agree with the code and with what was measured."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import wtio
from wtio.protocol.dialects import Dialect

TOP = Path(__file__).parents[2]


def rows(page: str) -> dict[str, list[str]]:
    text = (TOP / page).read_text(encoding="utf-8")
    lines = [line.strip().strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}


def test_the_table_of_drafts_is_that_of_the_dialects() -> None:
    table = rows("docs/reference/drafts.md")
    of = [dialect.row for dialect in Dialect]
    assert table[""] == [str(dialect) for dialect in Dialect]
    assert table["drafts"] == [f"{row.drafts[0]} to {row.drafts[1]}" for row in of]
    assert table["setting"] == [f"`{row.setting:#010x}`" for row in of]
    assert table["`:protocol`"] == [f"`{row.token}`" for row in of]
    assert table["status for an unknown path"] == [str(row.not_found_status) for row in of]
    assert [cell == "yes" for cell in table["needs reliable resets (RESET_STREAM_AT) of a strict peer"]] == [
        row.reset_stream_at for row in of
    ]
    assert [cell == "yes" for cell in table["session flow control"]] == [
        row.one_session_without_flow_control for row in of
    ]


def test_the_reference_has_all_that_is_exported() -> None:
    found: set[str] = set()
    for page in (TOP / "docs" / "reference").glob("*.md"):
        module = ""
        for kind, name in re.findall(r"^\.\. (\w+):: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
            module = name if kind == "currentmodule" else module
            found.add(f"{module}.{name}")
    for name in ("", ".asgi", ".hub", ".opentelemetry", ".prometheus", ".report", ".testing", ".workers"):
        exported = importlib.import_module(f"wtio{name}").__all__
        missing = {one for one in exported if f"wtio{name}.{one}" not in found}
        # Reports are on a page of their own, with the module that has them.
        assert missing - {"ConnectionReport", "__version__"} == set(), name


def test_what_the_comparison_measured_is_what_the_benchmarks_have() -> None:
    results = (TOP / "benchmarks" / "README.md").read_text(encoding="utf-8")
    warm = results[results.index("\nWarm (") : results.index("\nCold (")]
    for cells in rows("docs/reference/feature-matrix.md").values():
        if cells[-1] == "measured":
            for cell in cells[:-1]:
                assert f" {re.sub(r'(/s| .?s| MB/s| KB)$', '', cell)} " in warm, cell


@pytest.mark.parametrize("page", ["browser-names", "../from-websocket", "../from-aioquic", "../from-pywebtransport"])
def test_names_that_a_table_promises_are_there(page: str) -> None:
    classes = (wtio.WebTransportSession, wtio.WebTransportStream, wtio.Server, wtio.SessionRequest, wtio.Client)
    known = {name for cls in classes for name in dir(cls)}
    methods = [getattr(cls, name) for cls in classes for name in dir(cls) if not name.startswith("_")]
    callables: list[Any] = [wtio.ClientTLS, wtio.ServerTLS, wtio.connect, wtio.serve, wtio.Client]
    callables += filter(callable, methods)
    arguments = {name for each in callables for name in inspect.signature(each).parameters}
    cells = [cells[-1] for cells in rows(f"docs/reference/{page}.md").values() if cells]
    for cell in cells:
        for owner, name in re.findall(r"\b(wtio|Limits|Timeouts|session|stream|server|request|client)\.(\w+)", cell):
            where = {"wtio": wtio, "Limits": wtio.Limits, "Timeouts": wtio.Timeouts}.get(owner)
            assert name in known if where is None else hasattr(where, name), f"{owner}.{name}"
        for name in re.findall(r"(?<=[`( ])(\w+)=(?!=)", cell):
            assert name in arguments, f"{name}="
        for name in re.findall(r"`(\w+(?:Error|Closed|OK|Timeout))`", cell):
            assert hasattr(wtio, name) or name in ("TypeError", "ValueError", "TimeoutError"), name
