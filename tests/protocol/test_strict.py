"""``strict=True``: draft 16 to the letter, where the default lets a peer lack what can be done without."""

from collections.abc import Collection

import pytest

import wtio
from wtio import testing
from wtio.protocol.codes import ErrorCodes
from wtio.protocol.dialects import Dialect
from wtio.protocol.outbox import SessionRequested, SettingsReceived
from wtio.protocol.transport_parameters import (
    PeerTransport,
    TransportParameter,
    parameter_name,
    parameter_value,
    read_peer_transport,
)

from .pair import (
    CHROMIUM,
    CLIENT_CONTROL,
    DRAFT15_CLIENT,
    DRAFT15_SERVER,
    FIREFOX,
    SERVER_CONTROL,
    Side,
    client,
    connect,
    control_stream,
    sent_fields,
    sent_settings,
    server,
)

FULL = PeerTransport(reset_stream_at=True, max_datagram_frame_size=65535)
Settings = Collection[tuple[int, int]]


def judged(is_client: bool, settings: Settings, transport: PeerTransport | None = FULL, *, strict: bool = True) -> Side:
    side = (client if is_client else server)(None, strict=strict)
    side.h3.peer_transport = transport
    side.receive(SERVER_CONTROL if is_client else CLIENT_CONTROL, control_stream(list(settings)))
    return side


@pytest.mark.parametrize("is_client", [True, False])
def test_strict_side_announces_draft_15_alone(is_client: bool) -> None:
    settings = sent_settings(judged(is_client, []))
    assert settings[0x2C7CF000] == 1
    assert not settings.keys() & {0x2B603742, 0xC671706A, 0x14E9CD29}


@pytest.mark.parametrize("is_client", [True, False])
def test_strict_side_takes_a_peer_that_keeps_to_the_letter(is_client: bool) -> None:
    side = judged(is_client, DRAFT15_SERVER if is_client else DRAFT15_CLIENT)
    [received] = side.of(SettingsReceived)
    assert (received.dialect, received.problem) == (Dialect.D15, None)


@pytest.mark.parametrize("missing", [0x08, 0x33, 0x2C7CF000])
def test_r10_strict_client_refuses_a_server_without_one_of_the_settings(missing: int) -> None:
    side = judged(True, [setting for setting in DRAFT15_SERVER if setting[0] != missing])
    assert side.of(SettingsReceived)[0].problem
    with pytest.raises(RuntimeError, match="no WebTransport"):
        side.h3.send_connect(0, authority="a", path="/")


@pytest.mark.parametrize(
    ("transport", "word"),
    [(PeerTransport(False, 65535), "reset_stream_at"), (PeerTransport(True, 0), "max_datagram_frame_size")],
)
def test_r4_r5_r10_strict_client_refuses_a_server_without_one_of_the_parameters(
    transport: PeerTransport, word: str
) -> None:
    assert word in (judged(True, DRAFT15_SERVER, transport).of(SettingsReceived)[0].problem or "")


def test_h9_client_tolerates_a_server_without_reset_stream_at() -> None:
    assert judged(True, DRAFT15_SERVER, PeerTransport(False, 1), strict=False).of(SettingsReceived)[0].problem is None


def test_r10_client_needs_datagrams_strict_or_not() -> None:
    side = judged(True, DRAFT15_SERVER, PeerTransport(True, 0), strict=False)
    assert "max_datagram_frame_size" in (side.of(SettingsReceived)[0].problem or "")


@pytest.mark.parametrize(
    ("settings", "transport"),
    [
        (CHROMIUM, FULL),
        (FIREFOX, FULL),
        ([(0x33, 1)], FULL),
        ([(0x2C7CF000, 1)], FULL),
        ([(0x2C7CF000, 1), (0xFFD277, 1)], FULL),
        (DRAFT15_CLIENT, PeerTransport(False, 65535)),
        (DRAFT15_CLIENT, PeerTransport(True, 0)),
    ],
)
@pytest.mark.parametrize("is_parked", [False, True])
def test_r13_r6_strict_server_resets_requests_of_a_client_that_falls_short(
    settings: Settings, transport: PeerTransport, is_parked: bool
) -> None:
    side = server(None, strict=True)
    side.h3.peer_transport = transport
    if is_parked:
        side.receive(0, connect())
    side.receive(CLIENT_CONTROL, control_stream(list(settings)))
    if not is_parked:
        side.receive(0, connect())
    assert not side.of(SessionRequested)
    assert side.resets(0) == side.stops(0) == [ErrorCodes.H3_MESSAGE_ERROR]
    assert side.close_code is None


@pytest.mark.parametrize("settings", [CHROMIUM, FIREFOX, [(0x33, 1)], DRAFT15_CLIENT])
def test_h9_server_takes_all_of_them_unless_strict(settings: Settings) -> None:
    side = judged(False, settings, PeerTransport(False, 0), strict=False)
    side.receive(0, connect())
    assert side.of(SessionRequested)


