"""Draft and key exchange that browsers and our server agree on, with default settings and a switch of Chromium's."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from . import chromium
from .pages import run

if TYPE_CHECKING:
    import wtio

    from .pages import Page, Serving

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]


async def spoken(page: Page, serving: Serving) -> wtio.ConnectionReport:
    """Let the page echo something, and say what was agreed on."""
    reports: asyncio.Queue[wtio.ConnectionReport] = asyncio.Queue()

    async def echo(session: wtio.WebTransportSession) -> None:
        stream = await anext(session.incoming_bidirectional_streams())
        await stream.write(data=await stream.read_all(), end_stream=True)
        reports.put_nowait(session.report)
        await session.wait_closed()

    async with serving(echo) as target:
        answer = await run(
            page,
            """async (target) => {
                const session = await openSession(target);
                const stream = await session.createBidirectionalStream();
                const [, answer] = await Promise.all([writeAll(stream.writable, "hello"), readText(stream.readable)]);
                session.close();
                return answer;
            }""",
            target.at(),
        )
        assert answer == "hello"
        return await reports.get()


@pytest.mark.trap("H3")
async def test_browsers_speak_draft_02_with_our_server(page: Page, serving: Serving) -> None:
    assert (await spoken(page, serving)).dialect == "draft02"


@pytest.mark.trap("H2")
async def test_chromium_speaks_draft_07_with_our_server_if_it_has_to(page_url: str, serving: Serving) -> None:
    if (reason := chromium.missing()) is not None:
        pytest.fail(reason)
    async with chromium.launch("--enable-features=EnableWebTransportDraft07") as browser:
        page = await browser.new_page()
        await page.goto(page_url)
        assert (await spoken(page, serving)).dialect == "draft07"


async def test_browsers_exchange_keys_with_ml_kem_with_our_server(page: Page, serving: Serving) -> None:
    tls = (await spoken(page, serving)).tls
    assert tls is not None
    assert tls.key_exchange == "X25519MLKEM768"
