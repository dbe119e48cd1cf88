"""What ``help()`` says about the fields of a dataclass: the text below each field in its source, and its range.

Python keeps no such texts, so they are read from the source when somebody asks for the first time.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from dataclasses import fields
from typing import TypeVar

__all__ = ["with_texts"]

_Class = TypeVar("_Class", bound=type)


class _FieldTexts(dict[str, str | None]):
    """The ``__slots__`` of a class, and a text for each: ``help`` takes them from there if ``__slots__`` is a dict."""

    __slots__ = ("_cls", "_texts")

    def __init__(self, cls: type) -> None:
        super().__init__(dict.fromkeys(cls.__slots__))  # type: ignore[attr-defined]
        # The class whose fields these are.
        self._cls = cls
        # None until the source was read.
        self._texts: dict[str, str] | None = None

    def __getitem__(self, name: str) -> str | None:
        if self._texts is None:
            self._texts = _read(self._cls)
        return self._texts.get(name)


def with_texts(cls: _Class) -> _Class:
    """Let ``help`` show the texts below the fields of a dataclass with slots."""
    cls.__slots__ = _FieldTexts(cls)  # type: ignore[attr-defined]
    return cls


def _read(cls: type) -> dict[str, str]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError):  # there is no source, as in a program that was packed into one file
        return {}
    (body,) = (node.body for node in tree.body if isinstance(node, ast.ClassDef))
    ranges = {one.name: one.metadata.get("range") for one in fields(cls)}
    texts = {}
    for field, text in itertools.pairwise(body):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                texts[name] = inspect.cleandoc(words)
                if (its_range := ranges.get(name)) is not None:
                    texts[name] += f"\n\nRange: {its_range}."
    return texts
