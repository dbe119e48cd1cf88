"""The Pythons that this machine can run, of all platforms: what is installed, and others that are fetched into the kit.

Each is a program that behaves as `python` does. Those of other systems get a small script that starts them: through the
loader of their own C library, an emulator of their processor, or Wine.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tools.wheels import kit

if TYPE_CHECKING:
    from collections.abc import Iterator

# Debian's releases: that for other processors is the one that this project is built on, sid has the newest Pythons.
_STABLE, _NEWEST = "bookworm", "sid"
# What Debian's release after that has the sources of.
_BUILT_PYTHON = "3.13.5"
# Pythons of Windows, from Maven: version, and the name of their own library.
_WINDOWS = {"3.13.5-1.5.12": "python313"}


@dataclass(frozen=True)
class Interpreter:
    """A Python, and the wheel that it takes."""

    # Such as `3.13.5, Wine`.
    name: str
    # The part of `make wheels`.
    part: str
    program: Path
    # For the programs that run on it.
    environment: dict[str, str] = field(default_factory=dict)
    # Whether `-m venv` makes environments with pip. Else pip runs from its own wheel, into a directory.
    has_venv: bool = False
    # It cannot run pip, so that of this machine installs for this platform.
    platform: str | None = None


def installed() -> Iterator[Interpreter]:
    """Pythons of this machine from 3.11 on: one for each version, from pyenv and from the PATH."""
    candidates = sorted((Path.home() / ".pyenv" / "versions").glob("*/bin/python3"))
    found = [shutil.which(f"python3.{minor}") for minor in range(11, 20)]
    candidates += [Path(path) for path in [*found, sys.executable] if path]
    seen = set()
    for program in candidates:
        asked = "import sys, sysconfig; print(sys.version.split()[0], sysconfig.get_config_var('Py_GIL_DISABLED'))"
        answer = subprocess.run([program, "-c", asked], capture_output=True, text=True)
        version, _, gil_disabled = answer.stdout.strip().partition(" ")
        if answer.returncode or gil_disabled == "1" or version in seen or _number(version) < (3, 11):
            continue
        seen.add(version)
        yield Interpreter(version, _own_part(), program, has_venv=True)


def this() -> Interpreter:
    """The Python that runs this."""
    return Interpreter(sys.version.split()[0], _own_part(), Path(sys.executable), has_venv=True)


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def _own_part() -> str:
    system = {"win32": "windows", "darwin": "macos"}.get(sys.platform, "linux")
    machine = platform.machine()
    return f"{system}-{'x86_64' if machine == 'AMD64' else machine}"


# -- of other releases and processors of Debian


def newest(minor: int) -> Interpreter:
    """Python 3.`minor` of Debian's development, started with its own C library."""
    name = f"python3.{minor}"
    root = kit.directory() / "pythons" / f"{_NEWEST}-{name}"
    packages = (f"{name}-minimal", f"libpython3.{minor}-stdlib")
    kit.unpack(packages, root, purpose=name, apt=_apt(_NEWEST, "amd64"), everything=True)
    libraries = f"{root}/usr/lib/x86_64-linux-gnu:{root}/lib/x86_64-linux-gnu"
    found = (root / folder / "ld-linux-x86-64.so.2" for folder in ("usr/lib64", "lib64", "usr/lib/x86_64-linux-gnu"))
    loader = next(path for path in found if path.exists())
    command = f'PYTHONHOME="{root}/usr" exec "{loader}" --library-path "{libraries}" "{root}/usr/bin/{name}" "$@"'
    return Interpreter(f"3.{minor}, Debian {_NEWEST}", "linux-x86_64", _script(root, command))


def emulated() -> Interpreter:
    """Python 3.11 for arm64, on an emulated processor."""
    emulator = kit.directory() / "qemu"
    kit.unpack(("qemu-user-static",), emulator, purpose="running programs for arm64")
    root = kit.directory() / "pythons" / f"{_STABLE}-arm64"
    packages = ("python3.11-minimal", "libpython3.11-stdlib")
    kit.unpack(packages, root, purpose="Python for arm64", apt=_apt(_STABLE, "arm64"), everything=True)
    command = f'exec "{emulator}/usr/bin/qemu-aarch64-static" -L "{root}" "{root}/usr/bin/python3.11" "$@"'
    return Interpreter("3.11, arm64 in qemu", "linux-aarch64", _script(root, command))


