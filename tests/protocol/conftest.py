"""Property tests run alone: to Hypothesis, a draw from `random` by any thread is a test that is not deterministic."""

from __future__ import annotations

import threading

import pytest


@pytest.fixture(autouse=True, scope="package")
def no_other_thread() -> None:
    others = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    assert not others, f"threads of other tests still run: {', '.join(others)}"
