"""Fails when an operation costs a tenth more instructions than it did: `make gate`.

Instructions are counted, not timed, so that the load of the machine does not matter:

- engine: machine instructions of two engines on a simulated network, counted by callgrind
  (crates/engine/benches/instructions.rs)
- python: bytecode instructions of both ends of a session on a simulated network (benchmarks/bytecode.py)

What an operation may cost lies in gate.json, for each toolchain apart: another compiler, C library, processor or
Python gives other counts, and what was counted with one says nothing of another.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parent.parent
BASELINES = Path(__file__).with_name("gate.json")
ALLOWED = 0.10  # of the baseline
LAYERS = ("engine", "python")
# They change what the compiler makes, or what Python runs, and are not part of a toolchain's name.
NOT_INHERITED = ("RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "PYTHONASYNCIODEBUG", "PYTHONDEVMODE", "GLIBC_TUNABLES")

Baselines = dict[str, dict[str, dict[str, float]]]


@dataclass
class Counts:
    """Instructions per operation of one layer."""

    layer: str
    toolchain: str
    per_operation: dict[str, float]
    look: str
    """Command that shows where they are spent, with ``{}`` for the workload."""


def output_of(command: Sequence[str]) -> str:
    """Run a command and return what it prints, or end with what went wrong."""
    environment = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
    environment["PYTHONHASHSEED"] = "0"
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200)
    if done.returncode:
        sys.exit(f"{done.stderr}\n{' '.join(command)} failed with status {done.returncode}")
    return done.stdout


def count_engine() -> Counts:
    """Build the workloads of the engine and run them below callgrind."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        sys.exit("missing for the instruction counts: valgrind (apt-get install valgrind)")
    # Together with the extension's package, so that dependencies have the same features and are not built again.
    packages = ("--package", "wtio-core", "--package", "wtio-engine")
    build = ("cargo", "bench", *packages, "--bench", "instructions", "--no-run", "--locked", "--quiet")
    messages = map(json.loads, output_of((*build, "--message-format=json")).splitlines())
    binary = next(message["executable"] for message in messages if message.get("executable"))
    profiles = Path(binary).parents[2] / "gate"
    profiles.mkdir(exist_ok=True)

    surroundings, *lines = output_of((valgrind, "--quiet", binary, "--list")).splitlines()
    operations = {name: int(count) for name, count in map(str.split, lines)}

    def count(name: str) -> float:
        profile = profiles / f"{name}.callgrind"
        options = ("--tool=callgrind", "--toggle-collect=*::collected", f"--callgrind-out-file={profile}")
        output_of((valgrind, "--quiet", *options, binary, name))
        total = next(line for line in profile.read_text().splitlines() if line.startswith("totals: "))
        instructions = int(total.split()[1])
        if not instructions:
            sys.exit(f"callgrind counted nothing in {name}: it looks for a function `collected` in {binary}")
        return instructions / operations[name]

    with ThreadPoolExecutor(os.cpu_count()) as workers:
        per_operation = dict(zip(operations, workers.map(count, operations), strict=True))
    rustc = " ".join(output_of(("rustc", "--version")).split()[:2])
    toolchain = f"{rustc}, {' '.join(platform.libc_ver())}, {surroundings}"
    return Counts("engine", toolchain, per_operation, f"callgrind_annotate {profiles}/{{}}.callgrind")


def count_python() -> Counts:
    """Count the bytecode of the Python layer, in a process with a fixed hash seed."""
    command = (sys.executable, "-m", "benchmarks.bytecode")
    toolchain = f"{platform.python_implementation()} {sys.version_info.major}.{sys.version_info.minor}"
    look = f"{Path(sys.executable).name} -m benchmarks.bytecode --profile {{}}"
    per_operation: dict[str, float] = json.loads(output_of(command))
    if not all(per_operation.values()):
        sys.exit(f"this Python reports no bytecode: {per_operation}")
    return Counts("python", toolchain, per_operation, look)


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
    arguments = parser.parse_args()
    layers = arguments.layers or LAYERS
    for layer in layers:
        if layer not in LAYERS:
            parser.error(f"there is no layer {layer!r}; there are: {', '.join(LAYERS)}")

    baselines: Baselines = json.loads(BASELINES.read_text())
    is_cheap, not_compared = True, []
    for layer in layers:
        counts = count_engine() if layer == "engine" else count_python()
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
        print("Record one on the commit before your change: make gate ARGS=--renew", file=sys.stderr)
    if not is_cheap:
        print(
            "Something costs over a tenth more than its baseline. If that is its price, say why in the commit that "
            "renews the baseline: make gate ARGS=--renew",
            file=sys.stderr,
        )
    return int(not is_cheap or (arguments.strict and bool(not_compared)))


if __name__ == "__main__":
    sys.exit(main())
