"""The typed border between Python (decisions) and Rust (bytes). Private: no user imports it.

Codes that cross this border are QUIC codes as they stand on the wire; mapping to 32-bit application
codes is Python's (``wtio.protocol.codes``). Sizes are bytes, times are seconds unless a name ends in ``_ns``.
No method blocks or waits. A call that has to wait registers a ``Waker``, which a later
``Endpoint.drive`` hands back in its list of wakes.
"""

from asyncio import AbstractEventLoop
from collections.abc import Callable, Generator, Sequence
from contextvars import Context
from typing import Any, Final, Self, final

from typing_extensions import Buffer, disjoint_base

from wtio._options import EndpointOptions
from wtio._waker import Waker

__all__ = [
    "VERSION",
    "CertificateFacts",
    "ClientAuthorityError",
    "ClientTls",
    "CloseCause",
    "Connection",
    "ConnectionFacts",
    "ConnectionStats",
    "Credit",
    "DatagramStats",
    "Endpoint",
    "EndpointStats",
    "EndpointTotals",
    "EngineEvent",
    "ForkStage",
    "HalfState",
    "MemoryStats",
    "PrivateKeyError",
    "ReadAnswer",
    "ServerTls",
    "SocketBuffers",
    "Stream",
    "StreamStats",
    "TlsError",
    "Waiter",
    "certificate_facts",
    "collect_woken",
    "generate_certificate",
    "note_fork",
    "run_woken",
    "send_datagrams",
    "sha256",
    "shut_down",
]

VERSION: Final[str]
"""The version of wtio, which is written in Cargo.toml alone."""

# -- answers, states and causes

@final
class ReadAnswer:
    """What a read returns instead of ``bytes``. Compare with ``is``."""

    WAIT: Final[ReadAnswer]
    """Nothing to return yet: register with ``wait_readable``."""
    ENDED: Final[ReadAnswer]
    """End, reset, stop or session end came first: see ``receive_state``."""
    OVER_LIMIT: Final[ReadAnswer]
    """The limit was passed; all bytes are still in the stream."""

@final
class HalfState:
    """Where the receiving or the sending half of a stream stands. A snapshot; at most one of ``is_…`` is true."""

    @property
    def name(self) -> str:
        """As in ``StreamDiagnostics``; "none" if the stream has no such half."""
    @property
    def is_open(self) -> bool: ...
    @property
    def is_ended(self) -> bool:
        """Receiving: all was read, and the end came after it."""
    @property
    def is_finished(self) -> bool:
        """Sending: the end was given; bytes may still be on their way."""
    @property
    def is_acked(self) -> bool:
        """Sending: everything is acknowledged, the end included."""
    @property
    def is_reset(self) -> bool:
        """By the sending side."""
    @property
    def is_stopped(self) -> bool:
        """By the receiving side."""
    @property
    def is_gone(self) -> bool:
        """With its connection."""
    @property
    def wire_code(self) -> int:
        """Of a reset or a stop, 0 otherwise."""

@final
class CloseCause:
    """Why a connection ended."""

    APPLICATION: Final[CloseCause]
    """The peer's CONNECTION_CLOSE of type 0x1d; code and reason are its application's."""
    TRANSPORT: Final[CloseCause]
    """The peer's CONNECTION_CLOSE of type 0x1c; code and reason are its QUIC stack's."""
    PROTOCOL: Final[CloseCause]
    """The peer broke a rule of QUIC."""
    TLS: Final[CloseCause]
    """A TLS alert of either side; the code is the alert, the reason our verifier's words."""
    IDLE: Final[CloseCause]
    """The idle timeout passed."""
    RESET: Final[CloseCause]
    """A stateless reset: the peer has forgotten the connection."""
    LOCAL: Final[CloseCause]
    """This side closed."""
    VERSION: Final[CloseCause]
    """There is no QUIC version in common."""
    REFUSED: Final[CloseCause]
    """The server refused the connection (CONNECTION_REFUSED)."""
    UNREACHABLE: Final[CloseCause]
    """A client gave up because of ``EngineEvent.Unreachable``; the engine itself never reports this one."""
    @property
    def name(self) -> str:
        """In lower case, as in reports."""

