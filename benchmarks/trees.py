"""The sources that `make gate` measures: those here, and those of another commit, built apart from them.

A commit is unpacked and built once, in a directory of its own below cargo's target directory, where the next
comparison with it finds its extension again. What it is measured with is not its own measuring code, but that of
today.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).parent.parent
# What the engine is measured with: the workloads, and the simulated network below them.
MEASURING = ("crates/engine/benches/instructions.rs", "crates/engine/tests/support")
# They change what the compiler makes, or what Python runs, and are not part of a toolchain's name.
NOT_INHERITED = ("RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "PYTHONASYNCIODEBUG", "PYTHONDEVMODE", "GLIBC_TUNABLES")


class CommandFailed(Exception):
    """A command failed; the message is what it printed, and which one it was."""


@dataclass(frozen=True)
class Tree:
    """Sources, and where cargo builds them."""

    name: str
    root: Path
    target: Path

    @property
    def profiles(self) -> Path:
        """The directory for callgrind's files, which exists."""
        directory = target_directory() / "gate" / ("" if self.root == ROOT else f"profiles/{self.root.name}")
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    def run(self, *command: str | Path, **variables: str) -> str:
        """Run a command in this tree and return what it prints.

        Args:
            command: The program and its arguments.
            variables: Of the environment, besides those that are there.

        Raises:
            CommandFailed: It ended with another status than 0.
        """
        environment = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
        environment |= {"PYTHONHASHSEED": "0", "CARGO_TARGET_DIR": str(self.target), **variables}
        done = subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True, timeout=1800)
        if done.returncode:
            raise CommandFailed(f"{done.stderr}\n{' '.join(map(str, command))} failed with status {done.returncode}")
        return done.stdout

    def build(self, *command: str) -> Iterator[dict[str, object]]:
        """Run a cargo command and return its messages, one for each thing that it made or found made."""
        if self.root != ROOT:
            # All commits have one target directory. Cargo tells their packages apart neither by path nor by content,
            # but by the age of their files: without this it takes what it made of another commit.
            for source in (self.root / "crates").rglob("*.rs"):
                source.touch()
        # The interpreter that builds the extension is the one that is going to load it.
        output = self.run("cargo", *command, "--locked", "--quiet", "--message-format=json", PYO3_PYTHON=sys.executable)
        return map(json.loads, output.splitlines())

    def build_workloads(self) -> Path:
        """Build the engine's workloads and return the program."""
        # Together with the extension's package, so that dependencies have the same features and are not built again.
        packages = ("--package", "wtio-core", "--package", "wtio-engine")
        messages = self.build("bench", *packages, "--bench", "instructions", "--no-run")
        return Path(next(str(message["executable"]) for message in messages if message.get("executable")))

    def build_extension(self, *, to_measure: bool = True) -> None:
        """Put the extension beside the Python sources, unless it is there.

        Args:
            to_measure: Build it as it is installed. Otherwise it is built unoptimised, in half the time; a tree takes
                only one of the two.
        """
        extension = self.root / "python" / "wtio" / "_core.abi3.so"
        if extension.exists():
            return
        quick = ("--config", "profile.dev.opt-level=0", "--config", "profile.dev.incremental=false")
        profile = ("--release",) if to_measure else quick
        library = self.target / ("release" if to_measure else "debug") / "lib_core.so"
        # All trees are built to this one file. If it is gone, cargo makes it from these sources, whatever it remembers.
        for made in (library, library.parent / "deps" / library.name):
            made.unlink(missing_ok=True)
        for _ in self.build("build", *profile, "--package", "wtio-core", "--features", "pyo3/extension-module"):
            pass
        complete = extension.with_suffix(".new")
        shutil.copyfile(library, complete)
        complete.rename(extension)


def git(*arguments: str) -> str:
    """Run git here and return what it prints."""
    done = subprocess.run(("git", *arguments), cwd=ROOT, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise CommandFailed(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def target_directory() -> Path:
    """Return the directory in which cargo builds the sources here."""
    return ROOT / os.environ.get("CARGO_TARGET_DIR", "target")


def here() -> Tree:
    """Return the sources here, as they are now."""
    return Tree("here", ROOT, target_directory())


def unpack(commit: str, place: str = "gate/commits") -> Tree:
    """Return the sources of a commit, unpacked when they are asked for the first time.

    Args:
        commit: A name of it, for git.
        place: Where, below cargo's target directory. What is built for one purpose is not taken for another.

    Raises:
        CommandFailed: There is no such commit.
    """
    revision = git("rev-parse", "--verify", "--end-of-options", f"{commit}^{{commit}}").strip()
    commits = target_directory() / place
    root = commits / revision[:12]
    if not root.exists():
        partial = root.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        archive = partial / "archive.tar"
        git("archive", "--output", str(archive), revision)
        subprocess.run(("tar", "--extract", "--file", archive.name), cwd=partial, check=True, timeout=60)
        archive.unlink()
        partial.rename(root)
    # One target directory for all commits: they have nearly all their dependencies in common.
    return Tree(revision[:12], root, commits / "target")


def build_measured(tree: Tree) -> tuple[Path, str | None]:
    """Build the workloads of today against the sources of another commit.

    They know the engine by its Rust interface. Where that has changed since, the newest workloads that still fit are
    taken from the history between the two.

    Returns:
        The program, and the commit that the workloads are from if they are not those of today.

    Raises:
        CommandFailed: None of them can be built; the message is that of the compiler for those of today.
    """
    first_failure = None
    for commit, files in _measuring_codes(tree.name):
        _lay_over(tree.root, files)
        try:
            return tree.build_workloads(), commit
        except CommandFailed as error:
            first_failure = first_failure or error
    assert first_failure is not None, "those of today come first"
    raise first_failure


def _measuring_codes(commit: str) -> Iterator[tuple[str | None, Mapping[str, str]]]:
    """Give the measuring code of today, then that of each commit down to this one, which is the last."""
    tracked = git("ls-files", "--cached", "--others", "--exclude-standard", *MEASURING).splitlines()
    today = {path: (ROOT / path).read_text() for path in tracked if (ROOT / path).exists()}
    yield None, today
    before = today
    revisions: Sequence[str] = git("log", "--format=%H", f"{commit}..HEAD", "--", *MEASURING).splitlines()
    for revision in (*(revision[:12] for revision in revisions), commit):
        paths = git("ls-tree", "-r", "--name-only", revision, *MEASURING).splitlines()
        files = {path: git("show", f"{revision}:{path}") for path in paths}
        if files != before:
            yield revision, files
        before = files


def _lay_over(root: Path, files: Mapping[str, str]) -> None:
    """Write the files into a tree; those that are so already keep their dates, by which cargo knows what to build."""
    for path, text in files.items():
        place = root / path
        if not place.exists() or place.read_text() != text:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
