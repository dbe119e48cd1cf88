"""`wtio connect`, as a person uses it: at a prompt, in pipes, and against servers that mean no good."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

import wtio
from wtio.cli._files import Directory, serve_files
from wtio.cli._status import Status
from wtio.cli._terminal import decode, visible

from .programs import ROOT, SECONDS
from .terminals import sitting_at

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path


async def nasty(session: wtio.WebTransportSession) -> None:
    """Answers with what would take a terminal over, or does what the line says."""

    async def answer(stream: wtio.WebTransportStream) -> None:
        text = (await stream.read_all()).decode()
        if text == "nasty":
            await stream.write(data=b"\x1b]0;owned\x07\x1b[2J\r< forged\nsecond \xe2\x80\xaeline \xff", end_stream=True)
        elif text == "close":
            await session.close(9, "because\x1b[31m")
        elif text == "raise":
            await session.close(258, "internal error")
        elif text == "leave":
            await session.close(0, "restart")
        elif text == "abort":
            await session.abort()
        elif text == "mute":
            await session.wait_closed()
        elif text == "slow":
            await stream.write(data=b"begun")
            await session.wait_closed()
        else:
            await stream.write(data=text.encode(), end_stream=True)

    async def echo_one_way(incoming: wtio.WebTransportReceiveStream) -> None:
        outgoing = await session.create_unidirectional_stream()
        await outgoing.write(data=await incoming.read_all(), end_stream=True)

    await session.serve_streams(answer, unidirectional=echo_one_way, datagrams=session.send_datagram)


@asynccontextmanager
async def serving(handle: Callable[[wtio.WebTransportSession], Awaitable[None]], directory: Path) -> AsyncIterator[str]:
    """The URL of a server with the certificate that ``--dev`` trusts."""
    certificate = wtio.dev_certificate(directory=directory / "cache" / "wtio")
    async with wtio.serve(handle, "127.0.0.1", 0, tls=certificate.server_tls()) as server:
        yield f"https://127.0.0.1:{server.addresses[0][1]}/"


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    async with serving(nasty, tmp_path) as address:
        yield address


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    own = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "XDG_STATE_HOME": str(tmp_path / "state")}
    return {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | own


async def connect(environment: dict[str, str], *arguments: str, stdin: bytes = b"") -> tuple[int | None, bytes, str]:
    """Exit status, standard output and standard error, with this standard input."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "wtio", "connect", *arguments, "--dev"),
        cwd=ROOT,
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(SECONDS):
        output, errors = await process.communicate(stdin)
    return process.returncode, output, errors.decode()


async def test_at_a_prompt_lines_go_out_and_answers_stand_above_it(url: str, environment: dict[str, str]) -> None:
    async with sitting_at("-m", "wtio", "connect", url, "--dev", environment=environment) as terminal:
        await terminal.until("connected in")
        await terminal.until("> ")
        terminal.type("grüß dich\r")
        await terminal.until("< grüß dich")
        terminal.type("/uni one way\r")
        assert "< stream " in await terminal.until(": one way")
        terminal.type("/dgram tick\r")
        await terminal.until("< datagram: tick")
        terminal.type("/stats\r")
        await terminal.until("round trip")
        terminal.type("/close 7 bye\r")
        assert await terminal.finish() == 0
        assert "\nclosed with code 7: bye" in terminal.text


async def test_who_types_a_wrong_command_sees_it_and_has_not_failed(url: str, environment: dict[str, str]) -> None:
    async with sitting_at("-m", "wtio", "connect", url, "--dev", environment=environment) as terminal:
        await terminal.until("> ")
        terminal.type("/nothing\r")
        await terminal.until("there is no command `/nothing`")
        await terminal.until("> ", times=2)
        terminal.type("\x04")
        assert await terminal.finish() == 0
        assert "\nclosed\n" in terminal.text
    status, _, errors = await connect(environment, url, stdin=b"/nothing\n")
    assert status == 1, "a script has nobody who sees it"
    assert "there is no command `/nothing`" in errors


