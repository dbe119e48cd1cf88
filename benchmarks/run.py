"""Run the same workloads with several WebTransport libraries and print one table.

    python benchmarks/run.py            five rounds, about ten minutes
    python benchmarks/run.py --quick    three short rounds, about two minutes
    python benchmarks/run.py --scaling  how wtio's cost grows with streams, sessions and sizes; nothing else
    python benchmarks/run.py --workers  what a session costs with 1, 2 and 4 workers, and how evenly they are chosen
    python benchmarks/run.py --paths    congestion control over simulated paths, alone and beside CUBIC; nothing else
    python benchmarks/run.py --fan-out  one message to a thousand sessions, beside websockets; nothing else

Client and server are two processes on loopback. The libraries take turns within each round, so that whatever else the
machine does meets all of them; the table shows medians over the rounds. Only the ratios mean something on another
machine. Results of a full run go to benchmarks/results.json, benchmarks/README.md and benchmarks/chart.svg.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.util
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
import tomllib
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# This file also runs as a plain script.
from benchmarks import start  # noqa: E402
from benchmarks.charts import Plot, bars, lines  # noqa: E402
from benchmarks.environments import (  # noqa: E402
    AIOPQUIC,
    CACHE,
    PEERS_PYTHON,
    PYWEBTRANSPORT,
    WEB_TRANSPORT_QUINN,
    CannotRun,
    environment_python,
    find_python,
    python_version,
)
from benchmarks.workloads import PROFILES, SERIES, WORKLOADS, Workload  # noqa: E402

README = ROOT / "benchmarks" / "README.md"
RESULTS = ROOT / "benchmarks" / "results.json"
SCALING = ROOT / "benchmarks" / "scaling.json"
BARE = ROOT / "benchmarks" / "bare"
# What means something without sessions and without asyncio's readers.
BARE_WORKLOADS = tuple(workload.name for workload in WORKLOADS if workload.name not in ("mixed-speed", "idle-sessions"))
CONGESTION = ROOT / "docs" / "congestion.md"
# Of the two tables that the program prints.
PATHS_MARKERS = (
    ("<!-- paths: written by benchmarks/run.py --paths -->", "<!-- end of paths -->"),
    ("<!-- other paths: written by benchmarks/run.py --paths -->", "<!-- end of other paths -->"),
)
_MODULES = {"web_transport_quinn": "web_transport"}
MARKERS = ("<!-- results: written by benchmarks/run.py -->", "<!-- end of results -->")


@dataclass(frozen=True)
class Library:
    """One column. ``requirement`` is None for what is built here."""

    name: str
    package: str
    requirement: str | None
    loop: str = "asyncio"
    minimum_python: tuple[int, int] = (3, 11)
    # Some move about 15 MB/s: a sixteenth of the bulk work gives the same rate in a sixteenth of the time.
    divisor: int = 1
    # A session of pywebtransport takes megabytes in the client; one of aioquic takes long to open.
    most_sessions: int = 1000


LIBRARIES = {
    library.name: library
    for library in (
        Library("wtio", "wtio", None),
        Library("wtio-uvloop", "wtio", None, loop="uvloop"),
        Library("bare", "bare", None),
        Library("pywebtransport", "pywebtransport", PYWEBTRANSPORT, minimum_python=PEERS_PYTHON, most_sessions=200),
        # By its default a server of aiopquic takes 256 connections.
        Library("aiopquic", "aiopquic", AIOPQUIC, minimum_python=PEERS_PYTHON, most_sessions=200),
        Library(
            "web-transport-quinn", "web_transport_quinn", WEB_TRANSPORT_QUINN, minimum_python=PEERS_PYTHON, divisor=16
        ),
        Library("aioquic", "aioquic", "aioquic>=1.7,<1.8", divisor=16, most_sessions=60),
    )
}


@dataclass
class Contestant:
    """A library with the interpreter that has it, or, without Python, the program that it is."""

    library: Library
    program: str
    environment: dict[str, str]
    version: str
    values: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    @property
    def is_bare(self) -> bool:
        return self.library.package == "bare"

    @property
    def python(self) -> str:
        """Version of the interpreter."""
        return "none" if self.is_bare else ".".join(map(str, python_version(self.program) or ()))

    def command(self, side: str) -> list[str]:
        """The beginning of the command line of its client or server."""
        if self.is_bare:
            return [self.program, side]
        return [self.program, "-m", f"benchmarks.peers.{self.library.package}_{side}"]


# -- interpreters and environments


def prepare_bare() -> Contestant:
    cargo = shutil.which("cargo") or shutil.which("cargo", path=str(Path.home() / ".cargo" / "bin"))
    if cargo is None:
        raise CannotRun("no `cargo`; see https://rustup.rs")
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "bare"
    done = subprocess.run(
        [cargo, "build", "--release", "--locked", "--quiet"],
        cwd=BARE,
        env={**os.environ, "CARGO_TARGET_DIR": str(target)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    if done.returncode != 0:
        raise CannotRun(f"`cargo build` in {BARE} failed: {done.stderr.strip()[-300:]}")
    packages = tomllib.loads((BARE / "Cargo.lock").read_text())["package"]
    version = next(package["version"] for package in packages if package["name"] == "quinn-proto")
    program = str(target / "release" / "bare")
    return Contestant(LIBRARIES["bare"], program, dict(os.environ), f"quinn-proto {version}")


def _version(python: str, library: Library, environment: dict[str, str]) -> str:
    # A distribution need not have the name of its module.
    module = _MODULES.get(library.package, library.package)
    code = f"import {module}, importlib.metadata as m\n"
    code += f"print(getattr({module}, '__version__', None) or m.version('{library.package}'))"
    done = subprocess.run(
        [python, "-c", code], capture_output=True, text=True, timeout=60, env=environment, cwd=ROOT / "benchmarks"
    )
    if done.returncode != 0:
        raise CannotRun(f"`import {module}` failed: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout.strip()


def prepare(library: Library, cache: Path, common: str) -> Contestant:
    """Find or make what the library needs; CannotRun says what is missing.

    ``common`` is the interpreter that all libraries share where they can: the comparison is then one of libraries.
    """
    if library.package == "bare":
        return prepare_bare()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    loop = ["uvloop"] if library.loop == "uvloop" else []
    if library.requirement is not None:
        version = python_version(common)
        if version is None or version < library.minimum_python:
            wanted = ".".join(map(str, library.minimum_python))
            raise CannotRun(f"needs Python {wanted} or newer and none was found; install one (`python{wanted}`, pyenv)")
        python = environment_python(cache, common, library.package, [library.requirement, *loop])
    else:
        spec = importlib.util.find_spec(library.package)
        if spec is None or spec.origin is None:
            raise CannotRun(f"`{sys.executable}` has no {library.package}; build it first (`make build`)")
        # An extension for the stable ABI works in every newer interpreter, so that the package can be borrowed.
        environment["PYTHONPATH"] += os.pathsep + str(Path(spec.origin).parent.parent)
        python = environment_python(cache, common, "plain", ["uvloop"])
    return Contestant(library, python, environment, _version(python, library, environment))


# -- one round


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _server(contestant: Contestant, certificates: Path, seconds: float, log: Path) -> Iterator[int]:
    command = contestant.command("server")
    command += ["--certificate", str(certificates / "server.pem"), "--key", str(certificates / "server.key")]
    command += ["--port", str(_free_port()), "--seconds", str(seconds), "--loop", contestant.library.loop]
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=contestant.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    watchdog = threading.Timer(seconds + 30, process.kill)
    watchdog.start()
    try:
        line = process.stdout.readline()
        if not line:
            raise CannotRun(f"server ended: {_tail(log)}")
        yield int(json.loads(line)["port"])
    finally:
        process.stdin.close()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        watchdog.cancel()


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return " | ".join(lines[-3:])[-300:] or "no message"


def _sizes(contestant: Contestant, options: argparse.Namespace) -> list[str]:
    """How much of everything: by name for our own clients, in numbers for the one that cannot read them here."""
    profile = "quick" if options.quick else "full"
    if contestant.is_bare:
        fields = {name: value for name, value in vars(PROFILES[profile]).items() if name != "seconds"}
        return [text for name, value in fields.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    library = contestant.library
    sizes = ["--profile", profile, "--divisor", str(library.divisor), "--most-sessions", str(library.most_sessions)]
    return [*sizes, "--loop", library.loop]


def run_processes(
    contestant: Contestant, names: Sequence[str], options: argparse.Namespace, cache: Path
) -> Iterator[tuple[str, dict[str, float]]]:
    """One server process, one client process, the named workloads; errors are added to the contestant."""
    library = contestant.library
    log = cache / f"{library.name}.log"
    with _server(contestant, cache / "certificates", options.seconds, log) as port:
        command = [*contestant.command("client"), *_sizes(contestant, options)]
        command += ["--port", str(port), "--cafile", str(cache / "certificates" / "ca.pem")]
        command += ["--workloads", ",".join(names), "--seconds", str(options.seconds)]
        client_log = cache / f"{library.name}-client.log"
        with client_log.open("wb") as errors:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=contestant.environment,
                stdout=subprocess.PIPE,
                stderr=errors,
                timeout=options.seconds + 30,
            )
    for line in done.stdout.splitlines():
        result = json.loads(line)
        if "error" in result:
            contestant.errors[result["workload"]] = result["error"]
        else:
            yield result["workload"], result["values"]
    if done.returncode != 0:
        contestant.errors["client process"] = f"exit {done.returncode}: {_tail(client_log)}"


def run_round(contestant: Contestant, options: argparse.Namespace, cache: Path) -> None:
    """All workloads that are wanted; the results are added to the contestant."""
    wanted = options.workloads.split(",") if options.workloads else [workload.name for workload in WORKLOADS]
    if contestant.is_bare:
        wanted = [name for name in wanted if name in BARE_WORKLOADS]
    alone = [workload.name for workload in WORKLOADS if workload.needs_fresh_processes and workload.name in wanted]
    together = [name for name in wanted if name not in alone]
    for names in (together, *([name] for name in alone)):
        if names:
            for name, values in run_processes(contestant, names, options, cache):
                contestant.values.setdefault(name, []).append(values)


# -- the table


def _median(contestant: Contestant, workload: Workload, key: str) -> float | None:
    values = [result[key] for result in contestant.values.get(workload.name, ()) if key in result]
    return statistics.median(values) if values else None


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.0f}" if value == int(value) else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _ratio(ours: float | None, theirs: float | None, workload: Workload) -> str:
    if not ours or not theirs:
        return "-"
    ratio = ours / theirs if workload.higher_is_better else theirs / ours
    return f"{ratio:.1f}" if ratio >= 1 else f"{ratio:.2f}"


def _table(contestants: Sequence[Contestant], key: str) -> list[str]:
    ours = next((contestant for contestant in contestants if contestant.library.name == "wtio"), None)
    others = [contestant for contestant in contestants if contestant.library.package != "wtio"]
    ratios = others if ours is not None else []
    header = ["workload", "unit", *(f"{item.library.name} {item.version}" for item in contestants)]
    header += [f"times {item.library.name}" for item in ratios]
    rows = [header, ["---", "---", *["---:"] * (len(header) - 2)]]
    for workload in WORKLOADS:
        cells = []
        for contestant in contestants:
            value = _median(contestant, workload, key)
            extras = workload.extra if key == "warm" else ()
            shown = [(name, _median(contestant, workload, name)) for name in extras]
            text = [f"{name} {_number(extra)}" for name, extra in shown if extra is not None]
            cells.append("-" if value is None else _number(value) + (f" ({', '.join(text)})" if text else ""))
        if any(cell != "-" for cell in cells):
            row = [workload.title, workload.unit.replace("us", "µs"), *cells]
            if ours is not None:
                mine = _median(ours, workload, key)
                row += [_ratio(mine, _median(item, workload, key), workload) for item in ratios]
            rows.append(row)
    return ["| " + " | ".join(row) + " |" for row in rows]


def _machine() -> dict[str, str]:
    model = platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    return {"cpu": model, "cores": str(os.cpu_count()), "system": platform.platform()}


def report(contestants: Sequence[Contestant], missing: dict[str, str], options: argparse.Namespace) -> str:
    """The whole text: machine, both tables, what is missing."""
    machine = _machine()
    pythons = {item.python for item in contestants if not item.is_bare}
    lines = [
        f"{datetime.date.today().isoformat()}, {machine['cpu']}, {machine['cores']} cores, {machine['system']}, "
        f"Python {', '.join(sorted(pythons))}; medians of {options.rounds} interleaved rounds"
        + (", quick sizes" if options.quick else "")
        + f". Load average before the run: {options.load:.1f}.",
        "",
        "Warm (after the first operations of a connection):",
        "",
        *_table(contestants, "warm"),
        "",
        "Cold (the first operation on a new connection; for the first two rows the first of the process):",
        "",
        *_table(contestants, "cold"),
    ]
    notes = [f"- {name} did not run: {reason}" for name, reason in missing.items()]
    notes += [f"- {item.library.name}, {key}: {text}" for item in contestants for key, text in item.errors.items()]
    return "\n".join([*lines, *([""] if notes else []), *notes])


def _write_readme(text: str) -> None:
    before, found, rest = README.read_text().partition(MARKERS[0])
    _old, found_end, after = rest.partition(MARKERS[1])
    if not found or not found_end:
        raise SystemExit(f"{README} lacks the lines `{MARKERS[0]}` and `{MARKERS[1]}`")
    README.write_text(f"{before}{MARKERS[0]}\n\n{text}\n\n{MARKERS[1]}{after}")


def _chart(contestants: Sequence[Contestant]) -> str | None:
    """The warm values as ratios to pywebtransport's; None without it."""
    base = next((item for item in contestants if item.library.name == "pywebtransport"), None)
    if base is None:
        return None
    groups: dict[str, dict[str, float]] = {}
    for workload in WORKLOADS:
        theirs = _median(base, workload, "warm")
        for item in contestants:
            ours = _median(item, workload, "warm")
            if item is not base and ours and theirs:
                ratio = ours / theirs if workload.higher_is_better else theirs / ours
                groups.setdefault(workload.title, {})[item.library.name] = ratio
    note = f"times better than pywebtransport {base.version} (1x), warm, log axis; longer is better"
    return bars("Same workloads, same run, same machine", note, groups)


