"""Checks what `make wheels` has built: names, tags, contents, licences, libraries, and that pip takes the right file.

Runs with the Python of the kit: `python -m tools.wheels.check dist PART...`. Every failure is printed, not only the
first.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from tools.wheels.build import TOP, version
from tools.wheels.targets import MACOS, PYTHON_TAG, TARGETS, Target

PYTHONS = ("3.11", "3.12", "3.13", "3.14", "3.15")
# Platforms of users: what pip there takes, and the part that it has to get. A newer system takes what older ones take.
MACHINES = {
    "glibc 2.17, x86_64": (["manylinux2014_x86_64", "manylinux_2_17_x86_64"], "linux-x86_64"),
    "glibc 2.39, x86_64": (["manylinux_2_39_x86_64", "manylinux_2_28_x86_64", "manylinux_2_17_x86_64"], "linux-x86_64"),
    "glibc 2.17, aarch64": (["manylinux2014_aarch64", "manylinux_2_17_aarch64"], "linux-aarch64"),
    "musl 1.2, x86_64": (["musllinux_1_2_x86_64", "musllinux_1_1_x86_64"], "musl-x86_64"),
    "musl 1.2, aarch64": (["musllinux_1_2_aarch64", "musllinux_1_1_aarch64"], "musl-aarch64"),
    "macOS 15, arm64": (["macosx_15_0_arm64"], "macos-arm64"),
    "macOS 11, x86_64": (["macosx_11_0_x86_64"], "macos-x86_64"),
    "Windows, amd64": (["win_amd64"], "windows-x86_64"),
}
# Systems without a wheel: pip must not take one of another system.
OTHERS = {
    "Windows, arm64": ["win_arm64"],
    "macOS 10.15, x86_64": ["macosx_10_15_x86_64"],
    "glibc, i686": ["manylinux2014_i686"],
}
# What is there on every Windows, and Python's stable ABI.
DLLS = {
    "advapi32", "bcrypt", "bcryptprimitives", "crypt32", "kernel32", "msvcrt", "ntdll", "python3", "user32", "userenv",
    "winmm", "ws2_32",
}  # fmt: skip
DYLIBS = ("/usr/lib/", "/System/Library/Frameworks/")
# Where people and machines keep what they build.
MACHINE_PATH = re.compile(rb"/(?:home|root|Users|work|tmp|var|mnt|build/source)/[\w./@+-]{3,}|[A-Z]:\\[\w.\\-]{3,}")
# Of users who build from the sdist.
SDIST_DIRECTORIES = (
    "crates/engine/src/",
    "crates/net/src/",
    "crates/python/src/",
    "python/wtio/",
    "python/pytest_wtio/",
    "wtio.data/",
)
SDIST_FILES = {
    "PKG-INFO", "README.md", "LICENSE-MIT", "LICENSE-APACHE", "pyproject.toml", "Cargo.toml", "Cargo.lock",
    "crates/engine/Cargo.toml", "crates/net/Cargo.toml", "crates/python/Cargo.toml",
}  # fmt: skip

failures: list[str] = []


def expect(condition: object, failure: str) -> None:
    """Note a failure."""
    if not condition:
        failures.append(failure)
        print(f"FAILED: {failure}")


def wheel_name(target: Target) -> str:
    """The name of a platform's wheel."""
    return f"wtio-{version()}-{PYTHON_TAG}-{target.platform}.whl"


