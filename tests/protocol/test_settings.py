"""SETTINGS: what each side sends, what it makes of the peer's, and which draft is spoken (requirements 1 to 15)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wtio.protocol.codes import ErrorCodes
from wtio.protocol.dialects import Dialect, Setting, negotiate
from wtio.protocol.faults import ConnectionFault
from wtio.protocol.outbox import Role, Send, SessionRequested, SettingsReceived
from wtio.protocol.settings import LocalTerms, decode_settings, encode_settings, local_settings

from .pair import (
    CHROMIUM,
    CLIENT_CONTROL,
    DRAFT15_CLIENT,
    DRAFT15_SERVER,
    FIREFOX,
    GREASE,
    SERVER_CONTROL,
    Pair,
    Side,
    client,
    connect,
    control_stream,
    requested_server,
    sent_settings,
    server,
)


def test_r1_server_sends_wt_enabled_1() -> None:
    assert sent_settings(server())[0x2C7CF000] == 1


def test_r2_server_sends_enable_connect_protocol_1() -> None:
    assert sent_settings(server())[0x08] == 1


@pytest.mark.parametrize("side", [server(), client()])
@pytest.mark.trap("H2")
def test_r3_both_send_h3_datagram_1_in_both_spellings(side: Side) -> None:
    assert sent_settings(side)[0x33] == 1
    assert sent_settings(side)[0xFFD277] == 1


@pytest.mark.parametrize("side", [server(), client()])
def test_r6_r7_both_send_one_setting_per_dialect(side: Side) -> None:
    settings = sent_settings(side)
    assert {settings[number] for number in (0x2B603742, 0xC671706A, 0x14E9CD29, 0x2C7CF000)} == {1}
    # No limits were given: with more than one session, Safari would insist on these.
    assert not settings.keys() & {0x2B61, 0x2B64, 0x2B65}


@pytest.mark.parametrize("side", [server(), client()])
def test_dynamic_table_is_refused(side: Side) -> None:
    settings = sent_settings(side)
    assert (settings[0x01], settings[0x07]) == (0, 0)
    assert settings[0x06] == 65536
    # Without a table there is nothing to say on QPACK streams (RFC 9204, section 4.2).
    assert {output.stream for output in side.outputs if isinstance(output, Send)} == {Role.CONTROL}


@pytest.mark.parametrize("side", [server(), client()])
def test_both_send_one_setting_that_means_nothing(side: Side) -> None:
    reserved = [number for number in sent_settings(side) if number % 31 == 0x21 % 31]
    assert len(reserved) == 1
    assert reserved[0] >= 0x21


def test_no_setting_with_a_meaning_is_a_reserved_one() -> None:
    assert not [setting for setting in Setting if setting % 31 == 0x21 % 31]


def test_h3_more_than_one_session_is_announced_only_with_all_limits() -> None:
    quiet = dict(local_settings(False, LocalTerms(dialects=tuple(Dialect), max_sessions=9)))
    assert quiet[0x14E9CD29] == 1
    loud = dict(
        local_settings(
            False,
            LocalTerms(
                dialects=tuple(Dialect),
                max_sessions=9,
                initial_max_data=1,
                initial_max_streams_bidi=2,
                initial_max_streams_uni=3,
            ),
        )
    )
    assert (loud[0x14E9CD29], loud[0x2B61], loud[0x2B65], loud[0x2B64]) == (9, 1, 2, 3)


ANNOUNCEMENTS = {Dialect.D02: 0x2B603742, Dialect.D07: 0xC671706A, Dialect.D13: 0x14E9CD29, Dialect.D15: 0x2C7CF000}


@given(st.sets(st.sampled_from(list(Dialect))), st.sets(st.sampled_from(list(Dialect))))
def test_r7_newest_common_dialect_is_used(ours: set[Dialect], theirs: set[Dialect]) -> None:
    def announce(dialects: set[Dialect]) -> dict[int, int]:
        return {ANNOUNCEMENTS[dialect]: 1 for dialect in dialects}

    common = sorted(ours & theirs)
    assert negotiate(announce(ours), announce(theirs)) == (common[-1] if common else None)


@pytest.mark.parametrize(
    ("settings", "dialect"),
    [
        (CHROMIUM, Dialect.D02),
        ([*CHROMIUM, (0xC671706A, 16)], Dialect.D07),
        (FIREFOX, Dialect.D02),
        ([(0x33, 1), (0xC671706A, 1)], Dialect.D07),
        ([(0x33, 1), (0x14E9CD29, 1)], Dialect.D13),
        ([(0x33, 1), (0x2C7CF000, 5)], Dialect.D15),  # to a server any value above 0 counts
        ([(0x33, 1)], None),
        ([(0x33, 1), (0x2C7CF000, 0), (0x2B603742, 1)], Dialect.D02),
    ],
)
@pytest.mark.trap("H2")
def test_server_tells_the_dialect_of_a_client(settings: list[tuple[int, int]], dialect: Dialect | None) -> None:
    side = server(settings)
    assert side.of(SettingsReceived) == [SettingsReceived(dict(settings), dialect, None)]
    assert side.h3.dialect is dialect
    assert side.h3.peer_settings == dict(settings)


@pytest.mark.parametrize(
    ("token", "fields", "dialect"),
    [
        ("webtransport-h3", (), Dialect.D15),
        ("webtransport", (("sec-webtransport-http3-draft02", "1"),), Dialect.D02),
        ("webtransport", (), Dialect.D07),
    ],
)
def test_client_that_announces_nothing_is_known_by_its_request(
    token: str, fields: tuple[tuple[str, str], ...], dialect: Dialect
) -> None:
    side = server([(0x33, 1)])
    side.receive(0, connect(*fields, token=token))
    assert side.of(SessionRequested)[0].dialect is dialect
    assert side.h3.dialect is dialect


@pytest.mark.parametrize("token", ["webtransport", "webtransport-h3"])
@pytest.mark.parametrize("settings", [CHROMIUM, DRAFT15_CLIENT, [(0x33, 1), (0xC671706A, 1)]])
def test_h4_r92_both_tokens_are_accepted_and_settings_decide(token: str, settings: list[tuple[int, int]]) -> None:
    side = server(settings)
    side.receive(0, connect(token=token))
    [request] = side.of(SessionRequested)
    assert request.protocol_token == token
    assert request.dialect is negotiate(dict(local_settings(False)), dict(settings))


@pytest.mark.parametrize("missing", [0x08, 0x33, 0x2C7CF000])
def test_r10_r11_client_names_what_a_server_lacks(missing: int) -> None:
    side = client([setting for setting in DRAFT15_SERVER if setting[0] != missing])
    [received] = side.of(SettingsReceived)
    assert received.problem
    assert side.close_code is None  # closing is the application's choice: the connection may have another use


@pytest.mark.parametrize("settings", [[(0x33, 1), (0x2B603742, 1)], [(0xFFD277, 1), (0x2B603742, 1)]])
def test_client_takes_draft02_servers_without_extended_connect(settings: list[tuple[int, int]]) -> None:
    [received] = client(settings).of(SettingsReceived)
    assert (received.dialect, received.problem) == (Dialect.D02, None)


def test_h8_server_does_not_ask_clients_for_extended_connect() -> None:
    assert 0x08 not in dict(DRAFT15_CLIENT)
    assert requested_server()


def test_r13_client_without_datagrams_gets_message_error_for_its_sessions() -> None:
    side = server([(0x2C7CF000, 1)])
    side.receive(0, connect())
    assert not side.of(SessionRequested)
    assert side.resets(0) == side.stops(0) == [ErrorCodes.H3_MESSAGE_ERROR]
    assert side.close_code is None


def test_r13_parked_request_of_a_client_without_datagrams_gets_message_error() -> None:
    side = server(None)
    side.receive(0, connect())
    side.receive(CLIENT_CONTROL, control_stream([(0x2C7CF000, 1)]))
    assert side.resets(0) == [ErrorCodes.H3_MESSAGE_ERROR]
    assert not side.of(SessionRequested)


def test_r9_client_refuses_wt_enabled_above_1() -> None:
    assert client([(0x08, 1), (0x33, 1), (0x2C7CF000, 2)]).close_code == ErrorCodes.H3_SETTINGS_ERROR


@pytest.mark.parametrize("number", [0x08, 0x33, 0x2B603742])
@pytest.mark.parametrize("side", ["client", "server"])
def test_r14_setting_other_than_0_or_1_is_settings_error(number: int, side: str) -> None:
    made = client if side == "client" else server
    assert made([(number, 2)]).close_code == ErrorCodes.H3_SETTINGS_ERROR
    assert made([(number, 0)]).close_code is None


@pytest.mark.parametrize("number", [0x33, GREASE, 0x2C7CF000])
def test_r15_duplicate_setting_is_settings_error(number: int) -> None:
    assert server([(number, 1), (0x06, 9), (number, 1)]).close_code == ErrorCodes.H3_SETTINGS_ERROR


@pytest.mark.parametrize("number", [0x00, 0x02, 0x03, 0x04, 0x05])
def test_http2_setting_is_settings_error(number: int) -> None:
    assert server([(number, 1)]).close_code == ErrorCodes.H3_SETTINGS_ERROR


def test_unknown_settings_are_kept_and_mean_nothing() -> None:
    side = server([*DRAFT15_CLIENT, (GREASE, 2**62 - 1), (0x1F * 7 + 0x21, 0)])
    assert side.h3.dialect is Dialect.D15
    assert side.h3.peer_settings
    assert side.h3.peer_settings[GREASE] == 2**62 - 1


def test_of_thousands_of_unknown_settings_a_few_are_kept_and_all_are_checked() -> None:
    unknown = [(number, 0) for number in range(0x4000, 0x4000 + 1300)]
    side = server([*unknown, *DRAFT15_CLIENT])
    assert side.h3.dialect is Dialect.D15
    assert side.h3.peer_settings
    assert len(side.h3.peer_settings) <= 256 + len(DRAFT15_CLIENT)
    assert server([*unknown, unknown[-1]]).close_code == ErrorCodes.H3_SETTINGS_ERROR


@pytest.mark.parametrize("payload", ["33", "3301ff", "40", "c000"])
def test_settings_cut_short_are_frame_error(payload: str) -> None:
    with pytest.raises(ConnectionFault) as caught:
        decode_settings(bytes.fromhex(payload), is_client=True)
    assert caught.value.code == ErrorCodes.H3_FRAME_ERROR


@given(st.dictionaries(st.integers(0x40, 2**62 - 1), st.integers(0, 1)))
def test_settings_survive(settings: dict[int, int]) -> None:
    assert decode_settings(encode_settings(list(settings.items())), is_client=False) == settings


@pytest.mark.parametrize("dialect", list(Dialect))
def test_every_dialect_connects_to_itself(dialect: Dialect) -> None:
    pair = Pair(client_options={"dialects": [dialect]}, dialects=[dialect])
    assert pair.client.h3.dialect is pair.server.h3.dialect is dialect
    pair.client.h3.send_connect(0, authority="a", path="/")
    pair.exchange()
    [request] = pair.server.of(SessionRequested)
    assert request.protocol_token == dialect.row.token
    assert (("sec-webtransport-http3-draft02", "1") in request.headers) == (dialect is Dialect.D02)
    pair.server.h3.accept(0)
    pair.exchange()
    assert pair.client.h3.session_state(0) == pair.server.h3.session_state(0) == "open"


def test_default_sides_speak_the_newest_dialect() -> None:
    pair = Pair()
    assert pair.client.h3.dialect is pair.server.h3.dialect is Dialect.D15
    assert not pair.client.h3.flow_control


@pytest.mark.parametrize(("dialect", "status"), [("D02", 404), ("D07", 404), ("D13", 404), ("D15", 405)])
def test_r20_status_for_a_resource_without_webtransport(dialect: str, status: int) -> None:
    assert Dialect[dialect].row.not_found_status == status


def test_r12_h6_connect_before_settings_is_parked() -> None:
    side = server(None)
    assert side.receive(0, connect()) == []
    assert side.h3.parked == 1
    assert not side.resets(0)
    events = side.receive(CLIENT_CONTROL, control_stream(DRAFT15_CLIENT))
    assert [type(event) for event in events] == [SettingsReceived, SessionRequested]
    assert side.h3.parked == 0


def test_h6_parked_requests_are_bounded() -> None:
    side = server(None)
    for stream_id in range(0, 4 * 20, 4):
        side.receive(stream_id, connect())
    assert side.h3.parked == 16
    assert side.resets(4 * 15) == []
    assert side.resets(4 * 16) == side.resets(4 * 19) == [ErrorCodes.H3_REQUEST_REJECTED]


def test_h6_parked_requests_can_be_given_up() -> None:
    side = server(None)
    side.receive(0, connect())
    assert side.h3.expire_parked() == 1
    side.collect()
    assert side.resets(0) == [ErrorCodes.H3_REQUEST_REJECTED]
    assert side.h3.parked == 0
    side.receive(CLIENT_CONTROL, control_stream(DRAFT15_CLIENT))
    assert not side.of(SessionRequested)


def test_r8_client_does_not_connect_before_settings() -> None:
    side = client(None)
    with pytest.raises(RuntimeError, match="SETTINGS"):
        side.h3.send_connect(0, authority="a", path="/")
    side.receive(SERVER_CONTROL, control_stream(DRAFT15_SERVER))
    side.h3.send_connect(0, authority="a", path="/")
