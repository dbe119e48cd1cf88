"""Fixtures for all tests, and the matrix of event loops for those that test the public API."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.support.audit import Audit

import wtio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping

# Directories whose asynchronous tests run once on every kind of loop; all others run on asyncio's own.
ON_EVERY_LOOP = frozenset({"api", "cancel", "loopback"})

# Directories in whose tests every connection on a simulated network is looked at before it closes.
AUDITED = frozenset({"sim", "api", "cancel"})
# Tests and connections for which that was done, in this run.
_audited = [0, 0]


@pytest.fixture(autouse=True)
def audit(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Audit]:
    """All streams and credit of a connection are back before it closes, and each test has such a connection.

    A test that cannot have one says why with ``pytest.mark.unaudited(reason)``; what does close in good order is looked
    at all the same, unless with ``entirely=True``.
    """
    audit = Audit()
    marker = request.node.get_closest_marker("unaudited")
    assert marker is None or marker.args[0], "the mark needs a reason"
    if not AUDITED.intersection(request.path.parts) or (marker is not None and marker.kwargs.get("entirely")):
        yield audit
        return
    audit.install(monkeypatch)
    yield audit
    assert not audit.failures, audit.failures
    if audit.established and not audit.checked and marker is None:
        why = audit.unchecked[0] if audit.unchecked else "none closed in good order"
        pytest.fail(f"no connection was looked at ({why}); if that cannot be: pytest.mark.unaudited('reason')")
    if audit.checked:
        _audited[0] += 1
        _audited[1] += audit.checked


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _audited[0]:
        tests, connections = _audited
        terminalreporter.write_line(f"credit was looked at in {tests} tests, of {connections} connections")


def _asyncio_loop() -> asyncio.AbstractEventLoop:
    return asyncio.SelectorEventLoop()


def _debug_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.SelectorEventLoop()
    loop.set_debug(True)
    return loop


LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"debug": _debug_loop}

if sys.platform == "win32":
    LOOPS["proactor"] = asyncio.ProactorEventLoop
    with contextlib.suppress(ImportError):
        LOOPS["winloop"] = importlib.import_module("winloop").new_event_loop
else:
    LOOPS["uvloop"] = importlib.import_module("uvloop").new_event_loop

if sys.version_info >= (3, 12):

    def _eager_loop() -> asyncio.AbstractEventLoop:
        loop = asyncio.SelectorEventLoop()
        loop.set_task_factory(asyncio.eager_task_factory)
        return loop

    LOOPS["eager"] = _eager_loop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return LOOPS if ON_EVERY_LOOP.intersection(item.path.parts) else {"asyncio": _asyncio_loop}


def _is_measured(item: pytest.Item) -> bool:
    if item.get_closest_marker("unmeasured"):
        return False
    # What a browser makes the library run differs from machine to machine.
    if "chromium" in getattr(item, "fixturenames", ()):
        return False
    # On every other loop the library runs the same lines once more.
    callspec = getattr(item, "callspec", None)
    loop = None if callspec is None else callspec.params.get("_asyncio_loop_factory")
    return loop in (None, _asyncio_loop, _debug_loop)


class _Garbage:
    """Lets the search for garbage, with which many tests end, pass over what stays: modules, reports, coverage."""

    # A look through all of it takes a fifth of a second.
    TESTS_BETWEEN = 100

    def __init__(self) -> None:
        self._file = ""
        self._tests = self.TESTS_BETWEEN

    def pytest_runtest_logstart(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        self._tests += 1
        if location[0] != self._file and self._tests > self.TESTS_BETWEEN:
            # What was in use at the last look, and is not any more, must not stay for ever: it may have threads.
            gc.unfreeze()
            gc.collect()
            gc.freeze()
            self._tests = 0
        self._file = location[0]


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Garbage())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    # Only `make coverage` imports it. A debugger's trace function goes on.
    coverage = sys.modules.get("coverage")
    if coverage is None or coverage.Coverage.current() is None or _is_measured(item):
        return (yield)
    trace, of_threads = sys.gettrace(), threading.gettrace()
    # Coverage's own stop and start look through the files of all modules each time. Programs that the test starts are
    # measured if this is set.
    process = os.environ.pop("COVERAGE_PROCESS_CONFIG", None)
    sys.settrace(None)
    threading.settrace(None)
    try:
        return (yield)
    finally:
        threading.settrace(of_threads)
        sys.settrace(trace)
        if process is not None:
            os.environ["COVERAGE_PROCESS_CONFIG"] = process


def pytest_addoption(parser: pytest.Parser) -> None:
    # Here and not next to the matrix: pytest reads options before it looks into directories.
    parser.addoption(
        "--interop-table",
        type=Path,
        metavar="FILE",
        help="write the interop matrix to this file, between its marks if it has them",
    )


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> wtio.DevCertificate:
    directory: Path = tmp_path_factory.mktemp("certificate")
    return wtio.dev_certificate(directory=directory)


@pytest.fixture
def io() -> str:
    """Who receives in ``server`` and ``pair``; tests/loopback has both."""
    return "loop"


@pytest.fixture
async def server(certificate: wtio.DevCertificate, io: str) -> AsyncIterator[wtio.Server]:
    """A server on the loopback whose requests the test takes itself."""
    async with wtio.serve(None, "127.0.0.1", 0, tls=certificate.server_tls(), io=io) as server:
        yield server


@pytest.fixture
def url(server: wtio.Server) -> str:
    return f"https://127.0.0.1:{server.addresses[0][1]}/test"


@pytest.fixture
async def pair(
    server: wtio.Server, url: str, certificate: wtio.DevCertificate, io: str
) -> AsyncIterator[tuple[wtio.WebTransportSession, wtio.WebTransportSession]]:
    """Client and server end of one session on the loopback."""
    connecting = asyncio.ensure_future(_connect(url, certificate, io))
    request = await anext(server)
    accepted = await request.accept()
    session = await connecting
    async with session:
        yield session, accepted


async def _connect(url: str, certificate: wtio.DevCertificate, io: str) -> wtio.WebTransportSession:
    return await wtio.connect(url, tls=certificate.client_tls(), io=io)
