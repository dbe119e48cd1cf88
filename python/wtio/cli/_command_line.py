"""All commands, and how one of them is run: errors that a user can act on become one line and an exit status."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from typing import TYPE_CHECKING, Any, Final

import wtio
from wtio.cli import completion
from wtio.cli._options import not_the_development_one
from wtio.cli._parser import Commands, Parser
from wtio.cli._status import MEANINGS, Status, status_of
from wtio.cli._terminal import visible
from wtio.cli._words import in_options, of_system

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["COMMANDS", "make_parser", "run_command"]


# In the order of the help, each a module of this package. Completion, which is about all of them, comes last.
COMMANDS: Final = ("connect", "serve", "doctor", "bench", "load", "cert", "run", "baton", "demo")


def make_parser(only: str | None = None) -> tuple[Parser, Commands]:
    """The parser of the command line, and its commands.

    Args:
        only: One of COMMANDS, if no other is asked for: to load them all takes a good part of a second.
    """
    statuses = "\n".join(f"  {status.value:>3}  {meaning}" for status, meaning in MEANINGS.items())
    parser = Parser(
        prog="wtio",
        description="WebTransport from the command line.",
        epilog=f"`wtio COMMAND --help` explains a command.\n\nexit statuses:\n{statuses}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"wtio {wtio.__version__}")
    commands = Commands(parser)
    for name in COMMANDS if only is None else (only,):
        importlib.import_module(f"wtio.cli.{name}").add_parser(commands)
    if only is None:
        completion.add_parser(commands).set_defaults(run=completion.make_run(commands))
    return parser, commands


def run_command(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: The words after the program's name; None takes them from ``sys.argv``.

    Returns:
        The exit status; ``wtio --help`` lists them. KeyboardInterrupt (Ctrl-C) goes to the caller.
    """
    _open_closed_streams()
    words = sys.argv[1:] if arguments is None else arguments
    only = words[0] if words and words[0] in COMMANDS else None
    options = make_parser(only)[0].parse_args(words)
    for stream in (sys.stdout, sys.stderr):
        # A peer's text may be in any script, and the terminal may not be able to show it.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdin, io.TextIOWrapper):
        # Bytes that are no UTF-8 go out as they came.
        sys.stdin.reconfigure(errors="surrogateescape")
    try:
        status = int(options.run(options))
        sys.stdout.flush()
        return status
    except (wtio.WebTransportError, OSError, ValueError) as error:
        status = status_of(error)
        if status is Status.BROKEN_PIPE:
            _forget_output()
        else:
            text = not_the_development_one(options, getattr(error, "report", None)) or str(error)
            # Errors of the library have words of their own.
            if isinstance(error, OSError) and not isinstance(error, wtio.WebTransportError):
                text = of_system(error)
            print(f"error: {visible(in_options(text))}", file=sys.stderr)
        return status


def _open_closed_streams() -> None:
    """Whoever started this may have closed the standard streams, and the next file or socket would take their place."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            mode, flags = ("r", os.O_RDONLY) if name == "stdin" else ("w", os.O_WRONLY)
            nowhere = os.open(os.devnull, flags)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            setattr(sys, name, os.fdopen(number, mode, closefd=False, encoding="utf-8"))


def _forget_output() -> None:
    """Nobody reads standard output any more; what is in its buffer must not fail once more when Python exits."""
    nowhere: Any = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
