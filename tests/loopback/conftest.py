"""Who receives packets: the event loop, or a thread."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["loop", "thread"])
def io(request: pytest.FixtureRequest) -> str:
    return str(request.param)
