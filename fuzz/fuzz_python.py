"""Fuzz one Python target: `python -m fuzz.fuzz_python TARGET [libFuzzer's arguments]`."""

from __future__ import annotations

import shlex
import sys

import atheris

# What is imported here counts as code to be covered.
with atheris.instrument_imports(include=["wtio.protocol"]):
    from fuzz.targets import TARGETS


def main() -> None:
    name, *arguments = sys.argv[1:]
    # libFuzzer starts itself again, by this name and through a shell, to merge corpora.
    command = shlex.join((sys.executable, "-m", "fuzz.fuzz_python", name))
    atheris.Setup([command, *arguments], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
