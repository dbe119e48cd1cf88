"""Where the time of an echo, a megabyte and a handshake goes: `python -m benchmarks.profile` writes docs/profile.md.

Client and server are two processes on loopback, as in the other benchmarks. Processor time of an operation comes from
processes that nothing disturbs. Where it goes comes from others, which `perf record` samples with their stacks while
CPython's perf support names Python functions; benchmarks/attribution.py says what belongs to whom. The same for bare
Rust. Needs Linux, perf, cargo, and Python 3.12 or newer.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.attribution import CATEGORIES, GROUPS, OTHER, Profile, read_samples
from benchmarks.charts import Bar, stacked
from benchmarks.environments import CACHE, CannotRun, find_python
from benchmarks.run import prepare_bare
from benchmarks.workloads import MIB

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "profile.md"
PICTURE = ROOT / "docs" / "profile.svg"
BEGIN, END = "<!-- results: written by benchmarks/profile.py -->", "<!-- end of results -->"

# No multiple of anything periodic in the programs: samples must not fall into step with them.
FREQUENCY = 1999
# Bytes of stack in a sample: enough for the way from any leaf to a frame that a rule knows.
STACK = 4096
SIDES = ("client", "server")


@dataclass(frozen=True)
class Operation:
    """One thing that is taken apart."""

    name: str
    title: str
    bare_workload: str
    bare_sizes: Mapping[str, int]
    # How many operations the sizes come to: warm-up and cold operations are operations too.
    bare_operations: int


ECHOES, BULK, HANDSHAKES = 40_000, 1024 * MIB, 2000
OPERATIONS = (
    Operation("echo", "one echo of 64 bytes on an open stream", "echo", {"echoes": ECHOES}, 1 + ECHOES // 10 + ECHOES),
    Operation("upload", "one megabyte (MiB) up", "upload", {"bulk": BULK}, 2 * BULK // MIB),
    Operation("download", "one megabyte (MiB) down", "download", {"bulk": BULK}, 2 * BULK // MIB),
    Operation("connect", "one handshake to a usable session", "handshake", {"handshakes": HANDSHAKES}, 1 + HANDSHAKES),
)


@dataclass
class Measured:
    """One operation with one library: a list has one value per pair of processes."""

    wall: list[float] = field(default_factory=list)
    """Medians over the operations of a pair, in seconds."""
    processor: dict[str, list[float]] = field(default_factory=lambda: {side: [] for side in SIDES})
    traced_processor: list[float] = field(default_factory=list)
    profiles: dict[str, Profile] = field(default_factory=lambda: {side: Profile() for side in SIDES})

    def seconds(self, side: str) -> float:
        return statistics.median(self.processor[side])

    def both(self) -> float:
        return sum(map(self.seconds, SIDES))


@dataclass
class Setting:
    """What the measurement needs, found or made."""

    perf: str
    python: str
    environment: dict[str, str]
    bare: str
    certificates: Path


# -- what must be there


def _check_perf() -> str:
    if sys.platform != "linux":
        raise CannotRun(f"samples come from Linux's perf; this is {sys.platform}")
    perf = shutil.which("perf")
    if perf is None:
        raise CannotRun("no `perf`; install linux-perf (Debian), linux-tools (Ubuntu) or perf (Fedora)")
    level = int(Path("/proc/sys/kernel/perf_event_paranoid").read_text())
    if level > 0 and os.geteuid() != 0:
        raise CannotRun(
            f"kernel.perf_event_paranoid = {level} keeps the kernel and other processes from you; be root, or "
            "`sysctl kernel.perf_event_paranoid=0 kernel.kptr_restrict=0`"
        )
    with tempfile.TemporaryDirectory() as directory:
        command = [perf, "record", "--all-cpus", "--event", "cpu-clock", "--output", f"{directory}/data", "--", "true"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise CannotRun(f"`{' '.join(command)}` fails: {' '.join(done.stderr.split())[:300]}")
    return perf


def _check_python() -> str:
    python = find_python((3, 12), newest=True)
    if python is None:
        raise CannotRun("no Python 3.12 or newer, which can tell perf the names of its functions; install one (pyenv)")
    code = "import sys; sys.activate_stack_trampoline('perf')"
    if subprocess.run([python, "-c", code], capture_output=True, timeout=60).returncode != 0:
        raise CannotRun(f"`{python}` was built without perf support; `python -X perf` must work")
    return python


def _build(cache: Path) -> Path:
    """Build the extension with its symbols, which the installed one lacks, and put it beside a copy of the package."""
    cargo = shutil.which("cargo") or shutil.which("cargo", path=str(Path.home() / ".cargo" / "bin"))
    if cargo is None:
        raise CannotRun("no `cargo`; see https://rustup.rs")
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "profile"
    command = [cargo, "build", "--release", "--locked", "--quiet", "--lib", "--package", "wtio-core"]
    command += ["--features", "pyo3/extension-module"]
    environment = {**os.environ, "CARGO_TARGET_DIR": str(target), "CARGO_PROFILE_RELEASE_STRIP": "none"}
    print("building the extension with its symbols", flush=True)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800)
    if done.returncode != 0:
        raise CannotRun(f"`cargo build` failed: {done.stderr.strip()[-300:]}")
    package = cache / "profile" / "wtio"
    shutil.rmtree(package, ignore_errors=True)
    shutil.copytree(ROOT / "python" / "wtio", package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    suffix = "so" if sysconfig.get_platform().startswith("linux") else "dylib"
    shutil.copy(target / "release" / f"lib_core.{suffix}", package / "_core.abi3.so")
    return package.parent


def prepare(cache: Path) -> Setting:
    """Find or make everything; CannotRun says what is missing."""
    perf, python = _check_perf(), _check_python()
    path = _build(cache)
    certificates = cache / "certificates"
    certificates.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "benchmarks.peers.certificate", str(certificates)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{path}"}
    return Setting(perf, python, environment, prepare_bare().program, certificates)


# -- processes


@contextlib.contextmanager
def _process(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


def _next_line(process: subprocess.Popen[str]) -> Any:
    """What the next line of its output says; None at the end."""
    assert process.stdout is not None
    line = process.stdout.readline()
    return json.loads(line) if line else None


def _server_command(program: Sequence[str], setting: Setting) -> list[str]:
    chain, key = setting.certificates / "server.pem", setting.certificates / "server.key"
    return [*program, "--certificate", str(chain), "--key", str(key), "--port", "0", "--seconds", "120"]


def _client_options(port: int, setting: Setting) -> list[str]:
    return ["--port", str(port), "--cafile", str(setting.certificates / "ca.pem")]


def _port(server: subprocess.Popen[str]) -> str:
    line = _next_line(server)
    if line is None:
        raise CannotRun("the server ended before it listened; its message is above")
    return str(line["port"])


def _processor_time(process: int) -> float:
    """Seconds that all threads of a process have been on a processor; threads come and go only outside of sections."""
    total = 0.0
    for task in Path(f"/proc/{process}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


class Recording:
    """`perf record`, switched on and off.

    It watches the processors and not the processes: that would cost at each switch from one task to another, and an
    echo is little else.
    """

    def __init__(self, perf: str, data: Path) -> None:
        self._perf = perf
        self._data = data
        control_out, self._control = os.pipe()
        self._acknowledged, acknowledge_in = os.pipe()
        command = [perf, "record", "--quiet", "--all-cpus", "--event", "cpu-clock", "--freq", str(FREQUENCY)]
        command += ["--call-graph", f"dwarf,{STACK}", "--mmap-pages", "16M", "--output", str(data)]
        command += ["--delay", "-1", "--control", f"fd:{control_out},{acknowledge_in}"]
        self._process = subprocess.Popen(command, pass_fds=(control_out, acknowledge_in))
        os.close(control_out)
        os.close(acknowledge_in)

    def command(self, command: str) -> None:
        """Say "enable", "disable" or "stop", and wait until it is so."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._control, f"{command}\n".encode())
        if not os.read(self._acknowledged, 16):
            raise CannotRun("perf ended early; its message is above")

    def stop(self) -> None:
        """End it, with all samples written."""
        self.command("stop")
        self._process.wait(timeout=60)

    def discard(self) -> None:
        """Let go of everything, whatever has happened: nothing else would end it."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._control)
        os.close(self._acknowledged)

    def add_to(self, profiles: Mapping[int, Profile]) -> None:
        """Add the samples to the profiles of their processes, whose symbols are still there."""
        command = [self._perf, "script", "--input", str(self._data), "--no-inline"]
        command += ["--fields", "pid,tid,ip,sym,dso", "--pid", ",".join(map(str, profiles))]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as script:
            assert script.stdout is not None
            for sample in read_samples(script.stdout):
                profiles[sample.process].add(sample)


# -- one pair of processes


def measure_pair(setting: Setting, results: Mapping[str, Measured], seconds: float, traced: bool) -> None:
    """All operations with one client and one server of wtio."""
    python = [setting.python, *(["-X", "perf"] if traced else []), "-m"]
    server_command = _server_command([*python, "benchmarks.peers.wtio_server"], setting)
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(_process(server_command, setting.environment))
        client_command = [*python, "benchmarks.peers.wtio_profiled", *_client_options(int(_port(server)), setting)]
        client_command += ["--seconds", str(seconds)]
        client = stack.enter_context(_process(client_command, setting.environment))
        processes = {"client": client.pid, "server": server.pid}
        if traced:
            for process in processes.values():
                stack.callback(Path(f"/tmp/perf-{process}.map").unlink, missing_ok=True)
        spent: dict[str, defaultdict[str, float]] = {name: defaultdict(float) for name in results}
        times: dict[str, list[float]] = {name: [] for name in results}
        recordings: dict[str, Recording] = {}
        assert client.stdin is not None
        while (line := _next_line(client)) is not None:
            name = line["begin"]
            if traced and name not in recordings:
                recordings[name] = Recording(setting.perf, directory / name)
                stack.callback(recordings[name].discard)
            if traced:
                recordings[name].command("enable")
            before = {side: _processor_time(process) for side, process in processes.items()}
            client.stdin.write("\n")
            client.stdin.flush()
            ended = _next_line(client)
            if ended is None:
                raise CannotRun(f"the client ended within `{name}`; its message is above")
            for side, process in processes.items():
                spent[name][side] += _processor_time(process) - before[side]
            if traced:
                recordings[name].command("disable")
            spent[name]["operations"] += ended["operations"]
            client.stdin.write("\n")
            client.stdin.flush()
            times[name] += _next_line(client) or []
        for name, measured in results.items():
            operations = spent[name]["operations"]
            if traced:
                recordings[name].stop()
                recordings[name].add_to({process: measured.profiles[side] for side, process in processes.items()})
                measured.traced_processor.append(sum(spent[name][side] for side in SIDES) / operations)
            else:
                measured.wall.append(statistics.median(times[name]))
                for side in SIDES:
                    measured.processor[side].append(spent[name][side] / operations)


def measure_bare(setting: Setting, operation: Operation, measured: Measured, traced: bool) -> None:
    """One operation with bare Rust: whole processes, whose start is small beside their work."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        recording = None
        before = _children_time()
        with _process(_server_command([setting.bare, "server"], setting), setting.environment) as server:
            sizes = {**_BARE_SIZES, **operation.bare_sizes}
            command = [setting.bare, "client", *_client_options(int(_port(server)), setting)]
            command += [text for name, value in sizes.items() for text in (f"--{name.replace('_', '-')}", str(value))]
            command += ["--workloads", operation.bare_workload, "--seconds", "60"]
            with _process(command, setting.environment) as client:
                if traced:
                    # Only now: of processes that begin under its eyes, perf cannot follow every stack through libc.
                    recording = Recording(setting.perf, directory / "data")
                    stack.callback(recording.discard)
                    recording.command("enable")
                line = _next_line(client)
                if line is None or "values" not in line:
                    raise CannotRun(f"bare Rust does not run: {line}")
            client_ended = _children_time()
        server_ended = _children_time()
        if recording is not None:
            recording.stop()
            recording.add_to({client.pid: measured.profiles["client"], server.pid: measured.profiles["server"]})
            return
        measured.wall.append(_bare_seconds(operation, line["values"]["warm"]))
        measured.processor["client"].append((client_ended - before) / operation.bare_operations)
        measured.processor["server"].append((server_ended - client_ended) / operation.bare_operations)


