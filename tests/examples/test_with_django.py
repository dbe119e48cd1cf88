"""The project of docs/with-django.md does what the page says."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING

import pytest
from aioquic.asyncio.client import connect as quic_connect
from aioquic.h3.connection import H3_ALPN
from aioquic.quic.configuration import QuicConfiguration
from tests.loopback.test_http import HttpClient
from tests.support.ports import free_port

import wtio

from .programs import ROOT
from .test_readme import blocks

if TYPE_CHECKING:
    from pathlib import Path

    from .programs import Start


@pytest.mark.timeout(60)
async def test_the_project_of_the_page(start: Start, tmp_path: Path, certificate: wtio.DevCertificate) -> None:
    (code,) = blocks(ROOT / "docs" / "with-django.md", "python")
    port = free_port(socket.SOCK_DGRAM, socket.SOCK_STREAM)
    for name, value in {
        "4433": str(port),
        '"cert.pem"': repr(str(certificate.certfile)),
        '"key.pem"': repr(str(certificate.certfile)),
    }.items():
        assert name in code
        code = code.replace(name, value)
    (tmp_path / "project.py").write_text(code)
    configuration = QuicConfiguration(alpn_protocols=H3_ALPN, is_client=True, verify_mode=ssl.CERT_NONE)
    async with asyncio.timeout(50), start(tmp_path / "project.py") as server:
        await server.until("serving")
        url, tls = f"https://127.0.0.1:{port}/rooms/blue", certificate.client_tls()
        async with wtio.connect(url, tls=tls) as ada, wtio.connect(url, tls=tls) as grace:
            stream = await ada.create_bidirectional_stream()
            await stream.write(data=b"hello" * 50_000, end_stream=True)
            assert await stream.read_all() == b"hello" * 50_000
            ada.send_datagram(b"from ada")
            assert [await session.receive_datagram() for session in (ada, grace)] == [b"from ada"] * 2
            async with quic_connect(
                "127.0.0.1", port, configuration=configuration, create_protocol=HttpClient
            ) as client:
                assert isinstance(client, HttpClient)
                number, answer = client.ask("POST", "/rooms/blue/news", end=False)
                client.send(number, b"from a view", end=True)
                await answer.is_over.wait()
                # Without a token against forgery Django would refuse it, if its middleware were there.
                assert (answer.status, answer.size) == ("200", 4)
                assert (await client.get("/nowhere")).status == "404"
            assert [await session.receive_datagram() for session in (ada, grace)] == [b"from a view"] * 2
        with pytest.raises(wtio.SessionRejectedError) as caught:
            await wtio.connect(f"https://127.0.0.1:{port}/elsewhere?token=s3cret", tls=tls)
        assert caught.value.status == 500
    assert "s3cret" not in server.output