async def test_earlier_lines_come_back_also_in_the_next_session(
    url: str, environment: dict[str, str], tmp_path: Path
) -> None:
    for keys in ("remember me\r", "\x1b[A\r"):
        async with sitting_at("-m", "wtio", "connect", url, "--dev", environment=environment) as terminal:
            await terminal.until("> ")
            terminal.type(keys)
            await terminal.until("< remember me")
            terminal.type("\x04")
            assert await terminal.finish() == 0
    history = tmp_path / "state" / "wtio" / "history"
    assert history.read_text().splitlines()[-1] == "remember me"
    assert history.stat().st_mode & 0o077 == 0


async def test_tab_completes_commands(url: str, environment: dict[str, str]) -> None:
    async with sitting_at("-m", "wtio", "connect", url, "--dev", environment=environment) as terminal:
        await terminal.until("> ")
        # As fingers do: key by key, which Python's readline needs for Tab.
        terminal.type("/st")
        await terminal.until("> /st")
        terminal.type("\t")
        await terminal.until("> /stats")
        terminal.type("\r")
        await terminal.until("round trip")
        terminal.type("\x04")
        assert await terminal.finish() == 0


@pytest.mark.parametrize(("key", "status"), [("\x03", 130), ("\x04", 0)])
async def test_ctrl_c_and_ctrl_d_close_the_session(
    tmp_path: Path, environment: dict[str, str], key: str, status: int
) -> None:
    ends: asyncio.Queue[wtio.CloseInfo] = asyncio.Queue()

    async def handler(session: wtio.WebTransportSession) -> None:
        ends.put_nowait(await session.wait_closed())

    certificate = wtio.dev_certificate(directory=tmp_path / "cache" / "wtio")
    async with wtio.serve(handler, "127.0.0.1", 0, tls=certificate.server_tls()) as server:
        url = f"https://127.0.0.1:{server.addresses[0][1]}/"
        async with sitting_at("-m", "wtio", "connect", url, "--dev", environment=environment) as terminal:
            await terminal.until("> ")
            terminal.type(key)
            assert await terminal.finish() == status
            assert "Traceback" not in terminal.text
        async with asyncio.timeout(SECONDS):
            assert (await ends.get()).closed_by == "peer"


@pytest.mark.parametrize(
    ("keys", "end"), [("\x03", "> \n"), ("\x04", "> \nclosed\n"), ("half a line\x03", "> half a line\n")]
)
async def test_what_follows_the_prompt_begins_a_line_of_its_own(
    url: str, environment: dict[str, str], keys: str, end: str
) -> None:
    async with sitting_at("-m", "wtio", "connect", url, "--dev", environment=environment) as terminal:
        await terminal.until("> ")
        for key in keys[:-1]:
            terminal.type(key)
        await terminal.until(f"> {keys[:-1]}")
        terminal.type(keys[-1])
        await terminal.finish()
        await terminal.until(end)
        assert terminal.text.endswith(end)


async def test_empty_lines_are_left_out(environment: dict[str, str], tmp_path: Path) -> None:
    heard = []

    async def take(stream: wtio.WebTransportStream) -> None:
        heard.append(await stream.read_all())
        await stream.write(data=b"heard", end_stream=True)

    async def handle(session: wtio.WebTransportSession) -> None:
        await session.serve_streams(take)

    async with serving(handle, tmp_path) as url:
        async with sitting_at("-m", "wtio", "connect", url, "--dev", environment=environment) as terminal:
            await terminal.until("> ")
            terminal.type("\r\rhello\r")
            await terminal.until("< heard")
            terminal.type("\x04")
            assert await terminal.finish() == 0
        status, output, _ = await connect(environment, url, stdin=b"\n\nhello\n\r\n")
    assert (status, output, heard) == (0, b"heard\n", [b"hello", b"hello"])


