"""Calls that the pages show give arguments by names that the methods have."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import wtio

if TYPE_CHECKING:
    from collections.abc import Iterator

TOP = Path(__file__).parents[2]
PAGES = [TOP / "README.md", *sorted((TOP / "docs").glob("*.md"))]
MODULES = ["", ".asgi", ".hub", ".opentelemetry", ".prometheus", ".report", ".testing", ".workers"]


def methods_of_wtio() -> set[str]:
    """The names of all methods of the classes that ``wtio`` exports."""
    classes = [each for name in wtio.__all__ if inspect.isclass(each := getattr(wtio, name))]
    return {
        name
        for each in classes
        for name in dir(each)
        if not name.startswith("_") and inspect.isroutine(getattr(each, name))
    }


def public_callables() -> dict[str, list[Any]]:
    """What is public in ``wtio`` and its modules, functions and methods, by name."""
    found: dict[str, list[Any]] = defaultdict(list)
    for module in (importlib.import_module(f"wtio{name}") for name in MODULES):
        for name in module.__all__:
            each = getattr(module, name)
            if callable(each):
                found[name].append(each)
            if inspect.isclass(each):
                for method in (method for method in dir(each) if not method.startswith("_")):
                    if callable(getattr(each, method)):
                        found[method].append(getattr(each, method))
    return found


METHODS = methods_of_wtio()
CALLABLES = public_callables()


def accepted(name: str) -> set[str] | None:
    """The keywords of all public callables of this name; None if one of them takes any."""
    keywords: set[str] = set()
    for each in CALLABLES[name]:
        try:
            parameters = inspect.signature(each).parameters
        except ValueError:  # Written in C, and does not tell.
            return None
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            return None
        keywords |= {key for key, parameter in parameters.items() if parameter.kind is not parameter.POSITIONAL_ONLY}
    return keywords


def code_of(page: Path) -> Iterator[str]:
    """Blocks and inline code of a page, whatever language it is in."""
    text = page.read_text(encoding="utf-8")
    if page.name.startswith("from-"):
        # The first cells of its tables show another library.
        text = re.sub(r"^\|[^|]*\|", "|", text, flags=re.MULTILINE)
    block = re.compile(r"^```[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    yield from block.findall(text)
    for inline in re.findall(r"`([^`]+)`", block.sub("", text)):
        yield " ".join(inline.split())


def calls(code: str) -> Iterator[tuple[str, list[str]]]:
    """The name of each call that gives arguments by name, and these names; nothing if it is not Python.

    Calls of another library's functions, such as ``websockets.connect``, are left out.
    """
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            if isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "websockets":
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            if keywords := [keyword.arg for keyword in node.keywords if keyword.arg is not None]:
                yield name, keywords


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_calls_of_methods_give_arguments_by_names_that_there_are(page: Path) -> None:
    unknown = [
        f"{name}({keyword}=...)"
        for code in code_of(page)
        for name, keywords in calls(code)
        if name in METHODS and (known := accepted(name)) is not None
        for keyword in keywords
        if keyword not in known
    ]
    assert unknown == [], page.name


def test_calls_are_found_in_inline_code_and_in_blocks() -> None:
    shown = [call for page in PAGES for code in code_of(page) for call in calls(code) if call[0] in METHODS]
    assert ("write", ["data"]) in shown  # in inline code, and in blocks
    assert ("write", ["data", "end_stream"]) in shown
    assert len(shown) > 50
    assert accepted("readexactly") == {"self", "n"}