def _apt(release: str, architecture: str) -> tuple[str, ...]:
    """Options with which apt knows another release or architecture, and nothing of this machine."""
    root = kit.directory() / "apt" / f"{release}-{architecture}"
    (root / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    (root / "cache" / "archives" / "partial").mkdir(parents=True, exist_ok=True)
    (root / "status").touch()
    keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
    source = root / "sources.list"
    uri = f"[signed-by={keys}] http://deb.debian.org/debian {release} main"
    source.write_text(f"deb {uri}\ndeb-src {uri}\n", encoding="utf-8")
    options = {
        "Dir::Etc::SourceList": source,
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": root / "lists",
        "Dir::State::status": root / "status",
        "Dir::Cache": root / "cache",
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
    }
    words = tuple(word for name, value in options.items() for word in ("--option", f"{name}={value}"))
    if not any((root / "lists").glob("*Packages*")):
        print(f"fetching Debian's list of packages of {release}, {architecture}", flush=True, file=sys.stderr)
        subprocess.run(["apt-get", "--quiet", "--quiet", *words, "update"], check=True)
    return words


def _script(root: Path, command: str) -> Path:
    script = root / "python"
    script.write_text(f"#!/bin/sh\n{command}\n", encoding="utf-8")
    script.chmod(0o755)
    return script


# -- musl


def musl() -> Interpreter:
    """Python built against musl, from Debian's sources, which takes minutes the first time."""
    compiler = kit.directory() / "musl"
    kit.unpack(("musl", "musl-dev", "musl-tools"), compiler, purpose="building Python against musl")
    # Debian has /lib in /usr/lib, but this package is older than that.
    library = compiler / "usr/lib/x86_64-linux-musl/libc.so"
    if not library.exists():
        library.symlink_to(compiler / "lib/x86_64-linux-musl/libc.so")
    root = kit.directory() / "pythons" / f"musl-{_BUILT_PYTHON}"
    program = root / "bin" / "python3.13"
    if not program.exists():
        _build_with_musl(compiler, root)
    script = _script(root, f'PYTHONHOME="{root}" exec "{library}" "{program}" "$@"')
    return Interpreter(f"{_BUILT_PYTHON}, musl", "musl-x86_64", script, platform="musllinux_1_2_x86_64")


def _build_with_musl(compiler: Path, root: Path) -> None:
    sources = _sources(root, "against musl")
    wrapper = root / "cc"
    specs = root / "musl.specs"
    installed = (compiler / "usr/lib/x86_64-linux-musl/musl-gcc.specs").read_text(encoding="utf-8")
    # The loader is a link to where Debian installs the library.
    installed = re.sub(r"/lib/ld-musl-\w+\.so\.1", "/usr/lib/x86_64-linux-musl/libc.so", installed)
    specs.write_text(re.sub(r"(?:(?<![\w.])|(?<=-L))/usr/", f"{compiler}/usr/", installed), encoding="utf-8")
    wrapper.write_text(
        "#!/bin/sh\n"
        "# What Python's configure asks for to name its extension modules.\n"
        'case "$*" in *--print-multiarch*) echo x86_64-linux-musl; exit;; esac\n'
        f'exec gcc "$@" -specs "{specs}"\n',
        encoding="utf-8",
    )
    wrapper.chmod(0o755)
    # No library of this machine fits, zlib among them.
    _build(root, sources, [], {"CC": str(wrapper), "PKG_CONFIG": "false"})


def _sources(root: Path, purpose: str) -> Path:
    """Python's own sources, in a directory below ``root``, where it will be installed."""
    print(f"building Python {_BUILT_PYTHON} {purpose}, which takes minutes", flush=True, file=sys.stderr)
    sources = root / "sources"
    shutil.rmtree(root, ignore_errors=True)
    sources.mkdir(parents=True)
    apt = _apt("trixie", "amd64")
    command = ["apt-get", "--quiet", "--quiet", *apt, "--download-only", "source", "python3.13"]
    subprocess.run(command, cwd=sources, check=True, stdout=sys.stderr)
    archive = next(sources.glob("*.orig.tar.xz"))
    subprocess.run(["tar", "--extract", "--strip-components=1", "--file", archive], cwd=sources, check=True)
    return sources


def _build(root: Path, sources: Path, options: list[str], environment: dict[str, str]) -> None:
    options = [f"--prefix={root}", "--without-ensurepip", "--disable-test-modules", *options]
    # Options of the make that has started this would hold for Python's, too, which needs the built-in rules.
    outside = {key: value for key, value in os.environ.items() if key not in {"MAKEFLAGS", "MFLAGS", "MAKELEVEL"}}
    with (root / "build.log").open("wb") as log:
        for command in (["./configure", *options], ["make", "-j2"], ["make", "install"]):
            subprocess.run(command, cwd=sources, env=outside | environment, stdout=log, stderr=log, check=True)


# -- without a GIL


def free_threaded() -> Interpreter:
    """Python 3.13t, from Debian's sources, which takes minutes the first time."""
    root = kit.directory() / "pythons" / f"free-threaded-{_BUILT_PYTHON}"
    program = root / "bin" / "python3.13t"
    if not program.exists():
        _build(root, _sources(root, "without a GIL"), ["--disable-gil"], {})
    return Interpreter(f"{_BUILT_PYTHON}t", "free-threaded", program)


# -- Windows


def windows(version: str = next(iter(_WINDOWS))) -> Interpreter:
    """Windows' own Python, on Wine, with what Wine lacks."""
    wine = shutil.which("wine64", path=f"{os.environ['PATH']}{os.pathsep}/usr/lib/wine")
    if wine is None:
        raise kit.Missing("to run Python for Windows, install Wine: apt-get install --no-install-recommends wine64")
    if not shutil.which("mvn"):
        raise kit.Missing("Python for Windows comes from Maven: apt-get install --no-install-recommends maven")
    root = kit.directory() / "pythons" / f"windows-{version}"
    home = root / "org/bytedeco/cpython/windows-x86_64"
    if not (root / "python").exists():
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        artifact = f"org.bytedeco:cpython:{version}:jar:windows-x86_64"
        repository = root / "maven"
        fetch = ["mvn", "--batch-mode", "--quiet", f"-Dmaven.repo.local={repository}", "dependency:get"]
        subprocess.run([*fetch, f"-Dartifact={artifact}", "-Dtransitive=false"], check=True)
        with zipfile.ZipFile(next(repository.rglob("cpython-*-windows-x86_64.jar"))) as archive:
            archive.extractall(root)
        shutil.rmtree(repository)
        _add_what_wine_lacks(home, _WINDOWS[version])
    # Wine writes to standard output only if that is a pipe.
    command = f'exec env WINEPREFIX="{root}/wine" WINEDEBUG=-all "{wine}" "{home}/python.exe" "$@"'
    return Interpreter(
        f"{version.partition('-')[0]}, Windows on Wine", "windows-x86_64", _script(root, command), {"WTIO_HOST": "::1"}
    )


def _add_what_wine_lacks(home: Path, library: str) -> None:
    """Two libraries and a module: nothing of this is needed on Windows."""
    tools = kit.mingw() / "usr/bin"
    environment = kit.extended(os.environ, kit.mingw_environment(kit.mingw()))
    work = home / "crutches"
    work.mkdir()
    # Rust's standard library takes random numbers from here.
    (work / "random.c").write_text(
        "#include <windows.h>\n"
        "BOOLEAN WINAPI SystemFunction036(void *, ULONG);\n"
        "__declspec(dllexport) BOOL WINAPI ProcessPrng(BYTE *out, SIZE_T size)"
        " { return SystemFunction036(out, (ULONG)size); }\n",
        encoding="utf-8",
    )
    compiler = str(tools / "x86_64-w64-mingw32-gcc-win32")
    command = [compiler, "-shared", "-o", str(home / "bcryptprimitives.dll"), str(work / "random.c"), "-ladvapi32"]
    subprocess.run(command, env=environment, check=True)
    # The stable ABI, which this build of Python leaves out: every name is one of the library of its version.
    dumped = [str(tools / "x86_64-w64-mingw32-objdump"), "-p", str(home / f"{library}.dll")]
    listing = subprocess.run(dumped, env=environment, check=True, capture_output=True, text=True).stdout
    names = sorted(
        set(re.findall(r"\s(_?Py\w*|PY_\w+)$", listing.partition("[Ordinal/Name Pointer]")[2], re.MULTILINE))
    )
    lines = ["LIBRARY python3.dll", "EXPORTS", *(f"{name} = {library}.{name}" for name in names)]
    (work / "python3.def").write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = [compiler, "-shared", "-nostdlib", "-o", str(home / "python3.dll"), str(work / "python3.def")]
    subprocess.run(command, env=environment, check=True)
    # Python asks Windows' management interface for its version, which Wine never answers.
    site = next(path for path in (home / "lib" / "site-packages", home / "Lib" / "site-packages") if path.exists())
    (site / "sitecustomize.py").write_text('import sys\n\nsys.modules["_wmi"] = None\n', encoding="utf-8")


if __name__ == "__main__":
    # For tools/free-threaded.
    print(free_threaded().program)