async def test_commands_without_their_text_say_what_is_missing(url: str, environment: dict[str, str]) -> None:
    status, output, errors = await connect(environment, url, stdin=b"/uni\n/dgram\n/dgram \n/datagram\n")
    assert (status, output) == (Status.FAILED, b"")
    assert errors.count("error: nothing was sent: /uni needs a text; write /uni TEXT\n") == 1
    assert errors.count("error: nothing was sent: /dgram needs a text; write /dgram TEXT\n") == 3


@pytest.mark.parametrize("has_readline", [True, False])
async def test_ctrl_z_stops_and_fg_brings_the_prompt_back(
    url: str, environment: dict[str, str], tmp_path: Path, has_readline: bool
) -> None:
    path = [str(ROOT / "python"), *filter(None, [environment.get("PYTHONPATH")])]
    if not has_readline:
        (tmp_path / "without").mkdir()
        (tmp_path / "without" / "readline.py").write_text("raise ImportError")
        path.insert(0, str(tmp_path / "without"))
    variables = environment | {"PS1": "shell: ", "PYTHONPATH": os.pathsep.join(path)}
    bash = "import os; os.execvp('bash', ['bash', '--norc', '-i'])"
    async with sitting_at("-c", bash, environment=variables) as terminal:
        await terminal.until("shell: ")
        terminal.type(f"{sys.executable} -m wtio connect {url} --dev\r")
        await terminal.until("draft15> ")
        terminal.type("hel")
        await terminal.until("> hel")
        terminal.type("\x1a")
        await terminal.until("Stopped")
        terminal.type("echo again: $((40 + 2))\r")
        await terminal.until("again: 42")
        before = len(terminal.text)
        terminal.type("fg\r")
        # The terminal is the shell's own again, so what was typed is gone without readline.
        back = "> hel" if has_readline else "> "
        while back not in terminal.text[before:].partition("--dev")[2]:
            await terminal.more()
        terminal.type("lo\r" if has_readline else "hello\r")
        await terminal.until("< hello")
        terminal.type("\x04")
        await terminal.until("closed\nshell: ")
        terminal.type("exit\r")
        assert await terminal.finish() == 0
        assert "Traceback" not in terminal.text


async def test_a_server_that_closes_ends_the_prompt_with_its_code(url: str, environment: dict[str, str]) -> None:
    async with sitting_at("-m", "wtio", "connect", url, "--dev", environment=environment) as terminal:
        await terminal.until("> ")
        terminal.type("close\r")
        await terminal.until(r"the session was closed by the peer with code 9: because\x1b[31m")
        assert await terminal.finish() == 7


async def test_a_code_that_wtio_sends_by_itself_is_explained(url: str, environment: dict[str, str]) -> None:
    async with sitting_at("-m", "wtio", "connect", url, "--dev", environment=environment) as terminal:
        await terminal.until("> ")
        terminal.type("raise\r")
        await terminal.until(
            "closed by the peer with code 258 (wtio sends it when a handler or an `async with` block raises)"
        )
        assert await terminal.finish() == 7


async def test_what_a_server_sends_cannot_control_the_terminal(url: str, environment: dict[str, str]) -> None:
    async with sitting_at("-m", "wtio", "connect", url, "--dev", environment=environment) as terminal:
        await terminal.until("> ")
        terminal.type("nasty\r")
        # Each line is introduced as the server's.
        await terminal.until("< second \\u202eline \\xff")
        assert "\n< \\x1b]0;owned\\x07\\x1b[2J\\r< forged" in terminal.text
        assert "\x1b]0;" not in terminal.output
        assert "\x1b[2J" not in terminal.output


async def test_no_color_and_narrow_terminals(url: str, environment: dict[str, str]) -> None:
    for extra, has_colour in (({"NO_COLOR": "1"}, False), ({}, True)):
        async with sitting_at(
            "-m", "wtio", "connect", url, "--dev", environment=environment | extra, columns=20
        ) as terminal:
            await terminal.until("> ")
            terminal.type("hi\r")
            await terminal.until("< hi")
            assert ("\x1b[32m" in terminal.output) == has_colour
            terminal.type("\x04")
            assert await terminal.finish() == 0


