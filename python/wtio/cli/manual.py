"""The man page ``wtio.1``, made from the parsers.

``python -m wtio.cli.manual`` prints it. The page in the repository goes into the wheels; a test says when it is not
what would be made now.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import wtio
from wtio.cli._command_line import make_parser
from wtio.cli._status import MEANINGS

if TYPE_CHECKING:
    import argparse

    from wtio.cli._parser import Parser

__all__ = ["manual"]


def manual() -> str:
    """The page, in roff."""
    _, commands = make_parser()
    lines = [
        f'.TH WTIO 1 "" "wtio {wtio.__version__}" "User Commands"',
        ".SH NAME",
        r"wtio \- WebTransport from the command line",
        ".SH SYNOPSIS",
        r".B wtio",
        r"[\fB\-\-help\fR] [\fB\-\-version\fR] \fICOMMAND\fR ...",
        ".SH DESCRIPTION",
        _text("Talks to WebTransport servers, runs them, examines and measures them. `python -m wtio` is the same."),
        ".SH COMMANDS",
    ]
    for command in commands.all:
        lines += [".TP", rf"\fB{_text(command.name)}\fR", _text(command.summary)]
    for command in commands.all:
        lines += [
            f'.SS "wtio {command.name}{_positions(command.parser)} [OPTION ...]"',
            _text(command.parser.description),
        ]
        lines += _options(command.parser)
    lines += [".SH EXIT STATUS"]
    for status, meaning in MEANINGS.items():
        lines += [".TP", rf"\fB{status.value}\fR", _text(meaning)]
    lines += [
        ".SH FILES",
        ".TP",
        r"\fI~/.cache/wtio\fR",
        _text("certificates for development ($XDG_CACHE_HOME/wtio, if that is set)"),
        ".TP",
        r"\fI~/.local/state/wtio/history\fR",
        _text("lines typed at the prompt of `wtio connect` ($XDG_STATE_HOME/wtio/history, if that is set)"),
        ".SH ENVIRONMENT",
        ".TP",
        r"\fBNO_COLOR\fR",
        _text("if set and not empty, nothing is printed in colour"),
        ".TP",
        r"\fBSSLKEYLOGFILE\fR",
        _text("file for the secrets of connections, with which Wireshark reads them"),
        ".SH EXAMPLES",
    ]
    for words, example in (
        ("Run an echo server with a page, then talk to it", "wtio serve\nwtio connect https://localhost:4433/ --dev"),
        ("Send a file through a stream", "wtio connect https://localhost:4433/ --dev --pipe < data > copy"),
        ("Serve files to another machine", "wtio serve --host 0.0.0.0 --dir Downloads"),
        ("Find out why a browser does not connect", "wtio doctor https://example.org:4433/"),
    ):
        lines += [".PP", _text(f"{words}:"), ".PP", ".nf", ".RS", _text(example), ".RE", ".fi"]
    return "\n".join(lines) + "\n"


def _value_name(action: argparse.Action) -> str:
    return str(action.metavar or action.dest.upper())


def _positions(parser: Parser) -> str:
    return "".join(f" {_value_name(action).upper()}" for action in parser.actions if not action.option_strings)


def _options(parser: Parser) -> list[str]:
    lines = []
    for action in parser.actions:
        if not action.option_strings:
            if action.help:
                lines += [".TP", rf"\fI{_text(_value_name(action).upper())}\fR", _text(action.help)]
            continue
        names = ", ".join(rf"\fB{_text(name)}\fR" for name in action.option_strings)
        value = ""
        if action.nargs != 0:
            choices = "|".join(map(str, action.choices)) if action.choices else None
            value = rf" \fI{_text(choices or _value_name(action))}\fR"
        lines += [".TP", f"{names}{value}", _text((action.help or "").replace("%%", "%"))]
    return lines


def _text(text: str | None) -> str:
    """Text in roff: backslashes and hyphens mean themselves, and no line begins with a request."""
    escaped = (text or "").replace("\\", r"\e").replace("-", r"\-")
    escaped = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", escaped)
    return re.sub(r"^([.'])", r"\\&\1", escaped, flags=re.MULTILINE)


if __name__ == "__main__":
    sys.stdout.write(manual())
