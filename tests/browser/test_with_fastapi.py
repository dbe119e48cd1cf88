"""docs/with-fastapi.md in browsers: tokens of pages, and ``alt-svc``, which brings Chromium from TCP to HTTP/3."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.ports import free_port
from tests.support.with_fastapi import uvicorn, write_program

from . import chromium
from .pages import run
from .test_http import key_hash

if TYPE_CHECKING:
    from pathlib import Path

    import wtio

    from .pages import Browser, Page

SECRETS = ("s3cret", "hunter2", "wr0ng")

# Which members a page makes of itself, and what the server answers.
ENTER = """async ({ url, hash, options }) => {
    const session = await openSession({ url, hash, options });
    const { readable, writable } = await session.createBidirectionalStream();
    await writeAll(writable, "hello");
    const answer = await readText(readable);
    const protocol = session.protocol ?? null;
    return { answer, protocol, session: (globalThis.kept ??= []).push(session) };
}"""
REFUSED = """async ({ url, hash, options }) => {
    try { await openSession({ url, hash, options }); return "let in"; } catch (error) { return "refused"; }
}"""


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.timeout(90)
async def test_a_page_shows_its_token_and_no_log_does(
    page: Page, browser: Browser, browser_name: str, tmp_path: Path, certificate: wtio.DevCertificate
) -> None:
    port = free_port(socket.SOCK_DGRAM, socket.SOCK_STREAM)
    write_program(tmp_path, port, certificate)
    url = f"https://127.0.0.1:{port}/rooms/blue"
    ways: list[tuple[str, dict[str, Any], str | None]] = [(f"{url}?token=s3cret", {}, None)]
    major = int(browser.version.split(".")[0])
    if browser_name == "chromium":
        ways.append((url, {"protocols": ["chat", "token.hunter2"]}, "chat"))
    if major >= (157 if browser_name == "chromium" else 160):
        ways.append((url, {"headers": {"authorization": "Bearer hunter2"}}, None))
    async with uvicorn(tmp_path, port, certificate) as server:
        await server.until("Uvicorn running")
        for where, options, protocol in ways:
            target = {"url": where, "hash": certificate.sha256_base64, "options": options}
            entered = await run(page, ENTER, target)
            assert entered["answer"] == "hello"
            if protocol is not None:
                assert entered["protocol"] == protocol
        wrong = {"url": f"{url}?token=wr0ng", "hash": certificate.sha256_base64, "options": {}}
        assert await run(page, REFUSED, wrong) == "refused"
    assert not [secret for secret in SECRETS if secret in server.output]


ADDITION = """
from fastapi.responses import HTMLResponse

@app.get("/page", response_class=HTMLResponse)
async def page():
    return "<!doctype html><title>by FastAPI</title>"

# Before the mount, which takes everything.
app.router.routes.insert(0, app.router.routes.pop())
"""
FETCH = """async () => {
    const answer = await fetch(`/rooms/blue?${Math.random()}`);
    const text = await answer.text();
    const entries = performance.getEntriesByType("resource");
    return [answer.status, text, entries[entries.length - 1].nextHopProtocol];
}"""


@pytest.mark.timeout(90)
async def test_alt_svc_brings_chromium_from_tcp_to_http3(tmp_path: Path, certificate: wtio.DevCertificate) -> None:
    if (reason := chromium.missing()) is not None:
        pytest.fail(reason)
    port = free_port(socket.SOCK_DGRAM, socket.SOCK_STREAM)
    write_program(tmp_path, port, certificate, ADDITION)
    flags = (
        f"--ignore-certificate-errors-spki-list={key_hash(certificate)}",
        # Chromium speaks QUIC with certificates of public authorities only, but for hosts that are named here. Another
        # port is, so nothing is forced.
        "--origin-to-force-quic-on=127.0.0.1:1",
    )
    async with asyncio.timeout(80), uvicorn(tmp_path, port, certificate) as server:
        await server.until("Uvicorn running")
        async with chromium.launch(*flags) as browser:
            page = await browser.new_page()
            await page.goto(f"https://127.0.0.1:{port}/page")
            assert await page.title() == "by FastAPI"
            protocol = "performance.getEntriesByType('navigation')[0].nextHopProtocol"
            assert await page.evaluate(protocol) == "http/1.1"
            protocols: list[str] = []
            while "h3" not in protocols and len(protocols) < 50:
                status, text, used = await page.evaluate(FETCH)
                assert (status, text) == (200, "[]")
                protocols.append(used)
                await asyncio.sleep(0.1)
            assert protocols[-1] == "h3"
            await page.reload()
            assert await page.evaluate(protocol) == "h3"
            assert await page.title() == "by FastAPI"
