"""The typed border between Python (decisions) and Rust (bytes). Private: no user imports it.

Codes that cross this border are QUIC codes as they stand on the wire; mapping to 32-bit application
codes is Python's (``wtio.protocol.codes``). Sizes are bytes, times are seconds unless a name ends in ``_ns``.
No method blocks and none of them waits: whatever must wait registers a ``Waker``, which a later
``Endpoint.drive`` hands back in its list of wakes.
"""

from asyncio import AbstractEventLoop
from collections.abc import Callable, Generator, Sequence
from contextvars import Context
from typing import Any, Final, Self, final

from typing_extensions import Buffer

from wtio._options import EndpointOptions
from wtio._waiting import Waker

__all__ = [
    "ENDED",
    "EVENT_CLOSED",
    "EVENT_CONNECTED",
    "EVENT_CREDIT_BLOCKED",
    "EVENT_CREDIT_DUE",
    "EVENT_CREDIT_EXCEEDED",
    "EVENT_DATAGRAM_ERROR",
    "EVENT_DATAGRAM_ID",
    "EVENT_ERRORS_READ",
    "EVENT_INCOMING",
    "EVENT_RAW_READABLE",
    "EVENT_RAW_STOPPED",
    "EVENT_RAW_STREAM",
    "EVENT_READY",
    "EVENT_SEND_FAILED",
    "EVENT_STREAM",
    "EVENT_STREAMS_BLOCKED",
    "EVENT_STREAMS_DUE",
    "EVENT_UNREACHABLE",
    "OVER_LIMIT",
    "WAIT",
    "ClientTls",
    "Connection",
    "ConnectionFacts",
    "Endpoint",
    "ServerTls",
    "Stream",
    "TlsError",
    "Waiter",
    "certificate_facts",
    "collect_woken",
    "generate_certificate",
    "note_fork",
    "run_woken",
    "sha256",
    "shut_down",
]

# What every read returns instead of ``bytes``.
WAIT: Final = 0  # nothing to return yet: register with wait_readable
ENDED: Final = 1  # end, reset, stop or session end came first: see receive_state
OVER_LIMIT: Final = 2  # the limit was passed; all bytes are still in the stream

# Kinds of event tuples: (kind, connection id, ...). See Endpoint.drive.
EVENT_INCOMING: Final = 0  # (kind, id, Connection): a client arrived, its handshake has begun (server only)
EVENT_CONNECTED: Final = 1  # (kind, id): the handshake is complete, both directions may carry data
EVENT_CLOSED: Final = 2  # (kind, id, cause, code: int, reason: str, ConnectionFacts): see Connection; comes once
EVENT_STREAM: Final = 3  # (kind, id, Stream, session id): a WebTransport data stream, its header consumed
EVENT_RAW_STREAM: Final = 4  # (kind, id, Stream): any other peer-opened stream, type bytes still in it
EVENT_RAW_READABLE: Final = 5  # (kind, id, stream id): a raw stream has data, its end or a reset to read
EVENT_RAW_STOPPED: Final = 6  # (kind, id, stream id, code): STOP_SENDING on a raw stream
EVENT_DATAGRAM_ERROR: Final = 7  # (kind, id): a datagram whose quarter stream id is missing or above 2**60-1
EVENT_CREDIT_DUE: Final = 8  # (kind, id, session id, limit): announce WT_MAX_DATA = limit
EVENT_STREAMS_DUE: Final = 9  # (kind, id, session id, bidirectional: bool, limit): announce WT_MAX_STREAMS
EVENT_CREDIT_EXCEEDED: Final = 10  # (kind, id, session id): the peer broke a session limit
EVENT_CREDIT_BLOCKED: Final = 11  # (kind, id, session id, limit): our data waits for WT_MAX_DATA
EVENT_READY: Final = 13  # (kind, id): server only: streams may be opened, before the handshake is complete (0.5-RTT)
EVENT_STREAMS_BLOCKED: Final = 14  # (kind, id, session id, bidirectional: bool, limit): we wait for WT_MAX_STREAMS
EVENT_DATAGRAM_ID: Final = 12  # (kind, id, session id): first datagram for a session that is not registered
# (kind, id, errno, is_remote: bool): client only: the system, or the network (ICMP), cannot deliver what a handshake
# begins with, and nothing came back yet
EVENT_UNREACHABLE: Final = 15
# (kind, None, errno, count, (ip, port)): packets could not be sent, the last of them there; at most once a minute for
# each errno, and not for those that EVENT_UNREACHABLE tells of
EVENT_SEND_FAILED: Final = 16
EVENT_ERRORS_READ: Final = 17  # (kind, None): the socket had errors pending; a loop may have stopped to watch it

class TlsError(Exception):
    """A certificate, key or trust setting that cannot be used; the text says which and why."""

