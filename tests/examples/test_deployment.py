"""What docs/deployment.md shows: its program runs and ends as the page says, and its files are well-formed."""

from __future__ import annotations

import asyncio
import configparser
import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.support.ports import free_port

import wtio

from .programs import ROOT, SECONDS
from .test_readme import blocks

if TYPE_CHECKING:
    from .programs import Start

PAGE = ROOT / "docs" / "deployment.md"
# What the page's program is at, on a server and in a container.
INSTALLED = "/opt/echo/server.py"


def program() -> str:
    (code,) = blocks(PAGE, "python")
    return code


def configure(directory: Path) -> wtio.DevCertificate:
    """Make the files that the program reads."""
    certificate = wtio.dev_certificate(directory=directory / "made")
    for name in ("fullchain.pem", "privkey.pem"):
        shutil.copyfile(certificate.certfile, directory / name)
    (directory / "secret").write_text("0123456789abcdef" * 4)
    (directory / "secret").chmod(0o600)
    return certificate


async def test_the_program_serves_and_says_goodbye_on_sigterm(start: Start, tmp_path: Path) -> None:
    certificate = configure(tmp_path)
    (tmp_path / "server.py").write_text(program())
    port = free_port()
    environment = {"CONFIGURATION_DIRECTORY": str(tmp_path), "PORT": str(port)}
    async with start(tmp_path / "server.py", **environment) as server, asyncio.timeout(SECONDS):
        # It says nothing when it is ready.
        timeouts = wtio.Timeouts(reconnect=0.05)
        async for session in wtio.connect(
            f"https://127.0.0.1:{port}/", tls=certificate.client_tls(), timeouts=timeouts
        ):
            stream = await session.create_bidirectional_stream()
            await stream.write(data=b"hello", end_stream=True)
            assert await stream.read_all() == b"hello"
            server.process.terminate()
            await session.wait_draining()
            # As long as this session goes on, up to `drain`.
            stream = await session.create_bidirectional_stream()
            await stream.write(data=b"still there", end_stream=True)
            assert await stream.read_all() == b"still there"
            await session.close()
            break
        assert await server.finish() == 0, server.output


def test_nothing_is_killed_before_the_program_has_ended() -> None:
    """What systemd and Docker wait for is longer than what the program may take."""
    (unit,) = blocks(PAGE, "ini")
    (drain,) = re.findall(r"Timeouts\(drain=(\d+)\)", program())
    longest = float(drain) + 3 * wtio.Timeouts().close
    parser = configparser.ConfigParser()
    parser.optionxform = str  # type: ignore[method-assign,assignment]
    parser.read_string(unit)
    assert float(parser["Service"]["TimeoutStopSec"]) > longest
    assert parser["Service"]["ExecStart"].endswith(f" {INSTALLED}")
    assert parser["Service"]["ConfigurationDirectory"] == "echo"
    (stop,) = re.findall(r"--stop-timeout (\d+)", PAGE.read_text())
    assert float(stop) > longest
    assert program().startswith(f"# {INSTALLED}\n")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    (unit,) = blocks(PAGE, "ini")
    path = tmp_path / "echo.service"
    # Neither the interpreter of the page nor its user is here.
    path.write_text(unit.replace("/opt/echo/venv/bin/python", sys.executable).replace("User=echo\n", ""))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(path)], capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_container_runs_the_program_with_its_port_and_its_signals() -> None:
    (file,) = blocks(PAGE, "dockerfile")
    steps = [line.split(maxsplit=1) for line in file.splitlines() if line]
    assert {verb for verb, _ in steps} == {"FROM", "RUN", "COPY", "USER", "ENV", "EXPOSE", "STOPSIGNAL", "CMD"}
    last = dict(steps)
    assert json.loads(last["CMD"]) == ["python", INSTALLED]
    assert last["COPY"] == f"server.py {INSTALLED}"
    assert last["STOPSIGNAL"] == "SIGTERM"
    variables = dict(entry.split("=") for entry in last["ENV"].split())
    assert last["EXPOSE"] == f"{variables['PORT']}/udp"
    assert f"--publish 443:{variables['PORT']}/udp" in PAGE.read_text()
    for verb, command in steps:
        if verb == "RUN":
            check_shell(command)


def check_shell(text: str) -> None:
    done = subprocess.run(["sh", "-n"], input=text, capture_output=True, text=True, timeout=10)
    assert done.returncode == 0, f"{done.stderr}\n{text}"


def test_commands_are_well_formed_and_name_settings_that_exist() -> None:
    commands = blocks(PAGE, "sh")
    assert commands
    for block in commands:
        check_shell(block)
    names = set(re.findall(r"\b(net\.[a-z0-9_.]+)\s*=", PAGE.read_text()))
    assert len(names) == 3
    for name in names:
        setting = Path("/proc/sys", name.replace(".", "/"))
        # Of a machine without IPv4, or a sandbox, not all are there.
        assert setting.exists() or not setting.parent.exists(), name


def test_the_figures_to_watch_exist() -> None:
    named = set(re.findall(r"`([a-z_]+_(?:total|bytes))`", PAGE.read_text()))
    assert len(named) == 5
    assert named <= {field.name for field in dataclasses.fields(wtio.ServerStats)}


def test_the_hook_of_certbot_copies_what_it_renewed(tmp_path: Path) -> None:
    (hook,) = [block for block in blocks(PAGE, "sh") if block.startswith("#!/bin/sh")]
    renewed, target = tmp_path / "live", tmp_path / "etc"
    renewed.mkdir()
    target.mkdir()
    for name in ("fullchain.pem", "privkey.pem"):
        (renewed / name).write_text(name)
    text = hook.replace("/etc/echo/", f"{target}/").replace("-o echo ", "")
    subprocess.run(["sh"], input=text, text=True, check=True, timeout=10, env={"RENEWED_LINEAGE": str(renewed)})
    assert {path.name: path.read_text() for path in target.iterdir()} == {
        "fullchain.pem": "fullchain.pem",
        "privkey.pem": "privkey.pem",
    }
