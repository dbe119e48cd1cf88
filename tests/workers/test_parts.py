"""Parts of the supervisor by themselves: messages, figures, shares of limits, names of applications, files, systemd."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import socket
import struct
import sys
from typing import TYPE_CHECKING, Any

import pytest

import wtio
import wtio.workers
from wtio._running import Running, running
from wtio.asgi import Application
from wtio.workers import _messages as messages
from wtio.workers import _totals as totals
from wtio.workers._app import load
from wtio.workers._files import PidFile, changes
from wtio.workers._notify import Notifier
from wtio.workers._settings import Settings, divided
from wtio.workers._supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


# -- messages


async def received(data: bytes) -> messages.Message | None:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return await messages.read(reader)


async def test_messages_come_as_they_were_sent_and_a_cut_one_is_the_end() -> None:
    packed = messages.pack("drain", seconds=1.5)
    assert await received(packed) == {"version": 1, "kind": "drain", "seconds": 1.5}
    assert await received(packed[:-1]) is None
    assert await received(b"") is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (struct.pack("!I", 2**31), "longer than"),
        (struct.pack("!I", 2) + b"[]", "no message"),
        (struct.pack("!I", 2) + b"{x", "Expecting"),
        (struct.pack("!I", 31) + b'{"kind": "ready", "version": 2}', "restart the supervisor"),
    ],
)
async def test_what_is_no_message_of_this_version_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        await received(data)


def test_a_message_that_is_too_long_is_not_sent() -> None:
    with pytest.raises(ValueError, match="longer than"):
        messages.pack("settings", data="x" * 5_000_000)


def test_messages_are_read_without_a_loop_too() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(messages.pack("serve"))
        ours.shutdown(socket.SHUT_WR)
        assert messages.read_waiting(theirs) == {"version": 1, "kind": "serve"}
        assert messages.read_waiting(theirs) is None


# -- figures


def figures(**values: Any) -> wtio.ServerStats:
    return dataclasses.replace(totals.add_up([]), **values)


def test_figures_survive_the_way_to_the_supervisor() -> None:
    stats = figures(sessions_open=3, sessions_rejected_total={404: 2}, memory_limit_bytes=5, sessions_opened_total=4)
    import json

    assert totals.from_message(json.loads(json.dumps(totals.to_message(stats)))) == stats


def test_figures_of_another_version_lack_what_is_not_there() -> None:
    assert totals.from_message({"sessions_open": 3, "something_new": {"a": 1}}) == figures(sessions_open=3)
    with pytest.raises(ValueError, match="sessions_closed_total"):
        totals.from_message({"sessions_closed_total": 3})


def test_totals_never_go_down_and_what_a_dead_worker_had_open_has_ended() -> None:
    sums = totals.Totals()
    sums.note("a", figures(connections_open=3, connections_half_open=1, sessions_open=2, sessions_opened_total=5))
    sums.note("b", figures(sessions_open=1, sessions_opened_total=1, sessions_rejected_total={429: 1}))
    assert sums.sum().sessions_open == 3
    assert sums.sum().sessions_opened_total == 6
    sums.note_end("a")
    sums.note_end("a")
    assert sums.sum().sessions_open == 1
    assert sums.sum().sessions_opened_total == 6
    assert sums.sum().sessions_closed_total["transport"] == 2
    assert sums.sum().connections_closed_total["local"] == 3
    assert sums.sum().handshakes_failed_total["local"] == 1
    assert sums.sum().memory_limit_bytes is None
    sums.note("c", figures(sessions_opened_total=1, sessions_rejected_total={429: 2, 503: 1}))
    assert sums.sum().sessions_opened_total == 7
    assert sums.sum().sessions_rejected_total == {429: 3, 503: 1}


# -- settings


def test_limits_of_the_whole_server_are_divided_and_no_others() -> None:
    limits = wtio.Limits(connections=5, connections_per_address=1, unvalidated_connections=0, server_memory=2**20)
    share = divided(limits, 2)
    assert (share.connections, share.connections_per_address, share.unvalidated_connections) == (3, 1, 0)
    assert share.server_memory == 2**20
    assert share.handshakes_per_address == 500
    assert divided(wtio.Limits(server_memory=None), 3).server_memory is None
    assert share.bidirectional_streams == limits.bidirectional_streams
    assert divided(limits, 1) == limits


@pytest.mark.parametrize("kind", ["development", "files", "memory"])
def test_settings_survive_the_way_to_a_worker(tmp_path: Path, kind: str) -> None:
    made = wtio.dev_certificate(directory=tmp_path)
    tls = {
        "development": made.server_tls(),
        "files": wtio.ServerTLS(certfile=made.certfile, watch=True),
        "memory": wtio.ServerTLS(certdata=made.certfile.read_bytes()),
    }[kind]
    supervisor = Supervisor(
        "a.b:c.d",
        tls=[tls],
        origins=["https://example.org"],
        protocols=["chat"],
        limits=wtio.Limits(sessions=7),
        timeouts=wtio.Timeouts(drain=3),
        server_id=b"12345678",
    )
    settings: Settings = supervisor._settings
    import json

    back = Settings.from_message(json.loads(json.dumps(settings.to_message())))
    assert back.tls[0].certificates == tls.certificates
    assert dataclasses.replace(back, tls=settings.tls) == settings
    # A later version has more of everything.
    message = settings.to_message() | {"new": 5}
    message["limits"]["new"] = 5
    assert Settings.from_message(json.loads(json.dumps(message))).limits == settings.limits


# -- applications

APPS = """
import wtio, wtio.asgi

