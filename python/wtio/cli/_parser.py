"""Parsers that can be asked what they parse: help, completion and the man page all come from them."""

from __future__ import annotations

import argparse
from typing import Any

__all__ = ["Command", "Commands", "Parser"]


class Parser(argparse.ArgumentParser):
    """A parser that tells its options."""

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