@final
class ClientTls:
    """Trust settings of a client. ``mode``: "system", "roots", "hashes" or "insecure"."""

    def __new__(
        cls,
        *,
        mode: str,
        roots_pem: bytes | None = None,
        hashes: Sequence[bytes] | None = None,
        certificate_pem: bytes | None = None,
        key_pem: bytes | None = None,
    ) -> ClientTls: ...

@final
class ServerTls:
    """Certificate chain and key of a server, checked against each other here (TlsError)."""

    def __new__(cls, *, certificate_pem: bytes, key_pem: bytes) -> ServerTls: ...
    @property
    def certificates(self) -> list[bytes]:
        """The chain in DER, leaf first."""

def generate_certificate(names: Sequence[str], not_before: int, not_after: int) -> tuple[bytes, bytes, bytes]:
    """Make a self-signed ECDSA P-256 leaf: (certificate PEM, key PEM, certificate DER). Times are Unix seconds."""

def certificate_facts(der: bytes) -> tuple[int, int, str, str, str, list[str]]:
    """(not before, not after as Unix seconds, key algorithm, subject, issuer, alternative names)."""

def sha256(data: bytes) -> bytes: ...
def note_fork(stage: str) -> None:
    """Around a fork: "before", then "parent" or "child". Endpoints made before raise RuntimeError in the child."""

def shut_down() -> None:
    """End the guardian and all I/O threads and wait for them: at interpreter exit."""

@final
class Endpoint:
    """One UDP socket (or, without ``bind``, one simulated one) with all of its connections."""

    def __new__(cls, options: EndpointOptions, *, server_tls: ServerTls | None, seed: bytes | None) -> Endpoint:
        """``seed``: of everything random, for simulations; None takes the system's randomness.

        With ``options.io == "loop"`` the caller watches ``fileno`` and keeps a timer. With ``"thread"`` a thread
        receives, runs timers and sends what ``drive`` cannot; the caller watches only ``wake_fileno``.
        """

    # -- socket
    def bind(self, ip: str, port: int, *, dual_stack: bool = False) -> None:
        """Open the UDP socket (OSError with errno when it cannot be had)."""
    def fileno(self) -> int: ...
    def wake_fileno(self) -> int:
        """Turns readable when the guardian (or the I/O thread) has left events: hear() and drive(False) then."""
    @property
    def local_address(self) -> tuple[str, int]: ...
    def set_scheduler(self, callback: Callable[[], object], event_loop: AbstractEventLoop) -> None:
        """``callback`` runs (on the loop's thread) when the first output since the last drive is waiting.

        From now on whatever changes a data stream or waits raises RuntimeError where another loop runs, or on another
        thread (``wtio._waiting.refuse_foreign``). Destructors may run anywhere. ``close`` forgets both.
        """

    # -- driving
    def drive(
        self, readable: bool, now_ns: int | None = None
    ) -> tuple[list[Waker], list[tuple[object, ...]], float | None, bool, bool]:
        """Receive one bounded batch (if ``readable``), run due timers, transmit.

        Returns (wakers to set, events, seconds until the next timer or None, the send budget of this call is
        used up and there is more, output waits for the socket to become writable). ``now_ns`` is virtual time for a
        simulation. With ``io="thread"`` the last three are always None, False, False. RuntimeError once the engine has
        panicked, here or in a thread: its connections are gone, and ``take_wakers`` has who waits.
        """
    def hear(self) -> None:
        """Silence ``wake_fileno``; call just before the drive that takes the events."""
    def flush(self) -> None:
        """Send what is there, if there is a socket. Events and timers wait for the drive that was asked for."""
    def set_now(self, now_ns: int) -> None:
        """Simulation: the virtual time of whatever is called before the next drive."""
    def deliver(
        self, now_ns: int, data: bytes, source: tuple[str, int], destination: tuple[str, int], ecn: int = 0
    ) -> None:
        """Simulation: take one UDP payload from the network."""
    def collect(self, now_ns: int) -> list[tuple[tuple[str, int], bytes, int]]:
        """Simulation: all UDP payloads that want to leave: (destination, payload, ECN bits)."""

    # -- connections
    def connect(
        self, address: tuple[str, int], server_name: str, tls: ClientTls, now_ns: int | None = None
    ) -> Connection: ...
    def refuse_new(self) -> None:
        """Server: turn away new connections from now on (shutting down)."""
    def close(self) -> None:
        """Release the socket. Connections still open die without a word; close them first."""
    @property
    def connections(self) -> int:
        """Connections not yet fully gone (closing ones included)."""
    def stats(self) -> dict[str, int]:
        """connections, gso_segments."""
    def send_failures(self) -> list[tuple[int, int]]:
        """Packets that could not be sent since ``bind``: (errno, count). Empty once closed."""
    def take_wakers(self) -> list[Waker]:
        """All wakers that wait for something."""
    def sabotage(self) -> None:
        """For tests: the engine panics when it is driven next, by whomever."""
    @property
    def loop_late_total(self) -> int:
        """Times the guardian had to step in for the loop; also once closed."""