@final
class ForkStage:
    """When, around a fork, ``note_fork`` is called."""

    BEFORE: Final[ForkStage]
    PARENT: Final[ForkStage]
    """After it, in the parent."""
    CHILD: Final[ForkStage]
    """After it, in the child."""

# -- events

@disjoint_base
class EngineEvent:
    """Something that happened on an endpoint. What waiters wait for is not among them: see ``Endpoint.drive``."""

    connection_id: Final[int | None]
    """The connection it happened on; None for what is the endpoint's own."""
    @final
    class Incoming(EngineEvent):
        """A client arrived, its handshake has begun (server only)."""

        connection: Final[Connection]

    @final
    class Ready(EngineEvent):
        """Streams may be opened, before the handshake is complete: 0.5-RTT (server only)."""

    @final
    class Connected(EngineEvent):
        """The handshake is complete, both directions may carry data."""

    @final
    class Closed(EngineEvent):
        """The connection is over. Comes once, and last."""

        cause: Final[CloseCause]
        code: Final[int]
        reason: Final[str]
        facts: Final[ConnectionFacts]

    @final
    class Unreachable(EngineEvent):
        """What a handshake begins with cannot be delivered, and nothing came back yet (client only).

        ``is_remote``: the network says so (ICMP), not this system.
        """

        errno: Final[int]
        is_remote: Final[bool]

    @final
    class DataStream(EngineEvent):
        """The peer opened a WebTransport data stream; its header is consumed."""

        stream: Final[Stream]
        session_id: Final[int]

    @final
    class RawStream(EngineEvent):
        """The peer opened any other stream, whose type is still in it."""

        stream: Final[Stream]

    @final
    class RawReadable(EngineEvent):
        """A raw stream has data, its end or a reset to read."""

        stream_id: Final[int]

    @final
    class RawStopped(EngineEvent):
        """STOP_SENDING on a raw stream."""

        stream_id: Final[int]
        wire_code: Final[int]

    @final
    class DatagramError(EngineEvent):
        """A datagram came whose quarter stream ID is missing or above 2**60-1."""

    @final
    class DatagramId(EngineEvent):
        """The first datagram came for a session that is not registered."""

        session_id: Final[int]

    @final
    class CreditDue(EngineEvent):
        """Announce WT_MAX_DATA."""

        def __new__(cls, connection_id: int, session_id: int, limit: int) -> Self: ...
        session_id: Final[int]
        limit: Final[int]

    @final
    class StreamsDue(EngineEvent):
        """Announce WT_MAX_STREAMS."""

        def __new__(cls, connection_id: int, session_id: int, bidirectional: bool, limit: int) -> Self: ...
        session_id: Final[int]
        bidirectional: Final[bool]
        limit: Final[int]

    @final
    class CreditExceeded(EngineEvent):
        """The peer broke a limit of the session."""

        def __new__(cls, connection_id: int, session_id: int) -> Self: ...
        session_id: Final[int]

    @final
    class BytesExceeded(EngineEvent):
        """The peer has sent more bytes than it may in all on the session."""

        session_id: Final[int]

    @final
    class CreditBlocked(EngineEvent):
        """Our data waits for WT_MAX_DATA above ``limit``."""

        def __new__(cls, connection_id: int, session_id: int, limit: int) -> Self: ...
        session_id: Final[int]
        limit: Final[int]

    @final
    class StreamsBlocked(EngineEvent):
        """A stream of ours waits for WT_MAX_STREAMS above ``limit``."""

        session_id: Final[int]
        bidirectional: Final[bool]
        limit: Final[int]

    @final
    class SendFailed(EngineEvent):
        """``count`` packets could not be sent, the last of them to ``destination``.

        At most once a minute for each ``errno``, and not for what ``Unreachable`` reports.
        """

        destination: Final[tuple[str, int]]
        errno: Final[int]
        count: Final[int]

    @final
    class ErrorsRead(EngineEvent):
        """The socket had errors pending, which were read; a loop may have stopped to watch it."""

    @final
    class MemoryShort(EngineEvent):
        """The server holds and has promised more than its budget (server only). Comes again as long as that is so."""

