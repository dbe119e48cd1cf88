"""Sessions and channels for the tests of the public API, and a watch on what tests leave behind."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from .support import CHANNELS, Channel, Pair, open_channel, session_pair

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from typing import Any

    import wtio

# Far beyond what any of these tests takes, also on a busy machine: it only turns a hang into a failure.
PATIENCE = 25.0

HERE = Path(__file__).parent


# On the first loop every test runs on every kind of channel. The other loops differ in how they call back, not in what
# a stream is: there, one channel of each class is enough.
CHANNELS_ON_OTHER_LOOPS = frozenset({"client-bidi", "server-uni"})


def is_repetition(item: pytest.Item) -> bool:
    parameters = getattr(item, "callspec", None)
    channel = parameters.params.get("channel_kind") if parameters is not None else None
    is_other_loop = parameters is not None and not parameters.id.startswith("debug")
    return HERE in item.path.parents and is_other_loop and channel in set(CHANNELS) - CHANNELS_ON_OTHER_LOOPS


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    config.hook.pytest_deselected(items=[item for item in items if is_repetition(item)])
    items[:] = [item for item in items if not is_repetition(item)]
    for item in items:
        if HERE in item.path.parents and isinstance(item, pytest.Function):
            function = item.obj
            if inspect.iscoroutinefunction(function):
                item.obj = patient(function)


def patient(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turn a hang into a TimeoutError whose traceback shows where it hangs."""

    @functools.wraps(function)
    async def wrapped(*args: Any, **kwargs: Any) -> None:
        async with asyncio.timeout(PATIENCE):
            await function(*args, **kwargs)

    return wrapped


@pytest.fixture(autouse=True)
def no_logged_errors(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing is logged as an error unless the test expects it and clears it away with ``caplog.clear()``."""
    yield
    # Tasks and sockets that nobody waited for complain when they are collected.
    gc.collect()
    errors = [record for record in caplog.get_records("call") if record.levelno >= logging.ERROR]
    assert not errors, [record.getMessage() for record in errors]


@pytest_asyncio.fixture(autouse=True)
async def no_tasks_left() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left, left


@pytest_asyncio.fixture
async def pair(certificate: wtio.DevCertificate) -> AsyncIterator[Pair]:
    async with session_pair(certificate) as pair:
        yield pair


@pytest.fixture(params=["client", "server"])
def side(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def sessions(pair: Pair, side: str) -> tuple[wtio.WebTransportSession, wtio.WebTransportSession]:
    """The side that acts and the side that sees it."""
    return pair.sides(side)


@pytest.fixture(params=CHANNELS)
def channel_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest_asyncio.fixture
async def channel(pair: Pair, channel_kind: str) -> Channel:
    return await open_channel(pair, channel_kind)
