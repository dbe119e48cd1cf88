"""Runs every wheel that this machine can run: `make test-wheels`, or `python -m tools.wheels.run --help`.

Each is installed with pip from dist, without network and compiler, and `tests/wheels/try_wheel.py` is run with it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tools.wheels import interpreters, kit
from tools.wheels.build import TOP, version
from tools.wheels.check import wheel_name
from tools.wheels.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tools.wheels.interpreters import Interpreter

SCRIPT = TOP / "tests" / "wheels" / "try_wheel.py"
DIST = TOP / "dist"
# What is fetched, by the name on the command line.
FETCHED: dict[str, Callable[[], Interpreter]] = {
    "sid-3.14": lambda: interpreters.newest(14),
    "sid-3.15": lambda: interpreters.newest(15),
    "arm64": interpreters.emulated,
    "musl": interpreters.musl,
    "windows": interpreters.windows,
}


@dataclass
class Result:
    """What came of one Python."""

    name: str
    verdict: str
    seconds: float


def main() -> int:
    """Try what is asked for; the exit status says whether all of it works."""
    parser = argparse.ArgumentParser(
        prog="make test-wheels",
        description="Install each wheel of dist in an empty environment, with every Python that can run here.",
    )
    everything = ["installed", *FETCHED, "sdist"]
    listed = " ".join(everything)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of: {listed} (default), this")
    options = parser.parse_args()
    wanted = options.names or everything
    if unknown := set(wanted) - {*everything, "this"}:
        parser.error(f"there is nothing called {', '.join(sorted(unknown))}; there are: {listed} this")
    results = [result for name in wanted for result in results_of(name)]
    print()
    for result in results:
        print(f"{result.verdict:8} {result.seconds:5.0f} s  {result.name}")
    return any(result.verdict == "FAILED" for result in results)


def results_of(name: str) -> Iterator[Result]:
    """What comes of one name of the command line."""
    if name == "installed":
        for interpreter in interpreters.installed():
            yield attempt(interpreter.name, partial(try_wheel, interpreter))
    elif name == "this":
        yield attempt("this Python", lambda: try_wheel(interpreters.this()))
    elif name == "sdist":
        yield attempt(name, try_sdist)
    else:
        yield attempt(name, lambda: try_wheel(FETCHED[name]()))


def attempt(name: str, trial: Callable[[], None]) -> Result:
    """One trial, with its time. What cannot be had here is said, and is no failure."""
    print(f"\n== {name}", flush=True)
    begin = time.monotonic()
    try:
        trial()
    except kit.Missing as missing:
        print(f"not tried: {missing}", flush=True)
        return Result(f"{name}: {missing}", "-", 0)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired, LookupError) as error:
        print(f"{name}: {error}", flush=True)
        return Result(name, "FAILED", time.monotonic() - begin)
    return Result(name, "passed", time.monotonic() - begin)


def try_wheel(interpreter: Interpreter) -> None:
    """Install the wheel for a Python and try it."""
    wheel = DIST / wheel_name(TARGETS[interpreter.part])
    if not wheel.exists():
        raise kit.Missing(f'{wheel.name} is not in dist; run `make wheels ARGS="{interpreter.part}"`')
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if interpreter.has_venv:
            python = make_venv(interpreter.program, folder / "venv")
            install(python, "--no-index", wheel)
            run_script(python, folder, interpreter.environment)
        else:
            # pip runs from its own wheel.
            site = folder / "site"
            options = ["--no-index", "--no-compile", "--root-user-action=ignore", "--target", str(site), str(wheel)]
            program = str(interpreter.program)
            if interpreter.platform is not None:
                program = sys.executable
                options += ["--platform", interpreter.platform, "--only-binary", ":all:"]
            pip = [program, f"{pip_wheel()}/pip", "--disable-pip-version-check", "install", "--quiet"]
            run([*pip, *options], folder, interpreter.environment)
            paths = f"Z:{site}" if interpreter.part.startswith("windows") else str(site)
            environment = interpreter.environment | {"PYTHONPATH": paths}
            if not interpreter.part.startswith("windows"):
                environment |= {"WTIO_PYTHON": str(interpreter.program)}
            run_script(interpreter.program, folder, environment)


def try_sdist() -> None:
    """Build and install the sdist as pip does it, with cargo and maturin, and try it."""
    archive = DIST / f"wtio-{version()}.tar.gz"
    if not archive.exists():
        raise kit.Missing(f"{archive.name} is not in dist; run `make wheels ARGS=sdist`")
    interpreter = next(interpreters.installed())
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        python = make_venv(interpreter.program, folder / "venv")
        # pip fetches maturin, as it does for everybody.
        install(python, archive)
        run_script(python, folder, {})


def make_venv(program: Path, directory: Path) -> Path:
    """An empty virtual environment; returns its Python."""
    subprocess.run([program, "-m", "venv", directory], check=True)
    return directory / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def install(python: Path, *what: str | Path) -> None:
    """Install with pip, from outside of this repository."""
    command = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", *what]
    subprocess.run(command, cwd=python.parent, check=True)


def pip_wheel() -> Path:
    """A wheel of pip, for Pythons that come without."""
    folder = kit.directory() / "pip"
    if not any(folder.glob("pip-*.whl")):
        folder.mkdir(parents=True, exist_ok=True)
        asked = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
        subprocess.run([*asked, "--dest", folder, "pip==26.3"], check=True)
    return next(folder.glob("pip-*.whl"))


def run_script(python: Path, folder: Path, environment: dict[str, str]) -> None:
    """Run the script from an empty directory, so that nothing is imported from here."""
    script = folder / "try" / "try_wheel.py"
    script.parent.mkdir()
    shutil.copy(SCRIPT, script)
    run([str(python), "-I" if not environment else "-P", str(script)], script.parent, environment)


def run(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    """Run a program with pipes, which Wine wants, and pass on what it says."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=kept | {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"} | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    assert process.stdout
    for line in process.stdout:
        print(line.rstrip(), flush=True)
    if status := process.wait():
        raise subprocess.CalledProcessError(status, Path(command[0]).name)


if __name__ == "__main__":
    os.chdir(TOP)
    sys.exit(main())