# -- figures

@final
class ConnectionStats:
    """Figures of a connection: times in seconds, the rest are bytes or counts."""

    rtt: Final[float]
    """Smoothed round-trip time."""
    min_rtt: Final[float]
    congestion_window: Final[int]
    congestion_events: Final[int]
    """Times the congestion controller took loss for congestion."""
    mtu: Final[int]
    """UDP payload size in use."""
    bytes_sent: Final[int]
    """In UDP payloads."""
    bytes_received: Final[int]
    """In UDP payloads."""
    packets_sent: Final[int]
    packets_received: Final[int]
    acks_received: Final[int]
    """ACK frames of the peer's."""
    packets_lost: Final[int]
    bytes_lost: Final[int]
    send_calls: Final[int]

@final
class DatagramStats:
    """Counts of a session's datagrams."""

    sent: Final[int]
    received: Final[int]
    dropped_outgoing: Final[int]
    """Pushed out of the queue by later ones."""
    expired_outgoing: Final[int]
    """Waited longer than ``Timeouts.datagram_send``."""
    dropped_incoming: Final[int]
    """Pushed out of the buffer by later ones."""
    queued_incoming: Final[int]
    """Not received by the application yet."""
    bytes_sent: Final[int]
    """Payload of those that were sent."""
    bytes_received: Final[int]
    """Payload of those that were received."""

@final
class Credit:
    """Where a session's flow control stands; the credit is None without flow control."""

    stream_bytes_sent: Final[int]
    """Payload."""
    stream_bytes_received: Final[int]
    """Payload."""
    send_credit: Final[int | None]
    """Payload bytes that the peer still allows."""
    bidirectional_stream_credit: Final[int | None]
    """Streams that the peer still allows."""
    unidirectional_stream_credit: Final[int | None]
    """Streams that the peer still allows."""

@final
class StreamStats:
    """Figures of a stream, in the words of ``StreamDiagnostics``."""

    bytes_written: Final[int]
    bytes_sent: Final[int]
    bytes_acknowledged: Final[int]
    bytes_received: Final[int]
    bytes_read: Final[int]
    send_buffered: Final[int]
    receive_buffered: Final[int]
    blocked_seconds: Final[float]
    created_at: Final[float | None]
    first_byte_at: Final[float | None]
    ended_at: Final[float | None]

@final
class EndpointStats:
    """Figures of an endpoint."""

    connections: Final[int]
    """As ``Endpoint.connections``."""
    gso_segments: Final[int]
    """UDP datagrams that one call hands to the system at most."""
    # Of a server; 0 for clients. Those below the first three count since the endpoint was made.
    open_connections: Final[int]
    """Connections with a complete handshake that are not over."""
    half_open_connections: Final[int]
    """Connections whose handshake is not complete."""
    known_addresses: Final[int]
    """Addresses of which something is remembered for limits per address."""
    accepted: Final[int]
    """Handshakes begun."""
    validated: Final[int]
    """Of these, those whose client had shown its address, by a Retry or by a token of an earlier connection."""
    retried: Final[int]
    """First packets that were answered with Retry."""
    refused_capacity: Final[int]
    """Clients refused because there were as many connections as there may be."""
    refused_address: Final[int]
    """Clients refused because their address had as many connections as it may have, or its share."""
    refused_rate: Final[int]
    """Clients refused because their address began handshakes too fast."""
    refused_memory: Final[int]
    """Clients refused because the server's memory budget is used up."""
    refused_closing: Final[int]
    """Clients refused after ``refuse_new``."""
    displaced: Final[int]
    """Half-open connections that made room for another client."""
    handshake_timeouts: Final[int]
    """Handshakes that took longer than ``Timeouts.handshake``."""
    packets_astray: Final[int]
    """Packets for another server with the same address."""