async def test_a_dumb_terminal_gets_plain_lines(url: str, environment: dict[str, str]) -> None:
    async with sitting_at(
        "-m", "wtio", "connect", url, "--dev", environment=environment | {"TERM": "dumb"}
    ) as terminal:
        await terminal.until("connected in")
        terminal.type("hi\r")
        await terminal.until("< hi")
        terminal.type("\x04")
        assert await terminal.finish() == 0
        assert "\x1b" not in terminal.output


async def test_a_pipe_gets_only_what_the_server_sends(url: str, environment: dict[str, str]) -> None:
    status, output, errors = await connect(environment, url, stdin=b"one\n//two\n/dgram three\n/uni four\n")
    assert status == 0
    assert sorted(output.splitlines()) == [b"/two", b"four", b"one", b"three"]
    assert "connected in" in errors
    status, output, errors = await connect(environment, url, stdin=b"/nope\n")
    assert (status, output) == (1, b"")
    assert "there is no command `/nope`; /help" in errors
    _, _, errors = await connect(environment, url, stdin=b"/hlep\n")
    assert "there is no command `/hlep`, did you mean /help?" in errors


async def test_what_has_no_end_yet_is_shown(url: str, environment: dict[str, str]) -> None:
    async with sitting_at("-m", "wtio", "connect", url, "--dev", environment=environment) as terminal:
        await terminal.until("> ")
        terminal.type("slow\r")
        await terminal.until("< begun")
        terminal.type("\x04")
        assert await terminal.finish() in (0, 7)


async def test_json_has_an_object_per_event(url: str, environment: dict[str, str]) -> None:
    status, output, errors = await connect(environment, url, "--json", stdin=b"nasty\n/dgram tick\nclose\n")
    events = [json.loads(line) for line in output.splitlines()]
    by_name = {event["event"]: event for event in events}
    assert (status, errors) == (7, "")
    assert by_name["connected"]["draft"] == "draft15"
    assert by_name["closed"] == {"event": "closed", "closed_by": "peer", "code": 9, "reason": "because\x1b[31m"}
    assert {"base64", "stream"} < set(by_name["answer"])


async def test_lost_sessions_and_missing_answers_have_their_status(url: str, environment: dict[str, str]) -> None:
    status, _, _ = await connect(environment, url, stdin=b"abort\n")
    assert status == 6
    status, _, errors = await connect(environment, url, "--send", "mute", "--timeout", "0.5")
    assert status == 8
    assert "no answer came back within 0.5 s" in errors


@pytest.mark.parametrize("way", [(), ("--pipe",), ("--send", "leave")], ids=["lines", "pipe", "send"])
async def test_what_a_server_cuts_short_is_no_success(
    url: str, environment: dict[str, str], way: tuple[str, ...]
) -> None:
    """Also if it closes the session with code 0, as one that is restarted does."""
    status, output, errors = await connect(environment, url, *way, stdin=b"leave" if "--pipe" in way else b"leave\n")
    assert (status, output) == (7, b"")
    assert "restart" in errors


async def test_lines_without_an_answer_have_the_status_of_that(url: str, environment: dict[str, str]) -> None:
    status, output, errors = await connect(environment, url, "--timeout", "0.5", stdin=b"mute\nheard\n")
    assert (status, output) == (8, b"heard\n")
    assert "the answers to 1 lines were not whole within 0.5 s (--timeout)" in errors
    status, output, _ = await connect(environment, url, "--timeout", "0.5", "--json", stdin=b"mute\n")
    assert status == 8
    assert "error" in [json.loads(line)["event"] for line in output.splitlines()]