async def handler(session): ...
async def asgi(scope, receive, send): ...
class Framework:
    async def __call__(self, scope, receive, send): ...
class nested:
    framework = Framework()
router = wtio.Router()
application = wtio.asgi.Application(asgi)
def make(): return router
async def nothing(): ...
number = 5
def plain(session): ...
"""


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "some_apps.py").write_text(APPS)
    before = list(sys.path)
    yield str(tmp_path)
    sys.path[:] = before
    sys.modules.pop("some_apps", None)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("handler", "function"),
        ("asgi", "Application"),
        ("nested.framework", "Application"),
        ("router", "Router"),
        ("application", "Application"),
    ],
)
def test_applications_of_all_kinds_are_found(directory: str, name: str, kind: str) -> None:
    found = load(f"some_apps:{name}", factory=False, directory=directory)
    assert type(found).__name__ == kind
    assert isinstance(found, Application) or kind != "Application"


def test_a_factory_is_called(directory: str) -> None:
    assert isinstance(load("some_apps:make", factory=True, directory=directory), wtio.Router)


@pytest.mark.parametrize(
    ("name", "factory", "words"),
    [
        ("some_apps:missing", False, "no attribute `missing`"),
        ("some_apps:number", False, "of type int; it must be a session handler"),
        ("some_apps:number", True, "no factory"),
        ("some_apps:make", False, "if it is a factory, say so"),
        ("some_apps:nothing", False, "takes no argument"),
        ("some_apps:Framework", False, "of type type"),
        ("some_apps:plain", False, "must be a session handler"),
        ("some_apps", False, "module:attribute"),
        ("some_apps.py:router", False, "name the module, not its file"),
    ],
)
def test_what_is_no_application_is_named(directory: str, name: str, factory: bool, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        load(name, factory=factory, directory=directory)


# -- files


def test_a_pid_file_is_written_and_removed_and_not_taken_from_a_process_that_runs(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    file = PidFile(str(path))
    file.write()
    assert path.read_text() == f"{os.getpid()}\n"
    file.remove()
    assert not path.exists()
    path.write_text(f"{os.getppid()}\n")
    with pytest.raises(OSError, match=f"names process {os.getppid()}"):
        file.write()
    file.remove()
    assert path.exists()
    path.write_text("nonsense")
    file.write()


async def test_changed_sources_are_noticed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv/pyvenv.cfg").touch()
    (tmp_path / "shop").mkdir()
    noticed = changes(str(tmp_path))
    next_one = asyncio.ensure_future(anext(noticed))
    await asyncio.sleep(0.2)
    for name in (".git/a.py", "venv/b.py", "shop/c.txt"):
        (tmp_path / name).touch()
    done, _ = await asyncio.wait((next_one,), timeout=1.5)
    assert not done
    (tmp_path / "shop/d.py").touch()
    async with asyncio.timeout(30):
        await next_one
    await noticed.aclose()  # type: ignore[attr-defined]


# -- health


async def test_health_is_good_until_the_program_is_told_to_end_and_whoever_waits_for_that_is_told() -> None:
    request = wtio.HttpRequest(method="GET", path="/", authority="a", headers=(), remote_address=("::1", 5))
    assert wtio.workers.health(request).status == 200
    token = running.set(Running())
    try:
        waiting = asyncio.ensure_future(wtio.workers.wait_leaving())
        assert wtio.workers.health(request).status == 200
        await asyncio.sleep(0)
        assert not waiting.done()
        program = running.get()
        assert program is not None
        program.leaving.set()
        assert wtio.workers.health(request).status == 503
        async with asyncio.timeout(30):
            await waiting
    finally:
        running.reset(token)


# -- systemd


def test_the_service_manager_is_told_in_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        monkeypatch.setenv("WATCHDOG_USEC", "3000000")
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
        notifier = Notifier()
        assert notifier.watchdog == 1.5
        notifier.ready("fine")
        assert manager.recv(1000) == f"READY=1\nSTATUS=fine\nMAINPID={os.getpid()}".encode()
        notifier.reloading()
        assert manager.recv(1000).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        notifier.alive()
        assert manager.recv(1000) == b"WATCHDOG=1"
        notifier.stopping()
        assert manager.recv(1000) == b"STOPPING=1"
    # A manager that is gone is no reason to fail.
    notifier.ready("fine")


@pytest.mark.parametrize("variable", ["NOTIFY_SOCKET", "WATCHDOG_PID"])
def test_without_a_service_manager_nobody_waits_for_signs_of_life(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "@abstract")
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    monkeypatch.setenv("WATCHDOG_PID", "1" if variable == "WATCHDOG_PID" else str(os.getpid()))
    if variable == "NOTIFY_SOCKET":
        monkeypatch.delenv("NOTIFY_SOCKET")
    notifier = Notifier()
    assert notifier.watchdog is None
    notifier.alive()
