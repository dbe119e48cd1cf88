"""The table of dialects keeps itself whole; what it says is judged in ``test_settings_table``."""

from dataclasses import fields
from itertools import pairwise

import pytest

from wtio.protocol.dialects import STRICT_DIALECT, Dialect, DialectRow, dialect_of_request

CELLS = [field.name for field in fields(DialectRow)]


@pytest.mark.parametrize("forgotten", CELLS)
def test_row_without_one_of_its_cells_cannot_be_made(forgotten: str) -> None:
    row = {name: getattr(Dialect.D15.row, name) for name in CELLS if name != forgotten}
    with pytest.raises(TypeError, match=forgotten):
        DialectRow(**row)


def test_each_dialect_has_a_setting_of_its_own() -> None:
    assert len({dialect.row.setting for dialect in Dialect}) == len(Dialect)


def test_one_dialect_is_spoken_to_the_letter() -> None:
    assert [dialect for dialect in Dialect if dialect.row.strict] == [STRICT_DIALECT] == [Dialect.D15]


def test_drafts_of_the_dialects_are_in_order() -> None:
    bounds = [dialect.row.drafts for dialect in Dialect]
    assert all(first <= last for first, last in bounds)
    assert all(last < following for (_, last), (following, _) in pairwise(bounds))


@pytest.mark.parametrize("token", sorted({dialect.row.token for dialect in Dialect}))
@pytest.mark.parametrize("headers", [(), *([dialect.row.mark.request] for dialect in Dialect if dialect.row.mark)])
def test_a_request_is_one_of_one_dialect_at_most(token: str, headers: list[tuple[str, str]]) -> None:
    asked = [dialect for dialect in Dialect if dialect.row.is_request_of(token, headers)]
    assert len(asked) <= 1
    assert dialect_of_request(token, headers) == (asked[0] if asked else None)
