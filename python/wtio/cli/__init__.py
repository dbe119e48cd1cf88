"""The command line: ``wtio connect | serve | doctor | bench | load | cert | run | baton | demo | completion``.

``python -m wtio`` is the same. Each command is a module of this package, with ``add_parser`` and a function that runs
the command and returns the exit status (``_status``). Errors that a user can act on are one line on standard error;
anything else is a traceback. This module loads next to nothing, so that ``main`` runs before the rest is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

# Status.INTERRUPTED, which may not be loaded yet when it is needed.
_INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: The words after the program's name; None takes them from ``sys.argv``.

    Returns:
        The exit status; ``wtio --help`` lists them.
    """
    try:
        # Loading takes a good part of a second, and Ctrl-C is to end the program as quietly then as later.
        from wtio.cli._command_line import run_command

        return run_command(arguments)
    except KeyboardInterrupt:
        return _INTERRUPTED
