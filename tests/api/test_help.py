"""``help()`` explains every field of every public class: what the source says below it, and its range."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import inspect
import pickle
import pydoc

import pytest
from tools.public_names import MODULES

import wtio
from wtio._arguments import sealed


def classes_with_fields() -> list[type]:
    modules = map(importlib.import_module, (*MODULES, "wtio.report", "wtio.workers"))
    found = {getattr(module, name) for module in modules for name in module.__all__}
    return sorted((one for one in found if inspect.isclass(one) and dataclasses.is_dataclass(one)), key=str)


@pytest.mark.parametrize("one", classes_with_fields(), ids=lambda one: one.__name__)
def test_every_field_of_a_public_class_is_explained(one: type) -> None:
    shown = pydoc.plain(pydoc.render_doc(one))
    for field in dataclasses.fields(one):
        if not field.name.startswith("_"):
            text = inspect.getdoc(getattr(one, field.name))
            assert text, f"{one.__name__}.{field.name}"
            assert text.splitlines()[0] in shown


@pytest.mark.parametrize(
    ("one", "name", "its_range"),
    [
        (wtio.Limits, "max_mtu", "1200 to 65527"),
        (wtio.Limits, "line", "1 to 2^60"),
        (wtio.Timeouts, "idle", "more than 0 to 1e+09 seconds"),
        (wtio.Timeouts, "close", "0 to 1e+09 seconds"),
    ],
)
def test_help_on_a_limit_has_its_range(one: type, name: str, its_range: str) -> None:
    assert f"Range: {its_range}." in str(inspect.getdoc(getattr(one, name)))


def test_without_its_source_a_class_has_no_texts_and_works() -> None:
    made = sealed(dataclasses.make_dataclass("Made", [("size", int, 3)], frozen=True, slots=True))
    assert made(size=5).size == 5
    assert inspect.getdoc(vars(made)["size"]) is None


def test_limits_are_still_copied_and_pickled() -> None:
    limits = wtio.Limits(line=80)
    assert copy.copy(limits) == limits == pickle.loads(pickle.dumps(limits))
    assert dataclasses.replace(limits, line=81).line == 81