@final
class EndpointTotals:
    """Totals of an endpoint since it was made. They never go down, also once it is closed."""

    accepted: Final[int]
    """Handshakes begun with a server. Those that are neither completed nor failed are under way."""
    connected: Final[int]
    """Handshakes that were completed."""
    failed: Final[list[tuple[str, int]]]
    """Handshakes that failed, by how they ended: names of ``CloseCause``, "timeout" (``Timeouts.handshake``) and
    "displaced" (another client took the place)."""
    ended: Final[list[tuple[str, int]]]
    """Connections that ended after their handshake, likewise."""
    bytes_sent: Final[int]
    """In UDP payloads of connections."""
    bytes_received: Final[int]
    """In UDP payloads of connections."""
    packets_sent: Final[int]
    """QUIC packets."""
    packets_received: Final[int]
    """UDP datagrams."""
    packets_lost: Final[int]
    """QUIC packets."""
    bidirectional_opened: Final[int]
    """Streams of sessions that this side opened; also the next three."""
    bidirectional_received: Final[int]
    unidirectional_opened: Final[int]
    unidirectional_received: Final[int]
    stream_bytes_sent: Final[int]
    """Payload of these streams, as in ``Credit``."""
    stream_bytes_received: Final[int]
    """Payload of these streams, as in ``Credit``."""
    datagrams: Final[DatagramStats]
    """Of all sessions; ``queued_incoming`` is 0."""

@final
class SocketBuffers:
    """What the system keeps for a socket, in bytes."""

    asked: Final[int]
    """What was asked for, of each."""
    receive: Final[int]
    """Granted for packets that wait to be received; 0 if the system does not say. Linux reports twice that."""
    send: Final[int]
    """Granted for packets that wait to leave; 0 if the system does not say."""

@final
class MemoryStats:
    """Where the memory budget of a server stands, in bytes."""

    most: Final[int]
    """The budget."""
    used: Final[int]
    """What is held and promised by all endpoints that share the budget."""
    held: Final[int]
    """By this endpoint: what its connections are themselves, what came and was not read, what waits to be sent."""
    promised: Final[int]
    """By this endpoint: what peers may still send."""
    refused: Final[int]
    """Connections that found no room, on all endpoints that share the budget."""

@final
class CertificateFacts:
    """What a certificate says."""

    not_before: Final[int]
    """Unix seconds."""
    not_after: Final[int]
    """Unix seconds."""
    key_algorithm: Final[str]
    subject: Final[str]
    issuer: Final[str]
    names: Final[list[str]]
    """Alternative names."""

# -- certificates and trust

class TlsError(Exception):
    """A certificate, key or trust setting that cannot be used; the text says which and why."""

class PrivateKeyError(TlsError):
    """A private key cannot be used, or does not belong to its certificate."""

class ClientAuthorityError(TlsError):
    """The authorities whose clients a server takes cannot be used."""

@final
class ClientTls:
    """Trust settings of a client. ``mode``: "system", "roots", "hashes" or "insecure".

    Secrets of TLS are appended to ``key_log_file``.
    """

    def __new__(
        cls,
        *,
        mode: str,
        roots_pem: bytes | None,
        hashes: Sequence[bytes],
        certificate_pem: bytes,
        key_pem: bytes,
        key_log_file: str | None,
    ) -> ClientTls: ...

@final
class ServerTls:
    """Certificate chains and keys of a server, checked against each other here (TlsError), and which clients it takes.

    Made with one chain; ``with_further`` adds others.
    """

    def __new__(
        cls,
        *,
        certificate_pem: bytes,
        key_pem: bytes,
        client_roots_pem: bytes | None,
        requires_client: bool,
        key_log_file: str | None,
    ) -> ServerTls:
        """``client_roots_pem``: authorities of clients, which are asked for a certificate; None asks for none.

        Secrets of TLS are appended to ``key_log_file``.
        """
    @property
    def certificates(self) -> list[bytes]:
        """The first chain in DER, leaf first."""
    def with_further(self, others: Sequence[ServerTls]) -> ServerTls:
        """The same, with the chains of others behind its own. The name that a client asks for (SNI) chooses."""
    def after(self, before: ServerTls) -> ServerTls:
        """The same, in place of ``before`` on a running server: tickets stay good if both take the same clients."""
    def has_same_clients(self, other: ServerTls) -> bool:
        """Whether both take the same clients."""

