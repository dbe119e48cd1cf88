"""The platforms for which there are wheels: one row for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# The stable ABI from Python 3.11 on: one wheel for each platform serves all later versions.
PYTHON_TAG = "cp311-abi3"


@dataclass(frozen=True)
class Target:
    """A platform that gets a wheel."""

    # What the command line calls it.
    name: str
    # What rustc calls it.
    triple: str
    # The platform tags in the file's name, as maturin writes them.
    platform: str
    # What maturin is told to be compatible with; None where the tag says it already.
    compatibility: str | None
    # What links it: zig has the libraries of Linux and macOS; those of Windows come from MinGW.
    linker: Literal["zig", "mingw"]


TARGETS = {
    target.name: target
    for target in (
        Target(
            name="linux-x86_64",
            triple="x86_64-unknown-linux-gnu",
            platform="manylinux2014_x86_64.manylinux_2_17_x86_64",
            compatibility="manylinux2014",
            linker="zig",
        ),
        Target(
            name="linux-aarch64",
            triple="aarch64-unknown-linux-gnu",
            platform="manylinux2014_aarch64.manylinux_2_17_aarch64",
            compatibility="manylinux2014",
            linker="zig",
        ),
        Target(
            name="musl-x86_64",
            triple="x86_64-unknown-linux-musl",
            platform="musllinux_1_2_x86_64",
            compatibility="musllinux_1_2",
            linker="zig",
        ),
        Target(
            name="musl-aarch64",
            triple="aarch64-unknown-linux-musl",
            platform="musllinux_1_2_aarch64",
            compatibility="musllinux_1_2",
            linker="zig",
        ),
        Target(
            name="macos-arm64",
            triple="aarch64-apple-darwin",
            platform="macosx_11_0_arm64",
            compatibility=None,
            linker="zig",
        ),
        Target(
            name="macos-x86_64",
            triple="x86_64-apple-darwin",
            platform="macosx_11_0_x86_64",
            compatibility=None,
            linker="zig",
        ),
        Target(
            name="windows-x86_64",
            triple="x86_64-pc-windows-gnu",
            platform="win_amd64",
            compatibility=None,
            linker="mingw",
        ),
    )
}
# The oldest macOS on which the wheels load.
MACOS = "11.0"
