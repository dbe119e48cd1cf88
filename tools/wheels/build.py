"""Builds the sdist, and from its contents the wheels, so that what the sdist lacks is noticed here.

The same sources, tools and SOURCE_DATE_EPOCH (by default the time of the commit) give the same bytes, wherever they are
built: paths of this machine are replaced, times come from the commit, and the list of crates has no random number.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

from tools.wheels import crates, frameworks, kit
from tools.wheels.targets import MACOS, Target

TOP = Path(__file__).parents[2]


def default_work() -> Path:
    """Where cargo builds, and the sources are unpacked."""
    return Path(os.environ.get("CARGO_TARGET_DIR") or TOP / "target").resolve() / "wheels"


def version() -> str:
    """The version of the project."""
    manifest = tomllib.loads((TOP / "Cargo.toml").read_text(encoding="utf-8"))
    return str(manifest["workspace"]["package"]["version"])


def epoch() -> int:
    """The time that everything in the archives gets: SOURCE_DATE_EPOCH, or that of the commit."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    command = ["git", "-C", str(TOP), "log", "--max-count=1", "--format=%ct"]
    found = subprocess.run(command, capture_output=True, text=True)
    # Outside of a repository, such as in an sdist: the first second that a zip archive can express.
    return int(found.stdout) if found.returncode == 0 and found.stdout.strip() else 315532800


def clean_environment(work: Path) -> dict[str, str]:
    """Variables for cargo and maturin, which build below a directory."""
    # Settings of whoever builds would be in the bytes.
    outside = (
        "RUSTFLAGS",
        "CARGO_ENCODED_",
        "CARGO_PROFILE_",
        "CARGO_BUILD_",
        "CFLAGS",
        "VIRTUAL_ENV",
        "CONDA_PREFIX",
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith(outside)}
    return environment | {
        "PATH": f"{kit.tools()}{os.pathsep}{os.environ['PATH']}",
        "CARGO_TARGET_DIR": str(work / "cargo"),
        "SOURCE_DATE_EPOCH": str(epoch()),
        "LC_ALL": "C.UTF-8",
    }


def copy_tracked_files(clean: Path) -> None:
    """Make a directory with the files that belong to the project, apart from what else is beside them."""
    shutil.rmtree(clean, ignore_errors=True)
    listed = subprocess.run(["git", "-C", TOP, "ls-files", "-z"], check=True, capture_output=True, text=True).stdout
    for name in listed.split("\0"):
        if name and (TOP / name).is_file():
            (clean / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TOP / name, clean / name)


@dataclass(frozen=True)
class Compiler:
    """What builds for a platform: Debian's Rust, and MinGW if that links."""

    # The root of Debian's Rust; None if the one that is installed has to do.
    rust: Path | None
    # Variables for cargo, to extend its others with.
    environment: dict[str, str]
    # More words for `cargo build` and `maturin build`.
    options: list[str]

    @classmethod
    def of(cls, target: Target) -> Compiler:
        """The compiler for a platform, fetched if it is missing."""
        environment: dict[str, str] = {}
        options: list[str] = []
        if (root := kit.rust_for(target.triple)) is not None:
            environment = kit.rust_environment(root)
            if not kit.has_library(root / "usr/lib/rustlib" / target.triple / "lib"):
                options += ["-Z", "build-std"]
        if target.linker == "mingw":
            mingw = kit.mingw()
            more = kit.mingw_environment(mingw) | _mingw_for_cargo(mingw, target)
            environment = kit.extended(environment, more)
        return cls(rust=root, environment=environment, options=options)


