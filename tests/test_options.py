"""Options have one home each: their defaults and ranges in ``config.py``, and one value that carries all of them."""

from __future__ import annotations

import dataclasses

import pytest

from wtio import config


def test_a_field_without_a_range_fails_when_its_module_is_imported() -> None:
    @dataclasses.dataclass
    class Made:
        size: int = 5

    with pytest.raises(AssertionError, match=r"Made\.size needs a range"):
        config._checks(Made)