def main(dist: Path, parts: list[str]) -> int:
    """Check all that was built."""
    targets = [TARGETS[part] for part in parts if part != "sdist"]
    sdist = dist / f"wtio-{version()}.tar.gz"
    wheels = {target.name: dist / wheel_name(target) for target in targets}
    for path in (sdist, *wheels.values()):
        expect(path.exists(), f"{path.name} was not built")
    if len(targets) == len(TARGETS):
        strays = (
            {path.name for path in dist.iterdir()} - {path.name for path in (sdist, *wheels.values())} - {"SHA256SUMS"}
        )
        expect(not strays, f"in {dist} there is, too: {', '.join(sorted(strays))}")
    if failures:
        return 1
    check_sdist(sdist)
    for target in targets:
        check_wheel(wheels[target.name], target)
    check_with(["twine", "check", "--strict", str(sdist), *map(str, wheels.values())], "twine")
    if wheels:
        check_with(["abi3audit", "--strict", *map(str, wheels.values())], "abi3audit")
    check_choice(dist, {target.name for target in targets})
    files = sorted((sdist, *wheels.values()))
    for path in files:
        print(f"{path.stat().st_size / 1e6:6.2f} MB  {path.name}")
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (dist / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")
    print(f"{len(failures)} failures" if failures else f"all {len(files)} archives are as they should be")
    return bool(failures)


def check_with(command: list[str], name: str) -> str:
    """Run a program of the kit; what it says is shown if it fails."""
    program = Path(sys.executable).with_name(command[0])
    found = subprocess.run([program, *command[1:]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    expect(found.returncode == 0, f"{name}:\n{found.stdout}")
    return found.stdout


def check_sdist(path: Path) -> None:
    """The sdist has what building takes, and nothing else."""
    with tarfile.open(path) as archive:
        members = [member for member in archive.getmembers() if not member.isdir()]
        names = {str(PurePosixPath(*PurePosixPath(member.name).parts[1:])) for member in members}
        for member in members:
            opened = archive.extractfile(member)
            expect_no_path(opened.read() if opened else b"", f"{path.name}: {member.name}")
    stray = {name for name in names if name not in SDIST_FILES and not name.startswith(SDIST_DIRECTORIES)}
    stray |= {name for name in names if "/tests/" in name or name.endswith(("/tests.rs", ".so", ".pyc"))}
    expect(not stray, f"{path.name} has what users do not need: {', '.join(sorted(stray))}")
    expect(names >= SDIST_FILES, f"{path.name} lacks {', '.join(sorted(SDIST_FILES - names))}")


def check_wheel(path: Path, target: Target) -> None:
    """Files, hashes, tags, licences and the extension of a wheel."""
    info = f"wtio-{version()}.dist-info"
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    extension = "wtio/_core.pyd" if target.linker == "mingw" else "wtio/_core.abi3.so"
    sources = {
        str(source.relative_to(TOP / "python"))
        for suffix in ("py", "pyi", "typed", "html")
        for source in (TOP / "python").rglob(f"*.{suffix}")
    }
    records = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "sboms/crates.cyclonedx.json"}
    licences = {"licenses/LICENSE-MIT", "licenses/LICENSE-APACHE", "licenses/LICENSE-CRATES"}
    manual = f"wtio-{version()}.data/data/share/man/man1/wtio.1"
    wanted = sources | {extension, manual} | {f"{info}/{name}" for name in records | licences}
    expect(not set(contents) - wanted, f"{path.name} has stray files: {', '.join(sorted(set(contents) - wanted))}")
    expect(not wanted - set(contents), f"{path.name} lacks {', '.join(sorted(wanted - set(contents)))}")
    if wanted - set(contents):
        return
    for name in ("wtio/py.typed", "pytest_wtio/py.typed", "wtio/_core.pyi"):
        expect(name in contents, f"{path.name} lacks {name}")
    for name, content in contents.items():
        expect_no_path(content, f"{path.name}: {name}")
    check_record(path.name, contents, f"{info}/RECORD")
    tags = re.findall(r"^Tag: (.*)", contents[f"{info}/WHEEL"].decode(), re.MULTILINE)
    expect(
        sorted(tags) == sorted(f"{PYTHON_TAG}-{tag}" for tag in target.platform.split(".")),
        f"{path.name} has the tags {', '.join(tags)} inside",
    )
    metadata = contents[f"{info}/METADATA"].decode()
    for line in (f"Version: {version()}", "Requires-Python: >=3.11", "License-File: LICENSE-CRATES"):
        expect(re.search(f"^{re.escape(line)}$", metadata, re.MULTILINE), f"{path.name}: METADATA has no line {line!r}")
    check_crates(
        path.name, contents[f"{info}/licenses/LICENSE-CRATES"].decode(), contents[f"{info}/sboms/crates.cyclonedx.json"]
    )
    if target.compatibility:
        check_libraries(path, target)
    elif target.linker == "mingw":
        check_dlls(path.name, contents[extension])
    else:
        check_dylibs(path.name, contents[extension])


def check_record(wheel: str, contents: dict[str, bytes], record: str) -> None:
    """Every file is in RECORD, with its hash."""
    listed = {name: digest for name, digest, _ in csv.reader(io.StringIO(contents[record].decode())) if digest}
    for name, content in contents.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        expect(name == record or listed.get(name) == f"sha256={digest}", f"{wheel}: RECORD is wrong about {name}")


def check_crates(wheel: str, licences: str, bill: bytes) -> None:
    """Every crate in the list of crates has its licence there, and the list refers to nothing outside of it."""
    document = json.loads(bill)
    known = {component["bom-ref"] for component in document["components"]}
    named = {reference for entry in document["dependencies"] for reference in entry["dependsOn"]}
    expect(named <= known, f"{wheel}: the list of crates refers to {', '.join(sorted(named - known))}, which it lacks")
    expect(len(known) > 50, f"{wheel}: only {len(known)} crates are listed")
    for component in document["components"]:
        line = f"{component['name']} {component['version']}: "
        expect("hashes" not in component or line in licences, f"{wheel}: no licence of {component['name']}")
        terms = set(re.split(r"[\s()]+", component["licenses"][0]["expression"]))
        expect(not any(term.startswith(("GPL", "AGPL", "LGPL")) for term in terms), f"{wheel}: {line}{' '.join(terms)}")


def check_libraries(path: Path, target: Target) -> None:
    """A wheel for Linux needs no newer C library than its tag says, as auditwheel reads the symbols."""
    assert target.compatibility
    # auditwheel looks for libraries on this machine, where `libc.so` is another one than that of musl.
    nowhere = path.parent / "no-libraries"
    said = check_with(["auditwheel", "show", "--ldpaths", str(nowhere), str(path)], "auditwheel")
    if target.triple.endswith("musl"):
        # Nothing else: musl takes every such name for itself, but auditwheel knows only that of one distribution.
        # There are no versions of symbols.
        needed = re.search(r"libraries are required by the wheel:\s*(\{[^}]*\})", said)
        names = list(json.loads(needed[1])) if needed else said
        expect(names == ["libc.so"], f"auditwheel says that {path.name} needs {names}, not only musl's libc.so")
        expect("no external versioned symbols" in said, f"auditwheel says of {path.name}: {said}")
        return
    tag = target.platform.split(".")[-1]
    found = re.search(r'the following platform tag:\s*"([^"]+)"', said)
    expect(found and found[1] == tag, f"auditwheel calls {path.name} {found[1] if found else said}, not {tag}")


def check_dlls(wheel: str, extension: bytes) -> None:
    """The extension for Windows names only DLLs that are there on every Windows."""
    found = {name.decode().lower() for name in re.findall(rb"([\w-]+)\.dll\0", extension, re.IGNORECASE)}
    system = {name for name in found if name.startswith("api-ms-win-")}
    expect(not found - DLLS - system - {"_core"}, f"{wheel} needs {', '.join(sorted(found - DLLS - system))}")
    expect("python3" in found, f"{wheel} does not load python3.dll")


def check_dylibs(wheel: str, extension: bytes) -> None:
    """The extension for macOS is signed, made for our oldest macOS, and loads only what is there on every Mac."""
    load_dylib, build_version, code_signature, minimum = 0xC, 0x32, 0x1D, 0x24
    (count,) = struct.unpack_from("<I", extension, 16)
    offset, seen, oldest = 32, set(), None
    for _ in range(count):
        kind, size = struct.unpack_from("<II", extension, offset)
        seen.add(kind)
        if kind == load_dylib:
            (start,) = struct.unpack_from("<I", extension, offset + 8)
            name = extension[offset + start : offset + size].rstrip(b"\0").decode()
            expect(name.startswith(DYLIBS), f"{wheel} loads {name}")
        if kind in (build_version, minimum):
            (number,) = struct.unpack_from("<I", extension, offset + (12 if kind == build_version else 8))
            oldest = f"{number >> 16}.{number >> 8 & 255}"
        offset += size
    expect(oldest == MACOS, f"{wheel} is made for macOS {oldest}, not {MACOS}")
    # Macs with Apple's processors load nothing that is not signed, if only by whoever built it.
    expect(code_signature in seen or "x86_64" in wheel, f"{wheel} is not signed")


def expect_no_path(content: bytes, where: str) -> None:
    """Nothing tells where it was built."""
    found = {path.decode(errors="replace") for path in MACHINE_PATH.findall(content)}
    if where.endswith((".py", ".md", ".rs", "METADATA", "PKG-INFO", ".html", ".pyi")):
        # Examples in prose; paths of this machine would be here, too.
        found = {path for path in found if path.startswith((str(TOP), str(Path.home() / ".cargo")))}
    expect(not found, f"{where} has paths of a machine: {', '.join(sorted(found)[:5])}")


def check_choice(dist: Path, built: set[str]) -> None:
    """On each platform with each Python, pip takes the right wheel from the directory, or none."""
    cases = [
        (machine, tags, python, [wheel_name(TARGETS[part])])
        for machine, (tags, part) in MACHINES.items()
        if part in built
        for python in PYTHONS
    ]
    cases += [(machine, tags, "3.13", []) for machine, tags in OTHERS.items()]
    cases += [(machine, tags, "3.10", []) for machine, (tags, _) in list(MACHINES.items())[:1]]
    with ThreadPoolExecutor(max_workers=4) as pool:
        for (machine, _, python, wanted), found in zip(
            cases, pool.map(lambda case: choice(dist, case[1], case[2]), cases), strict=True
        ):
            expect(
                found == wanted, f"Python {python} on {machine} gets {found or 'nothing'}, not {wanted or 'nothing'}"
            )
    print(f"pip chooses as it should in {len(cases)} cases" if not failures else f"pip was asked {len(cases)} times")


def choice(dist: Path, tags: list[str], python: str) -> list[str]:
    """What pip downloads from a directory for a platform that is not this one."""
    with tempfile.TemporaryDirectory() as folder:
        platforms = [option for tag in tags for option in ("--platform", tag)]
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-index"]
        command += ["--find-links", str(dist), "--only-binary=:all:", *platforms, "--python-version", python]
        command += ["--implementation", "cp", "--dest", folder, "wtio"]
        subprocess.run(command, capture_output=True)
        return sorted(path.name for path in Path(folder).iterdir())


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