@dataclass(frozen=True)
class Build:
    """What one run builds, and where."""

    # Where the archives go.
    out: Path
    # Where cargo builds and the sources are unpacked.
    work: Path
    # For free-threaded Python: the interpreter's name, such as `python3.14t`, or `abi3t`. None: for all with a GIL.
    free_threaded: str | None = None

    def sdist(self) -> Path:
        """Build the sdist, and return it."""
        self.out.mkdir(parents=True, exist_ok=True)
        clean = self.work / "tracked"
        copy_tracked_files(clean)
        maturin = str(kit.tools() / "maturin")
        command = [maturin, "sdist", "--manifest-path", "crates/python/Cargo.toml", "--out", str(self.out)]
        subprocess.run(command, cwd=clean, env=clean_environment(self.work), check=True)
        return self.out / f"wtio-{version()}.tar.gz"

    def wheel(self, target: Target) -> None:
        """Build the wheel of a platform, from the sdist."""
        source = self._unpacked_sdist()
        environment = clean_environment(self.work)
        options: list[str | Path] = ["--release", "--locked", "--target", target.triple, "--out", self.out]
        flags = self._flags(source)
        compiler = Compiler.of(target)
        environment = kit.extended(environment, compiler.environment)
        options += compiler.options
        if (root := compiler.rust) is not None:
            flags += [f"--remap-path-prefix={root}=/debian"]
            flags += [f"--remap-path-prefix={(root / 'usr/lib/rustlib/src/rust').resolve()}=/rust"]
        linked = crates.linked(source, target.triple, environment)
        extra = {"Rust's standard library": (source / "LICENSE-APACHE").read_text(encoding="utf-8").strip()}
        if target.linker == "zig":
            options += ["--zig"]
        if target.compatibility:
            options += ["--compatibility", target.compatibility]
        if target.linker == "mingw":
            flags += ["-C", "link-arg=-Wl,--no-insert-timestamp"]
            notice = kit.mingw() / "usr/share/doc/mingw-w64-x86-64-dev/copyright"
            extra["The start-up code of MinGW-w64"] = notice.read_text(encoding="utf-8").strip()
        if target.triple.endswith("apple-darwin"):
            stubs = self.work / "frameworks"
            frameworks.write_stubs(stubs, linked)
            flags += ["-L", f"framework={stubs}"]
            # Zig makes the library's UUID of its contents. These would have paths of objects, some of them with random
            # names, if they were removed only afterwards, as the profile's `strip` does.
            flags += ["-C", "link-arg=-Wl,-s"]
            environment["MACOSX_DEPLOYMENT_TARGET"] = MACOS
        environment["CARGO_ENCODED_RUSTFLAGS"] = "\x1f".join(flags)
        (source / "LICENSE-CRATES").write_text(crates.licence_texts(linked, extra=extra), encoding="utf-8")
        bill = self.work / "crates.cyclonedx.json"
        bill.write_text(
            crates.bill_of_materials(linked, version=version(), triple=target.triple, epoch=epoch()), encoding="utf-8"
        )
        options += ["--sbom-include", bill, *self._free_threaded_options()]
        subprocess.run([kit.tools() / "maturin", "build", *options], cwd=source, env=environment, check=True)

    def _free_threaded_options(self) -> list[str]:
        if self.free_threaded is None:
            return []
        if self.free_threaded == "abi3t":
            return ["--features", "pyo3/abi3t-py315"]
        return ["--interpreter", self.free_threaded]

    def _flags(self, source: Path) -> list[str]:
        """What puts names in the place of this machine's paths. Of those that fit, rustc takes the last."""
        registry = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo") / "registry" / "src"
        paths = {self.work: "/build", source: "/wtio"} | dict.fromkeys(registry.glob("*"), "/crates")
        return [f"--remap-path-prefix={path}={name}" for path, name in paths.items()]

    def _unpacked_sdist(self) -> Path:
        source = self.work / "source"
        shutil.rmtree(source, ignore_errors=True)
        with tarfile.open(self.out / f"wtio-{version()}.tar.gz") as opened:
            opened.extractall(source, filter="data")
        return source / f"wtio-{version()}"


def _mingw_for_cargo(root: Path, target: Target) -> dict[str, str]:
    compiler = str(root / "usr/bin/x86_64-w64-mingw32-gcc-win32")
    name = target.triple.replace("-", "_")
    return {
        f"CC_{name}": compiler,
        f"AR_{name}": str(root / "usr/bin/x86_64-w64-mingw32-ar"),
        f"CARGO_TARGET_{name.upper()}_LINKER": compiler,
    }
