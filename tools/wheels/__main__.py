"""Command line of `make wheels`."""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tools.wheels import kit
from tools.wheels.build import TOP, Build, default_work
from tools.wheels.targets import TARGETS


def main() -> int:
    """Build what is asked for, and check it."""
    parser = argparse.ArgumentParser(
        prog="make wheels",
        usage='make wheels [ARGS="PART ... [OPTION ...]"]',
        description="Build the sdist and the wheels into dist, and check them. What that takes is fetched.",
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"some of: sdist {' '.join(TARGETS)} (default: all)")
    parser.add_argument("--check", action="store_true", help="build nothing, only check what is in dist")
    parser.add_argument("--twice", action="store_true", help="build everything again elsewhere, and compare every byte")
    parser.add_argument(
        "--free-threaded",
        metavar="PYTHON",
        help="build for Python without a GIL: python3.14t (or another one), or abi3t (3.15 and later); untested",
    )
    options = parser.parse_args()
    wanted = options.parts or ["sdist", *TARGETS]
    if unknown := set(wanted) - {"sdist", *TARGETS}:
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are: sdist {' '.join(TARGETS)}")
    out = TOP / "dist"
    try:
        if not options.check:
            if not options.parts:
                # What an earlier version left behind would be uploaded, too.
                shutil.rmtree(out, ignore_errors=True)
            build(Build(out=out, work=default_work(), free_threaded=options.free_threaded), wanted)
        if options.free_threaded:
            print("wheels for free-threaded Python are not checked and were never run")
            return 0
        if options.twice:
            compare(out, wanted)
        # The checks need packages of the kit.
        checker = [kit.tools() / "python", "-m", "tools.wheels.check", str(out), *wanted]
        return subprocess.run(checker, cwd=TOP).returncode
    except kit.Missing as missing:
        print(missing, file=sys.stderr)
    except subprocess.CalledProcessError as error:
        print(f"{Path(error.cmd[0]).name} failed; what it said is above", file=sys.stderr)
    return 1


def build(builder: Build, wanted: list[str]) -> None:
    """Build the sdist, and the wheels that are wanted, from it."""
    builder.sdist()
    for name in wanted:
        if name != "sdist":
            begin = time.monotonic()
            print(f"building the wheel for {name}", flush=True)
            builder.wheel(TARGETS[name])
            print(f"built the wheel for {name} in {time.monotonic() - begin:.0f} s", flush=True)


def compare(out: Path, wanted: list[str]) -> None:
    """Build again with other paths, and exit unless the archives have the same bytes."""
    again = default_work() / "a-second-time"
    # What was compiled before a build failed need not be compiled again, here as in the first place.
    shutil.rmtree(again / "dist", ignore_errors=True)
    build(Build(out=again / "dist", work=again / "work"), wanted)
    different = []
    for path in sorted((again / "dist").iterdir()):
        first, second = (hashlib.sha256(each.read_bytes()).hexdigest() for each in (out / path.name, path))
        print(f"{'the same bytes' if first == second else 'DIFFERENT BYTES'}: {path.name}")
        if first != second:
            different.append(path.name)
    if different:
        sys.exit(f"not reproducible: {', '.join(different)}; both are kept, in {out} and {again / 'dist'}")
    shutil.rmtree(again)


if __name__ == "__main__":
    os.chdir(TOP)
    sys.exit(main())
