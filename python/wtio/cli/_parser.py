"""Parsers that can be asked what they parse: help, completion and the man page all come from them."""

from __future__ import annotations

import argparse
import difflib
import re
from typing import Any, NoReturn

__all__ = ["Command", "Commands", "Parser"]


class Options(argparse.Namespace):
    """What was parsed. It tells what was written from what is a default, also if both are the same."""

    def __init__(self) -> None:
        super().__init__()
        # Attributes that were written, by their names.
        self.given: set[str] = set()

    def __setattr__(self, name: str, value: Any) -> None:
        # The parser first sets each to its default, and later those that it finds. To a default that is a string it
        # comes back without having found anything.
        if hasattr(self, name) and not (isinstance(value, str) and value is getattr(self, name)):
            self.given.add(name)
        super().__setattr__(name, value)


class Parser(argparse.ArgumentParser):
    """A parser that tells its options."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does; the result has ``given``, see ``Options``.

        What is not known is an error here, not in the caller: the parser of a command shows the usage of that command.
        """
        found, unknown = super().parse_known_args(args, Options() if namespace is None else namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """As argparse does; a word that is nearly one of the possible ones is followed by that one."""
        mistaken = re.search(r"invalid choice: '([^']*)'", message)
        if mistaken is not None and "mean" not in message:  # newer Pythons say it themselves, if told to
            possible = [str(choice) for action in self._actions for choice in action.choices or ()]
            near = difflib.get_close_matches(mistaken[1], possible, 1)
            message += "".join(f"; did you mean {name}?" for name in near)
        super().error(message)

    @property
    def actions(self) -> list[argparse.Action]:
        """Everything that can be written, in order, but what is not to be shown."""
        return [action for action in self._actions if action.help != argparse.SUPPRESS]


class Command:
    """A command: its name, what it does in a few words, and its parser."""

    def __init__(self, name: str, summary: str, parser: Parser) -> None:
        self.name = name
        self.summary = summary
        self.parser = parser


class Commands:
    """The commands of a parser, in order."""

    def __init__(self, parser: Parser) -> None:
        self._subparsers: Any = parser.add_subparsers(metavar="command", required=True, parser_class=Parser)
        self.all: list[Command] = []

    def add_parser(self, name: str, *, help: str, **options: Any) -> argparse.ArgumentParser:
        """Add a command, as argparse does."""
        parser: Parser = self._subparsers.add_parser(name, help=help, **options)
        self.all.append(Command(name, help, parser))
        return parser
