"""The application of docs/asgi-webtransport.md does what the page says."""

from __future__ import annotations

from typing import Any

import wtio.asgi
from wtio.asgi._rules import SessionRules
from wtio.testing import Network, run

from .programs import ROOT
from .test_readme import blocks


def test_the_application_of_the_page_echoes() -> None:
    page: dict[str, Any] = {}
    for code in blocks(ROOT / "docs" / "asgi-webtransport.md", "python"):
        exec(compile(code, "docs/asgi-webtransport.md", "exec"), page)

    async def main() -> None:
        network = Network()
        async with network.serve(page["checked"]), network.connect("https://localhost/") as session:
            stream = await session.create_bidirectional_stream()
            await stream.write(data=b"hello" * 100_000, end_stream=True)
            assert await stream.read_all() == b"hello" * 100_000
            session.send_datagram(b"hello")
            assert await session.receive_datagram() == b"hello"

    run(main())


def test_the_page_names_its_version() -> None:
    page = (ROOT / "docs" / "asgi-webtransport.md").read_text(encoding="utf-8")
    assert f"version {wtio.asgi.WEBTRANSPORT_VERSION}\n" in page
    for kind in SessionRules.sent:
        assert f"| `{kind}` |" in page
