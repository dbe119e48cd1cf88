"""A page that Chromium loads over our HTTP/3: bodies both ways, a refusal, a fetch that is broken off."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import wtio

from . import chromium

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SIZE = 1024 * 1024
PAGE = b"<!doctype html><title>over HTTP/3</title>"
SCRIPT = """async () => {
    const upload = await fetch("/upload", { method: "POST", body: new Uint8Array(1024 * 1024) });
    const download = await fetch("/download");
    // Chromium shows no answer before its upload is complete, so the hook takes the rest.
    const refused = await fetch("/refused", { method: "POST", body: new Uint8Array(1024 * 1024) });
    const head = await fetch("/download", { method: "HEAD" });
    const abort = new AbortController();
    const endless = await fetch("/endless", { signal: abort.signal });
    await endless.body.getReader().read();
    abort.abort();
    return {
        upload: [upload.status, await upload.text()],
        download: [download.status, (await download.arrayBuffer()).byteLength],
        refused: refused.status,
        head: head.headers.get("content-length"),
        protocol: performance.getEntriesByType("navigation")[0].nextHopProtocol,
    };
}"""


def key_hash(certificate: wtio.DevCertificate) -> str:
    """What Chromium's flag wants: the hash of the public key."""
    key = x509.load_der_x509_certificate(certificate.server_tls().certificates[0]).public_key()
    return base64.b64encode(
        hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    ).decode()


@pytest.mark.timeout(60)
async def test_a_page_is_loaded_and_fetches_over_http3(certificate: wtio.DevCertificate) -> None:
    if (reason := chromium.missing()) is not None:
        pytest.fail(reason)
    left = asyncio.Event()

    async def pieces(count: int) -> AsyncIterator[bytes]:
        try:
            for _ in range(count):
                yield bytes(SIZE // 16)
        finally:
            if count > 16:
                left.set()

    async def hook(request: wtio.HttpRequest) -> wtio.HttpResponse:
        match request.path:
            case "/":
                return wtio.HttpResponse(status=200, headers={"content-type": "text/html"}, body=PAGE)
            case "/upload":
                body = await request.body()
                return wtio.HttpResponse(status=200, body=str(len(body)).encode())
            case "/download":
                return wtio.HttpResponse(status=200, headers={"content-length": str(SIZE)}, body=pieces(16))
            case "/endless":
                return wtio.HttpResponse(status=200, body=pieces(2**30))
            case "/refused":
                async for _ in request.stream():
                    pass
                raise wtio.ContentTooLargeError("too large", limit=10, size=None)
        return wtio.HttpResponse(status=404)

    async with wtio.serve(None, "127.0.0.1", 0, tls=certificate.server_tls(), http=hook) as server:
        port = server.addresses[0][1]
        flags = (
            f"--origin-to-force-quic-on=127.0.0.1:{port}",
            f"--ignore-certificate-errors-spki-list={key_hash(certificate)}",
        )
        async with asyncio.timeout(50), chromium.launch(*flags) as browser:
            page = await browser.new_page()
            await page.goto(f"https://127.0.0.1:{port}/")
            assert await page.title() == "over HTTP/3"
            assert await page.evaluate(SCRIPT) == {
                "upload": [200, str(SIZE)],
                "download": [200, SIZE],
                "refused": 413,
                "head": str(SIZE),
                "protocol": "h3",
            }
            await left.wait()