# What its client expects as arguments, though only one workload runs.
_BARE_SIZES = {
    "bulk": BULK,
    "echoes": 1,
    "requests": 1,
    "in_flight": 1,
    "small_requests": 1,
    "large_requests": 1,
    "datagram_seconds": 1,
    "datagram_echoes": 1,
    "handshakes": 1,
    "sessions": 1,
    "mixed_pairs": 1,
}


def _bare_seconds(operation: Operation, value: float) -> float:
    if operation.name == "echo":
        return value / 1e6
    return value / 1e3 if operation.name == "connect" else MIB / (value * 1e6)


def _children_time() -> float:
    times = os.times()
    return times.children_user + times.children_system


# -- the page


def _micro(seconds: float) -> str:
    value = seconds * 1e6
    return f"{value:,.0f}".replace(",", " ") if value >= 100 else f"{value:.1f}"


def _cell(measured: Measured, side: str, share: float) -> str:
    return f"{_micro(measured.seconds(side) * share)} ({share:.0%})" if share >= 0.0005 else "-"


def _section(operation: Operation, wtio: Measured, bare: Measured, functions: int) -> list[str]:
    """One operation: the sums, the table of categories, the functions that take most."""
    columns = [(name, measured, side) for name, measured in (("wtio", wtio), ("bare", bare)) for side in SIDES]
    lines = [f"### {operation.title[0].upper()}{operation.title[1:]}", ""]
    lines += [
        f"From beginning to end {_micro(statistics.median(wtio.wall))} µs (bare Rust "
        f"{_micro(statistics.median(bare.wall))} µs), processor time {_micro(wtio.both())} µs on both sides together "
        f"(bare Rust {_micro(bare.both())} µs; under perf {_micro(statistics.median(wtio.traced_processor))} µs).",
        "",
        "| µs of processor time (share) | " + " | ".join(f"{name} {side}" for name, _, side in columns) + " |",
        "| --- |" + " ---: |" * len(columns),
    ]
    for category in CATEGORIES:
        shares = [measured.profiles[side].share(category) for _, measured, side in columns]
        if max(shares) >= 0.005 or category == OTHER:
            cells = [_cell(measured, side, share) for (_, measured, side), share in zip(columns, shares, strict=True)]
            lines.append(f"| {category} | " + " | ".join(cells) + " |")
    cells = [f"**{_micro(measured.seconds(side))}**" for _, measured, side in columns]
    lines += [f"| **all** | {' | '.join(cells)} |", ""]
    for side in SIDES:
        profile = wtio.profiles[side]
        top = profile.functions.most_common(functions)
        shown = ", ".join(f"`{function}` {count / profile.total:.1%}" for (_, function), count in top)
        lines += [f"Most of the {side}: {shown}.", ""]
    return lines