def generate_certificate(names: Sequence[str], not_before: int, not_after: int) -> tuple[bytes, bytes, bytes]:
    """Make a self-signed ECDSA P-256 leaf: (certificate PEM, key PEM, certificate DER). Times are Unix seconds."""

def certificate_facts(der: bytes) -> CertificateFacts:
    """Read a certificate in DER; TlsError if it is none."""

def sha256(data: bytes) -> bytes: ...
def send_datagrams(targets: Sequence[tuple[Connection, int]], data: Buffer) -> list[int]:
    """``Connection.send_datagram`` for many sessions, each with its ID; neighbours of one endpoint cost one lock.

    RuntimeError on another loop than that of one of them, before anything is sent.
    """

def note_fork(stage: ForkStage) -> None:
    """To be called around each fork. Endpoints made before it raise RuntimeError in the child."""

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
    def bind(self, ip: str, port: int, *, dual_stack: bool) -> None:
        """Open the UDP socket (OSError with errno when it cannot be had)."""
    def adopt(self, descriptor: int) -> None:
        """Use a UDP socket that is bound already, and close it in the end. OSError when it cannot be used."""
    def fileno(self) -> int: ...
    def wake_fileno(self) -> int:
        """Readable once the guardian (or the I/O thread) has left events: then clear_wake_up() and drive(False)."""
    def take_wake_fileno(self) -> int:
        """The same for a loop that cannot watch it. The caller reads from it, and owns it. A socket on Windows."""
    @property
    def local_address(self) -> tuple[str, int]: ...
    def set_scheduler(self, callback: Callable[[], object], event_loop: AbstractEventLoop) -> None:
        """``callback`` runs (on the loop's thread) when the first output since the last drive is waiting.

        From now on calls that change a data stream or wait raise RuntimeError if another loop runs, or on another
        thread (``wtio._waiting.refuse_foreign``). Destructors may run anywhere. ``close`` forgets both.
        """

    # -- driving
    def drive(
        self, readable: bool, now_ns: int | None
    ) -> tuple[list[Waker], list[EngineEvent], float | None, bool, bool]:
        """Receive one bounded batch (if ``readable``), run due timers, transmit.

        Returns (wakers to set, events, seconds until the next timer or None, the send budget of this call is
        used up and there is more, output waits for the socket to become writable). ``now_ns`` is virtual time for a
        simulation. With ``io="thread"`` the last three are always None, False, False. RuntimeError once the engine has
        panicked, here or in a thread: its connections are gone, and ``take_wakers`` has who waits.
        """
    def clear_wake_up(self) -> None:
        """Make ``wake_fileno`` unreadable again; call just before the drive that takes the events."""
    def flush(self) -> None:
        """Send what is there, if there is a socket. Events and timers wait for the drive that was asked for."""
    def set_now(self, now_ns: int) -> None:
        """Simulation: the virtual time of whatever is called before the next drive."""
    def deliver(
        self, now_ns: int, data: bytes, source: tuple[str, int], destination: tuple[str, int], ecn: int
    ) -> None:
        """Simulation: take one UDP payload from the network."""
    def collect(self, now_ns: int) -> list[tuple[tuple[str, int], bytes, int]]:
        """Simulation: make and return all UDP payloads to be sent: (destination, payload, ECN bits)."""

    # -- connections
    def connect(self, address: tuple[str, int], server_name: str, tls: ClientTls, now_ns: int | None) -> Connection:
        """Begin a handshake; OSError for an address or server name that cannot be used."""
    def set_server_tls(self, tls: ServerTls) -> None:
        """Server: accept further connections with these certificates; those that there are go on."""
    def refuse_new(self) -> None:
        """Server: refuse new connections from now on, because it is closing."""
    def close(self) -> None:
        """Release the socket. Close connections first: peers of open ones would notice only by their idle timeout."""
    @property
    def has_output(self) -> bool:
        """Whether packets may be left to send, because the socket or a drive took no more."""
    @property
    def connections(self) -> int:
        """Connections not yet fully gone (closing ones included)."""
    def stats(self) -> EndpointStats: ...
    def totals(self) -> EndpointTotals:
        """Walks through all connections."""
    def socket_buffers(self) -> SocketBuffers | None:
        """Also once closed; None in simulations."""
    def memory(self) -> MemoryStats | None:
        """Walks through all connections. None without ``Limits.server_memory``, and for clients."""
    def share_memory(self, other: Endpoint) -> None:
        """Charge connections that come from now on to the budget of ``other``, if both have one."""
    @property
    def memory_excess(self) -> int:
        """Bytes that are held and promised above the budget; 0 without one."""
    def largest_holder(self) -> tuple[int, int] | None:
        """ID of the open connection that holds most, and how many bytes. None if none is open."""
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
    """What is known of a connection, for reports. A snapshot; making it is cheap, reading it makes Python's objects."""

    @property
    def remote_address(self) -> tuple[str, int]: ...
    @property
    def alpn(self) -> bytes | None:
        """What TLS agreed on; None before that."""
    @property
    def cipher(self) -> str | None:
        """Name of the cipher suite that TLS agreed on, such as ``TLS13_AES_128_GCM_SHA256``."""
    @property
    def key_exchange(self) -> str | None:
        """Name of the group of the key exchange that TLS agreed on, such as ``X25519MLKEM768``."""
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
    def own_certificates(self) -> list[bytes]:
        """Server: the chain that the client is shown, in DER, leaf first; the default one before it has asked."""
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
    """A QUIC connection."""

    @property
    def id(self) -> int: ...
    @property
    def remote_address(self) -> tuple[str, int]: ...
    @property
    def address_prefix(self) -> str:
        """Server: what limits per address count as the client's address, where the connection began: an IPv4 address or
        an IPv6 network of 64 bits. Empty for a client, and once the engine has forgotten the connection."""
    @property
    def server_name(self) -> str | None:
        """Server: the SNI name the client asked for."""
    @property
    def peer_certificates(self) -> list[bytes]:
        """The peer's chain in DER, leaf first (empty before the handshake)."""
    def peer_parameters(self) -> list[tuple[int, bytes]] | None:
        """The peer's QUIC transport parameters, raw, in the order in which they came.

        None before they are known: a server knows them with ``Ready``, a client with ``Connected``.
        """
    def facts(self) -> ConnectionFacts | None:
        """What is known by now; None once the engine has forgotten the connection (``Closed`` brought it then)."""
    @property
    def max_datagram_payload(self) -> int | None:
        """Largest QUIC DATAGRAM payload now, prefix included; None if the peer takes no datagrams."""
    def open_stream(self, bidirectional: bool, header: bytes, session_id: int | None) -> Stream | None:
        """Open a stream; ``header`` is sent first and does not count as payload. None: no credit now.

        ``session_id`` None makes a raw stream (``RawReadable`` and ``RawStopped`` instead of wakes).
        """
    def check_loop(self) -> None:
        """Raise RuntimeError where another event loop runs than the connection's, or on another thread."""
    def wait_streams(self, bidirectional: bool, waker: Waker) -> None:
        """Complete ``waker`` when open_stream is worth another try (or the connection is gone).

        Credit of the connection and of any of its sessions completes it, and the end of a session.
        """
    def add_session(self, session_id: int, options: EndpointOptions, send_credit: tuple[int, int, int] | None) -> None:
        """Register a session: its datagrams are queued from now on, early ones included.

        ``send_credit``: what the peer lets us send at first (bytes, bidirectional and unidirectional streams); None
        makes a session without flow control. What we let the peer send is in ``options.session_credit``.
        """
    def set_concurrent_streams(self, bidirectional: bool, count: int) -> None:
        """How many streams the peer may have open at once from now on; a smaller count closes none."""
    def set_send_limit(self, session_id: int, limit: int) -> None: ...
    def set_send_streams(self, session_id: int, bidirectional: bool, limit: int) -> None: ...
    def end_session(self, session_id: int, code: int) -> None:
        """Reset and stop all data streams of the session with wire code ``code`` and wake all waiters.

        Streams whose end has arrived stay readable. Later streams of this session are reset with ``code``. Also for
        a session id that was never registered (rejected).
        """
    def send_datagram(self, session_id: int, data: Buffer) -> int:
        """0 sent or queued; else the limit in bytes that ``data`` exceeds, or -1: not possible (no support, closed)."""
    def receive_datagram(self, session_id: int) -> bytes | None: ...
    def receive_datagrams(self, session_id: int, most: int) -> list[bytes]: ...
    def wait_datagram(self, session_id: int, waker: Waker) -> None: ...
    def datagram_stats(self, session_id: int) -> DatagramStats:
        """All 0 if the session is not registered."""
    def credit(self, session_id: int) -> Credit:
        """All 0 and None if the session is not registered."""
    def unacked_streams(self, session_id: int) -> int:
        """Finished streams of ours in the session whose bytes are not all acknowledged."""
    def core_streams(self) -> list[int] | None:
        """Streams that the QUIC core keeps, for tests: those on which we send, and the peer's, bidirectional and
        unidirectional. None once the connection is gone."""
    def wait_session_acked(self, session_id: int, waker: Waker) -> None:
        """Complete ``waker`` when unacked_streams is 0 (or nothing can be acknowledged any more)."""
    def close(self, code: int, reason: bytes) -> None:
        """CONNECTION_CLOSE (application); ``Closed`` with CloseCause.LOCAL follows."""
    def drop_received(self) -> None:
        """Drop what came and was not read, of a connection that is over: the server needs the memory."""
    def export_keying_material(self, label: bytes, context: bytes, length: int) -> bytes | None:
        """None when the TLS session gives none: it is over, or not there yet."""
    @property
    def has_qlog(self) -> bool:
        """Whether a qlog of the connection is written."""
    def note(self, name: str, data: str) -> None:
        """Write an event into the qlog, if there is one: its name, and its data as a JSON object."""
    def start_qlog(self, path: str) -> bool:
        """Begin a qlog without the core's events. False if there is one already; OSError if the system refuses."""
    def stop_qlog(self) -> bool:
        """End a qlog that ``start_qlog`` has begun. False if there is none."""
    def stats(self) -> ConnectionStats:
        """All 0 once the engine has forgotten the connection."""

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
    # -- receiving: every read returns what it got, or a ReadAnswer
    def read(self, max_bytes: int) -> bytes | ReadAnswer:
        """What has arrived, at most ``max_bytes`` (-1: all of it)."""
    def read_into(self, buffer: Buffer) -> int | ReadAnswer:
        """The number of bytes copied, at least 1."""
    def read_exactly(self, count: int) -> bytes | ReadAnswer: ...
    def read_until(self, separator: bytes, limit: int) -> bytes | ReadAnswer:
        """Through the separator. ENDED leaves the rest in the stream; OVER_LIMIT too. Linear over repeated calls."""
    def read_all(self, limit: int) -> bytes | ReadAnswer:
        """All bytes once the end has arrived. ``limit`` -1: none."""
    def receive_state(self) -> HalfState: ...
    def wait_readable(self, waker: Waker) -> None: ...
    def stop(self, code: int) -> bool:
        """STOP_SENDING, dropping what is buffered; False when already finished or stopped."""
    # -- sending
    def write(self, data: Buffer, start: int) -> int:
        """Accept a prefix of ``data[start:]`` into the bounded queue; the bytes accepted (0: wait), or -1: closed."""
    def finish(self) -> bool: ...
    def reset(self, code: int) -> bool: ...
    def send_state(self) -> HalfState: ...
    def wait_writable(self, waker: Waker) -> None: ...
    def wait_acked(self, waker: Waker) -> None:
        """Complete ``waker`` when everything accepted so far is acknowledged, or never can be."""
    def wait_stopped(self, waker: Waker) -> None:
        """Complete ``waker`` when the peer has stopped the stream, or cannot any more; at once if that is so."""
    @property
    def unacked(self) -> int:
        """Payload bytes accepted and not acknowledged yet."""
    send_order: int
    def stats(self) -> StreamStats:
        """All 0 and None once the engine has forgotten the stream."""

def collect_woken() -> None:
    """From now on, waiters that are set on this thread wait for ``run_woken``."""

def run_woken() -> None:
    """Run the tasks of the waiters set since ``collect_woken``: their next step, until they wait again.

    For callbacks of the loop. What comes later runs when the loop comes to it.
    """