async def test_a_long_line_comes_back_from_a_server_that_answers_while_it_reads(
    environment: dict[str, str], tmp_path: Path
) -> None:
    async def echo(stream: wtio.WebTransportStream) -> None:
        async for data in stream:
            await stream.write(data=data)

    async def handle(session: wtio.WebTransportSession) -> None:
        await session.serve_streams(echo)

    # More than both windows and buffers hold.
    line = b"h" * 12_000_000 + b"\n"
    async with serving(handle, tmp_path) as url:
        status, output, _ = await connect(environment, url, stdin=line)
    assert status == 0
    assert output.count(b"h") == 12_000_000


@pytest.mark.parametrize("way", [(), ("--json",)], ids=["lines", "json"])
async def test_close_in_a_pipe_waits_for_answers_to_what_was_sent_before(
    environment: dict[str, str], tmp_path: Path, way: tuple[str, ...]
) -> None:
    """At a prompt it does not: whoever types has seen what there is."""
    ends: asyncio.Queue[wtio.CloseInfo] = asyncio.Queue()

    async def handle(session: wtio.WebTransportSession) -> None:
        try:
            await nasty(session)
        except wtio.SessionClosed:
            pass
        finally:
            ends.put_nowait(await session.wait_closed())

    async with serving(handle, tmp_path) as url:
        lines = b"hello\n/uni one way\n/dgram tick\n/close 7 bye\nnever\n"
        status, output, errors = await connect(environment, url, *way, stdin=lines)
        end = await ends.get()
        assert (status, end.code, end.reason) == (0, 7, "bye"), errors
        assert all(word in output for word in (b"hello", b"one way", b"tick"))
        assert b"never" not in output
        status, output, errors = await connect(environment, url, *way, "--timeout", "0.5", stdin=b"mute\n/close 9\n")
        assert (status, (await ends.get()).code) == (8, 9)
        assert "the answers to 1 lines were not whole within 0.5 s (--timeout)" in errors + output.decode()
        async with sitting_at("-m", "wtio", "connect", url, "--dev", environment=environment) as terminal:
            await terminal.until("> ")
            terminal.type("mute\r")
            await terminal.until("> ", times=2)
            terminal.type("/close 3\r")
            assert await terminal.finish() == 0
            assert "not whole" not in terminal.text
        assert (await ends.get()).code == 3


async def test_bytes_that_are_no_utf_8_go_out_as_they_came(environment: dict[str, str], tmp_path: Path) -> None:
    heard = []

    async def take(stream: wtio.WebTransportStream) -> None:
        heard.append(await stream.read_all())

    async def handle(session: wtio.WebTransportSession) -> None:
        await session.serve_streams(take)

    async with serving(handle, tmp_path) as url:
        status, _, errors = await connect(environment | {"PYTHONUTF8": "1"}, url, stdin=b"a\xff\xfe\n")
    assert (status, heard) == (0, [b"a\xff\xfe"]), errors


@pytest.mark.parametrize("words", ["<&-", "--pipe <&-", "--send hello >&-"])
async def test_closed_streams_are_empty_ones(url: str, environment: dict[str, str], words: str) -> None:
    shell = await asyncio.create_subprocess_shell(
        f"{sys.executable} -m wtio connect {url} --dev {words}",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )
    output, errors = await asyncio.wait_for(shell.communicate(), SECONDS)
    assert "Traceback" not in errors.decode()
    assert (shell.returncode, output) == (0, b"")


async def test_a_server_without_files_is_not_awaited_for_ever(environment: dict[str, str], tmp_path: Path) -> None:
    async def handle(session: wtio.WebTransportSession) -> None:
        await session.wait_closed()

    async with serving(handle, tmp_path) as url:
        for way in (("--list",), ("--get", "name")):
            status, _, errors = await connect(environment, url, *way, "--timeout", "0.5")
            assert status == 8
            assert "no answer came back within 0.5 s" in errors


async def test_pipe_copies_bytes_both_ways(url: str, environment: dict[str, str]) -> None:
    data = "\N{ESCAPE}[2J\0ü".encode() * 300_000
    assert await connect(environment, url, "--pipe", stdin=data) == (0, data, "")


