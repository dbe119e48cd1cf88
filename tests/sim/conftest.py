"""Fixtures of simulated tests."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from tests.support.logs import is_about_no_session

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """The log of servers, from INFO up, without the lines that each session has."""
    caplog.set_level(logging.INFO, "wtio.server")
    caplog.handler.addFilter(is_about_no_session)
    yield caplog
    caplog.handler.removeFilter(is_about_no_session)