@final
class ConnectionFacts:
    """What is known of a connection, for people. A snapshot; making it is cheap, reading it makes Python's objects."""

    @property
    def remote_address(self) -> tuple[str, int]: ...
    @property
    def alpn(self) -> bytes | None:
        """What TLS agreed on; None before that."""
    @property
    def cipher(self) -> str | None:
        """Name of the cipher suite that TLS agreed on, such as ``TLS13_AES_128_GCM_SHA256``."""
    @property
    def peer_parameters(self) -> list[tuple[int, bytes]] | None:
        """As Connection.peer_parameters."""
    @property
    def server_name(self) -> str | None:
        """Server: the SNI name the client asked for."""
    @property
    def certificates(self) -> list[bytes]:
        """The peer's chain in DER, leaf first; also one that was refused."""
    @property
    def is_refused(self) -> bool:
        """Whether our verifier refused that chain."""
    @property
    def is_closed_by_peer(self) -> bool:
        """Whether the end came in a CONNECTION_CLOSE of the peer."""
    @property
    def max_datagram_payload(self) -> int | None: ...
    @property
    def mtu(self) -> int:
        """UDP payload size in use."""
    @property
    def datagrams_sent(self) -> int:
        """UDP datagrams."""
    @property
    def datagrams_received(self) -> int:
        """UDP datagrams."""

@final
class Connection:
    """A QUIC connection.

    Causes of EVENT_CLOSED: "application" (peer's CONNECTION_CLOSE 0x1d, code and reason are the peer's),
    "transport" (peer's 0x1c), "protocol" (we detected a transport error of the peer), "tls" (our or the
    peer's TLS alert; code is the alert, reason our verifier's words), "idle" (idle timeout), "reset" (stateless
    reset), "local" (we closed), "version" (no common version), "refused" (server turned us away).
    """

    @property
    def id(self) -> int: ...
    @property
    def remote_address(self) -> tuple[str, int]: ...
    @property
    def server_name(self) -> str | None:
        """Server: the SNI name the client asked for."""
    @property
    def peer_certificates(self) -> list[bytes]:
        """The peer's chain in DER, leaf first (empty before the handshake)."""
    def peer_parameters(self) -> list[tuple[int, bytes]] | None:
        """The peer's QUIC transport parameters, raw, in the order in which they came.

        None before they are known: a server knows them with EVENT_READY, a client with EVENT_CONNECTED.
        """
    def facts(self) -> ConnectionFacts | None:
        """What is known by now; None once the engine has forgotten the connection (EVENT_CLOSED brought it then)."""
    @property
    def max_datagram_payload(self) -> int | None:
        """Largest QUIC DATAGRAM payload now, prefix included; None where the peer takes no datagrams."""
    def open_stream(self, bidirectional: bool, header: bytes, session: int | None = None) -> Stream | None:
        """Open a stream; ``header`` is sent first and does not count as payload. None: no credit now.

        ``session`` None makes a raw stream (EVENT_RAW_READABLE / EVENT_RAW_STOPPED instead of wakes).
        """
    def check_loop(self) -> None:
        """Raise RuntimeError where another event loop runs than the connection's, or on another thread."""
    def wait_streams(self, bidirectional: bool, session: int, waker: Waker) -> None:
        """Complete ``waker`` when open_stream is worth another try (or the connection is gone)."""
    def add_session(self, session_id: int, options: EndpointOptions, send_credit: tuple[int, int, int] | None) -> None:
        """Register a session: its datagrams are queued from now on, early ones included.

        ``send_credit``: what the peer lets us send at first (bytes, bidirectional and unidirectional streams); None
        makes a session without flow control. What we let the peer send is in ``options.session_credit``.
        """
    def set_concurrent_streams(self, bidirectional: bool, count: int) -> None:
        """How many streams the peer may have open at once from now on; a smaller number closes none."""
    def set_send_limit(self, session: int, limit: int) -> None: ...
    def set_send_streams(self, session: int, bidirectional: bool, limit: int) -> None: ...
    def end_session(self, session: int, code: int) -> None:
        """Reset and stop all data streams of the session with wire code ``code`` and wake all waiters.

        Streams whose end has arrived stay readable. Later streams of this session are reset with ``code``. Also for
        a session id that was never registered (rejected).
        """
    def send_datagram(self, session: int, data: Buffer) -> int:
        """0 sent or queued; else the limit in bytes that ``data`` exceeds, or -1: not possible (no support, closed)."""
    def receive_datagram(self, session: int) -> bytes | None: ...
    def receive_datagrams(self, session: int, most: int) -> list[bytes]: ...
    def wait_datagram(self, session: int, waker: Waker) -> None: ...
    def datagram_stats(self, session: int) -> dict[str, int]:
        """sent, received, dropped_outgoing, expired_outgoing, dropped_incoming, queued_incoming."""
    def credit(self, session: int) -> tuple[int, int, int | None, int | None, int | None]:
        """Payload bytes sent and received on the session's streams; then what the peer's limits still allow, None
        without flow control: bytes, bidirectional streams, unidirectional streams."""
    def unacked_streams(self, session: int) -> int:
        """Finished streams of ours in the session whose bytes are not all acknowledged."""
    def wait_session_acked(self, session: int, waker: Waker) -> None:
        """Complete ``waker`` when unacked_streams is 0 (or nothing can be acknowledged any more)."""
    def close(self, code: int, reason: bytes) -> None:
        """CONNECTION_CLOSE (application); EVENT_CLOSED with cause "local" follows."""
    def export_keying_material(self, label: bytes, context: bytes, length: int) -> bytes: ...
    def stats(self) -> dict[str, int | float]:
        """rtt, min_rtt (seconds), congestion_window, congestion_events, mtu, and counts of bytes, packets and sends."""

