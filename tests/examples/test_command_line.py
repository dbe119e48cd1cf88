"""`python -m wtio`, as a user types it."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import wtio
from wtio.cli import main
from wtio.cli._status import MEANINGS, Status

from .programs import url_of

if TYPE_CHECKING:
    from pathlib import Path

    from .programs import Start


async def output_of(start: Start, *arguments: str) -> tuple[int, str]:
    async with start("-m", "wtio", *arguments) as program:
        status = await program.finish()
    return status, program.output


async def test_cert_shows_the_certificate_that_dev_certificate_keeps(start: Start, tmp_path: Path) -> None:
    certificate = wtio.dev_certificate(directory=tmp_path / "cache" / "wtio")
    status, text = await output_of(start, "cert")
    assert status == 0
    assert certificate.sha256_hex in text
    assert certificate.sha256_base64 in text
    assert certificate.javascript in text
    assert await output_of(start, "cert", "--only", "hex") == (0, f"{certificate.sha256_hex}\n")
    status, text = await output_of(start, "cert", "--name", "example.org", "--only", "hex")
    assert (status, text == f"{certificate.sha256_hex}\n") == (0, False)


async def test_connect_asks_once(start: Start) -> None:
    async with start("-m", "wtio", "serve", "--port", "0", "--no-page") as server:
        url = await url_of(server)
        certificate = (await server.until("SHA-256")).split()[-1]
        assert await output_of(start, "connect", url, "--dev", "--send", "grüß dich") == (0, "grüß dich\n")
        assert await output_of(start, "connect", url, "--hash", certificate, "--datagram", "tick") == (0, "tick\n")
        await server.until("closed by peer, code 0")


async def test_connect_sends_each_line(start: Start) -> None:
    async with start("-m", "wtio", "serve", "--port", "0", "--no-page") as server:
        async with start("-m", "wtio", "connect", await url_of(server), "--dev", "--json") as client:
            await client.until('"event": "connected"')
            await client.says("first")
            assert '"event": "answer"' in await client.until('"text": "first"')
            await client.says("/datagram second")
            assert '"event": "datagram"' in await client.until('"text": "second"')
            await client.says("third")
            assert await client.finish() == 0
        answer, closed = client.output.splitlines()[-2:]
        assert '"event": "answer"' in answer
        assert '"text": "third"' in answer
        assert '"event": "closed"' in closed


async def test_connect_tells_how_the_server_ended_it(start: Start) -> None:
    async with start("-m", "wtio", "serve", "--port", "0", "--no-page") as server:
        url = await url_of(server)
        async with start("-m", "wtio", "connect", url, "--dev") as client:
            await client.until("connected in")
            server.process.terminate()
            assert "closed by the peer with code 0" in await client.until("closed by")
            assert await client.finish() == 0
        assert await server.finish() == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("connect", "http://localhost/"), "the scheme is `http`, not `https`"),
        (("connect", "https://localhost:9/", "--dev", "--header", "x", "--send", "a"), "header `x` has no colon"),
        (("connect", "https://localhost:9/", "--hash", "abc"), "certificate hash 'abc' is no SHA-256"),
        (("serve", "--port", "0", "--certfile", "/nowhere/cert.pem"), "`/nowhere/cert.pem` cannot be read"),
        (("serve", "--keyfile", "key.pem"), "--keyfile without --certfile"),
        (("cert", "--name", "a b"), "`a b` is neither a DNS name nor an IP address"),
        (("connect", "https://localhost:9/", "--dev", "--timeout", "0"), "--timeout is 0.0; it must be more than 0"),
        (("connect", "https://localhost:9/", "--dev", "--header", ":path:/"), "--header"),
        (("connect", "https://localhost:9/", "--dev", "--protocol", "ä"), "--protocol: 'ä'"),
        (("connect", "https://user:secret@localhost:9/", "--dev"), "send credentials in --header"),
        (("serve", "--port", "0", "--origin", "https://*.example.org"), "--origin: 'https://*.example.org'"),
    ],
)
async def test_mistakes_give_one_line(start: Start, arguments: tuple[str, ...], words: str) -> None:
    status, text = await output_of(start, *arguments)
    assert status == Status.USAGE
    assert text.startswith("error: ")
    assert words in text
    assert text.count("\n") == 1


def check_words(text: str) -> None:
    """No name of the library's, which means nothing to whoever types options, and no query but in the doctor's URL."""
    names = (
        r"ClientTLS|ServerTLS|Timeouts|Limits|serve\(|dev_certificate|`origins?`|`headers`|origins=|certificate_hashes"
    )
    assert not re.search(names, text), text
    assert "hunter2" not in re.sub(r"^url +.*", "", text), text


async def test_failures_name_options_and_show_no_query(start: Start) -> None:
    async with start("-m", "wtio", "serve", "--port", "0", "--no-page") as server:
        url = f"{await url_of(server)}?token=hunter2"
        for command in (("connect", url, "--send", "a"), ("doctor", url)):
            for trust in ((), ("--hash", "00" * 32)):
                status, text = await output_of(start, *command, *trust)
                assert status == Status.NOT_TRUSTED
                assert "hash" in text
                check_words(text)
        status, text = await output_of(start, "doctor", url, "--dev", "--origin", "https://evil.example")
        assert status == Status.REFUSED
        check_words(text)
        assert "--origin allows further origins" in await server.until("was refused")
        status, text = await output_of(start, "connect", url, "--dev", "--send", "a")
        assert status == 0
        await server.until("closed by peer")
    assert "hunter2" not in server.output
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/?token=hunter2"
        for command in (("connect", url, "--send", "a"), ("doctor", url)):
            status, text = await output_of(start, *command, "--dev", "--timeout", "0.1")
            assert status == Status.NO_CONNECTION
            check_words(text)


async def test_served_origins_are_an_option(start: Start) -> None:
    origin = "https://page.example"
    async with start("-m", "wtio", "serve", "--port", "0", "--no-page", "--origin", origin) as server:
        status, _ = await output_of(start, "doctor", await url_of(server), "--dev", "--origin", origin)
        assert status == 0


async def test_ports_that_are_taken_are_named(start: Start) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        status, text = await output_of(start, "serve", "--host", "127.0.0.1", "--port", str(port), "--no-page")
        assert (status, text.count("\n")) == (1, 1)
        assert f"cannot listen on UDP 127.0.0.1 port {port}" in text
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        status, text = await output_of(start, "serve", "--port", "0", "--page-port", str(port))
        assert status == 1
        assert f"cannot serve the page on TCP 127.0.0.1 port {port}" in text


async def test_a_bad_certificate_is_explained(start: Start) -> None:
    async with start("-m", "wtio", "serve", "--port", "0", "--no-page") as server:
        url = await url_of(server)
        status, text = await output_of(start, "connect", url, "--hash", "00" * 32, "--send", "a")
        assert (status, text.count("\n")) == (Status.NOT_TRUSTED, 1)
        assert "which is not among the 1 pinned" in text


async def test_demo_ends_by_itself(start: Start) -> None:
    async with start("-m", "wtio", "demo") as program:
        assert await program.finish() == 0, program.output
    for pattern in (
        r"client opens, both ways +[\d ]+ streams per second",
        r"server opens, one way +[\d ]+ streams per second",
        r"in a datagram +median +\d+ µs",
        r"there and back +[\d ]+ datagrams per second",
        r"server saw +code 7, reason “that is all”",
        r"client to server +[\d ]+ MB/s",
        r"server to client +[\d ]+ MB/s",
        r"all bytes came back as they were sent",
        r"done in [\d.]+ s\n$",
    ):
        assert re.search(pattern, program.output), f"{pattern} is not in:\n{program.output}"


async def test_the_page_speaks_plain_http(start: Start) -> None:
    async with start("-m", "wtio", "serve", "--port", "0", "--page-port", "0") as server:
        url = await url_of(server)
        port = int((await server.until("page")).rsplit(":", 1)[1].rstrip("/"))

        async def ask(request: bytes) -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            writer.write_eof()
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
            return answer

        page = await ask(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert page.startswith(b"HTTP/1.1 200 OK\r\n")
        assert f'"url": "{url}"'.encode() in page
        assert (await ask(b"HEAD / HTTP/1.1\r\n\r\n")).endswith(b"\r\n\r\n")
        assert (await ask(b"GET /favicon.ico HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 404 ")
        assert (await ask(b"POST / HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 405 ")
        assert (await ask(b"\x16\x03\x01 nonsense\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
        assert await ask(b"GET / HTTP/1.1\r\n") == b""
        assert await ask(b"x" * 100_000 + b"\r\n\r\n") == b""


def test_importing_the_library_loads_no_command() -> None:
    code = "import sys, wtio; print([name for name in sys.modules if name.startswith('wtio.cli')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_help_lists_the_exit_statuses(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    for status, meaning in MEANINGS.items():
        assert f"{status.value:>3}  {meaning}" in text