def _machine() -> str:
    return f"{os.cpu_count()} cores, {platform.platform()}"


def report(results: Mapping[str, Mapping[str, Measured]], python: str, load: float, options: argparse.Namespace) -> str:
    """What stands between the markers of the page."""
    lines = [
        f"{datetime.date.today()}, {_machine()}, {python}; medians of {options.pairs} pairs of processes, samples "
        f"of as many others at {FREQUENCY} Hz. Load average before the run: {load:.1f}.",
        "",
    ]
    for operation in OPERATIONS:
        wtio, bare = (results[library][operation.name] for library in ("wtio", "bare"))
        lines += _section(operation, wtio, bare, options.functions)
    return "\n".join(lines).strip()


def picture(results: Mapping[str, Mapping[str, Measured]]) -> str:
    """All operations as bars, each operation to a scale of its own."""
    panels: dict[str, list[Bar]] = {}
    for operation in OPERATIONS:
        bars = []
        for library in ("wtio", "bare"):
            measured = results[library][operation.name]
            for side in SIDES:
                profile, seconds = measured.profiles[side], measured.seconds(side)
                parts = {
                    group: sum(map(profile.share, categories)) * seconds * 1e6 for group, categories in GROUPS.items()
                }
                bars.append(Bar(f"{library} {side}", parts))
        panels[operation.title] = bars
    note = "Processor time in microseconds. Each operation has a scale of its own."
    return stacked("Where the time goes", note, panels)


