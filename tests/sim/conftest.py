"""Fixtures of simulated tests."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The log of servers, from INFO up."""
    caplog.set_level(logging.INFO, "wtio.server")
    return caplog
