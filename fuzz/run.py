"""Fuzz for a while: `python -m fuzz.run [TARGET ...]`, which `make fuzz` does with all targets.

Each target begins with the inputs in fuzz/corpus. What breaks it is written to fuzz/findings, and the run fails. With
`--keep`, inputs that reach new code are added to fuzz/corpus, in the smallest set that reaches all of it.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from fuzz.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

FOLDER = Path(__file__).parent
CORPUS = FOLDER / "corpus"
FINDINGS = FOLDER / "findings"
RUST_TARGETS = ("stream_header", "frame_walker", "frame_rewriter")

# Coverage as libFuzzer wants it; no sanitizer, which would need another toolchain than the stable one.
COVERAGE = (
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
)
LONGEST_INPUT = 1024  # bytes
SLOWEST_INPUT = 10  # seconds
MEMORY = 1024  # MiB
# Of one corpus.
MOST_FILES = 200
MOST_BYTES = 200_000


def build_rust_targets() -> Path:
    """Build the Rust targets; returns the folder of their binaries."""
    if not shutil.which(os.environ.get("CXX", "c++")):
        sys.exit("missing: a C++ compiler for libFuzzer (apt-get install g++)")
    version = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
    [host] = (line.split()[1] for line in version.splitlines() if line.startswith("host:"))
    # With a target named, the flags leave build scripts alone.
    target_folder = Path(os.environ.get("CARGO_TARGET_DIR", FOLDER / "target")).absolute()
    subprocess.run(
        ["cargo", "build", "--release", "--locked", "--quiet", "--target", host, "--target-dir", target_folder],
        cwd=FOLDER,
        env=os.environ | {"CARGO_ENCODED_RUSTFLAGS": "\x1f".join(COVERAGE)},
        check=True,
    )
    return target_folder / host / "release"


def fuzz(name: str, command: Sequence[str | Path], seconds: int, keep: bool) -> str | None:
    """Fuzz one target; returns what is to be said of a finding."""
    kept = CORPUS / name
    kept.mkdir(parents=True, exist_ok=True)
    FINDINGS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="wtio-fuzz-") as temporary:
        found = Path(temporary) / "found"
        found.mkdir()
        arguments = [
            *map(str, command),
            str(found),
            str(kept),
            f"-max_total_time={seconds}",
            f"-max_len={LONGEST_INPUT}",
            # Long inputs come soon: a minute is not long.
            "-len_control=10",
            f"-timeout={SLOWEST_INPUT}",
            f"-rss_limit_mb={MEMORY}",
            f"-artifact_prefix={FINDINGS / name}-",
            "-print_final_stats=1",
        ]
        try:
            process = subprocess.run(
                arguments,
                cwd=FOLDER.parent,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=seconds + 120,
            )
        except subprocess.TimeoutExpired:
            return f"{name}: hangs; it did not end {seconds + 120} s after its start"
        output = process.stdout
        if process.returncode:
            return f"{output[-5000:]}\n{name}: finding, exit status {process.returncode}; {_artifact(output)}"
        runs = next((line.split()[-1] for line in output.splitlines() if "number_of_executed_units" in line), "no")
        print(f"{name}: {runs} runs in {seconds} s without a finding", flush=True)
        if keep:
            _keep(command, kept, found)
    return None


def _artifact(output: str) -> str:
    words = [line.split()[-1] for line in output.splitlines() if "Test unit written to" in line]
    return f"the input is {words[0]}" if words else "there is no input that would show it again"


def _keep(command: Sequence[str | Path], kept: Path, found: Path) -> None:
    """Replace a corpus by the smallest set of inputs, old and new, that reaches the same code."""
    with tempfile.TemporaryDirectory(prefix="wtio-fuzz-") as merged:
        subprocess.run(
            [*map(str, command), "-set_cover_merge=1", merged, str(kept), str(found)],
            cwd=FOLDER.parent,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        shutil.rmtree(kept)
        kept.mkdir()
        for path in _within_limits(Path(merged).iterdir()):
            shutil.copyfile(path, kept / path.name[:16])
        files = list(kept.iterdir())
        print(f"{kept.name}: {len(files)} inputs kept, {sum(path.stat().st_size for path in files)} bytes", flush=True)


def _within_limits(paths: Iterable[Path]) -> list[Path]:
    """Of too many inputs, the larger ones: they do what the smaller ones do, and more."""
    chosen = sorted(paths, key=lambda path: (path.stat().st_size, path.name))
    while sum(path.stat().st_size for path in chosen) > MOST_BYTES:
        chosen.pop()
    return chosen[-MOST_FILES:]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join((*TARGETS, *RUST_TARGETS)))
    parser.add_argument("--seconds", type=int, default=60, help="for each target; default 60")
    parser.add_argument("--jobs", type=int, default=2, help="targets at the same time; default 2")
    parser.add_argument("--keep", action="store_true", help="add what reaches new code to fuzz/corpus")
    options = parser.parse_args()
    names = options.targets or [*TARGETS, *RUST_TARGETS]
    if unknown := set(names) - {*TARGETS, *RUST_TARGETS}:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")

    if importlib.util.find_spec("atheris") is None and set(names) & set(TARGETS):
        if platform.machine() == "x86_64":
            parser.error("atheris is missing; `make setup` installs it")
        print(f"the Python targets cannot run here: atheris has no build for {platform.machine()}")
        names = [name for name in names if name in RUST_TARGETS]
    binaries = build_rust_targets() if set(names) & set(RUST_TARGETS) else None

    def run(name: str) -> str | None:
        if name in RUST_TARGETS and binaries is not None:
            return fuzz(name, [binaries / name], options.seconds, options.keep)
        return fuzz(name, [sys.executable, "-m", "fuzz.fuzz_python", name], options.seconds, options.keep)

    with ThreadPoolExecutor(options.jobs) as pool:
        problems = [problem for problem in pool.map(run, names) if problem]
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
