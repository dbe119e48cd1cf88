"""The command line: ``python -m wtio connect | doctor | serve | run | cert | demo``.

Each command is a module of this package, with ``add_parser`` and a function that runs the command and returns the exit
status. Errors that a user can act on are one line on standard error; anything else is a traceback.
"""

from __future__ import annotations

import argparse
import io
import sys
from typing import TYPE_CHECKING

import wtio
from wtio.cli import cert, connect, demo, doctor, run, serve
from wtio.cli._words import in_options

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: The words after the program's name; None takes them from ``sys.argv``.

    Returns:
        Exit status: 0 for success, 1 for an error, 130 after an interrupt from the keyboard.
    """
    parser = argparse.ArgumentParser(prog="python -m wtio", description="WebTransport from the command line.")
    parser.add_argument("--version", action="version", version=f"wtio {wtio.__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)
    for command in (connect, doctor, serve, run, cert, demo):
        command.add_parser(commands)
    options = parser.parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        # A peer's text may be in any script, and the terminal may not be able to show it.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        return 130
    except (wtio.WebTransportError, OSError, ValueError) as error:
        print(f"error: {in_options(str(error))}", file=sys.stderr)
        return 1
