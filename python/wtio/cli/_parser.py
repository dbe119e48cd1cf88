"""Parsers that can be asked what they parse: help, completion and the man page all come from them."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from typing import Any, NoReturn

from wtio.cli._status import Status

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

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # What is being parsed, for messages.
        self._words: list[str] = []

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does; the result has ``given``, see ``Options``.

        What is not known is an error here, not in the caller: the parser of a command knows what that command takes.
        """
        self._words = list(sys.argv[1:] if args is None else args)
        found, unknown = super().parse_known_args(args, Options() if namespace is None else namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """As argparse does; a word that is nearly one of the possible ones is followed by that one."""
        mistaken = re.search(r"^argument (\S+): invalid choice: '([^']*)'", message)
        if mistaken is None:
            # Whatever is wrong may be so because an option is misspelt: its value is taken for something else then.
            for word, meant in self._options_like().items():
                message += (
                    f"; did you mean {meant}?" if word in message else f"; {word} is unknown, did you mean {meant}?"
                )
        elif "mean" not in message:  # newer Pythons say it themselves, if told to
            message += "".join(f"; did you mean {name}?" for name in self._choices_like(mistaken[2], mistaken[1]))
        # All options, as argparse prints them here, would hide what is wrong.
        self.exit(Status.USAGE, f"{self.prog}: error: {message}\n`{self.prog} --help` lists what there is\n")

    def _choices_like(self, word: str, argument: str) -> list[str]:
        """The choice of an argument, which is called as argparse does, that is most like a word."""
        actions = [action for action in self._actions if argument in ("/".join(action.option_strings), action.metavar)]
        possible = [str(choice) for action in actions or self._actions for choice in action.choices or ()]
        return difflib.get_close_matches(word, possible, 1)

    def _options_like(self) -> dict[str, str]:
        """For each option in the command line that there is not, the one that is most like it."""
        found: dict[str, str] = {}
        known = list(self._option_string_actions)
        for word in self._words:
            name = word.partition("=")[0]
            if word == "--" or (self._subparsers is not None and not word.startswith("-")):
                # What follows are no options, or those of a command.
                break
            if not re.match("-+[^-0-9]", name) or any(each.startswith(name) for each in known):
                continue
            for meant in difflib.get_close_matches(name, known, 1):
                found[name] = meant
        return found

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
