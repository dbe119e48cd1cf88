"""Fails when an operation costs more instructions than it did: `make gate`.

Instructions are counted, not timed, so that the load of the machine does not matter:

- engine: machine instructions of two engines on a simulated network, counted by callgrind
  (crates/engine/benches/instructions.rs)
- python: bytecode instructions of both ends of a session on a simulated network (benchmarks/bytecode.py)

What an operation may cost is in gate.json, for each toolchain apart: another compiler, C library, processor or Python
gives other counts, and what was counted with one says nothing of another. A tenth more fails.

`--against COMMIT` builds that commit as well, counts both with the same measuring code and the same toolchain, and is
stricter: a few percent more fail.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import trees
from benchmarks.trees import ROOT, CommandFailed, Tree

if TYPE_CHECKING:
    from collections.abc import Sequence

BASELINES = Path(__file__).with_name("gate.json")
ALLOWED = 0.10  # of the baseline
LAYERS = ("engine", "python")
# How much more than another commit, of what it costs there.
ALLOWED_AGAINST = {"engine": 0.02, "python": 0.03}
# Most of a handshake is cryptography in the engine, and done once per connection in Python.
ALLOWED_HANDSHAKE = 0.05
# A datagram costs so few bytecode instructions that one more function call is several percent.
ALLOWED_PER_DATAGRAM = 3.0

Baselines = dict[str, dict[str, dict[str, float]]]


@dataclass
class Counts:
    """Instructions per operation of one layer."""

    layer: str
    toolchain: str
    per_operation: dict[str, float]
    look: str
    """Command that shows where they are spent, with ``{}`` for the workload."""


def count_engine(tree: Tree, binary: Path) -> Counts:
    """Run the workloads of the engine, built already, below callgrind."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        sys.exit("missing for the instruction counts: valgrind (apt-get install valgrind)")
    surroundings, *lines = tree.run(valgrind, "--quiet", binary, "--list").splitlines()
    operations = {name: int(count) for name, count in map(str.split, lines)}

    def count(name: str) -> float:
        profile = tree.profiles / f"{name}.callgrind"
        options = ("--tool=callgrind", "--toggle-collect=*::collected", f"--callgrind-out-file={profile}")
        tree.run(valgrind, "--quiet", *options, binary, name)
        total = next(line for line in profile.read_text().splitlines() if line.startswith("totals: "))
        instructions = int(total.split()[1])
        if not instructions:
            sys.exit(f"callgrind counted nothing in {name}: it looks for a function `collected` in {binary}")
        return instructions / operations[name]

    with ThreadPoolExecutor(os.cpu_count()) as workers:
        per_operation = dict(zip(operations, workers.map(count, operations), strict=True))
    rustc = " ".join(tree.run("rustc", "--version").split()[:2])
    toolchain = f"{rustc}, {' '.join(platform.libc_ver())}, {surroundings}"
    return Counts("engine", toolchain, per_operation, f"callgrind_annotate {tree.profiles}/{{}}.callgrind")


def count_python(tree: Tree) -> Counts:
    """Count the bytecode of the Python layer, in a process with a fixed hash seed."""
    # The measuring code is that of here, for each library.
    library = tree.root / "python"
    path = os.pathsep.join((str(library), str(ROOT)))
    found = Path(tree.run(sys.executable, "-c", "import wtio; print(wtio.__file__)", PYTHONPATH=path).strip())
    if not found.is_relative_to(library):
        sys.exit(f"{found} would be counted in place of {library}")
    printed = tree.run(sys.executable, ROOT / "benchmarks" / "bytecode.py", PYTHONPATH=path)
    toolchain = f"{platform.python_implementation()} {sys.version_info.major}.{sys.version_info.minor}"
    look = f"{Path(sys.executable).name} -m benchmarks.bytecode --profile {{}}"
    per_operation: dict[str, float] = json.loads(printed)
    if not all(per_operation.values()):
        sys.exit(f"this Python reports no bytecode: {per_operation}")
    return Counts("python", toolchain, per_operation, look)


def count_here(layer: str) -> Counts:
    """Count what the operations of a layer cost with the sources here."""
    tree = trees.here()
    return count_python(tree) if layer == "python" else count_engine(tree, tree.build_workloads())


def count_there(layer: str, tree: Tree) -> Counts:
    """Count what they cost with the sources of another commit, which are built first."""
    print(f"{layer}: building and measuring {tree.name}", flush=True)
    if layer == "python":
        tree.build_extension()
        return count_python(tree)
    binary, measuring = trees.build_measured(tree)
    if measuring is not None:
        print(f"  with the workloads of {measuring}, as those of today do not fit the engine of {tree.name}")
    return count_engine(tree, binary)


def most(layer: str, workload: str, before: float) -> float:
    """Return what a workload may cost at most, where it did cost so much before."""
    share = ALLOWED_HANDSHAKE if workload == "handshake" else ALLOWED_AGAINST[layer]
    if layer == "python" and workload == "datagrams":
        return before + max(share * before, ALLOWED_PER_DATAGRAM)
    return before * (1 + share)


