"""`wtio serve --dir`: files over streams, and what must not happen with them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from typing import TYPE_CHECKING

import pytest

import wtio
from wtio.cli import _files, main
from wtio.cli._files import LINE, Directory, serve_files
from wtio.cli._status import Status

from .programs import url_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from .programs import Start


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    (tmp_path / "served" / "below").mkdir(parents=True)
    (tmp_path / "served" / "notes").write_bytes(b"some notes\n")
    (tmp_path / "served" / "below" / "deep").write_bytes(b"deep")
    (tmp_path / "secret").write_bytes(b"hunter2")
    (tmp_path / "served" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "served" / "way out").symlink_to(tmp_path, target_is_directory=True)
    os.mkfifo(tmp_path / "served" / "pipe")
    return Directory(tmp_path / "served", is_read_only=False, file_size=1000, total_size=1500)


@pytest.fixture
async def session(directory: Directory, tmp_path: Path) -> AsyncIterator[wtio.WebTransportSession]:
    async def handler(session: wtio.WebTransportSession) -> None:
        await serve_files(session, directory, lambda _: None)

    certificate = wtio.dev_certificate(directory=tmp_path / "certificates")
    async with wtio.serve(handler, "127.0.0.1", 0, tls=certificate.server_tls()) as server:
        url = f"https://127.0.0.1:{server.addresses[0][1]}/"
        async with wtio.connect(url, tls=certificate.client_tls()) as session:
            yield session


async def ask(session: wtio.WebTransportSession, request: bytes) -> bytes:
    stream = await session.create_bidirectional_stream()
    # The server may answer before it has everything, and stop the rest.
    with contextlib.suppress(wtio.StreamStoppedError):
        await stream.write(data=request, end_stream=True)
    async with asyncio.timeout(30):
        return await stream.read_all()


def names(directory: Directory) -> set[str]:
    return {entry.name for entry in os.scandir(directory.path)}


async def test_files_are_listed_sent_and_received(session: wtio.WebTransportSession, directory: Directory) -> None:
    assert await ask(session, b"LIST\n") == b"OK 2\n4 below/deep\n11 notes\n"
    assert await ask(session, b"GET notes\n") == b"OK 11\nsome notes\n"
    assert await ask(session, b"GET below/deep\n") == b"OK 4\ndeep"
    assert await ask(session, "PUT 4 below/grüße\nabcd".encode()) == b"OK 4\n"
    assert (directory.path / "below" / "grüße").read_bytes() == b"abcd"
    assert await ask(session, b"PUT 0 empty\n") == b"OK 0\n"
    assert (directory.path / "empty").read_bytes() == b""


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "below/../../secret",
        "/etc/passwd",
        "link",
        "way out/secret",
        "pipe",
        "below",
        "below/",
        "notes/",
        ".hidden",
        ".ssh/authorized_keys",
        "below/.bashrc",
        "esc\x1b[2Jape",
        "a\tb",
        "right\u202eleft",
        "x" * 300,
        "/".join(["d"] * 40),
        "",
        ".",
        "..",
        "a\0b",
    ],
)
async def test_no_name_leaves_the_directory(
    session: wtio.WebTransportSession, directory: Directory, name: str, tmp_path: Path
) -> None:
    before = names(directory)
    assert (await ask(session, f"GET {name}\n".encode())).startswith(b"ERROR ")
    assert (await ask(session, f"PUT 1 {name}\nx".encode())).startswith(b"ERROR ")
    assert names(directory) == before
    assert (tmp_path / "secret").read_bytes() == b"hunter2"


async def test_a_file_has_its_name_only_when_it_is_complete(
    session: wtio.WebTransportSession, directory: Directory
) -> None:
    before = names(directory)
    stream = await session.create_bidirectional_stream()
    await stream.write(data=b"PUT 10 new\nhalf")
    while names(directory) == before:  # noqa: ASYNC110 - nobody tells when a file is there
        await asyncio.sleep(0.01)
    (unfinished,) = names(directory) - before
    assert "new" not in unfinished
    assert (await ask(session, f"GET {unfinished}\n".encode())).startswith(b"ERROR ")
    assert b"notes" in (listed := await ask(session, b"LIST\n"))
    assert unfinished.encode() not in listed
    await stream.write(data=b"", end_stream=True)
    assert await stream.read_all() == b"ERROR 4 bytes arrived of 10\n"
    stream = await session.create_bidirectional_stream()
    await stream.write(data=b"PUT 10 new\nhalf")
    await stream.reset(error_code=1)
    await session.close()
    while names(directory) != before:  # noqa: ASYNC110 - nobody tells when a file is gone
        await asyncio.sleep(0.01)
    assert directory.received == 0


async def test_nothing_is_replaced(session: wtio.WebTransportSession, directory: Directory) -> None:
    assert await ask(session, b"PUT 1 notes\nx") == b"ERROR `notes` exists\n"
    assert await ask(session, b"PUT 1 link\nx") == b"ERROR `link` exists\n"
    # Two at once: one of them comes too late.
    answers = await asyncio.gather(*(ask(session, b"PUT 1 new\n" + which) for which in (b"x", b"y")))
    assert sorted(answers) == [b"ERROR `new` exists\n", b"OK 1\n"]
    assert (directory.path / "notes").read_bytes() == b"some notes\n"


async def test_sizes_are_bounded(session: wtio.WebTransportSession, directory: Directory) -> None:
    assert await ask(session, b"PUT 1001 big\n") == b"ERROR the file has 1001 bytes; 1000 are allowed\n"
    assert (await ask(session, b"PUT 2 more\nabc")).startswith(b"ERROR more than the 2 bytes")
    assert await ask(session, b"PUT 1000 first\n" + bytes(1000)) == b"OK 1000\n"
    assert await ask(session, b"PUT 600 second\n" + bytes(600)) == (
        b"ERROR 500 bytes are left for files; this one has 600\n"
    )
    directory.is_read_only = True
    assert await ask(session, b"PUT 1 third\nx") == b"ERROR nothing is received here, only served\n"
    assert not {"big", "more", "second", "third"} & names(directory)


NO_REQUESTS = (
    b"",
    b"\n",
    b"GET",
    b"GET \n",
    b"PUT x y\n",
    b"PUT -1 y\n",
    b"DELETE notes\n",
    b"\xff\n",
    bytes(2 * LINE),
)


@pytest.mark.parametrize("request_", NO_REQUESTS)
async def test_what_is_no_request_gets_an_error(session: wtio.WebTransportSession, request_: bytes) -> None:
    assert (await ask(session, request_)).startswith(b"ERROR ")
    assert await ask(session, b"GET notes\n") == b"OK 11\nsome notes\n"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("link", "`link` is a symbolic link or leads through one; links are not followed"),
        ("way out/secret", "`way out/secret` is a symbolic link or leads through one; links are not followed"),
        ("nobody", "there is no `nobody` here"),
        ("nowhere/deep", "there is no `nowhere/deep` here"),
        ("notes/deep", "there is no `notes/deep` here"),
        ("below", "`below` is a directory"),
        ("pipe", "`pipe` is no regular file"),
        (".hidden", "`.hidden` is hidden (a name begins with a dot); hidden files are neither sent nor received"),
        ("../secret", "`../secret` is no name of a file here"),
        ("x" * 300, f"`{'x' * 300}` cannot be opened: the name is too long"),
    ],
)
async def test_refusals_are_sentences(session: wtio.WebTransportSession, name: str, words: str) -> None:
    assert await ask(session, f"GET {name}\n".encode()) == f"ERROR {words}\n".encode()


async def test_what_is_hidden_or_has_control_characters_is_not_listed(
    session: wtio.WebTransportSession, directory: Directory
) -> None:
    for name in (".hidden", "esc\x1b[2Jape", "line\nend", os.fsdecode(b"\xff")):
        (directory.path / name).write_bytes(b"x")
    for name in (".git", "below/.svn", "con\x07trol"):
        (directory.path / name).mkdir()
        (directory.path / name / "inside").write_bytes(b"x")
    assert await ask(session, b"LIST\n") == b"OK 2\n4 below/deep\n11 notes\n"


async def test_a_list_is_bounded_and_says_so(
    session: wtio.WebTransportSession, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    deepest = "/".join(["d"] * (_files._DEEPEST - 1))
    (directory.path / deepest / "d").mkdir(parents=True)
    (directory.path / deepest / "reached").write_bytes(b"")
    (directory.path / deepest / "d" / "too deep").write_bytes(b"")
    answer = (await ask(session, b"LIST\n")).splitlines()
    assert f"0 {deepest}/reached".encode() in answer
    assert not any(b"too deep" in line for line in answer)
    assert await ask(session, f"GET {deepest}/reached\n".encode()) == b"OK 0\n"
    monkeypatch.setattr(_files, "_MOST_LISTED", 1)
    answer = (await ask(session, b"LIST\n")).splitlines()
    assert (answer[0], answer[-1], len(answer)) == (b"OK 1", b"and more", 3)


async def test_a_disk_that_takes_only_a_part_loses_nothing(
    session: wtio.WebTransportSession, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, bytes(data)[: max(1, len(data) // 2)]))
    assert await ask(session, b"PUT 1000 whole\n" + bytes(range(250)) * 4) == b"OK 1000\n"
    assert (directory.path / "whole").read_bytes() == bytes(range(250)) * 4

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    assert await ask(session, b"PUT 1 more\nx") == b"ERROR the server cannot do that: the disk is full\n"
    assert "more" not in names(directory)


URL = "https://localhost:9/files"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("--put", "/dev/zero"),
            "error: --put: `/dev/zero` is no regular file, so nobody knows its size; give one, or",
        ),
        (("--put", "below"), "error: --put: `below` is a directory; one file is sent at a time"),
        (("--put", "pipe"), "error: --put: `pipe` is no regular file"),
        (("--put", "nobody"), "error: nobody: there is no such file or directory"),
        (("--put", "esc\x1b[2Jape"), r"error: --put: `esc\x1b[2Jape` has control characters"),
        (("--put", os.fsdecode(b"\xff")), r"error: --put: `\udcff` has control characters or bytes that are no UTF-8"),
        (("--get", "line\nend"), r"error: --get: `line\nend` has control characters"),
        (("--get", "x" * LINE), "error: --get: the name has 4096 bytes; 4064 are allowed"),
        (
            ("--get", "x", "--output", "notes"),
            "error: --output: `notes` exists; give another name, nothing is replaced",
        ),
        (("--get", "x", "--output", "link"), "error: --output: `link` exists; give another name, nothing is replaced"),
        (("--get", "x", "--output", "no/x"), "error: --output: there is no directory `no`"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_sent(
    directory: Directory,
    arguments: tuple[str, ...],
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(directory.path)
    for name in ("esc\x1b[2Jape", os.fsdecode(b"\xff")):
        (directory.path / name).write_bytes(b"x")
    assert main(("connect", URL, *arguments)) == Status.USAGE
    assert capsys.readouterr().err.startswith(words)


async def test_the_command_line_lists_puts_and_gets(start: Start, directory: Directory, tmp_path: Path) -> None:
    (tmp_path / "report.txt").write_text("a report")

    async def connect(*arguments: str | Path) -> tuple[int, str]:
        async with start("-m", "wtio", "connect", url, "--dev", *arguments) as program:
            return await program.finish(), program.output

    async with start("-m", "wtio", "serve", "--port", "0", "--no-page", "--dir", directory.path) as server:
        url = f"{await url_of(server)}files"
        assert await connect("--list") == (0, "4 below/deep\n11 notes\n")
        assert await connect("--put", tmp_path / "report.txt") == (0, "stored 8 bytes as report.txt\n")
        assert await connect("--get", "report.txt") == (0, "a report")
        assert await connect("--get", "notes", "--output", tmp_path / "copy") == (0, "")
        assert (tmp_path / "copy").read_text() == "some notes\n"
        status, text = await connect("--get", "../secret")
        assert (status, text) == (Status.FAILED, "error: `../secret` is no name of a file here\n")
        await server.until("received report.txt, 8 bytes")


async def test_a_server_for_all_addresses_says_what_another_machine_needs(start: Start) -> None:
    async with start("-m", "wtio", "serve", "--host", "0.0.0.0", "--port", "0", "--no-page") as server:
        await server.until("Ctrl-C ends it")
        lines = server.output.splitlines()
        if "from another machine:" not in lines:
            pytest.skip("this machine has no address but its own")
        _, *words = lines[lines.index("from another machine:") + 1].split()
        assert not words[1].startswith("https://127.")
        async with start("-m", "wtio", *words, "--send", "from elsewhere") as client:
            assert await client.finish() == 0
        assert client.output == "from elsewhere\n"
