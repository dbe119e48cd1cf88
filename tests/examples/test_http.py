"""The program of docs/http.md does what the page says."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any

from tests.support.http3 import HttpClient

from wtio import testing
from wtio.testing import Network

from .programs import ROOT
from .test_readme import blocks

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_the_hook_of_the_page_about_http(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "files").mkdir()
    large = bytes(range(256)) * 4096
    (tmp_path / "files" / "large.bin").write_bytes(large)
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(ROOT / "docs" / "http.md", "python")
    page: dict[str, Any] = {}
    exec(compile(code, "http.md", "exec"), page)

    async def main() -> None:
        network = Network()
        async with network.serve(http=page["hook"]), HttpClient(network) as client:
            answer = await client.get("/health?probe=1")
            assert (answer.status, bytes(answer.body)) == (200, b"fine\n")
            answer = await client.get("/large", method="HEAD")
            assert (answer.headers["content-length"], bytes(answer.body)) == (str(len(large)), b"")
            answer = await client.get("/large")
            assert (answer.status, bytes(answer.body)) == (200, large)
            assert (await client.get("/nowhere")).status == 404

            for name, status in ((b"you", 200), (b"x" * 1001, 413)):
                request = await client.ask("POST", "/greet", end=False)
                await request.send_body(name, end=True)
                await request.answer()
                assert request.status == status
                assert bytes(request.body) == (b"hello, you" if status == 200 else b"")

            request = await client.ask("PUT", "/upload", end=False)
            await request.send_body(large, end=True)
            await request.answer()
            assert (request.status, request.headers["digest"]) == (201, hashlib.sha256(large).hexdigest())

            started = asyncio.get_running_loop().time()
            request = await client.ask("GET", "/events")
            await request.head()
            while not request.body:
                await request.read()
            assert asyncio.get_running_loop().time() - started < 1
            await request.answer()
            assert bytes(request.body) == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"

    testing.run(main())
