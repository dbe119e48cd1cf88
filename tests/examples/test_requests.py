"""What docs/requests.md shows does what the page says."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

import wtio
from wtio.testing import Network, run

from .programs import ROOT

PAGE = (ROOT / "docs" / "requests.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """The names that the page defines."""
    names: dict[str, Any] = {}
    for code in re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE):
        exec(compile(code, "docs/requests.md", "exec"), names)
    return names


async def status_of(network: Network, path: str, cookie: str) -> int:
    try:
        async with network.connect(f"https://localhost{path}", headers={"cookie": cookie}) as session:
            return session.facts.status
    except wtio.SessionRejectedError as error:
        return error.status


def test_who_has_a_token_is_let_in(page: dict[str, Any]) -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(page["handle"], admit=page["admit"]):
            assert await status_of(network, "/", "token=wrong") == 401
            assert await status_of(network, "/admin", "token=hunter2") == 403
            assert await status_of(network, "/admin", "token=s3cret") == 200
            async with network.connect(headers={"cookie": "theme=dark; token=hunter2"}) as session:
                assert await session.receive_datagram() == b"hello, grace"

    run(main())


def test_the_server_of_the_page_can_be_made(page: dict[str, Any], certificate: wtio.DevCertificate) -> None:
    assert isinstance(page["serve"](certificate.server_tls()), wtio.Server)


def test_requests_are_routed(page: dict[str, Any]) -> None:
    async def main() -> None:
        network = Network()
        async with network.serve() as server:
            routing = asyncio.ensure_future(page["route"](server))
            async with network.connect("https://localhost/play") as session:
                assert (await session.wait_closed()).reason == "no game today"
            assert await status_of(network, "/elsewhere", "") == 405
        await routing

    run(main())


def test_a_reason_comes_with_the_answer(page: dict[str, Any]) -> None:
    async def main() -> None:
        network = Network()
        async with (
            network.serve(page["handle"], admit=page["admit_with_a_reason"]),
            network.connect("https://localhost/full") as session,
        ):
            assert await session.wait_closed() == wtio.CloseInfo(4, "the room is full", "peer")

    run(main())
