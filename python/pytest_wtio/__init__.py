"""pytest fixtures for applications that use wtio: a simulated network, sessions on it, and virtual time.

pytest loads this module as a plugin wherever wtio is installed, so it imports nothing of wtio until a fixture is used.
``docs/testing.md`` shows how to use it.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Iterator

    import wtio
    from wtio.testing import Network

__all__ = ["Runner", "wtio_network", "wtio_run", "wtio_session_pair"]

_Result = TypeVar("_Result")

_FIXTURES = frozenset({"wtio_network", "wtio_run", "wtio_session_pair"})
_MARKER = "wtio_network"
# Plugins that run asynchronous tests themselves, by the marker that asks them to.
_OTHERS = ("asyncio", "anyio", "trio")


class Runner:
    """Runs coroutines on one virtual-time loop, which lives as long as the test."""

    def __init__(self) -> None:
        from wtio.testing import VirtualTimeLoop

        self._runner = asyncio.Runner(loop_factory=VirtualTimeLoop)

    def __call__(self, main: Coroutine[Any, Any, _Result]) -> _Result:
        """Run a coroutine to its end and return its result. The clock goes on where it stood."""
        return self._runner.run(main)

    def close(self) -> None:
        """Cancel what is left on the loop, and close it."""
        self._runner.close()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", f"{_MARKER}(**conditions): keyword arguments of wtio.testing.Network for the fixture wtio_network"
    )


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_pycollect_makeitem(
    collector: pytest.Module | pytest.Class, name: str, obj: object
) -> Generator[None, Any, Any]:
    # Innermost of all: plugins for asynchronous tests in general find these to be ordinary functions.
    made = yield
    for item in made if isinstance(made, list) else [made]:
        if isinstance(item, pytest.Function) and _is_ours(item):
            item.obj = _synchronous(item)
    return made


def _is_ours(item: pytest.Function) -> bool:
    return (
        inspect.iscoroutinefunction(item.obj)
        and not _FIXTURES.isdisjoint(item.fixturenames)
        and not any(item.get_closest_marker(other) for other in _OTHERS)
    )


def _synchronous(item: pytest.Function) -> Callable[..., None]:
    function = item.obj

    @functools.wraps(function)
    def on_virtual_time(*arguments: Any, **named: Any) -> None:
        run: Runner = item._request.getfixturevalue("wtio_run")  # noqa: SLF001 - pytest offers nothing else
        run(function(*arguments, **named))

    return on_virtual_time


@pytest.fixture
def wtio_run(request: pytest.FixtureRequest) -> Iterator[Runner]:
    """Runs coroutines on a virtual-time loop: ``wtio_run(main())``, as often as the test likes.

    Asynchronous tests that use this or another of wtio's fixtures run on that loop by themselves.
    """
    for other in _OTHERS:
        if request.node.get_closest_marker(other) and inspect.iscoroutinefunction(getattr(request.node, "obj", None)):
            raise pytest.UsageError(
                f"{request.node.nodeid} is marked `{other}`, so it runs on a loop of another plugin; `wtio_run` and "
                f"`wtio_session_pair` have a loop of their own. Leave the mark out, or use `wtio_network` alone"
            )
    runner = Runner()
    try:
        yield runner
    finally:
        runner.close()


@pytest.fixture
def wtio_network(request: pytest.FixtureRequest) -> Network:
    """A ``wtio.testing.Network`` with the conditions of the test's marks.

    Such as ``@pytest.mark.wtio_network(loss=0.1, seed=7)``; marks of a function add to those of its class and module.
    """
    from wtio.testing import Network

    conditions: dict[str, Any] = {}
    for mark in reversed(list(request.node.iter_markers(_MARKER))):
        if mark.args:
            raise pytest.UsageError(f"the mark {_MARKER} takes keyword arguments only, as wtio.testing.Network does")
        conditions.update(mark.kwargs)
    return Network(**conditions)


@pytest.fixture
def wtio_session_pair(
    wtio_run: Runner, wtio_network: Network
) -> Iterator[tuple[wtio.WebTransportSession, wtio.WebTransportSession]]:
    """The two ends of a session on ``wtio_network``, client first; closed when the test is over."""
    from wtio.testing import session_pair

    async def hold(
        made: asyncio.Future[tuple[wtio.WebTransportSession, wtio.WebTransportSession]], over: asyncio.Event
    ) -> None:
        async with session_pair(wtio_network) as pair:
            made.set_result(pair)
            await over.wait()

    async def begin() -> tuple[asyncio.Task[None], asyncio.Event, Any]:
        made = asyncio.get_running_loop().create_future()
        over = asyncio.Event()
        # One task from begin to end, so that what it does in between may be bound to its task.
        task = asyncio.ensure_future(hold(made, over))
        await asyncio.wait((task, made), return_when=asyncio.FIRST_COMPLETED)
        if not made.done():
            await task
        return task, over, made.result()

    async def end() -> None:
        over.set()
        await task

    task, over, pair = wtio_run(begin())
    yield pair
    wtio_run(end())
