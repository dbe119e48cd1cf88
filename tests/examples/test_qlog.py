"""What docs/qlog.md shows and says is so."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tests.support.qlogs import EVENTS, read_qlog

from wtio.testing import Network, run

from .programs import ROOT
from .test_readme import blocks

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    import wtio

PAGE = ROOT / "docs" / "qlog.md"


def test_a_live_session_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page: dict[str, Any] = {}
    for code in blocks(PAGE, "python"):
        exec(compile(code, "docs/qlog.md", "exec"), page)

    async def stay(session: wtio.WebTransportSession) -> None:
        await session.wait_closed()

    async def main() -> int:
        network = Network()
        async with network.serve(stay) as server, network.connect() as session:
            await session.drain()
            (served,) = server.sessions
            await page["look_into"](server, served.log_id)
            return served.log_id

    head, events = read_qlog(tmp_path / f"session-{run(main())}.sqlog")
    text = PAGE.read_text(encoding="utf-8")
    assert f"`{head['title'].removesuffix(' (server)')}`" in text
    assert f"`{head['trace']['vantage_point']['name']}`" in text
    assert events


def test_every_event_is_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name in EVENTS:
        event = name.partition(":")[2]
        assert f"`{event}`" in text or f"`{name}`" in text, name
    [schema] = blocks(PAGE, "cddl")
    described = {name.lower() for name in re.findall(r"^WT(\w+) = ", schema, re.MULTILINE)}
    ours = {name.partition(":")[2].replace("_", "") for name in EVENTS if name.startswith("webtransport:")}
    assert described == ours
