"""``wtio completion``: what bash, zsh and fish need to complete commands and options, made from the parsers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from wtio.cli._status import Status

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from wtio.cli._parser import Command, Commands, Parser
    from wtio.cli._types import Subparsers

__all__ = ["SHELLS", "add_parser", "make_run"]

_FILES: Final = frozenset({"FILE", "DIRECTORY"})
_DIRECTORIES: Final = frozenset({"--directory", "--app-dir"})


def add_parser(commands: Subparsers) -> argparse.ArgumentParser:
    """Describe the command; whoever knows all commands sets what it runs, see ``make_run``."""
    parser = commands.add_parser(
        "completion",
        help="print what a shell needs to complete commands and options",
        description="Print a script for a shell. bash: put `source <(wtio completion bash)` into ~/.bashrc. zsh: put "
        "`source <(wtio completion zsh)` into ~/.zshrc, behind compinit. fish: run `wtio completion fish > "
        "~/.config/fish/completions/wtio.fish`.",
    )
    parser.add_argument("shell", choices=tuple(SHELLS))
    return parser


def make_run(commands: Commands) -> Callable[[argparse.Namespace], int]:
    """What the command runs."""

    def run(options: argparse.Namespace) -> int:
        print(SHELLS[options.shell](commands), end="")
        return Status.OK

    return run


def _options(parser: Parser) -> list[argparse.Action]:
    return [action for action in parser.actions if action.option_strings]


def _takes_value(action: argparse.Action) -> bool:
    return action.nargs != 0


def _kind(action: argparse.Action) -> str:
    """What a value is: `choices`, `file`, `directory` or nothing that could be completed."""
    if action.choices is not None:
        return "choices"
    if action.metavar == "DIRECTORY" or _DIRECTORIES & set(action.option_strings):
        return "directory"
    is_file = action.metavar in _FILES or any(name.endswith(("file", "secret")) for name in action.option_strings)
    return "file" if is_file else ""


def _words(text: str | None) -> str:
    """Help in one line, without what argparse replaces and shells would take for theirs."""
    plain = re.sub(r"\s+", " ", (text or "").replace("%%", "%"))
    return re.sub(r"[`'\"\[\]$\\:]", "", plain)


def _bash(commands: Commands) -> str:
    cases = "\n".join(_bash_case(command) for command in commands.all)
    names = " ".join(command.name for command in commands.all)
    return f"""\
# Completion of wtio for bash; `wtio completion bash` prints it.
_wtio() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" command="" each
    for each in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case "$each" in -*) ;; *) command="$each"; break ;; esac
    done
    COMPREPLY=()
    case "$command" in
    "") mapfile -t COMPREPLY < <(compgen -W "{names} --help --version" -- "$word") ;;
{cases}
    esac
}}
complete -F _wtio wtio
"""


def _bash_case(command: Command) -> str:
    options = _options(command.parser)
    values = []
    for action in options:
        if not _takes_value(action):
            continue
        pattern = "|".join(action.option_strings)
        kind = _kind(action)
        if kind == "choices":
            reply = f'mapfile -t COMPREPLY < <(compgen -W "{" ".join(map(str, action.choices or ()))}" -- "$word")'
        elif kind:
            flag = "-d" if kind == "directory" else "-f"
            reply = f'compopt -o filenames; mapfile -t COMPREPLY < <(compgen {flag} -- "$word")'
        else:
            reply = ":"
        values.append(f"        {pattern}) {reply}; return ;;")
    first = [
        str(choice) for action in command.parser.actions if not action.option_strings for choice in action.choices or ()
    ]
    names = " ".join([*first, *(name for action in options for name in action.option_strings if name.startswith("--"))])
    lines = [f"    {command.name})"]
    if values:
        lines += ['        case "$before" in', *values, "        esac"]
    lines += [f'        mapfile -t COMPREPLY < <(compgen -W "{names}" -- "$word") ;;']
    return "\n".join(lines)


def _zsh(commands: Commands) -> str:
    names = "\n".join(f"        '{command.name}:{_words(command.summary)}'" for command in commands.all)
    cases = "\n".join(_zsh_case(command) for command in commands.all)
    return f"""\
#compdef wtio
# Completion of wtio for zsh; `wtio completion zsh` prints it.
_wtio() {{
    local context state line
    local -a commands
    commands=(
{names}
    )
    _arguments -C '(- *)--help[show help]' '(- *)--version[show the version]' \\
        '1:command:->command' '*::argument:->argument'
    case $state in
    command) _describe command commands ;;
    argument)
        case $line[1] in
{cases}
        esac ;;
    esac
}}
if [[ $funcstack[1] == _wtio ]]; then _wtio "$@"; else compdef _wtio wtio; fi
"""


def _zsh_case(command: Command) -> str:
    specifications = []
    for action in _options(command.parser):
        for name in action.option_strings:
            value = ""
            if _takes_value(action):
                what = _words(str(action.metavar or action.dest)).lower()
                kind = _kind(action)
                completer = {"file": "_files", "directory": "_files -/"}.get(kind, " ")
                if kind == "choices":
                    completer = f"({' '.join(map(str, action.choices or ()))})"
                value = f":{what}:{completer}"
            repeat = "*" if type(action).__name__ == "_AppendAction" else ""
            specifications.append(f"'{repeat}{name}[{_words(action.help)}]{value}'")
    position = 0
    for action in command.parser.actions:
        if not action.option_strings:
            position += 1
            completer = f"({' '.join(map(str, action.choices))})" if action.choices else " "
            specifications.append(f"'{position}:{_words(action.dest)}:{completer}'")
    joined = " \\\n            ".join(specifications)
    return f"        {command.name}) _arguments {joined} ;;"


def _fish(commands: Commands) -> str:
    lines = [
        "# Completion of wtio for fish; `wtio completion fish` prints it.",
        "complete -c wtio -f",
        "complete -c wtio -n __fish_use_subcommand -l help -d 'show help'",
        "complete -c wtio -n __fish_use_subcommand -l version -d 'show the version'",
    ]
    for command in commands.all:
        lines.append(f"complete -c wtio -n __fish_use_subcommand -a {command.name} -d '{_words(command.summary)}'")
        condition = f"-n '__fish_seen_subcommand_from {command.name}'"
        for action in command.parser.actions:
            line = f"complete -c wtio {condition}"
            if not action.option_strings:
                if action.choices:
                    lines.append(f"{line} -a '{' '.join(map(str, action.choices))}'")
                continue
            for name in action.option_strings:
                line += f" -l {name[2:]}" if name.startswith("--") else f" -s {name[1:]}"
            if _takes_value(action):
                kind = _kind(action)
                line += " -x" if kind in ("", "choices") else " -r"
                line += {
                    "choices": f" -a '{' '.join(map(str, action.choices or ()))}'",
                    "directory": " -a '(__fish_complete_directories)'",
                    "file": " -F",
                }.get(kind, "")
            lines.append(f"{line} -d '{_words(action.help)}'")
    return "\n".join(lines) + "\n"


SHELLS: Final[dict[str, Callable[[Commands], str]]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
