"""The verdict on instruction counts, without counting any."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest
from benchmarks import bytecode, gate, trees

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.trees import Tree


@pytest.fixture
def baselines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "gate.json"
    path.write_text(json.dumps({"python": {"known": {"echo": 1000.0, "bulk": 50.0}, "other": {"echo": 1.0}}}))
    monkeypatch.setattr(gate, "BASELINES", path)
    monkeypatch.setattr(gate, "ROOT", tmp_path)
    return path


def run_gate(monkeypatch: pytest.MonkeyPatch, toolchain: str, echo: float, *arguments: str) -> int:
    counts = gate.Counts("python", toolchain, {"echo": echo, "bulk": 50.0}, "show {}")
    monkeypatch.setattr(gate, "count_here", lambda layer: counts)
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


@pytest.mark.parametrize("workload", ["echo", "handshake"])
def test_bytecode_of_an_operation_is_the_same_each_time(workload: str) -> None:
    first, operations = bytecode.count(workload)
    again, _ = bytecode.count(workload)
    assert sum(first.values()) > operations
    assert sum(again.values()) == pytest.approx(sum(first.values()), rel=0.01)


@pytest.mark.parametrize(
    ("layer", "workload", "before", "limit"),
    [
        ("engine", "echo", 1000, 1020),
        ("engine", "datagrams", 1000, 1020),
        ("engine", "handshake", 1000, 1050),
        ("python", "echo", 1000, 1030),
        ("python", "datagrams", 50, 53),
        ("python", "datagrams", 1000, 1030),
        ("python", "handshake", 1000, 1050),
    ],
)
def test_limit_against_a_commit(
    capsys: pytest.CaptureFixture[str], layer: str, workload: str, before: float, limit: float
) -> None:
    def compare(after: float) -> bool:
        return gate.compare(*(gate.Counts(layer, "any", {workload: count}, "show {}") for count in (before, after)))

    assert compare(limit - 0.1)
    assert "FAILED" not in capsys.readouterr().out
    assert not compare(limit + 0.1)
    assert f"FAILED, at most {limit:,.1f}; look: show {workload}" in capsys.readouterr().out


def test_comparing_prints_a_table_and_names_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    before = gate.Counts("engine", "any", {"echo": 2000.0, "gone": 7.0}, "")
    after = gate.Counts("engine", "any", {"echo": 1000.0, "new": 8.0}, "")
    assert gate.compare(before, after)
    _, heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split() == ["workload", "before", "after", "ratio"]
    assert [row.split() for row in rows] == [
        ["echo", "2,000.0", "1,000.0", "0.500"],
        ["gone", "7.0", "-", "NOT", "COMPARED,", "missing", "after"],
        ["new", "-", "8.0", "NOT", "COMPARED,", "missing", "before"],
    ]


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Three commits, oldest first: with old workloads, with new ones, and with another library as well."""
    root = tmp_path / "repository"
    monkeypatch.setattr(trees, "ROOT", root)
    monkeypatch.setattr(trees, "target_directory", lambda: tmp_path / "target")
    workloads, library = root / trees.MEASURING[0], root / "python" / "library.py"
    for place in (workloads, library):
        place.parent.mkdir(parents=True)

    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=somebody", "-c", "user.email=somebody@localhost", "-c", "commit.gpgsign=false")
        done = subprocess.run(("git", *identity, *arguments), cwd=root, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "--quiet")
    commits = []
    for texts in (("old", "a"), ("new", "a"), ("new", "b")):
        workloads.write_text(texts[0])
        library.write_text(texts[1])
        git("add", ".")
        git("commit", "--quiet", "--message", " ".join(texts))
        commits.append(git("rev-parse", "HEAD")[:12])
    return commits


def test_a_commit_is_unpacked_once(history: list[str]) -> None:
    tree = trees.unpack("HEAD^")
    library = tree.root / "python" / "library.py"
    assert library.read_text() == "a"
    library.write_text("built")
    assert trees.unpack(history[1]) == tree
    assert library.read_text() == "built"
    with pytest.raises(trees.CommandFailed, match="nowhere"):
        trees.unpack("nowhere")


@pytest.mark.parametrize(
    ("that_fit", "commit_that_fits"),
    [({"today", "new", "old"}, None), ({"new", "old"}, 1), ({"old"}, 0), (set(), None)],
)
def test_another_commit_is_measured_with_the_newest_workloads_that_fit(
    history: list[str], monkeypatch: pytest.MonkeyPatch, that_fit: set[str], commit_that_fits: int | None
) -> None:
    tried = []

    def build_workloads(tree: Tree) -> Path:
        workloads = tree.root / trees.MEASURING[0]
        tried.append(workloads.read_text())
        if tried[-1] not in that_fit:
            raise trees.CommandFailed(f"error: {tried[-1]}")
        return workloads

    monkeypatch.setattr(trees.Tree, "build_workloads", build_workloads)
    (trees.ROOT / trees.MEASURING[0]).write_text("today")
    tree = trees.unpack(history[0])
    if that_fit:
        _, commit = trees.build_measured(tree)
        assert commit == (None if commit_that_fits is None else history[commit_that_fits])
    else:
        with pytest.raises(trees.CommandFailed, match="error: today"):
            trees.build_measured(tree)
        assert tried == ["today", "new", "old"]


def test_comparing_leaves_the_baselines_alone(baselines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["gate", "--against", "HEAD", "--renew"])
    with pytest.raises(SystemExit):
        gate.main()
