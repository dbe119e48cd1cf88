"""The verdict on instruction counts, without counting any."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from benchmarks import bytecode, gate

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def baselines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "gate.json"
    path.write_text(json.dumps({"python": {"known": {"echo": 1000.0, "bulk": 50.0}, "other": {"echo": 1.0}}}))
    monkeypatch.setattr(gate, "BASELINES", path)
    monkeypatch.setattr(gate, "ROOT", tmp_path)
    return path


def run_gate(monkeypatch: pytest.MonkeyPatch, toolchain: str, echo: float, *arguments: str) -> int:
    counts = gate.Counts("python", toolchain, {"echo": echo, "bulk": 50.0}, "show {}")
    monkeypatch.setattr(gate, "count_python", lambda: counts)
    monkeypatch.setattr("sys.argv", ["gate", "python", *arguments])
    return gate.main()


@pytest.mark.parametrize(("echo", "status"), [(1099.0, 0), (1101.0, 1), (500.0, 0)])
def test_a_tenth_more_than_the_baseline_fails(
    baselines: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], echo: float, status: int
) -> None:
    assert run_gate(monkeypatch, "known", echo) == status
    printed = capsys.readouterr().out
    assert ("FAILED, at most 1.10; look: show echo" in printed) == bool(status)
    assert "look: show bulk" not in printed


@pytest.mark.parametrize("arguments", [(), ("--strict",)])
def test_an_unknown_toolchain_is_named_and_fails_where_asked(
    baselines: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
) -> None:
    assert run_gate(monkeypatch, "unknown", 1.0, *arguments) == len(arguments)
    assert "NOT COMPARED: gate.json has no baseline for python (unknown)" in capsys.readouterr().err


def test_renewing_replaces_this_toolchain_and_no_other(baselines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_gate(monkeypatch, "known", 2000.0, "--renew") == 0
    assert json.loads(baselines.read_text()) == {
        "python": {"known": {"echo": 2000.0, "bulk": 50.0}, "other": {"echo": 1.0}}
    }
    assert run_gate(monkeypatch, "known", 2000.0) == 0


def test_bytecode_of_an_echo_is_the_same_each_time() -> None:
    first, operations = bytecode.count("echo")
    again, _ = bytecode.count("echo")
    assert sum(first.values()) > operations
    assert sum(again.values()) == pytest.approx(sum(first.values()), rel=0.01)
