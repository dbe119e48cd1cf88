"""Which modules know which: the imports of the Python package and of the Rust crates, and the circles among them.

Python: every import counts, also one inside of a function or for type checkers. `from package import name` is an import
of the module `package.name` if there is one, and of `package` otherwise. So `from wtio import _core` does not make a
module depend on all that `wtio/__init__.py` imports.

Rust: every path counts that begins with `crate`, `super`, `self` or the name of a child module, in `use` or in code. It
leads to the deepest module that it names; the rest is an item of that module. `mod child;` alone is no edge: it says
where a module is, not that it is used. Apart from that a parent is a module like any other. Re-exporting from a child
is an edge, and so is `super::Item` in a child. If both exist, they are a circle. Neither can then be read, moved or
tested without the other, and the item belongs in a module that both use.

Tests do not count, whether they are in the file (`#[cfg(test)]`, `#[cfg(all(test, ...))]`) or in one of their own.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

Graph = dict[str, set[str]]


def circles(graph: Mapping[str, Collection[str]]) -> list[list[str]]:
    """Return the groups of modules of which each leads to each other, every group and all of them sorted."""
    reached = {module: _reachable(graph, module) for module in graph}
    groups = {
        tuple(sorted(other for other in reached[module] if module in reached.get(other, ())))
        for module in graph
        if module in reached[module]
    }
    return sorted(map(list, groups))


def _reachable(graph: Mapping[str, Collection[str]], start: str) -> set[str]:
    found: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += graph.get(module, ())
    return found


# -- Python


def python_sources(package: Path) -> dict[str, Path]:
    """Return the modules of a package by name. A stub stands for an extension."""
    paths = [*package.rglob("*.py"), *package.rglob("*.pyi")]
    names = [".".join(path.relative_to(package.parent).with_suffix("").parts) for path in paths]
    return {name.removesuffix(".__init__"): path for name, path in zip(names, paths, strict=True)}


def python_imports(package: Path) -> Graph:
    """Return what each module of a package imports from the same package."""
    sources = python_sources(package)
    return {
        name: {
            found
            for module, imported in names_imported(path, name)
            for found in [f"{module}.{imported}" if f"{module}.{imported}" in sources else module]
            if found in sources
        }
        for name, path in sources.items()
    }


def names_imported(path: Path, name: str) -> Iterator[tuple[str, str]]:
    """Give each module that a file imports, with the name that it takes from there, or an empty one."""
    package = name.split(".") if path.stem == "__init__" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join((*above, *filter(None, [node.module])))
            yield from ((module, alias.name) for alias in node.names)


# -- Rust


def rust_sources(crate: Path) -> dict[str, Path]:
    """Return the modules of a crate by path, such as `crate::quic::tap`; files of tests are left out."""
    found = {}
    for path in (crate / "src").rglob("*.rs"):
        parts = path.relative_to(crate / "src").with_suffix("").parts
        if parts[-1] in ("lib", "mod"):
            parts = parts[:-1]
        if parts[-1:] != ("tests",):
            found["::".join(("crate", *parts))] = path
    return found


def rust_imports(crate: Path) -> Graph:
    """Return which modules of its own crate each module uses."""
    sources = rust_sources(crate)
    return {module: rust_uses(path.read_text(encoding="utf-8"), module, sources) for module, path in sources.items()}


def rust_uses(source: str, module: str, modules: Collection[str]) -> set[str]:
    """Return which of these modules the source of one of them uses."""
    # Who may see an item is no use of what it is seen in.
    code = re.sub(r"\bpub\s*\([^)]*\)", "", _without_tests(_without_text(source)))
    found = set()
    for tree in re.findall(_USE, code):
        found |= {_module_of(path, module, modules) for path in _paths(tree)}
    for path in re.findall(r"(?<![\w:])(?:\w+::)+", re.sub(_USE, "", code)):
        found.add(_module_of(path.removesuffix("::").split("::"), module, modules))
    return found - {None, module}  # type: ignore[return-value]


def _module_of(path: list[str], module: str, modules: Collection[str]) -> str | None:
    """Return the deepest module that a path names when it is read in `module`, if it begins in this crate."""
    here = module.split("::")
    if path[0] == "crate":
        here, path = ["crate"], path[1:]
    elif path[0] in ("self", "super"):
        while path and path[0] in ("self", "super"):
            # A module within the root's own file has the root above it.
            here = here[:-1] or here if path[0] == "super" else here
            path = path[1:]
    elif f"{module}::{path[0]}" not in modules:
        return None
    while path and "::".join((*here, path[0])) in modules:
        here, path = [*here, path[0]], path[1:]
    return "::".join(here)


def _paths(tree: str) -> Iterator[list[str]]:
    """Give every path of a use tree: `a::{b, c::D as E}` has `a::b` and `a::c::D`."""
    prefix, brace, rest = tree.strip().partition("{")
    prefix = re.sub(r"\s+as\s+\w+$", "", prefix.strip())
    names = [name.strip() for name in prefix.split("::") if name.strip()]
    if not brace:
        yield names
        return
    depth, begin = 0, 0
    inner = rest.rpartition("}")[0] + ","
    for position, character in enumerate(inner):
        depth += (character == "{") - (character == "}")
        if character == "," and depth == 0:
            if inner[begin:position].strip():
                for path in _paths(inner[begin:position]):
                    yield [*names, *(path[1:] if path[:1] == ["self"] else path)] if names else path
            begin = position + 1


_USE = r"\buse\s+([^;]+);"
_TEXT = re.compile(
    r"//[^\n]*"
    r"|/\*.*?\*/"
    r'|\bb?c?r(?P<hashes>#*)".*?"(?P=hashes)'
    r'|"(?:\\.|[^"\\])*"'
    r"|'(?:\\.[^']*|[^'\\])'",
    re.DOTALL,
)


def _without_text(source: str) -> str:
    """Return the code with comments, strings and characters taken out."""
    return _TEXT.sub('""', source)


def _without_tests(code: str) -> str:
    """Return the code without the items that are compiled for tests only."""
    while found := re.search(r"#\[cfg\((?:all\()?test\b", code):
        end = found.start()
        depth = 0
        for end in range(found.start(), len(code)):
            depth += (code[end] == "{") - (code[end] == "}")
            # The end of a block, or of an item without one.
            if depth == 0 and code[end] in "};":
                break
        code = code[: found.start()] + code[end + 1 :]
    return code
