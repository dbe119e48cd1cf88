"""Whose time a sample of `perf record` is: the table of categories, and the reader of `perf script`.

A sample is a stack. From its innermost frame outwards, the first one that a rule knows decides. A frame that no rule
knows (memory, copying, hashing, the interpreter's own functions, a page fault) belongs to whoever called it.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SENDING = "sending: system calls"
RECEIVING = "receiving: system calls"
WAITING = "waiting, waking: epoll, scheduler"
SOCKETS = "socket set-up"
ENCRYPTION = "packet encryption (ring)"
TLS = "TLS: keys, certificates (rustls, ring)"
CORE = "QUIC core (quinn-proto)"
ENGINE = "engine (Rust): streams, credit, tap"
BRIDGE = "bridge (pyo3): conversions, GIL"
GUARDIAN = "guardian thread"
DRIVER = "wtio's Python: driver"
STREAMS = "wtio's Python: streams"
SESSIONS = "wtio's Python: connections, sessions"
PROTOCOL = "wtio's Python: protocol, settings"
ASYNCIO = "asyncio and standard library"
COLLECTOR = "Python's garbage collector"
APPLICATION = "application"
OTHER = "other"

# For pictures: a colour each.
GROUPS: dict[str, tuple[str, ...]] = {
    "sending": (SENDING,),
    "receiving": (RECEIVING,),
    "waiting, waking": (WAITING, SOCKETS),
    "encryption, TLS": (ENCRYPTION, TLS),
    "QUIC core": (CORE,),
    "wtio's Rust": (ENGINE, BRIDGE, GUARDIAN),
    "wtio's Python": (DRIVER, STREAMS, SESSIONS, PROTOCOL),
    "asyncio, collector": (ASYNCIO, COLLECTOR),
    "application, other": (APPLICATION, OTHER),
}
CATEGORIES = tuple(category for group in GROUPS.values() for category in group)

KERNEL = "kernel"
NATIVE = "native"
PYTHON = "python"

# `<wtio_engine::Tap as quinn_proto::PacketKey>::encrypt` is wtio_engine's: what follows `as` does not count.
_CRATE = r"^[<&\[(]*(?:mut |dyn )?"

# Place, pattern of the symbol (searched for), category. The first that fits a frame counts.
RULES: tuple[tuple[str, str, str], ...] = (
    # What waking another thread costs is no cost of sending, though the call that sends pays it.
    (KERNEL, r"^(sock_def_readable|__wake_up|ep_poll_callback|try_to_wake_up|wake_up_|pollwake)", WAITING),
    (KERNEL, r"^(schedule|__schedule|do_epoll_|ep_poll|ep_send_events|__x64_sys_(epoll|futex)|do_futex)", WAITING),
    (KERNEL, r"^(__sys_send|__x64_sys_send|____?sys_send|sock_sendmsg|udpv?6?_sendmsg)", SENDING),
    (KERNEL, r"^(__sys_recv|__x64_sys_recv|____?sys_recv|do_recvmmsg|sock_recvmsg|udpv?6?_recvmsg)", RECEIVING),
    (KERNEL, r"^__(x64_|arm64_)?sys_(bind|socket|socketpair|setsockopt|getsockopt|getsockname|connect)$", SOCKETS),
    (NATIVE, r"^(__libc_)?(sendmsg|sendmmsg)\b", SENDING),
    (NATIVE, r"^(__libc_)?(recvmsg|recvmmsg)\b", RECEIVING),
    (NATIVE, r"^(epoll_wait|epoll_pwait|epoll_ctl|ppoll|__poll|select_epoll_)", WAITING),
    (NATIVE, _CRATE + r"(quinn_udp::imp::UdpSocketState>?::new|std::os::unix::net)", SOCKETS),
    (
        NATIVE,
        r"wtio_net::(udp::UdpEndpoint>?::bind|endpoint::Endpoint>?::(new|bind|watch_with)|guardian::watch$)",
        SOCKETS,
    ),
    (NATIVE, _CRATE + r"quinn_udp::.*recv", RECEIVING),
    (NATIVE, _CRATE + r"quinn_udp::", SENDING),
    (NATIVE, _CRATE + r"ring::aead|^ring_core_.*(aes|gcm|ghash|chacha|poly1305)", ENCRYPTION),
    (NATIVE, _CRATE + r"rustls::(quic::PacketKey|crypto::ring::quic::(PacketKey|HeaderProtectionKey))", ENCRYPTION),
    (NATIVE, _CRATE + r"(rustls|ring|webpki|x509_parser|rustls_pki_types)::", TLS),
    (NATIVE, r"^(ring_core_|fiat_|fe_|fe4_|ge_|x25519_|p256_|bn_|ecp_nistz)", TLS),
    (NATIVE, _CRATE + r"quinn_proto::", CORE),
    (NATIVE, _CRATE + r"wtio_(engine|net)::", ENGINE),
    (NATIVE, _CRATE + r"(pyo3|_core)::", BRIDGE),
    (NATIVE, _CRATE + r"bare::", APPLICATION),
    (NATIVE, r"^(gc_collect|_PyGC_|_Py_RunGC|PyGC_)", COLLECTOR),
    (
        NATIVE,
        r"^(task_step|task_wakeup|_asyncio_|future_|FutureObj_|TaskObj_|FutureIter_|TaskStepMethWrapper)",
        ASYNCIO,
    ),
    (PYTHON, r"^py::LoopTransport\.", SOCKETS),
    (PYTHON, r"/wtio/_driver/", DRIVER),
    (PYTHON, r"/wtio/(stream|_buffer)\.py$", STREAMS),
    (
        PYTHON,
        r"/wtio/(_session_state|_incoming|_request|_connection|_reporting|report|client|pool|server)\.py$",
        SESSIONS,
    ),
    # Of the code measured here, only wtio has data classes, whose methods have no file.
    (PYTHON, r"/wtio/|:<string>$", PROTOCOL),
    (PYTHON, r"/benchmarks/", APPLICATION),
    (PYTHON, r"/lib/python3|:<frozen ", ASYNCIO),
)
_COMPILED = [(place, re.compile(pattern), category) for place, pattern, category in RULES]
_COPYING = re.compile(r"^(__)?mem(move|cpy)")


@dataclass(frozen=True)
class Frame:
    """A frame of a stack: symbol, and the file it comes from."""

    symbol: str
    file: str

    @property
    def place(self) -> str:
        if self.file.startswith("[kernel") or self.file.endswith((".ko", ".ko.xz")):
            return KERNEL
        return PYTHON if self.symbol.startswith("py::") else NATIVE


@dataclass(frozen=True)
class Sample:
    """Where one thread was at one moment; the innermost frame is the first."""

    process: int
    thread: int
    stack: tuple[Frame, ...]


@dataclass
class Profile:
    """What the samples of one process come to."""

    total: int = 0
    categories: Counter[str] = field(default_factory=Counter)
    functions: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Category and function to the number of samples."""

    def add(self, sample: Sample) -> None:
        category, function = attribute(sample)
        self.total += 1
        self.categories[category] += 1
        self.functions[category, function] += 1

    def share(self, category: str) -> float:
        return self.categories[category] / self.total if self.total else 0.0


