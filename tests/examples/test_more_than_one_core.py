"""What docs/more-than-one-core.md and docs/deploy-without-dropping-sessions.md show runs, and ends as they say."""

from __future__ import annotations

import asyncio
import configparser
import re
import shlex
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import wtio
from wtio import cli
from wtio._steering import is_supported
from wtio.workers import Supervisor, WorkerLimits

from .programs import ROOT, SECONDS
from .test_readme import blocks

if TYPE_CHECKING:
    from pathlib import Path

    from .programs import Start

CORES = ROOT / "docs" / "more-than-one-core.md"
DEPLOY = ROOT / "docs" / "deploy-without-dropping-sessions.md"

pytestmark = pytest.mark.skipif(not is_supported(), reason="only Linux chooses among sockets by connection ID")


def command(tmp_path: Path) -> list[str]:
    """The page's command, with files that are here and ports that are free."""
    (shell,) = blocks(CORES, "sh")
    certificate = wtio.dev_certificate(directory=tmp_path / "made").certfile
    (tmp_path / "secret").write_text("0123456789abcdef" * 4)
    (tmp_path / "secret").chmod(0o600)
    words = shlex.split(shell.replace("\\\n", ""))
    assert words[:3] == ["python", "-m", "wtio"]
    for old, new in (
        ("/etc/shop/fullchain.pem", str(certificate)),
        ("/etc/shop/privkey.pem", str(certificate)),
        ("/etc/shop/secret", str(tmp_path / "secret")),
        ("/opt/shop", str(tmp_path)),
        ("127.0.0.1:8081", "127.0.0.1:0"),
        ("443", "0"),
        ("4", "2"),
    ):
        words = [new if word == old else word for word in words]
    return [*words[1:], "--host", "127.0.0.1"]


async def test_the_command_serves_and_deploys(start: Start, tmp_path: Path) -> None:
    (code,) = blocks(CORES, "python")
    (tmp_path / "shop.py").write_text(code)
    async with start(*command(tmp_path)) as program, asyncio.timeout(3 * SECONDS):
        line = await program.until(" serves")
        port = int(line.split(" port ")[1].split(">")[0])
        tls = wtio.dev_certificate(directory=tmp_path / "made").client_tls()

        async def ask(session: wtio.WebTransportSession) -> bytes:
            stream = await session.create_bidirectional_stream()
            await stream.write(data=b"hello", end_stream=True)
            return await stream.read_all()

        async with wtio.connect(f"https://127.0.0.1:{port}/echo", tls=tls) as old:
            first = await ask(old)
            assert re.fullmatch(rb"worker \d+: hello", first)
            (tmp_path / "shop.py").write_text(code.replace('b"worker %d', 'b"new worker %d'))
            program.process.send_signal(signal.SIGHUP)
            await program.until("deployment 2 serves")
            async with wtio.connect(f"https://127.0.0.1:{port}/echo", tls=tls) as new:
                assert (await ask(new)).startswith(b"new worker")
            assert await ask(old) == first
            # As the page shows it.
            (tmp_path / "shop.py").write_text("import stripe_that_nobody_has\n" + code)
            await old.close()
            program.process.send_signal(signal.SIGHUP)
            line = await program.until("the new code does not start, the old code serves on: ModuleNotFoundError")
            (shown,) = blocks(DEPLOY, "text")
            assert re.sub(r"'\w+'|\(.*\)", "", line.partition("wtio.workers")[2]) == re.sub(
                r"'\w+'|\(.*\)", "", shown.strip().partition("wtio.workers")[2]
            )
        program.process.terminate()
        assert await program.finish() == 0, program.output


async def test_pages_are_told_of_new_code(tmp_path: Path) -> None:
    (code,) = blocks(DEPLOY, "python")
    (tmp_path / "told.py").write_text(code)
    made = wtio.dev_certificate(directory=tmp_path / "made")
    async with Supervisor(
        "told:router",
        "127.0.0.1",
        0,
        tls=made.server_tls(),
        directory=tmp_path,
        worker_limits=WorkerLimits(settle=0.1),
        timeouts=wtio.Timeouts(close=0.5),
    ) as supervisor:
        url = f"https://127.0.0.1:{supervisor.addresses[0][1]}/news"
        async with wtio.connect(url, tls=made.client_tls()) as session, asyncio.timeout(2 * SECONDS):
            assert await supervisor.deploy()
            stream = await anext(session.incoming_unidirectional_streams())
            assert await stream.read_all() == b"come again"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    (unit,) = blocks(CORES, "ini")
    path = tmp_path / "shop.service"
    # Neither the interpreter of the page nor its user is here.
    path.write_text(unit.replace("/opt/shop/venv/bin/python", sys.executable).replace("User=shop\n", ""))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(path)], capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_unit_waits_for_as_long_as_its_command_may_take() -> None:
    (unit,) = blocks(CORES, "ini")
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[method-assign,assignment]
    parser.read_string(unit)
    words = shlex.split(parser["Service"]["ExecStart"])
    timeouts = wtio.Timeouts()
    longest = float(words[words.index("--drain") + 1]) + 3 * timeouts.close + timeouts.lifespan + 5
    assert float(parser["Service"]["TimeoutStopSec"]) > longest


def test_options_that_the_pages_name_exist(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["run", "--help"])
    helped = capsys.readouterr().out
    for page in (CORES, DEPLOY):
        for option in set(re.findall(r"`(--[a-z-]+)", page.read_text())) - {"--help"}:
            assert option in helped, option
    defaults = WorkerLimits()
    assert (defaults.start, defaults.settle, defaults.drain, defaults.silence) == (60, 1, 3600, 60)
    assert (defaults.restart, defaults.restart_longest) == (0.5, 30)
