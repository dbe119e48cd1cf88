"""`wtio completion` in real shells, and the man page."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from wtio.cli import main
from wtio.cli._command_line import make_parser
from wtio.cli.manual import manual

from .programs import ROOT
from .terminals import sitting_at

if TYPE_CHECKING:
    from pathlib import Path

PAGE = ROOT / "wtio.data" / "data" / "share" / "man" / "man1" / "wtio.1"


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


def shell(*command: str, stdin: str = "", cwd: Path | None = None) -> str:
    """What a shell prints; it must not complain."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, cwd=cwd, timeout=30, check=True)
    assert done.stderr == ""
    return done.stdout


def in_bash(completion: str, line: str, cwd: Path) -> set[str]:
    words = line.split(" ")
    quoted = " ".join(f"'{word}'" for word in words)
    return set(
        shell(
            *("bash", "--norc", "-c"),
            # compopt complains when nobody completes.
            f"{completion}\nCOMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}\n_wtio 2>/dev/null\n"
            'printf "%s\\n" "${COMPREPLY[@]}"',
            cwd=cwd,
        ).split()
    )


def test_bash_completes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    completion = script("bash", capsys)
    (tmp_path / "cert.pem").touch()
    _, commands = make_parser()
    assert in_bash(completion, "wtio ", tmp_path) == {"--help", "--version", *(each.name for each in commands.all)}
    assert in_bash(completion, "wtio co", tmp_path) == {"connect", "completion"}
    assert in_bash(completion, "wtio connect --datag", tmp_path) == {"--datagram"}
    assert in_bash(completion, "wtio cert --only he", tmp_path) == {"hex"}
    assert in_bash(completion, "wtio completion ", tmp_path) >= {"bash", "zsh", "fish"}
    assert in_bash(completion, "wtio serve --certfile ce", tmp_path) == {"cert.pem"}
    assert in_bash(completion, "wtio serve --port ", tmp_path) == set()


def test_fish_completes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    completion = tmp_path / "wtio.fish"
    completion.write_text(script("fish", capsys))

    def found(line: str) -> set[str]:
        text = shell("fish", "--no-config", "-c", f"source {completion}; complete -C '{line}'", cwd=tmp_path)
        return {row.split("\t")[0] for row in text.splitlines()}

    assert found("wtio co") == {"connect", "completion"}
    assert found("wtio cert --only he") == {"hex"}
    assert "--datagram" in found("wtio connect --da")
    assert {"bash", "fish", "zsh"} <= found("wtio completion ")


async def test_zsh_completes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed")
    (tmp_path / "completion.zsh").write_text(script("zsh", capsys))
    environment = {**os.environ, "ZDOTDIR": str(tmp_path), "PS1": "ready> "}
    code = "import os; os.execvp('zsh', ['zsh', '-f', '-i'])"
    async with sitting_at("-c", code, environment=environment, columns=200) as terminal:
        await terminal.until("ready> ")
        terminal.type(f"autoload -Uz compinit; compinit -D; source {tmp_path}/completion.zsh; echo lo''aded\r")
        await terminal.until("loaded\n")
        for typed, shown in (
            ("wtio conn", "wtio connect"),
            ("wtio cert --only h", "wtio cert --only hex"),
            ("wtio connect --datag", "--datagram  -- send this as a datagram"),
        ):
            terminal.type(typed)
            await terminal.until(typed)
            terminal.type("\t")
            await terminal.until(shown)
            terminal.type("\x15")
        terminal.type("exit\r")
        await terminal.finish()


def test_the_man_page_in_the_repository_is_the_one_of_today() -> None:
    assert PAGE.read_text() == manual(), f"run `python -m wtio.cli.manual > {PAGE.relative_to(ROOT)}`"


def test_the_man_page_has_every_option_and_is_good_roff() -> None:
    text = shell("man", "--warnings=w", "--local-file", str(PAGE))
    _, commands = make_parser()
    for command in commands.all:
        assert f"wtio {command.name}" in text
        for action in command.parser.actions:
            for name in action.option_strings:
                assert name in text