def compare(before: Counts, after: Counts) -> bool:
    """Print a table of both; returns whether nothing costs more than it may."""
    print(f"{after.layer} ({after.toolchain}), instructions per operation:")
    print(f"  {'workload':10} {'before':>12} {'after':>12} {'ratio':>6}")
    is_cheap = True
    for name in before.per_operation | after.per_operation:
        old, new = (counts.per_operation.get(name) for counts in (before, after))
        row = "".join(f" {'-' if value is None else format(value, ',.1f'):>12}" for value in (old, new))
        if old is None or new is None:
            print(f"  {name:10}{row}  NOT COMPARED, missing {'before' if old is None else 'after'}")
            continue
        limit = most(after.layer, name, old)
        print(f"  {name:10}{row} {new / old:6.3f}", end="")
        if new > limit:
            is_cheap = False
            print(f"  FAILED, at most {limit:,.1f}; look: {after.look.format(name)}")
        else:
            print()
    return is_cheap


def gate_against(commit: str, layers: Sequence[str]) -> int:
    """Compare the sources here with those of a commit; returns the status to exit with."""
    tree = trees.unpack(commit)
    print(f"before: {trees.git('log', '-1', '--format=%h %s', tree.name).strip()}")
    print(f"after:  {trees.git('describe', '--always', '--dirty=, with what is not committed').strip()}", flush=True)
    both = [(count_there(layer, tree), count_here(layer)) for layer in layers]
    verdicts = [compare(before, after) for before, after in both]
    if not all(verdicts):
        print(f"Something costs more than it may, against {commit}.", file=sys.stderr)
    return int(not all(verdicts))


def judge(counts: Counts, baselines: Baselines) -> tuple[bool, bool]:
    """Print one line for each workload; returns whether none costs too much, and whether all were compared."""
    known = baselines.get(counts.layer, {}).get(counts.toolchain, {})
    print(f"{counts.layer} ({counts.toolchain}), instructions per operation:")
    is_cheap, is_compared = True, True
    for name, counted in counts.per_operation.items():
        baseline = known.get(name)
        if baseline is None:
            is_compared = False
            print(f"  {name:10} {counted:12,.1f}  NOT COMPARED")
            continue
        ratio = counted / baseline
        print(f"  {name:10} {counted:12,.1f}  baseline {baseline:12,.1f}  ratio {ratio:.3f}", end="")
        if ratio > 1 + ALLOWED:
            is_cheap = False
            print(f"  FAILED, at most {1 + ALLOWED:.2f}; look: {counts.look.format(name)}")
        elif ratio < 1 - ALLOWED:
            print("  cheaper; keep it with `make gate ARGS=--renew`")
        else:
            print()
    return is_cheap, is_compared


def main() -> int:
    """Count, and compare or renew; returns the status to exit with."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layers", nargs="*", metavar="LAYER", help="engine, python; default both")
    parser.add_argument("--renew", action="store_true", help="write what is counted into gate.json, for this toolchain")
    parser.add_argument(
        "--strict",
        action="store_true",
        help="fail without a baseline for this toolchain, too",
    )
    parser.add_argument("--against", metavar="COMMIT", help="compare with this commit instead of gate.json")
    arguments = parser.parse_args()
    layers = arguments.layers or LAYERS
    for layer in layers:
        if layer not in LAYERS:
            parser.error(f"there is no layer {layer!r}; there are: {', '.join(LAYERS)}")

    if arguments.against is not None:
        if arguments.renew or arguments.strict:
            parser.error("--against leaves gate.json alone; give it without --renew and --strict")
        return gate_against(arguments.against, layers)

    baselines: Baselines = json.loads(BASELINES.read_text())
    is_cheap, not_compared = True, []
    for layer in layers:
        counts = count_here(layer)
        this_is_cheap, is_compared = judge(counts, baselines)
        is_cheap &= this_is_cheap
        if not is_compared:
            not_compared.append(f"{counts.layer} ({counts.toolchain})")
        if arguments.renew:
            rounded = {name: round(counted, 1) for name, counted in counts.per_operation.items()}
            baselines.setdefault(layer, {})[counts.toolchain] = rounded
    if arguments.renew:
        BASELINES.write_text(json.dumps(baselines, indent=2, sort_keys=True) + "\n")
        print(f"written to {BASELINES.relative_to(ROOT)}; those of other toolchains are as they were")
        return 0
    for toolchain in not_compared:
        print(f"NOT COMPARED: gate.json has no baseline for {toolchain}.", file=sys.stderr)
    if not_compared:
        print('Compare with the commit before your change: make gate ARGS="--against COMMIT"', file=sys.stderr)
    if not is_cheap:
        print(
            "Something costs over a tenth more than its baseline. If that is its price, say why in the commit that "
            "renews the baseline: make gate ARGS=--renew",
            file=sys.stderr,
        )
    return int(not is_cheap or (arguments.strict and bool(not_compared)))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CommandFailed as failure:
        sys.exit(str(failure))