async def test_head_may_take_what_it_wants(url: str, environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("a line\n" * 20_000)
    for way in ("--pipe", "--timeout=10"):
        shell = await asyncio.create_subprocess_shell(
            f"{sys.executable} -m wtio connect {url} --dev {way} < {tmp_path}/lines | head -n 1;"
            "echo ${PIPESTATUS[0]}",
            cwd=ROOT,
            env=environment,
            executable="/bin/bash",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(SECONDS):
            output, errors = await shell.communicate()
        assert output == b"a line\n141\n"
        assert b"Traceback" not in errors
        assert b"BrokenPipe" not in errors


async def test_a_transfer_shows_how_far_it_is(url: str, environment: dict[str, str], tmp_path: Path) -> None:
    with (tmp_path / "output").open("wb") as output:
        async with sitting_at(
            *("-m", "wtio", "connect", url, "--dev", "--pipe"), environment=environment, stdout=output.fileno()
        ) as terminal:
            terminal.type("typed\n\x04")
            assert await terminal.finish() == 0
            await terminal.until("sent 6 B")
    assert (tmp_path / "output").read_bytes() == b"typed\n"


@pytest.mark.parametrize("has_rich", [True, False])
async def test_files_show_how_far_they_are_with_rich_and_without(
    environment: dict[str, str], tmp_path: Path, has_rich: bool
) -> None:
    if has_rich:
        pytest.importorskip("rich")
    else:
        (tmp_path / "without").mkdir()
        (tmp_path / "without" / "rich.py").write_text("raise ImportError")
        path = [str(tmp_path / "without"), *filter(None, [environment.get("PYTHONPATH")])]
        environment = environment | {"PYTHONPATH": os.pathsep.join(path)}
    (tmp_path / "served").mkdir()
    served = Directory(tmp_path / "served", is_read_only=False, file_size=10**8, total_size=10**9)
    data = os.urandom(10**6) * 5
    (tmp_path / "data").write_bytes(data)

    async def handle(session: wtio.WebTransportSession) -> None:
        await serve_files(session, served, lambda _: None)

    async def sits(*words: str, stdout: int | None = None) -> tuple[int, str, str]:
        arguments = ("-m", "wtio", "connect", url, "--dev", *words)
        async with sitting_at(*arguments, environment=environment, stdout=stdout) as terminal:
            status = await terminal.finish()
            await terminal.until("\n")
            return status, terminal.text, terminal.output

    bar, most = "━━━" if has_rich else "[########################]", "5.0 MB of 5.0 MB"
    async with serving(handle, tmp_path) as url:
        status, text, output = await sits("--put", str(tmp_path / "data"))
        assert (status, text.splitlines()[-1]) == (0, "stored 5000000 bytes as data")
        assert all(words in text for words in ("sent", most, bar, "100%", "MB/s"))
        status, text, _ = await sits("--put", str(tmp_path / "data"))
        assert (status, text.splitlines()[-1]) == (1, "error: `data` exists")
        status, text, output = await sits("--get", "data", "--output", str(tmp_path / "copy"))
        assert status == 0
        assert all(words in text for words in ("received", most, bar, "100%", "MB/s"))
        with (tmp_path / "printed").open("wb") as printed:
            status, text, _ = await sits("--get", "data", stdout=printed.fileno())
        assert (status, most in text) == (0, True)
        # On the terminal itself are the bytes and nothing else.
        (tmp_path / "served" / "words").write_text("only words\n")
        assert (await sits("--get", "words"))[1] == "only words\n"
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "printed").read_bytes() == data
    assert (served.path / "data").read_bytes() == data
    assert output.count("\x1b[?25l") == output.count("\x1b[?25h"), "the cursor comes back"


def test_text_is_made_visible() -> None:
    assert visible("a\tb\nc\x1b\x9b\u2028") == r"a\tb\nc\x1b\x9b\u2028"
    assert visible("a\tb\nc\r", lines=True) == "a\tb\nc\\r"
    assert decode("grüß 👩‍🚀".encode() + b"\xff") == "grüß 👩‍🚀\\xff"
