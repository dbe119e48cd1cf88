"""Which modules know which, what crosses the border to Rust, and how large files and classes may become.

A bar that is not reached yet is marked as expected to fail. The mark is strict: once the bar is reached, the test fails
until the mark is removed.
"""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.support import imports

import wtio
import wtio.testing
import wtio.workers

if TYPE_CHECKING:
    from collections.abc import Iterator

TOP = Path(__file__).parents[1]
PRODUCT = TOP / "python" / "wtio"
STUB = PRODUCT / "_core.pyi"
CRATES = ("engine", "net", "python")
SOURCES = {path: path.read_text(encoding="utf-8") for path in PRODUCT.rglob("*.py")}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function]]:
    """Every function below a node, by its qualified name."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Function):
            yield prefix + node.name, node
        name = getattr(node, "name", None)
        yield from functions(node, f"{prefix}{name}." if isinstance(name, str) else prefix)


def class_named(name: str) -> tuple[Path, ast.ClassDef]:
    """The only class of that name, and its file."""
    found = [
        (path, node)
        for path, source in SOURCES.items()
        if f"class {name}" in source
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef) and node.name == name
    ]
    assert len(found) == 1, f"{name} is defined {len(found)} times"
    return found[0]


# -- imports


def test_no_modules_import_each_other() -> None:
    graph = imports.python_imports(PRODUCT)
    assert "wtio._core" in graph["wtio.stream"]
    assert imports.circles(graph) == []


@pytest.mark.parametrize(
    "crate",
    [
        "engine",
        "net",
        "python",
    ],
)
def test_no_modules_of_a_crate_use_each_other(crate: str) -> None:
    graph = imports.rust_imports(TOP / "crates" / crate)
    assert graph["crate"], "the root uses nothing: sources are not read as they should be"
    assert imports.circles(graph) == []


def test_no_private_name_is_imported_from_another_module() -> None:
    modules = imports.python_sources(PRODUCT)
    for name, path in modules.items():
        for module, imported in imports.names_imported(path, name):
            is_private = imported.startswith("_") and not imported.startswith("__")
            assert not is_private or f"{module}.{imported}" in modules, f"{name} takes {imported} from {module}"


def test_circles_are_found_with_everybody_in_them() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": set(), "f": {"f"}, "g": {"a"}}
    assert imports.circles(graph) == [["a", "b", "c"], ["f"]]


def test_imports_of_every_kind_are_found(tmp_path: Path) -> None:
    package = tmp_path / "package"
    (package / "wing").mkdir(parents=True)
    for name in ("__init__", "cellar", "door", "wing/__init__", "wing/room"):
        (package / f"{name}.py").touch()
    (package / "_core.pyi").touch()
    (package / "door.py").write_text(
        "import os, package.cellar\n"
        "from package import _core\n"
        "if TYPE_CHECKING:\n    from package.wing import Wing\n"
        "def open():\n    from package.wing.room import Room\n"
    )
    (package / "wing" / "room.py").write_text("from . import Wing\nfrom .. import door\nfrom ..cellar import Wine\n")
    graph = imports.python_imports(package)
    assert graph["package.door"] == {"package.cellar", "package._core", "package.wing", "package.wing.room"}
    assert graph["package.wing.room"] == {"package.wing", "package.door", "package.cellar"}


def test_paths_of_every_kind_are_found_in_rust() -> None:
    modules = ["crate", "crate::a", "crate::a::b", "crate::a::b::c", "crate::d", "crate::e", "crate::f", "crate::g"]
    used = """
        //! [`crate::g`]
        use std::{fmt, io::{self, Read}};
        use crate::{d, e::{self, Name as Other}};
        pub(in crate::a) use super::Item;
        mod c;
        fn f<'a>(x: &'a str) -> char { c::go("crate::g::x"); let _ = crate::f::Thing::new(); '"' }
        /* crate::g */
        #[cfg(test)]
        use crate::g;
        #[cfg(all(test, target_os = "linux"))]
        mod tests { use super::*; fn g() { crate::g::go() } }
        #[cfg(test)]
        mod tests;
    """
    found = imports.rust_uses(used, "crate::a::b", modules)
    assert found == {"crate::a", "crate::a::b::c", "crate::d", "crate::e", "crate::f"}
    assert imports.rust_uses("fn f() { crate::Item::new() }", "crate::d", modules) == {"crate"}
    assert imports.rust_uses("pub use d::Item; mod d;", "crate", modules) == {"crate::d"}


# -- the border


@pytest.mark.parametrize(
    "shape",
    [
        "EVENT_",
        "tuple[Any, ...]",
        "dict[str",
    ],
)
def test_what_crosses_the_border_has_names(shape: str) -> None:
    assert shape not in STUB.read_text(encoding="utf-8")


def test_the_border_has_no_defaults() -> None:
    # The signature of a future's cancel is asyncio's: whoever cancels what a task waits for may leave the message out.
    found = {
        name
        for name, function in functions(ast.parse(STUB.read_text(encoding="utf-8")))
        if function.args.defaults or any(function.args.kw_defaults)
    }
    assert found == {"Waiter.cancel"}


# -- options


def test_only_public_calls_take_an_option_by_itself() -> None:
    public = {
        (value.__module__, value.__qualname__)
        for module in (wtio, wtio.testing, wtio.workers)
        for exported in (getattr(module, name) for name in module.__all__)
        for value in (exported, *(vars(exported).values() if inspect.isclass(exported) else ()))
        if inspect.isfunction(value) and (not value.__name__.startswith("_") or value.__name__ == "__init__")
    }
    takers = set()
    for name, path in imports.python_sources(PRODUCT).items():
        for qualified_name, function in functions(ast.parse(path.read_text(encoding="utf-8"))):
            names = {node.arg for node in ast.walk(function.args) if isinstance(node, ast.arg)}
            if names & {"reset_stream_at", "congestion", "strict", "io"}:
                takers.add((name, qualified_name))
    assert ("wtio.testing", "Network.serve") in takers
    assert takers <= public


# -- sizes and owners


def test_no_file_in_rust_is_longer_than_900_lines() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in TOP.glob("crates/*/src/**/*.rs")}
    assert lengths
    assert {path.name: lines for path, lines in lengths.items() if lines > 900} == {}


def test_the_protocols_connection_has_450_lines_and_no_mixins() -> None:
    _, connection = class_named("H3Connection")
    assert not connection.bases
    assert connection.end_lineno is not None
    assert connection.end_lineno - connection.lineno + 1 <= 450


def test_drafts_are_distinguished_in_one_module() -> None:
    home, _ = class_named("Dialect")
    assert re.search(r"\bD\d+ = ", SOURCES[home])
    strangers = [path.name for path, source in SOURCES.items() if re.search(r"\bDialect\.D\d", source)]
    assert set(strangers) <= {home.name}


def test_private_access_is_linted_everywhere_in_the_product() -> None:
    lint = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]["lint"]
    assert "SLF001" in lint["select"]
    excepted = [pattern for pattern, rules in lint["per-file-ignores"].items() if "SLF001" in rules]
    assert [pattern for pattern in excepted if pattern.startswith(("python", "*"))] == []


def test_private_access_is_rare_and_has_a_reason() -> None:
    marks = [
        (path.name, reason)
        for path, source in SOURCES.items()
        for reason in re.findall(r"# noqa:.*\bSLF001\b(.*)", source)
    ]
    assert len(marks) <= 15
    for name, reason in marks:
        assert len(reason.split()) >= 3, f"{name} does not say why"
