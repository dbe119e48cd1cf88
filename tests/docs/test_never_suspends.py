"""The page of methods that never suspend lists exactly those that have nothing to wait for."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from pathlib import Path

import wtio
import wtio.hub

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "never-suspends.md"
# Classes that are made to be implemented: what they do is not ours to say.
INTERFACES = {"Bus", "BusConnection", "MemoryBus"}
WAITING = (ast.Await, ast.AsyncFor, ast.AsyncWith, ast.Yield)


def never_suspends(method: object) -> bool:
    if not inspect.iscoroutinefunction(method):
        return False
    tree = ast.parse(textwrap.dedent(inspect.getsource(method)))
    return not any(isinstance(node, WAITING) for node in ast.walk(tree))


def found() -> dict[str, set[str]]:
    methods: dict[str, set[str]] = {}
    for module in (wtio, wtio.hub):
        for name in set(module.__all__) - INTERFACES:
            cls = getattr(module, name)
            if not inspect.isclass(cls) or not cls.__module__.startswith("wtio"):
                continue
            public = {one for one in dir(cls) if not one.startswith("_") or one in ("__aenter__", "__aexit__")}
            if those := {one for one in public if never_suspends(inspect.getattr_static(cls, one))}:
                methods[name] = those
    return methods


def listed() -> dict[str, set[str]]:
    methods: dict[str, set[str]] = {}
    for name, row in re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE):
        methods[name] = set(re.findall(r"`(\w+)`", row))
        if "`async with`" in row:
            methods[name].add("__aenter__")
        if "`async with`" in row and "entering" not in row:
            methods[name].add("__aexit__")
    return methods


def test_the_page_lists_exactly_the_methods_that_never_suspend() -> None:
    assert listed() == found()


def test_the_docstrings_of_these_methods_say_so() -> None:
    for name, methods in found().items():
        cls = getattr(wtio, name, None) or getattr(wtio.hub, name)
        for method in methods - {"__aenter__", "__aexit__"}:
            assert "ever suspend" in (getattr(cls, method).__doc__ or ""), f"{name}.{method}"