def test_r92_strict_server_has_no_capsule_protocol_and_answers_its_token_with_501() -> None:
    side = judged(False, DRAFT15_CLIENT)
    side.receive(0, connect(token="webtransport"), True)
    assert not side.of(SessionRequested)
    assert sent_fields(side)[0] == (":status", "501")
    assert side.ended(0)
    side.receive(4, connect())
    assert side.of(SessionRequested)


@pytest.mark.parametrize(
    ("dialect", "number", "needs_reset"),
    [("D02", 0x2B603742, False), ("D07", 0xC671706A, False), ("D13", 0x14E9CD29, True)],
)
def test_strict_side_holds_a_peer_to_its_own_dialect(dialect: str, number: int, needs_reset: bool) -> None:
    side = server(None, strict=True, dialects=[Dialect[dialect]])
    side.h3.peer_transport = PeerTransport(False, 1)
    side.receive(CLIENT_CONTROL, control_stream([(0x33, 1), (number, 1)]))
    side.receive(0, connect(token="webtransport"))
    assert bool(side.of(SessionRequested)) is not needs_reset
    other = server([(0x33, 1), (number, 1)], strict=True, dialects=[Dialect[dialect]])
    other.receive(0, connect(token="webtransport-h3"))
    assert sent_fields(other)[0] == (":status", "501")


def test_token_of_a_dialect_that_was_not_announced_is_answered_501() -> None:
    side = server([(0x33, 1)], dialects=[Dialect.D15])
    side.receive(0, connect(token="webtransport"))
    assert sent_fields(side)[0] == (":status", "501")
    side.receive(4, connect(token="webtransport-h3"))
    assert side.of(SessionRequested)[0].stream_id == 4


# -- transport parameters


@pytest.mark.parametrize("identifier", [0x1D, 0x17F7586D2CB571])
def test_r5_h10_reset_stream_at_is_known_by_either_number(identifier: int) -> None:
    assert read_peer_transport([(identifier, b"")]).reset_stream_at
    assert not read_peer_transport([(identifier, b"\x01")]).reset_stream_at
    assert not read_peer_transport([(0x17F7586D2CB570, b"")]).reset_stream_at


@pytest.mark.parametrize(
    ("value", "size"), [(b"\x80\x01\x00\x00", 65536), (b"\x00", 0), (b"", 0), (b"\x40", 0), (b"\x01\x01", 0)]
)
def test_r4_size_of_datagram_frames_is_read(value: bytes, size: int) -> None:
    assert read_peer_transport([(0x01, b"\x01"), (0x20, value)]).max_datagram_frame_size == size


def test_r4_parameter_that_is_absent_means_no_datagrams() -> None:
    assert read_peer_transport([]) == PeerTransport(reset_stream_at=False, max_datagram_frame_size=0)


@pytest.mark.parametrize(
    ("identifier", "raw", "name", "value"),
    [
        (0x01, "80007530", "max_idle_timeout", 30000),
        (0x1D, "", "reset_stream_at", b""),
        (0x17F7586D2CB571, "", "reset_stream_at_draft05", b""),
        (0x0F, "0a0b", "initial_source_connection_id", b"\x0a\x0b"),
        (0x20, "4f", "max_datagram_frame_size", b"\x4f"),  # malformed
        (0x4710, "0102", "unknown", b"\x01\x02"),
        (31 * 9 + 27, "ff", "grease", b"\xff"),
    ],
)
def test_parameters_are_named_and_read(identifier: int, raw: str, name: str, value: int | bytes) -> None:
    assert parameter_name(identifier) == name
    assert parameter_value(identifier, bytes.fromhex(raw)) == value


def test_no_named_parameter_is_a_reserved_one() -> None:
    assert not [parameter for parameter in TransportParameter if parameter % 31 == 27]


# -- through the public API


@pytest.mark.parametrize(("strict_client", "strict_server"), [(True, False), (False, True), (True, True)])
def test_strict_sides_and_ours_understand_each_other(strict_client: bool, strict_server: bool) -> None:
    async def main() -> None:
        network = testing.Network()

        async def handler(session: wtio.WebTransportSession) -> None:
            await session.wait_closed()

        async with (
            network.serve(handler, strict=strict_server),
            network.connect(strict=strict_client) as session,
        ):
            assert session.dialect == "draft15"

    testing.run(main())


@pytest.mark.parametrize("wrong", [None, 1, "yes"])
def test_strict_is_a_bool(wrong: object) -> None:
    network = testing.Network()
    for call in (network.connect, network.serve):
        with pytest.raises(TypeError, match="strict must be a bool"):
            call(strict=wrong)  # type: ignore[arg-type]