def paths() -> None:
    """Let congestion controllers share simulated paths; write their tables. All in virtual time."""
    cargo = shutil.which("cargo") or shutil.which("cargo", path=str(Path.home() / ".cargo" / "bin"))
    if cargo is None:
        raise SystemExit("no `cargo`; see https://rustup.rs")
    # Together with the extension's package, so that dependencies have the same features and are not built again.
    command = [cargo, "bench", "--package", "wtio-core", "--package", "wtio-engine", "--bench", "paths", "--locked"]
    lines: list[str] = []
    with subprocess.Popen([*command, "--quiet"], cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    if running.returncode:
        raise SystemExit(running.returncode)
    tables = [list(group) for is_table, group in groupby(lines, lambda line: line.startswith("|")) if is_table]
    text = CONGESTION.read_text()
    for (begin, end), table in zip(PATHS_MARKERS, tables, strict=True):
        before, rest = text.split(begin)
        _, after = rest.split(end)
        text = f"{before}{begin}\n\n{''.join(table)}\n{end}{after}"
    CONGESTION.write_text(text)


def scaling(contestant: Contestant, options: argparse.Namespace, cache: Path) -> None:
    """Measure how wtio's cost grows; write the plots and their numbers."""
    series: dict[str, dict[str, float]] = {}
    for workload in SERIES:
        for name, values in run_processes(contestant, [workload.name], options, cache):
            series[name] = values
            print(f"{workload.title}, {workload.unit} each: {values}", flush=True)
    if contestant.errors:
        raise SystemExit(str(contestant.errors))
    found = {"date": datetime.date.today().isoformat(), "machine": _machine(), "load average before": options.load}
    SCALING.write_text(json.dumps({**found, "series": series}, indent=1) + "\n")
    titles = {
        "stream-series": "One request on each of many streams",
        "session-series": "Connect and one request",
        "pooled-series": "Connect, one request, close",
    }
    plots = [
        Plot(
            titles.get(workload.name, "A message there and back"),
            workload.title,
            f"{workload.unit.replace('us', 'µs')} each",
            {float(x): y for x, y in series[workload.name].items()},
        )
        for workload in SERIES
    ]
    note = (
        "Both axes are logarithmic. Where streams or sessions cost the same however many there are, the line is flat."
    )
    SCALING.with_suffix(".svg").write_text(lines("How the cost of wtio grows", note, plots))


def _results(contestants: Sequence[Contestant], missing: dict[str, str], options: argparse.Namespace) -> dict[str, Any]:
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": _machine(),
        "rounds": options.rounds,
        "quick": options.quick,
        "load average before": options.load,
        "units": {workload.name: workload.unit for workload in WORKLOADS},
        "libraries": {
            item.library.name: {
                "version": item.version,
                "python": item.python,
                "loop": item.library.loop,
                "bulk divisor": item.library.divisor,
                "rounds": item.values,
                "errors": item.errors,
            }
            for item in contestants
        },
        "missing": missing,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three rounds of smaller sizes; README stays as it is")
    parser.add_argument("--rounds", type=int, help="rounds (default 5, with --quick 3)")
    parser.add_argument("--libraries", default="", help=f"of {', '.join(LIBRARIES)}")
    parser.add_argument("--workers", action="store_true", help="only what a session costs with workers")
    parser.add_argument("--scaling", action="store_true", help="only the series over streams, sessions and sizes")
    parser.add_argument("--paths", action="store_true", help="only congestion control over simulated paths, minutes")
    parser.add_argument("--fan-out", action="store_true", help="only one message to many sessions, about two minutes")
    parser.add_argument("--workloads", default="", help="comma-separated names, all by default")
    parser.add_argument("--cache", type=Path, default=CACHE, help="virtual environments, logs")
    parser.add_argument("--seconds", type=float, default=240.0, help="hard limit of a library's turn")
    parser.add_argument("--results", type=Path, help="JSON file (default benchmarks/results.json for a full run)")
    options = parser.parse_args()
    if options.paths:
        paths()
        return
    if options.fan_out:
        # It needs wtio in this interpreter, and the rest of this file does not.
        raise SystemExit(subprocess.run([sys.executable, "-m", "benchmarks.fan_out"], cwd=ROOT).returncode)
    options.rounds = options.rounds or (3 if options.quick else 5)
    if options.workers:
        from benchmarks import workers

        workers.run(quick=options.quick)
        return
    if options.scaling:
        options.libraries = "wtio"
    names = [library.name for library in LIBRARIES.values() if library.loop == "asyncio" or not options.quick]
    options.libraries = options.libraries or ",".join(names)
    unknown = set(options.libraries.split(",")) - set(LIBRARIES)
    if unknown:
        parser.error(f"unknown library {', '.join(sorted(unknown))}; known: {', '.join(LIBRARIES)}")

    started = time.monotonic()
    options.load = os.getloadavg()[0]  # of others: what they take is missing in every column
    cache: Path = options.cache
    (cache / "certificates").mkdir(parents=True, exist_ok=True)
    common = find_python((3, 12), newest=True) or sys.executable
    maker = environment_python(cache, common, "aioquic", ["aioquic>=1.7,<1.8"])
    command = [maker, "-m", "benchmarks.peers.certificate", str(cache / "certificates")]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)

    contestants: list[Contestant] = []
    missing: dict[str, str] = {}
    for name in options.libraries.split(","):
        try:
            contestants.append(prepare(LIBRARIES[name], cache, common))
        except CannotRun as error:
            missing[name] = str(error)
            print(f"{name} does not run: {error}", file=sys.stderr, flush=True)
    if not contestants:
        raise SystemExit(1)
    if options.scaling:
        scaling(contestants[0], options, cache)
        return
    for number in range(options.rounds):
        # Each round starts with another library: none always meets a machine that is still cool.
        first = number % len(contestants)
        for contestant in contestants[first:] + contestants[:first]:
            began = time.monotonic()
            try:
                run_round(contestant, options, cache)
            except (CannotRun, subprocess.TimeoutExpired) as error:
                contestant.errors[f"round {number + 1}"] = str(error)
            took = time.monotonic() - began
            print(f"round {number + 1}/{options.rounds}: {contestant.library.name} {took:.1f} s", flush=True)

    text = report(contestants, missing, options)
    print(f"\n{text}\n\n{start.report(start.measure())}\n\n{time.monotonic() - started:.0f} s")
    complete = not options.quick and not options.workloads
    path = options.results or (RESULTS if complete else cache / "results.json")
    path.write_text(json.dumps(_results(contestants, missing, options), indent=1) + "\n")
    chart = _chart(contestants)
    if chart is not None:
        path.with_name("chart.svg").write_text(chart)
    if complete:
        _write_readme(text)
    # A peer that this machine cannot run is a note in the table; our own absence or an error is a failure.
    if "wtio" in missing or any(contestant.errors for contestant in contestants):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