def _write_page(text: str) -> None:
    page = PAGE.read_text()
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    PAGE.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}")


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--pairs", type=int, default=3, help="pairs of processes, for times and for samples (default 3)"
    )
    parser.add_argument("--seconds", type=float, default=1.5, help="for one operation in one pair (default 1.5)")
    parser.add_argument("--functions", type=int, default=8, help="named for each side of an operation (default 8)")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where built and generated files are kept")
    parser.add_argument("--dry", action="store_true", help="print the results, leave docs/profile.md as it is")
    options = parser.parse_args()
    try:
        load = os.getloadavg()[0]  # of others: what they take is missing here
        setting = prepare(options.cache)
        started = time.monotonic()
        names = [operation.name for operation in OPERATIONS]
        results = {library: {name: Measured() for name in names} for library in ("wtio", "bare")}
        for number in range(options.pairs):
            for traced in (False, True):
                measure_pair(setting, results["wtio"], options.seconds, traced)
                for operation in OPERATIONS:
                    measure_bare(setting, operation, results["bare"][operation.name], traced)
            print(f"{number + 1}/{options.pairs} after {time.monotonic() - started:.0f} s", flush=True)
    except CannotRun as error:
        print(f"cannot measure: {error}", file=sys.stderr)
        return 1
    version = subprocess.run([setting.python, "--version"], capture_output=True, text=True, timeout=60).stdout.strip()
    text = report(results, version, load, options)
    print(f"\n{text}\n")
    if not options.dry:
        _write_page(text)
        PICTURE.write_text(picture(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
