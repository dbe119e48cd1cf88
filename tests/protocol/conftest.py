"""Property tests run alone: to Hypothesis, a draw from `random` by any thread is a test that is not deterministic."""

from __future__ import annotations

import threading

import pytest


@pytest.fixture(autouse=True, scope="package")
def no_other_thread() -> None:
    names = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    # Where there are no alarms, as on Windows, the plugin has a thread.
    others = [name for name in names if not name.startswith("pytest_timeout")]
    assert not others, f"threads of other tests still run: {', '.join(others)}"