def _category(frame: Frame, known: dict[Frame, str | None]) -> str | None:
    if frame not in known:
        rules = (rule for rule in _COMPILED if rule[0] == frame.place)
        known[frame] = next((category for _, pattern, category in rules if pattern.search(frame.symbol)), None)
    return known[frame]


_known: dict[Frame, str | None] = {}


def attribute(sample: Sample) -> tuple[str, str]:
    """Category of a sample, and the function that decided it."""
    if sample.thread != sample.process:
        # Its own work is one thing, whatever it calls; no other thread runs in the programs measured here.
        return GUARDIAN, "guardian"
    for frame in sample.stack:
        category = _category(frame, _known)
        if category is not None:
            copies = "copying in " if _COPYING.match(sample.stack[0].symbol) else ""
            return category, copies + short(frame)
    return OTHER, short(sample.stack[0]) if sample.stack else "no stack"


def short(frame: Frame) -> str:
    """A name that fits into a table: without the path to the file, without arguments of generic types."""
    symbol = frame.symbol
    if frame.place == PYTHON:
        name, _, file = symbol.removeprefix("py::").rpartition(":")
        return f"{name} ({file.rpartition('/')[2]})"
    if frame.place == KERNEL:
        return f"{symbol} (kernel)"
    symbol = re.sub(r"^<(.+?) as .+>::", r"\1::", symbol)
    return re.sub(r"<[^<>]*>", "", symbol)[:90]


_HEAD = re.compile(r"^\s*(\d+)/(\d+)\s*$")
_FRAME = re.compile(r"^\s+[0-9a-f]+ (.*) \((.*?)\)$")


def read_samples(lines: Iterable[str]) -> Iterator[Sample]:
    """Read the output of `perf script --fields pid,tid,ip,sym,dso`."""
    process = thread = 0
    stack: list[Frame] = []
    for line in lines:
        if head := _HEAD.match(line):
            process, thread = int(head[1]), int(head[2])
        elif frame := _FRAME.match(line):
            stack.append(Frame(frame[1], frame[2]))
        elif not line.strip() and process:
            yield Sample(process, thread, tuple(stack))
            process, stack = 0, []
    if process:
        yield Sample(process, thread, tuple(stack))
