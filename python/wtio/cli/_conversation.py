"""A conversation with a server: what is typed goes out, what arrives is shown, until either side ends it."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
from typing import TYPE_CHECKING, Any, Final

from wtio.cli._figures import amount, milliseconds
from wtio.cli._standard import Lines, has_prompt
from wtio.cli._status import Status, status_of_end
from wtio.errors import DatagramTooLargeError, SessionClosed, StreamError, WebTransportError
from wtio.protocol.codes import describe_application

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from wtio.cli._screen import Screen
    from wtio.session import WebTransportSession
    from wtio.stream import WebTransportReceiveStream, WebTransportStream

__all__ = ["COMMANDS", "Conversation"]

COMMANDS: Final = {
    "/uni": "TEXT: send it on a unidirectional stream",
    "/dgram": "TEXT: send it as a datagram",
    "/stats": "show figures of the connection",
    "/close": "[CODE [REASON]]: close the session, by default with code 0",
    "/help": "show this",
    "//": "TEXT: send a line that begins with a slash",
}
_OTHER_NAMES: Final = {"/datagram": "/dgram", "/quit": "/close", "/exit": "/close", "/stat": "/stats"}
# Seconds after which a line that has not ended is shown all the same, and bytes after which it is.
_QUIET: Final = 0.3
_LONGEST: Final = 64 * 1024
# Seconds to wait for answers to datagrams and one-way streams, of which nobody knows whether there will be any.
_LINGER: Final = 0.5
# Most lines whose answers are awaited at once, and most streams of the server that are shown at once.
_AT_ONCE: Final = 64
_CODES: Final = 2**32


class Conversation:
    """One session, with somebody or something that gives lines."""

    def __init__(self, session: WebTransportSession, screen: Screen, patience: float) -> None:
        # With whom, where it is shown, and how many seconds to wait for answers after the end of input.
        self._session = session
        self._screen = screen
        self._patience = patience
        # Tasks that send a line and show its answer, and those that show what the server opened. Of either there are
        # ``_AT_ONCE`` at most; further lines and streams wait.
        self._asked: set[asyncio.Task[None]] = set()
        self._shown: set[asyncio.Task[None]] = set()
        # Tasks that may fail only because standard output is gone; the first failure ends the conversation.
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Whether every line could be sent, whether each was answered to its end, and whether something was sent that
        # may or may not be answered.
        self._all_sent = True
        self._all_answered = True
        self._may_be_answered = False
        # Code and reason of ``/close``.
        self._last_words = (0, "")

    async def run(self) -> Status:
        """Talk until the input or the session ends."""
        prompt = "> " if has_prompt() and not self._screen.as_json else None
        lines = Lines(prompt, list(COMMANDS))
        session = self._session
        listeners = [
            asyncio.create_task(self._watch(listener))
            for listener in (self._show_datagrams(), self._show_streams(), self._show_calls())
        ]
        ended = asyncio.create_task(session.wait_closed())
        with lines.editing():
            try:
                await self._read_lines(lines, ended, has_prompt=prompt is not None)
            finally:
                tasks = (*listeners, *self._asked, *self._shown, ended)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                # Nobody else asks for it if it came last.
                if self._failure.done():
                    self._failure.exception()
                await session.close()
        self._screen.prompt_ends()
        info = await session.wait_closed()
        facts = {"closed_by": info.closed_by, "code": info.code, "reason": info.reason}
        words = f" with code {describe_application(info.code)}" if info.code is not None else ""
        reason = f": {info.reason}" if info.reason else ""
        if info.closed_by == "local":
            self._screen.happened("closed", f"closed{words if info.code or reason else ''}{reason}", **facts)
            # Who types sees what was wrong, and what was not answered.
            if prompt is not None:
                return Status.OK
            if not self._all_sent:
                return Status.FAILED
            return Status.OK if self._all_answered else Status.NO_ANSWER
        self._screen.happened("closed", f"the session was closed by the {info.closed_by}{words}{reason}", **facts)
        is_whole = prompt is not None or (self._all_sent and self._all_answered)
        return status_of_end(info.code, is_whole=is_whole)

    async def _read_lines(self, lines: Lines, ended: asyncio.Task[object], *, has_prompt: bool) -> None:
        while True:
            # Somebody who types must still be able to close.
            if not has_prompt:
                await _room_in(self._asked)
            line = asyncio.ensure_future(lines.next())
            await asyncio.wait((line, ended, self._failure), return_when=asyncio.FIRST_COMPLETED)
            if self._failure.done():
                line.cancel()
                self._failure.result()
            if ended.done():
                self._all_sent &= not line.done() or line.result() is None
                line.cancel()
                if self._asked:
                    # They end now, some perhaps with an answer that had arrived.
                    await asyncio.wait(self._asked, timeout=self._patience)
                return
            text = line.result()
            if text is None:
                await self._wait_for_answers(ended, has_prompt=has_prompt)
                return
            if text and not self._say(text):
                if not has_prompt:
                    # Whoever types sees what has come; a script wants what it has asked for.
                    await self._wait_for_answers(ended, has_prompt=False)
                with contextlib.suppress(SessionClosed):
                    await self._session.close(*self._last_words)
                return

    async def _wait_for_answers(self, ended: asyncio.Task[object], *, has_prompt: bool) -> None:
        """Nothing more is sent; answers to what was sent may still arrive, within ``--timeout`` and ``_LINGER``."""
        if self._asked:
            _, late = await asyncio.wait(self._asked, timeout=self._patience)
            if late and not has_prompt:
                self._all_answered = False
                self._screen.failed(
                    f"the answers to {len(late)} lines were not whole within {self._patience:g} s (--timeout)"
                )
        if self._may_be_answered and not has_prompt:
            await asyncio.wait((ended, self._failure), timeout=_LINGER, return_when=asyncio.FIRST_COMPLETED)

    def _say(self, text: str) -> bool:
        """Send a line or obey it; whether to go on."""
        if not text.startswith("/"):
            self._ask(self._ask_on_stream(text))
            return True
        if text.startswith("//"):
            self._ask(self._ask_on_stream(text[1:]))
            return True
        word, _, rest = text.partition(" ")
        match _OTHER_NAMES.get(word, word):
            case ("/uni" | "/dgram") as name if not rest.strip():
                self._fail(f"nothing was sent: {name} needs a text; write {name} TEXT")
            case "/uni":
                self._ask(self._send_one_way(rest))
            case "/dgram":
                self._send_datagram(rest)
            case "/stats":
                self._show_stats()
            case "/help":
                self._screen.happened("help", "\n".join(f"{name:<7} {words}" for name, words in COMMANDS.items()))
            case "/close":
                return not self._may_close(rest)
            case _:
                near = difflib.get_close_matches(word, COMMANDS, 1)
                hint = f", did you mean {near[0]}?" if near else ";"
                self._fail(
                    f"there is no command `{word}`{hint} /help shows them, // sends a line that begins with a slash"
                )
        return True

    # -- sending

    def _ask(self, question: Coroutine[Any, Any, None]) -> None:
        if len(self._asked) >= _AT_ONCE:
            question.close()
            self._fail(f"not sent: {_AT_ONCE} lines have no answer yet")
            return
        _keep(asyncio.create_task(self._watch(question, is_question=True)), self._asked)

    async def _watch(self, part: Coroutine[Any, Any, None], *, is_question: bool = False) -> None:
        """Run a part; what a user can understand is shown, the end of the session is shown elsewhere."""
        try:
            await part
        except SessionClosed:
            if is_question:
                self._all_answered = False
        except WebTransportError as error:
            self._fail(str(error))
        except OSError as error:
            if not self._failure.done():
                self._failure.set_exception(error)

    def _fail(self, text: str) -> None:
        self._all_sent = False
        self._screen.failed(text)

    async def _ask_on_stream(self, text: str) -> None:
        async with await self._session.create_bidirectional_stream() as stream:
            # At the same time: a server that answers while it reads stops reading when nobody takes its answer.
            sending = asyncio.create_task(stream.write(data=_encoded(text), end_stream=True))
            try:
                await self._show(stream, "answer")
                await sending
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)

    async def _send_one_way(self, text: str) -> None:
        self._may_be_answered = True
        stream = await self._session.create_unidirectional_stream()
        await stream.write(data=_encoded(text), end_stream=True)

    def _send_datagram(self, text: str) -> None:
        self._may_be_answered = True
        try:
            self._session.send_datagram(_encoded(text))
        except DatagramTooLargeError as error:
            self._fail(str(error))

    def _may_close(self, rest: str) -> bool:
        """Note the code and the reason with which to close; whether they can be sent."""
        code, _, reason = rest.strip().partition(" ")
        if code and not (code.isascii() and code.isdigit() and int(code) < _CODES):
            self._fail(f"the code is `{code}`; write /close CODE REASON with a code from 0 to {_CODES - 1}")
            return False
        self._last_words = (int(code or 0), reason)
        return True

    # -- showing

    async def _show_datagrams(self) -> None:
        async for data in self._session.incoming_datagrams():
            self._screen.received("datagram", data)

    async def _show_streams(self) -> None:
        async for stream in self._session.incoming_unidirectional_streams():
            await _room_in(self._shown)
            _keep(asyncio.create_task(self._watch(self._show(stream, "stream"))), self._shown)

    async def _show_calls(self) -> None:
        async for stream in self._session.incoming_bidirectional_streams():
            await _room_in(self._shown)
            _keep(asyncio.create_task(self._watch(self._show_call(stream))), self._shown)

    async def _show_call(self, stream: WebTransportStream) -> None:
        async with stream:
            await self._show(stream, "stream")

    async def _show(self, stream: WebTransportReceiveStream, kind: str) -> None:
        """Show a stream line by line; what has no end yet is shown when nothing follows for a moment."""
        pending = bytearray()

        def show(size: int) -> None:
            if size:
                self._screen.received(kind, bytes(pending[:size]).removesuffix(b"\n"), stream.stream_id)
                del pending[:size]

        try:
            while True:
                try:
                    async with asyncio.timeout(_QUIET if pending else None):
                        chunk = await stream.read()
                except TimeoutError:
                    show(len(pending))
                    continue
                if not chunk:
                    break
                pending += chunk
                show(len(pending) if len(pending) > _LONGEST else pending.rfind(b"\n") + 1)
        except StreamError as error:
            self._fail(str(error))
        show(len(pending))

    def _show_stats(self) -> None:
        stats = self._session.stats()
        self._screen.happened(
            "stats",
            f"round trip {milliseconds(stats.rtt)} (least {milliseconds(stats.min_rtt)}), "
            f"packets up to {stats.mtu} bytes, {amount(stats.congestion_window)} may be in flight\n"
            f"sent {amount(stats.bytes_sent)} in {stats.packets_sent} packets, {stats.packets_lost} lost; "
            f"received {amount(stats.bytes_received)} in {stats.packets_received}\n"
            f"datagrams: {stats.datagrams_sent} sent, {stats.datagrams_received} received, "
            f"up to {self._session.max_datagram_size} bytes; "
            f"streams: {amount(stats.stream_bytes_sent)} sent, {amount(stats.stream_bytes_received)} received",
            rtt=stats.rtt,
            min_rtt=stats.min_rtt,
            mtu=stats.mtu,
            congestion_window=stats.congestion_window,
            bytes_sent=stats.bytes_sent,
            bytes_received=stats.bytes_received,
            packets_sent=stats.packets_sent,
            packets_received=stats.packets_received,
            packets_lost=stats.packets_lost,
            datagrams_sent=stats.datagrams_sent,
            datagrams_received=stats.datagrams_received,
            stream_bytes_sent=stats.stream_bytes_sent,
            stream_bytes_received=stats.stream_bytes_received,
        )


def _encoded(text: str) -> bytes:
    """The bytes that somebody typed or a program wrote, also if they are no UTF-8."""
    return text.encode(errors="surrogateescape")


def _keep(task: asyncio.Task[None], tasks: set[asyncio.Task[None]]) -> None:
    tasks.add(task)
    task.add_done_callback(tasks.discard)


async def _room_in(tasks: set[asyncio.Task[None]]) -> None:
    """Wait until another task may begin."""
    while len(tasks) >= _AT_ONCE:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