@final
class Waiter:
    """One task that waits: what asyncio asks of a future, for ``await`` alone, once, by the one that made it.

    The loop runs its task when it comes to it, or ``run_woken`` does at once.
    """

    _asyncio_future_blocking: bool
    def __new__(cls, event_loop: AbstractEventLoop) -> Self: ...
    def done(self) -> bool: ...
    def cancelled(self) -> bool: ...
    def set_result(self, value: None, /) -> None:
        """Let the task go on."""
    def cancel(self, msg: object = None) -> bool:
        """As of a future: False if done already."""
    def result(self) -> None: ...
    def get_loop(self) -> AbstractEventLoop: ...
    def add_done_callback(self, callback: Callable[[Any], object], *, context: Context) -> None: ...
    def __await__(self) -> Generator[Self]: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> Self: ...

@final
class Stream:
    """One stream. Dropping the last reference stops and resets what is still open with ``abandon_code``."""

    abandon_code: int
    @property
    def id(self) -> int: ...
    # -- receiving: every read returns bytes, or WAIT / ENDED / OVER_LIMIT
    def read(self, max_bytes: int) -> bytes | int:
        """What has arrived, at most ``max_bytes`` (-1: all of it)."""
    def read_into(self, buffer: Buffer) -> int:
        """Bytes copied (at least 1), or -1 wait, -2 ended."""
    def read_exactly(self, count: int) -> bytes | int: ...
    def read_until(self, separator: bytes, limit: int) -> bytes | int:
        """Through the separator. ENDED leaves the rest in the stream; OVER_LIMIT too. Linear over repeated calls."""
    def read_all(self, limit: int) -> bytes | int:
        """All bytes once the end has arrived. ``limit`` -1: none."""
    def receive_state(self) -> tuple[str, int]:
        """("open" | "ended" | "reset" | "stopped" | "gone" | "none", wire code): "ended" only once all was read."""
    def wait_readable(self, waker: Waker) -> None: ...
    def stop(self, code: int) -> bool:
        """STOP_SENDING, dropping what is buffered; False when already finished or stopped."""
    # -- sending
    def write(self, data: Buffer, start: int = 0) -> int:
        """Accept a prefix of ``data[start:]`` into the bounded queue; the bytes accepted (0: wait), or -1: closed."""
    def finish(self) -> bool: ...
    def reset(self, code: int) -> bool: ...
    def send_state(self) -> tuple[str, int]:
        """("open" | "finished" | "acked" | "reset" | "stopped" | "gone" | "none", wire code)."""
    def wait_writable(self, waker: Waker) -> None: ...
    def wait_acked(self, waker: Waker) -> None:
        """Complete ``waker`` when everything accepted so far is acknowledged, or never can be."""
    def wait_stopped(self, waker: Waker) -> None:
        """Complete ``waker`` when the peer has stopped the stream, or cannot any more; at once if that is so."""
    @property
    def unacked(self) -> int:
        """Payload bytes accepted and not acknowledged yet."""
    priority: int
    def stats(self) -> dict[str, int | float | None]:
        """written, sent, acked, received, read, send_buffered, receive_buffered (payload bytes); blocked (seconds);
        created, first_byte, ended (seconds on the engine's clock, None where not yet)."""

def collect_woken() -> None:
    """From now on, waiters that are set on this thread wait for ``run_woken``."""

def run_woken() -> None:
    """Run the tasks of the waiters set since ``collect_woken``: their next step, until they wait again.

    For callbacks of the loop. What comes later runs when the loop comes to it.
    """
