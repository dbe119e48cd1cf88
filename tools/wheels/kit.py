"""What building wheels takes, fetched into one directory: nothing is installed on the machine.

The kit is kept in WTIO_CROSS, by default in the user's cache, and `tools/cross` uses it, too. `python -m
tools.wheels.kit rust` fetches a part of it and prints where it is.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

HERE = Path(__file__).parent
TOP = HERE.parents[1]
REQUIREMENTS = HERE / "requirements.txt"
# Debian's compiler brings the sources of Rust's standard library, from which it is compiled for other platforms.
# Wheels made by another version differ in their bytes.
RUST_VERSION = "1.96.0"
RUST_PACKAGES = ("rustc-web", "cargo-web", "rust-web-src", "rust-web-llvm", "libstd-rust-web-dev")
MINGW_PACKAGES = (
    "gcc-mingw-w64-x86-64-win32",
    "gcc-mingw-w64-x86-64-win32-runtime",
    "gcc-mingw-w64-base",
    "binutils-mingw-w64-x86-64",
    "mingw-w64-x86-64-dev",
    "mingw-w64-common",
)


class Missing(Exception):
    """Something cannot be had here; the message says what to do."""


def directory() -> Path:
    """Where the kit is."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("WTIO_CROSS") or Path(cache) / "wtio" / "cross").resolve()


def tools() -> Path:
    """The directory of maturin, zig, auditwheel, twine and a Python that has them."""
    environment = directory() / "tools"
    stamp = environment / "requirements.txt"
    wanted = REQUIREMENTS.read_text(encoding="utf-8")
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        print(f"fetching {', '.join(_names(wanted))} into {environment}", flush=True)
        shutil.rmtree(environment, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        python = environment / "bin" / "python"
        quiet = ("--quiet", "--disable-pip-version-check", "--no-deps")
        try:
            subprocess.run([python, "-m", "pip", "install", *quiet, "--requirement", REQUIREMENTS], check=True)
        except subprocess.CalledProcessError as error:
            raise Missing(
                f"PyPI has not given what {REQUIREMENTS.relative_to(TOP)} lists; pip says why, above"
            ) from error
        stamp.write_text(wanted, encoding="utf-8")
    return environment / "bin"


def _names(requirements: str) -> list[str]:
    """What is asked for by name: all up to the first empty line."""
    return re.findall(r"^([\w-]+)==", requirements.split("\n\n")[0], re.MULTILINE)


def rust() -> Path:
    """The root of Debian's Rust, with the sources of its standard library."""
    root = directory() / "rust"
    unpack(RUST_PACKAGES, root, purpose="Rust for other platforms (or run `rustup target add` for each)")
    command = [str(root / "usr/bin/rustc"), "--version"]
    found = subprocess.run(command, env=extended(os.environ, rust_environment(root)), capture_output=True, text=True)
    if f" {RUST_VERSION} " not in found.stdout:
        version = found.stdout.strip() or found.stderr.strip()
        print(f"note: Debian has {version} now, not {RUST_VERSION}: bytes will differ")
    return root


def extended(environment: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """Variables with others; directories are put before those that are there."""
    result = dict(environment)
    for name, value in more.items():
        both = name in {"PATH", "LD_LIBRARY_PATH"} and result.get(name)
        result[name] = f"{value}{os.pathsep}{result[name]}" if both else value
    return result


def rust_environment(root: Path) -> dict[str, str]:
    """What makes cargo use Debian's compiler, and compile the standard library with it."""
    # LLVM's tools strip libraries of macOS.
    programs = [root / "usr/bin", *sorted(root.glob("usr/lib/llvm-*/bin"))]
    return {
        "PATH": os.pathsep.join(map(str, programs)),
        "LD_LIBRARY_PATH": str(root / "usr/lib" / f"{platform.machine()}-linux-gnu"),
        "RUSTC": str(root / "usr/bin/rustc"),
        "RUSTC_BOOTSTRAP": "1",
    }


def mingw() -> Path:
    """The root of a compiler and linker for Windows."""
    root = directory() / "mingw"
    unpack(MINGW_PACKAGES, root, purpose="linking for Windows")
    return root


def mingw_environment(root: Path) -> dict[str, str]:
    """What the programs of MinGW need to start and to find each other."""
    return {
        "PATH": str(root / "usr/bin"),
        "LD_LIBRARY_PATH": str(root / "usr/lib" / f"{platform.machine()}-linux-gnu"),
    }


def rust_for(triple: str) -> Path | None:
    """Debian's Rust, so that everybody builds with the same; None if the one that is installed has to do."""
    try:
        return rust()
    except Missing:
        command = ["rustc", "--print", "target-libdir", "--target", triple]
        found = subprocess.run(command, capture_output=True, text=True) if shutil.which("rustc") else None
        if found is None or found.returncode or not has_library(Path(found.stdout.strip())):
            raise
        return None


def has_library(directory: Path) -> bool:
    """Whether Rust's standard library is in a directory."""
    return any(directory.glob("libstd-*.rlib"))


def unpack(
    packages: tuple[str, ...], root: Path, *, purpose: str, apt: tuple[str, ...] = (), everything: bool = False
) -> None:
    """Unpack packages of Debian, and what they depend on, below a directory, unless they are there already.

    Args:
        packages: Their names.
        root: The directory; other packages that are unpacked there are removed.
        purpose: What they are for, for the message if they cannot be had.
        apt: Options for apt, such as those of another release.
        everything: Also what this machine has installed, down to the C library: for programs that are to run with that.
    """
    stamp = root / ".packages"
    wanted = "\n".join(packages) + "\n"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        raise Missing(f"for {purpose}, packages of Debian are needed, and there is no apt-get: {', '.join(packages)}")
    print(f"fetching {', '.join(packages)} into {root}", flush=True)
    shutil.rmtree(root, ignore_errors=True)
    downloads = root / ".downloads"
    downloads.mkdir(parents=True)
    names = _closure(packages, apt=apt, root=root if everything else None)
    if not names:
        raise Missing(f"for {purpose}: apt knows no {', '.join(packages)}; run `apt-get update`")
    subprocess.run(["apt-get", "--quiet", "--quiet", *apt, "download", *names], cwd=downloads, check=True)
    for package in sorted(downloads.glob("*.deb")):
        subprocess.run(["dpkg", "--extract", package, root], check=True)
    shutil.rmtree(downloads)
    stamp.write_text(wanted, encoding="utf-8")


def _closure(packages: tuple[str, ...], *, apt: tuple[str, ...], root: Path | None) -> list[str]:
    """What apt would install for some packages, each with its version: here, or (root) on an empty machine."""
    options = list(apt)
    if root is not None:
        status = root / ".status"
        status.touch()
        options += ["--option", f"Dir::State::status={status}"]
    command = ["apt-get", "--simulate", "--no-install-recommends", *options, "install", *packages]
    found = subprocess.run(command, capture_output=True, text=True)
    names = re.findall(r"^Inst (\S+) (?:\[\S+\] )?\((\S+)", found.stdout, re.MULTILINE)
    # What is installed here already would be left out, but the unpacked tree has to have it.
    named = {name.partition(":")[0] for name, _ in names}
    return [f"{name}={version}" for name, version in names] + [name for name in packages if name not in named]


if __name__ == "__main__":
    try:
        print({"tools": tools, "rust": rust, "mingw": mingw}[sys.argv[1]]())
    except Missing as error:
        sys.exit(str(error))
