"""`python -m wtio`, as a user types it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, NoReturn

import pytest
import trustme

import wtio
from wtio import _core
from wtio.cli import main
from wtio.cli._command_line import COMMANDS, make_parser
from wtio.cli._status import MEANINGS, Status
from wtio.cli._words import of_system

from .programs import url_of

if TYPE_CHECKING:
    from pathlib import Path

    from .programs import Start


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.bind(("::1", 0))
        return True
    return False


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
        (("serve", "--dir", "/nowhere/at/all"), "/nowhere/at/all: there is no such file or directory"),
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


URL = "https://localhost:9/"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("connect", URL, "--output", "x"), "--output is where --get writes a file; add --get NAME"),
        (("connect", URL, "--list", "--output", "x"), "--output is where --get writes a file; add --get NAME"),
        (("serve", "--read-only"), "--read-only is about the files of a directory; add --dir DIRECTORY"),
        (("serve", "--max-file", "1024"), "--max-file is about the files of a directory; add --dir DIRECTORY"),
        (("serve", "--max-total", "5"), "--max-total is about the files of a directory; add --dir DIRECTORY"),
        (("serve", "--dir", ".", "--read-only", "--max-file", "5"), "--max-file does nothing with --read-only"),
        (("serve", "--dir", ".", "--max-file", "0"), "--max-file is 0; it must be at least 1 (MiB); --read-only"),
        (("serve", "--dir", ".", "--max-total", "-1"), "--max-total is -1; it must be at least 1"),
        (("serve", "--dir", ".", "--max-file", "5", "--max-total", "4"), "--max-file is 5; it must be at most"),
        # The default, written, is not what was asked for either.
        (("serve", "--no-page", "--page-port", "8080"), "--page-port does nothing with --no-page"),
        (("serve", "--page-port", "70000"), "--page-port is 70000; it must be between 0 and 65535"),
        (("serve", "--port", "70000", "--no-page"), "--port is 70000; it must be between 0 and 65535"),
        (("load", URL, "--sessions", "0"), "--sessions is 0; it must be 1 to 100000"),
        (("load", URL, "--stage", "5:0"), "no --stage asks for a session; add one such as --stage 30:500"),
        (("load", URL, "--stage", "5:5", "--sessions", "7"), "--sessions does nothing beside --stage; leave one"),
        (("load", URL, "--ramp", "5", "--stage", "5:5"), "--ramp does nothing beside --stage; leave one"),
        (("load", URL, "--stage", "5:5", "--hold", "10"), "--hold does nothing beside --stage; leave one"),
        (("load", URL, "--pool", "--dev"), "--pool does not go with --dev: as in browsers"),
        (("load", URL, "--pool", "--hash", "00" * 32), "--pool does not go with --hash: as in browsers"),
        (("load", "localhost:9"), "it has no scheme"),
        (("baton", "--port", "4433"), "--port is where --serve listens; add --serve, or write the port into the URL"),
        (("baton", "--serve", "--count", "1"), "--count is for whoever plays and does nothing with --serve"),
        (("baton", "--serve", URL), "URL is for whoever plays and does nothing with --serve"),
        (("baton", "--serve", "--dev"), "--dev is for whoever plays and does nothing with --serve"),
        (("baton", "--serve", "--timeout", "10"), "--timeout is for whoever plays and does nothing with --serve"),
        (("run", "module:app", "--systemd", "--port", "443"), "--port does nothing with --systemd"),
        (("run", "module:app", "--systemd", "--host", "localhost"), "--host does nothing with --systemd"),
        (("run", "module:app", "--keyfile", "key.pem"), "add --certfile FILE"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = error_of(arguments, capsys)
    assert text.startswith("error: ")
    assert words in text


def error_of(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> str:
    """What is said about a command line that is wrong."""
    assert main(arguments) == Status.USAGE
    return capsys.readouterr().err


def test_what_belongs_to_another_option_is_refused_without_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Also of options to come, if their help begins as that of these does."""
    found = set()
    for command in make_parser()[1].all:
        for action in command.parser.actions:
            if (other := re.match(r"with (--[\w-]+):", action.help or "")) is None:
                continue
            [name] = action.option_strings
            words = [command.name, name, *(["5"] if action.nargs != 0 else [])]
            words += [URL for each in command.parser.actions if each.dest == "url" and each.nargs is None]
            assert main(words) == Status.USAGE, words
            assert f"add {other[1]}" in capsys.readouterr().err
            found.add(name)
    assert found == {"--output", "--read-only", "--max-file", "--max-total", "--port"}


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("localhost:4433", "https://localhost:4433/"),
        ("localhost:4433/files?token=hunter2", "https://localhost:4433/files"),
        ("127.0.0.1:4433", "https://127.0.0.1:4433/"),
        ("[::1]:4433/x", "https://[::1]:4433/x"),
        ("example.org", "https://example.org/"),
        ("//example.org/x", "https://example.org/x"),
        ("http://localhost:4433/", "https://localhost:4433/"),
        ("wss://localhost:4433/", "https://localhost:4433/"),
    ],
)
def test_a_url_without_https_is_shown_with_it(url: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (("connect", url), ("doctor", url), ("bench", url), ("load", url)):
        text = error_of(command, capsys)
        assert text.startswith("error: invalid URL ")
        assert text.endswith(f", which would be `{meant}`\n")
        assert "hunter2" not in text


@pytest.mark.parametrize("url", ["user:hunter2@localhost:4433", "https://", "ftp://example.org/", "a b", "", "/"])
def test_no_url_is_guessed_from_what_is_none(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = error_of(("connect", url), capsys)
    assert text.endswith("; expected https://host[:port][/path][?query]\n")
    assert "hunter2" not in text


def test_errors_of_the_system_are_sentences_without_numbers() -> None:
    # What pathlib, os and sockets raise: with and without a file's name.
    assert of_system(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "x")) == (
        "x: there is no such file or directory"
    )
    assert of_system(OSError(errno.EMFILE, os.strerror(errno.EMFILE))).startswith("too many files and sockets")
    assert of_system(OSError(errno.EPIPE, os.strerror(errno.EPIPE))) == "broken pipe"
    assert of_system(OSError(errno.EADDRINUSE, "cannot listen there")) == "cannot listen there"
    assert of_system(OSError("only words")) == "only words"


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
        assert text.startswith(f"error: cannot listen on UDP 127.0.0.1 port {port}")
        assert "--port" in text
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        status, text = await output_of(start, "serve", "--port", "0", "--page-port", str(port))
        assert (status, text.count("\n")) == (1, 1), "it says that it listens, and then ends"
        assert text.startswith(f"error: cannot serve the page on TCP 127.0.0.1 port {port}: another program uses it; ")
        assert "--page-port" in text
        assert "--no-page" in text
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", port))
            ports = ("--port", str(port), "--page-port", str(port))
            status, text = await output_of(start, "serve", "--host", "127.0.0.1", *ports)
        assert (status, text.count("\n")) == (1, 1), text
        assert text.startswith(f"error: cannot listen on UDP 127.0.0.1 port {port}")
        assert f"; and cannot serve the page on TCP 127.0.0.1 port {port}: another program uses it; " in text


async def test_ports_of_run_that_are_taken_are_named(start: Start, tmp_path: Path) -> None:
    (tmp_path / "application.py").write_text("async def app(session):\n    await session.wait_closed()\n")
    command = ("run", "application:app", "--app-dir", str(tmp_path), "--host", "127.0.0.1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        status, text = await output_of(start, *command, "--port", str(port))
        assert (status, text.count("\n")) == (1, 1), text
        assert text.startswith(f"error: cannot listen on UDP 127.0.0.1 port {port}")
        assert "another program uses it" in text
        assert "--port 0" in text
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        status, text = await output_of(start, *command, "--port", "0", "--health", f"127.0.0.1:{port}")
        assert (status, text.count("\n")) == (1, 1), text
        assert text.startswith(f"error: --health cannot listen on TCP 127.0.0.1 port {port}: ")


def test_a_port_that_takes_a_privilege_is_followed_by_one_that_does_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("wtio.workers._slots.open_slots", refuse)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main(("run", "module:app")) == Status.FAILED
    errors = capsys.readouterr().err
    assert errors.startswith("error: cannot listen on UDP ")
    assert " port 443: " in errors
    assert "choose another, such as --port 4433" in errors
    assert errors.count("\n") == 1


def test_help_of_run_says_why_its_port_is_443(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(("run", "--help"))
    assert "default: 443, that of URLs without one" in " ".join(capsys.readouterr().out.split())


async def test_a_bad_certificate_is_explained(start: Start) -> None:
    async with start("-m", "wtio", "serve", "--port", "0", "--no-page") as server:
        url = await url_of(server)
        status, text = await output_of(start, "connect", url, "--hash", "00" * 32, "--send", "a")
        assert (status, text.count("\n")) == (Status.NOT_TRUSTED, 1)
        assert "which is not among the 1 pinned" in text


async def test_a_self_signed_certificate_is_called_so_with_the_options_that_help(start: Start) -> None:
    async with start("-m", "wtio", "serve", "--port", "0", "--no-page") as server:
        url = await url_of(server)
        digest = (await server.until("SHA-256")).split()[-1]
        for command in (("connect", url, "--send", "a"), ("doctor", url)):
            status, text = await output_of(start, *command)
            assert status == Status.NOT_TRUSTED
            assert "self-signed, so no authority vouches for it" in text
            assert "add --dev" in text
            assert f"--hash {digest}" in text
            check_words(text)


async def test_dev_names_the_file_that_it_trusts_if_the_server_has_another_certificate(
    start: Start, tmp_path: Path
) -> None:
    async with start("-m", "wtio", "serve", "--port", "0", "--no-page") as server:
        url = await url_of(server)
        digest = (await server.until("SHA-256")).split()[-1]
        other = str(tmp_path / "of another user")
        for command in (("connect", url, "--send", "a"), ("bench", url), ("load", url), ("doctor", url)):
            async with start("-m", "wtio", *command, "--dev", XDG_CACHE_HOME=other) as program:
                assert await program.finish() == Status.NOT_TRUSTED
            text = " ".join(program.output.split())
            file = wtio.dev_certificate(directory=f"{other}/wtio").certfile
            assert f"read from `{file}`" in text
            assert "another user, with another HOME or XDG_CACHE_HOME" in text
            assert text.count(f"--hash {digest}") == 1
            assert "among the 2" not in text.partition("problem")[2]
            check_words(text)
        status, text = await output_of(start, "connect", url, "--hash", digest, "--send", "a")
        assert (status, text) == (0, "a\n")


async def typed(start: Start, line: str, *further: str) -> tuple[int, str]:
    """What a command that was printed does, as a shell takes it apart."""
    _, words = line.split("  ", 1)
    command, *arguments = shlex.split(words)
    if command == sys.executable:
        module, name, *arguments = arguments
        assert (module, name) == ("-m", "wtio")
    else:
        assert command == "wtio"
    return await output_of(start, *arguments, *further)


@pytest.mark.parametrize("way", ["module", "script", "found"])
async def test_serve_names_wtio_as_it_was_called_where_a_shell_would_not_find_it(tmp_path: Path, way: str) -> None:
    script = tmp_path / "play" / "wtio"
    script.parent.mkdir()
    script.write_text(f"#!{sys.executable}\nfrom wtio.cli import main\nraise SystemExit(main())\n")
    script.chmod(0o755)
    places = {"PATH": str(script.parent if way == "found" else tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = (sys.executable, "-m", "wtio") if way == "module" else ("play/wtio",)
    process = await asyncio.create_subprocess_exec(
        *(*command, "serve", "--port", "0", "--no-page"),
        cwd=tmp_path,
        env={**os.environ, **places},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        while not (line := (await process.stdout.readline()).decode()).startswith("try it"):
            assert line
    finally:
        process.terminate()
        await process.communicate()
    name = {"module": f"{sys.executable} -m wtio", "script": "play/wtio", "found": "wtio"}[way]
    assert line.split("  ", 1)[1].strip().startswith(f"{name} connect https://")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "0.0.0.0", "::1"])
async def test_serve_prints_what_to_type_in_another_terminal(start: Start, host: str, tmp_path: Path) -> None:
    if host == "::1" and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "notes").write_text("x")
    serving = ("-m", "wtio", "serve", "--host", host, "--port", "0", "--no-page", "--dir", str(tmp_path / "served"))
    async with start(*serving) as server:
        line = await server.until("try it")
        assert line.endswith(" --dev")
        assert await typed(start, line, "--send", "hello") == (0, "hello\n")
        assert await typed(start, await server.until("list files")) == (0, "1 notes\n")
        await server.until("Ctrl-C ends it")
    assert f"clients may get those in the directory `{tmp_path / 'served'}`, and add new ones\n" in server.output


async def test_serve_does_not_say_that_it_stores_files_if_it_does_not(start: Start, tmp_path: Path) -> None:
    async with start(
        *("-m", "wtio", "serve", "--port", "0", "--no-page", "--read-only", "--dir"), str(tmp_path)
    ) as server:
        await server.until("Ctrl-C ends it")
    assert f"clients may get those in the directory `{tmp_path}`, but add none (--read-only)\n" in server.output


@pytest.mark.parametrize(("days", "trust"), [(10, "--hash"), (90, "--cafile")])
async def test_what_serve_says_to_type_fits_a_certificate_that_it_is_given(
    start: Start, tmp_path: Path, days: int, trust: str
) -> None:
    now = int(time.time())
    chain, key, _ = _core.generate_certificate(["localhost"], now - 3600, now - 3600 + days * 24 * 3600)
    (tmp_path / "my certificate.pem").write_bytes(chain + key)
    serving = ("-m", "wtio", "serve", "--port", "0", "--no-page", "--certfile", str(tmp_path / "my certificate.pem"))
    async with start(*serving) as server:
        line = await server.until("try it")
        assert trust in line
        assert await typed(start, line, "--send", "hello") == (0, "hello\n")


async def test_what_serve_says_to_type_has_a_name_of_the_certificate(start: Start, tmp_path: Path) -> None:
    issued = trustme.CA().issue_cert("*.example.org", "example.org")
    issued.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    serving = ("-m", "wtio", "serve", "--port", "0", "--no-page", "--certfile", str(tmp_path / "server.pem"))
    async with start(*serving) as server:
        port = (await url_of(server)).rstrip("/").rpartition(":")[2]
        assert (await server.until("try it")).endswith(f"wtio connect https://example.org:{port}/")
        await server.until("(example.org, for which the certificate is, has to lead to this machine)")


@pytest.mark.parametrize("way", [("--list",), ("--get", "notes"), ("--put", __file__)])
async def test_files_that_are_not_there_are_said_to_be_elsewhere(start: Start, way: tuple[str, ...]) -> None:
    async with start("-m", "wtio", "serve", "--port", "0", "--no-page") as server:
        url = await url_of(server)
        for path in ("", "wrong/path?token=hunter2"):
            status, text = await output_of(start, "connect", f"{url}{path}", "--dev", *way)
            assert (status, text.count("\n")) == (Status.FAILED, 1)
            assert f"there are no files at the path /{path.partition('?')[0]}; " in text
            assert text.endswith(f" has them at /files: {url}files\n")
        status, text = await output_of(start, "connect", f"{url}files", "--dev", *way)
        assert (status, text.count("\n")) == (Status.FAILED, 1)
        assert f"there are no files at {url}files; " in text
        assert "if it was started with `wtio serve --dir`" in text


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


@pytest.mark.parametrize(("words", "loaded"), [(["cert", "--help"], ["cert"]), (["--help"], sorted(COMMANDS))])
async def test_a_command_loads_no_other_one(start: Start, words: list[str], loaded: list[str]) -> None:
    program = f"""
import sys
from wtio.cli import main
try:
    main({words!r})
except SystemExit:
    pass
print(*sorted(set({COMMANDS!r}) & {{name.removeprefix("wtio.cli.") for name in sys.modules}}))
"""
    async with start("-c", program) as running:
        assert await running.finish() == Status.OK
    assert running.output.splitlines()[-1].split() == loaded


@pytest.mark.parametrize("at", ["wtio.cli._command_line", "wtio.cli.cert", "asyncio"])
@pytest.mark.parametrize(
    "program",
    [
        "from wtio.cli import main; sys.exit(main(['cert']))",
        "import runpy; runpy.run_module('wtio', run_name='__main__')",
    ],
)
async def test_ctrl_c_while_all_is_loaded_ends_quietly(start: Start, program: str, at: str) -> None:
    pressed = f"""
import sys
class Press:
    def find_spec(self, name, *_):
        if name == {at!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Press())
"""
    async with start("-c", f"{pressed}{program}") as running:
        assert await running.finish() == Status.INTERRUPTED
    assert running.output == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("bench", "https://localhost:9/", "--secnds", "3"), "`wtio bench --help` lists"),
        (("bench", "https://localhost:9/", "--secnds", "3"), "did you mean --seconds?"),
        (("serv",), "did you mean serve?"),
        (("conect", "https://localhost:9/"), "did you mean connect?"),
        (("--verion",), "did you mean --version?"),
        (("--hepl", "serve", "--port", "0"), "did you mean --help?"),
        (("connect", "https://localhost:9/", "--devv"), "did you mean --dev?"),
        (("connect", "https://localhost:9/", "-dev"), "did you mean --dev?"),
        (("connect", "--sned", "hello"), "did you mean --send?"),
        (("connect", "https://localhost:9/", "--data-gram=x"), "did you mean --datagram?"),
        (("connect", "--devv"), "; --devv is unknown, did you mean --dev?"),
        (("serve", "--prot", "5", "--no_page"), "--prot 5 --no_page; did you mean --port?; did you mean --no-page?"),
        (("run", "--wrokers", "4", "app:app"), "did you mean --workers?"),
        (("run", "app:app", "--log-level", "wraning"), "did you mean warning?"),
        (("cert", "--only", "hx"), "did you mean hex?"),
        (("completion", "bsh"), "did you mean bash?"),
    ],
)
def test_mistyped_words_are_shown_what_there_is(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == Status.USAGE
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ("connect", "https://localhost:9/", "--xyzzy"),
        ("connect",),
        ("serve", "--port", "many"),
        ("serve", "--port", "many", "--", "--prot"),
        # An abbreviation, which is taken, with a value that is not.
        ("bench", "https://localhost:9/", "--sec", "many"),
        ("cert", "--only", "xyzzy"),
        ("xyzzy", "--prot"),
    ],
)
def test_nothing_is_guessed_from_words_that_are_like_none(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == Status.USAGE
    assert "mean" not in capsys.readouterr().err


@pytest.mark.parametrize("command", ["connect", "bench", "load"])
def test_an_unknown_host_is_one_to_spell_again(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main((command, "https://no-such-host.invalid/")) == Status.NO_CONNECTION
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith("error: `no-such-host.invalid` has no address (")
    assert "check the spelling" in errors
    assert "Errno" not in errors
