"""What an application may send, and when: one set of rules for the server and for ``wtio.asgi.check``.

Each kind of scope has a class, which is told of every message and raises ``SpecificationError`` for one that is wrong.
Of ``thorough`` rules a server has no use, such as those about unknown keys; ``check`` has.

Source: the ASGI specification 3.0 with its pages on HTTP and lifespan; docs/asgi-webtransport.md.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from wtio._buffer import Buffer
from wtio.protocol.codes import MAX_APPLICATION_CODE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from wtio.asgi._types import Message

__all__ = ["HttpRules", "LifespanRules", "Rules", "SessionRules", "SpecificationError", "header_lines"]


class SpecificationError(RuntimeError):
    """An ASGI application broke a rule of the specification. The message says which one."""


# -- values


def _text(value: object) -> str | None:
    return None if isinstance(value, str) else "str"


def _text_or_none(value: object) -> str | None:
    return None if value is None or isinstance(value, str) else "str or None"


def _flag(value: object) -> str | None:
    return None if isinstance(value, bool) else "bool"


def _data(value: object) -> str | None:
    return None if isinstance(value, Buffer) and not isinstance(value, str) else "bytes"


def _name(value: object) -> str | None:
    return None if isinstance(value, (int, str)) and not isinstance(value, bool) else "int or str"


def _code(value: object) -> str | None:
    is_code = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_APPLICATION_CODE
    return None if is_code else f"an int from 0 to {MAX_APPLICATION_CODE}"


def _size(value: object) -> str | None:
    return None if isinstance(value, int) and not isinstance(value, bool) and value > 0 else "an int above 0"


def _status(least: int) -> Callable[[object], str | None]:
    def check(value: object) -> str | None:
        is_status = isinstance(value, int) and not isinstance(value, bool) and least <= value <= 599
        return None if is_status else f"an int from {least} to 599"

    return check


def _headers(value: object) -> str | None:
    try:
        header_lines(value)
    except (TypeError, ValueError) as error:
        return f"an iterable of pairs of bytes: {error}"
    return None


def header_lines(value: Any) -> list[tuple[str, str]]:
    """Turn the headers of a message into pairs of str.

    Raises:
        TypeError: They are something else.
        ValueError: A name is a pseudo-header.
    """
    lines = []
    for pair in value:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(f"one is of type {type(pair).__name__}")
        name, line = pair
        if not isinstance(name, (bytes, bytearray)) or not isinstance(line, (bytes, bytearray)):
            raise TypeError(f"one is of ({type(name).__name__}, {type(line).__name__})")
        if name.startswith(b":"):
            raise ValueError("one is a pseudo-header")
        lines.append((name.decode("latin-1"), line.decode("latin-1")))
    return lines


class _Key(NamedTuple):
    """A key of a message."""

    check: Callable[[object], str | None]
    """Says what the value should be; None if it is."""
    is_required: bool = False


_Keys = dict[str, _Key]


class Rules:
    """What all kinds of scope have in common."""

    __slots__ = ("_is_thorough",)

    # By type, the messages that an application may send.
    sent: ClassVar[Mapping[str, _Keys]]

    def __init__(self, *, thorough: bool) -> None:
        # Whether rules that no server needs are held as well.
        self._is_thorough = thorough

    def check_form(self, message: Any) -> str:
        """Check everything about a message that does not depend on others, and return its type."""
        kind = message.get("type") if hasattr(message, "get") else None
        if not isinstance(kind, str):
            raise SpecificationError(f"a message is a dict with a `type`, not {type(message).__name__}")
        keys = self.sent.get(kind)
        if keys is None:
            raise SpecificationError(f"`{kind}` is no message that may be sent here; there are {', '.join(self.sent)}")
        for name, key in keys.items():
            if name in message:
                if (expected := key.check(message[name])) is not None:
                    given = type(message[name]).__name__
                    raise SpecificationError(f"`{name}` of `{kind}` must be {expected}; it is of type {given}")
            elif key.is_required:
                raise SpecificationError(f"`{kind}` needs `{name}`")
        if self._is_thorough:
            for name in message:
                if name != "type" and name not in keys:
                    known = ", ".join(keys) or "none"
                    raise SpecificationError(f"`{kind}` has no key `{name}`; there are: {known}")
            for name, _ in message.get("headers", ()):
                if bytes(name) != bytes(name).lower():
                    raise SpecificationError(f"the names of headers of `{kind}` must be in lower case")
        return kind

    def check_sent(self, message: Message) -> str:
        """Check a message that the application sends, and return its type."""
        return self.check_form(message)

    def note_received(self, message: Message) -> None:
        """Note a message that the application is given."""

    def check_return(self) -> None:
        """The application has returned."""


# -- lifespan


class LifespanRules(Rules):
    """Startup, then shutdown, each answered once."""

    __slots__ = ("_answered", "_asked")

    sent: ClassVar[Mapping[str, _Keys]] = {
        f"lifespan.{what}.{how}": ({"message": _Key(_text)} if how == "failed" else {})
        for what in ("startup", "shutdown")
        for how in ("complete", "failed")
    }

    def __init__(self, *, thorough: bool = False) -> None:
        super().__init__(thorough=thorough)
        # What the application was asked, and has answered: ``startup``, ``shutdown``.
        self._asked: list[str] = []
        self._answered: list[str] = []

    def check_sent(self, message: Message) -> str:
        """Check a message that the application sends, and return its type."""
        kind = self.check_form(message)
        what = kind.split(".")[1]
        if what not in self._asked:
            raise SpecificationError(f"`{kind}` was sent before `lifespan.{what}` was received")
        if what in self._answered:
            raise SpecificationError(f"`lifespan.{what}` was answered before")
        self._answered.append(what)
        return kind

    def note_received(self, message: Message) -> None:
        """Note a message that the application is given."""
        self._asked.append(message["type"].split(".")[1])

    def check_return(self) -> None:
        """The application has returned."""
        for what in self._asked:
            if what not in self._answered:
                raise SpecificationError(f"the application returned without an answer to `lifespan.{what}`")


# -- http


class HttpRules(Rules):
    """A start, then a body in one or more messages."""

    __slots__ = ("_has_content", "_left", "has_started", "is_complete", "is_gone")

    sent: ClassVar[Mapping[str, _Keys]] = {
        "http.response.start": {"status": _Key(_status(200), True), "headers": _Key(_headers)},
        "http.response.body": {"body": _Key(_data), "more_body": _Key(_flag)},
    }
    # Extensions of ASGI, and keys of them, which are as good as unknown: wtio offers none.

    def __init__(self, method: str = "GET", *, thorough: bool = False) -> None:
        super().__init__(thorough=thorough)
        self.has_started = False
        self.is_complete = False
        # Whether the application was told that the client is gone.
        self.is_gone = False
        # Whether the answer has content at all, and how many bytes are still due; None if the headers do not say.
        self._has_content = method != "HEAD"
        self._left: int | None = None

    def check_sent(self, message: Message) -> str:
        """Check a message that the application sends, and return its type."""
        kind = self.check_form(message)
        if self.is_complete:
            raise SpecificationError(f"`{kind}` was sent after the response was complete")
        if kind == "http.response.start":
            if self.has_started:
                raise SpecificationError("`http.response.start` was sent twice")
            self._begin(message)
            self.has_started = True
        elif not self.has_started:
            raise SpecificationError("`http.response.body` was sent before `http.response.start`")
        else:
            self._count(message)
            self.is_complete = not message.get("more_body", False)
        return kind

    def _begin(self, message: Message) -> None:
        self._has_content = self._has_content and message["status"] not in (204, 205, 304)
        lengths = [line for name, line in message.get("headers", ()) if bytes(name).lower() == b"content-length"]
        if lengths:
            if not re.fullmatch(rb"[0-9]{1,18}", bytes(lengths[0])) or len(set(map(bytes, lengths))) > 1:
                raise SpecificationError("content-length must be one number")
            self._left = int(lengths[0])

    def _count(self, message: Message) -> None:
        if not self._is_thorough or not self._has_content or self._left is None:
            return
        self._left -= memoryview(message.get("body", b"")).nbytes
        if self._left < 0:
            raise SpecificationError("the body is longer than its content-length")
        if self._left and not message.get("more_body", False):
            raise SpecificationError(f"the body is {self._left} bytes shorter than its content-length")

    def note_received(self, message: Message) -> None:
        """Note a message that the application is given."""
        self.is_gone = self.is_gone or message["type"] == "http.disconnect"

    def check_return(self) -> None:
        """The application has returned."""
        if self.is_gone:
            return
        if not self.has_started:
            raise SpecificationError("the application returned without starting a response")
        if not self.is_complete:
            raise SpecificationError("the application returned without completing its response")


# -- webtransport

_OPEN: Final = "open"
# This side was ended by the application, or read to its end.
_OVER: Final = "over"
# The client has stopped it; the application may not know yet.
_STOPPED: Final = "stopped"
_STREAM: Final = {"stream": _Key(_name, True)}
# How many streams are remembered that the client has stopped, for messages that cross it.
_MOST_LATE: Final = 256
_LONGEST_REASON: Final = 1024


class _Halves:
    """What an application may still do with one stream."""

    __slots__ = ("is_reading", "receiving", "sending")

    def __init__(self, receiving: str, sending: str) -> None:
        self.receiving = receiving
        self.sending = sending
        # Whether a read is not answered yet.
        self.is_reading = False


class SessionRules(Rules):
    """A session: an answer, then streams and datagrams, until it is closed."""

    __slots__ = ("_forget", "_late", "_streams", "_subprotocols", "answer", "is_gone")

    sent: ClassVar[Mapping[str, _Keys]] = {
        "webtransport.accept": {"subprotocol": _Key(_text_or_none), "headers": _Key(_headers)},
        "webtransport.reject": {"status": _Key(_status(300)), "headers": _Key(_headers), "body": _Key(_data)},
        "webtransport.stream.open": {"stream": _Key(_text, True), "bidirectional": _Key(_flag)},
        "webtransport.stream.read": {**_STREAM, "max_bytes": _Key(_size)},
        "webtransport.stream.send": {**_STREAM, "data": _Key(_data), "end": _Key(_flag)},
        "webtransport.stream.reset": {**_STREAM, "code": _Key(_code)},
        "webtransport.stream.stop": {**_STREAM, "code": _Key(_code)},
        "webtransport.datagram.send": {"data": _Key(_data, True)},
        "webtransport.drain": {},
        "webtransport.close": {"code": _Key(_code), "reason": _Key(_text)},
    }

    def __init__(
        self,
        subprotocols: Sequence[str],
        *,
        thorough: bool = False,
        forget: Callable[[int | str], object] = lambda name: None,
    ) -> None:
        super().__init__(thorough=thorough)
        # Told of each stream that no message can be about any more.
        self._forget = forget
        # What the client offers.
        self._subprotocols = tuple(subprotocols)
        # ``accept`` or ``reject``; None before that.
        self.answer: str | None = None
        # Whether the application was told that the session is over.
        self.is_gone = False
        # Streams that are not over on both sides, by name. Bounded by what both sides allow to be open.
        self._streams: dict[int | str, _Halves] = {}
        # Those that were stopped by the client and are over; the last ones, for messages that crossed the stop.
        self._late: OrderedDict[int | str, None] = OrderedDict()

    def __contains__(self, name: int | str) -> bool:
        """Whether a stream is not over on both sides."""
        return name in self._streams

    def check_sent(self, message: Message) -> str:
        """Check a message that the application sends, and return its type."""
        kind = self.check_form(message)
        verb = kind.rpartition(".")[2]
        if kind in ("webtransport.accept", "webtransport.reject"):
            if self.answer is not None:
                raise SpecificationError(f"`{kind}` was sent after `webtransport.{self.answer}`")
            if (chosen := message.get("subprotocol")) is not None and chosen not in self._subprotocols:
                raise SpecificationError("`subprotocol` is none of those that the client offers (`subprotocols`)")
            self.answer = verb
        elif self.answer != "accept":
            when = "before `webtransport.accept`" if self.answer is None else "after `webtransport.reject`"
            raise SpecificationError(f"`{kind}` was sent {when}")
        elif kind == "webtransport.close":
            if self._is_thorough and len(message.get("reason", "").encode()) > _LONGEST_REASON:
                raise SpecificationError(f"`reason` has more than {_LONGEST_REASON} bytes and would be cut")
        elif kind == "webtransport.stream.open":
            self._open(message)
        elif "stream" in message:
            self._use(kind, verb, message)
        return kind

    def _open(self, message: Message) -> None:
        name = message["stream"]
        if name in self._streams:
            raise SpecificationError("`webtransport.stream.open` has the name of a stream that is open")
        if name in self._late:
            del self._late[name]
            self._forget(name)
        receiving = _OPEN if message.get("bidirectional", True) else _OVER
        self._streams[name] = _Halves(receiving, _OPEN)

    def _use(self, kind: str, verb: str, message: Message) -> None:
        name = message["stream"]
        halves = self._streams.get(name)
        if halves is None:
            if name in self._late and verb in ("send", "reset"):
                return
            raise SpecificationError(f"`{kind}` names a stream that is unknown, or over")
        if verb in ("send", "reset"):
            if halves.sending == _OVER:
                raise SpecificationError(f"`{kind}` is for a stream that cannot be sent on, or was ended")
            if halves.sending == _OPEN and (verb == "reset" or message.get("end", False)):
                halves.sending = _OVER
        else:
            if halves.receiving == _OVER:
                raise SpecificationError(f"`{kind}` is for a stream that cannot be read, or has ended")
            if verb == "read" and halves.is_reading:
                raise SpecificationError("`webtransport.stream.read` came before the answer to the one before")
            halves.is_reading = verb == "read"
            if verb == "stop":
                halves.receiving = _OVER
        self._settle(name, halves)

    def note_received(self, message: Message) -> None:
        """Note a message that the application is given."""
        kind = message["type"]
        if kind == "webtransport.stream.open":
            sending = _OPEN if message["bidirectional"] else _OVER
            self._streams[message["stream"]] = _Halves(_OPEN, sending)
        elif kind == "webtransport.disconnect":
            self.is_gone = True
        elif "stream" in message and (halves := self._streams.get(message["stream"])) is not None:
            if kind == "webtransport.stream.stop":
                halves.sending = _STOPPED if halves.sending == _OPEN else halves.sending
            else:
                halves.is_reading = False
                if kind == "webtransport.stream.reset" or message["end"]:
                    halves.receiving = _OVER
            self._settle(message["stream"], halves)

    def _settle(self, name: int | str, halves: _Halves) -> None:
        """Forget a stream that is over on both sides."""
        if halves.receiving == _OPEN or halves.sending == _OPEN:
            return
        del self._streams[name]
        if halves.sending != _STOPPED:
            self._forget(name)
            return
        self._late[name] = None
        if len(self._late) > _MOST_LATE:
            self._forget(self._late.popitem(last=False)[0])

    def check_return(self) -> None:
        """The application has returned."""
        if self.answer is None and not self.is_gone:
            raise SpecificationError(
                "the application returned without an answer (`webtransport.accept` or `webtransport.reject`)"
            )
