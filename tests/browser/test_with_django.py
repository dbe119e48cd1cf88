"""docs/with-django.md in browsers: pages in a room of Channels."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from tests.examples.programs import ROOT, running
from tests.examples.test_readme import blocks
from tests.support.ports import free_port

from .pages import run

if TYPE_CHECKING:
    from pathlib import Path

    import wtio

    from .pages import Page

# Two sessions of a page: a stream comes back, and what one of them sends reaches both over the channel layer.
TALK = """async (target) => {
    const [ada, grace] = [await openSession(target), await openSession(target)];
    const { readable, writable } = await ada.createBidirectionalStream();
    await writeAll(writable, "hello");
    const answer = await readText(readable);
    const readers = [ada, grace].map((session) => session.datagrams.readable.getReader());
    const writer = (ada.datagrams.createWritable?.() ?? ada.datagrams.writable).getWriter();
    await writer.write(encode("from ada"));
    const heard = [];
    for (const reader of readers) heard.push(decode((await reader.read()).value));
    ada.close();
    grace.close();
    return [answer, ...heard];
}"""


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.timeout(90)
async def test_pages_talk_in_a_room_of_channels(page: Page, tmp_path: Path, certificate: wtio.DevCertificate) -> None:
    (code,) = blocks(ROOT / "docs" / "with-django.md", "python")
    port = free_port(socket.SOCK_DGRAM, socket.SOCK_STREAM)
    for name, value in {
        "4433": str(port),
        '"cert.pem"': repr(str(certificate.certfile)),
        '"key.pem"': repr(str(certificate.certfile)),
        # The page is from another port.
        "wtio.serve(site, ": 'wtio.serve(site, "127.0.0.1", origins="*", ',
    }.items():
        assert name in code
        code = code.replace(name, value)
    (tmp_path / "project.py").write_text(code)
    async with running("-u", tmp_path / "project.py") as server:
        await server.until("serving")
        target = {"url": f"https://127.0.0.1:{port}/rooms/blue", "hash": certificate.sha256_base64, "options": {}}
        assert await run(page, TALK, target) == ["hello", "from ada", "from ada"]
