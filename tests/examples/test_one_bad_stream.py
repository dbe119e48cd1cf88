"""What docs/one-bad-stream.md shows does what the page says, the fragile way, too."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any

import pytest
from tests.support.logs import but_sessions

import wtio
from wtio.testing import Network, run

from .programs import ROOT

PAGE = (ROOT / "docs" / "one-bad-stream.md").read_text(encoding="utf-8")


@pytest.fixture
def page() -> dict[str, Any]:
    """The names that the page defines."""
    names: dict[str, Any] = {}
    for code in re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE):
        exec(compile(code, "docs/one-bad-stream.md", "exec"), names)
    return names


async def send(session: wtio.WebTransportSession, data: bytes) -> None:
    stream = await session.create_unidirectional_stream()
    await stream.write(data=data, end_stream=True)
    await stream.wait_acked()


async def send_ten(network: Network) -> None:
    """Send ten samples; all of them are acknowledged when the session is closed."""
    async with network.connect() as session:
        for number in range(10):
            await send(session, b"%d" % number)


@pytest.mark.parametrize("handler", ["fragile", "robust", "everything"])
def test_what_was_acknowledged_is_stored(handler: str, page: dict[str, Any]) -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(page[handler]):
            await send_ten(network)
            await asyncio.sleep(1)
        if handler == "fragile":
            assert page["samples"] != list(range(10))
        else:
            assert page["samples"] == list(range(10))

    run(main())


@pytest.mark.parametrize("bad", ["reset", "nonsense"])
@pytest.mark.parametrize("handler", ["fragile", "robust", "everything"])
def test_one_bad_stream(handler: str, bad: str, page: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "wtio.server")

    async def main() -> None:
        network = Network()
        async with network.serve(page[handler]), network.connect() as session:
            stream = await session.create_unidirectional_stream()
            if bad == "reset":
                await stream.write(data=b"1")
                await stream.reset(error_code=7)
            else:
                await stream.write(data=b"one", end_stream=True)
            await asyncio.sleep(1)
            levels = [record.levelno for record in but_sessions(caplog.records)]
            # The first session that a client's reset ends is a warning.
            level_of_reset = logging.WARNING if handler == "fragile" else logging.INFO
            assert levels == [level_of_reset if bad == "reset" else logging.ERROR]
            if handler == "fragile":
                assert (await session.wait_closed()).code == 258
                return
            await send(session, b"5")
            await asyncio.sleep(1)
            assert page["samples"] == [5]
            assert not session.is_closed

    run(main())


def test_streams_of_both_kinds_and_datagrams(page: dict[str, Any]) -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(page["everything"]), network.connect() as session:
            stream = await session.create_bidirectional_stream()
            await stream.write(data=b"quiet?", end_stream=True)
            assert await stream.read_all() == b"QUIET?"
            session.send_datagram(b"3")
            await asyncio.sleep(1)
            assert page["samples"] == [3]

    run(main())


def test_a_stream_that_ends_its_session(page: dict[str, Any]) -> None:
    async def main() -> None:
        async def handle(session: wtio.WebTransportSession) -> None:
            await session.serve_streams(page["strict"])

        network = Network()
        async with network.serve(handle), network.connect() as session:
            stream = await session.create_bidirectional_stream()
            await stream.write(data=b"hi\n")
            assert await session.wait_closed() == wtio.CloseInfo(1, "say HELLO first", "peer")

    run(main())


def test_work_beside_it(page: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(page["ticking"]):
            async with network.connect() as session:
                for _ in range(3):
                    assert await session.receive_datagram() == b"tick"
            await asyncio.sleep(5)
            assert len(asyncio.all_tasks()) == 1

    run(main())
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
