"""Reads qlogs, and checks them against what the drafts say of each event.

Source: draft-ietf-quic-qlog-main-schema-13, draft-ietf-quic-qlog-quic-events-12, draft-ietf-quic-qlog-h3-events-12, and
docs/qlog.md for events of sessions.
"""

from __future__ import annotations

import ipaddress
import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Check = "Callable[[Any], bool]"


def number(bits: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and 0 <= value < 2**bits


def one_of(*words: str) -> Callable[[Any], bool]:
    return lambda value: value in words


def text(value: Any) -> bool:
    return isinstance(value, str)


def flag(value: Any) -> bool:
    return isinstance(value, bool)


def real(value: Any) -> bool:
    return type(value) in (int, float) and value >= 0


def address(version: int) -> Callable[[Any], bool]:
    return lambda value: ipaddress.ip_address(value).version == version


def hexadecimal(value: Any) -> bool:
    return bool(re.fullmatch("([0-9a-f]{2})*", value))


def fields(**kinds: Any) -> Callable[[Any], bool]:
    """An object with these fields; those that may be absent end in an underscore."""

    def check(value: Any) -> bool:
        assert isinstance(value, dict), value
        known = {name.removesuffix("_"): kind for name, kind in kinds.items()}
        required = {name for name in kinds if not name.endswith("_")}
        assert value.keys() <= known.keys(), f"{value.keys() - known.keys()} is none of {known.keys()}"
        assert required <= value.keys(), f"{required - value.keys()} is missing"
        for name, one in value.items():
            assert known[name](one), (name, one)
        return True

    return check


def each(kind: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(kind(one) for one in value)


def frame(value: Any) -> bool:
    kind = value["frame_type"]
    raw = {"frame_type": text, "raw_": RAW}
    setting = fields(
        name_=one_of(
            *("settings_qpack_max_table_capacity", "settings_max_field_section_size"),
            *("settings_qpack_blocked_streams", "settings_enable_connect_protocol", "settings_h3_datagram"),
            *("reserved", "unknown"),
        ),
        name_bytes_=number(64),
        value=number(64),
    )
    own: dict[str, dict[str, Any]] = {
        "data": {},
        "headers": {"headers": each(fields(name_=text, value_=text))},
        "settings": {"settings": each(setting)},
        "reserved": {"frame_type_bytes": number(64)},
        "unknown": {"frame_type_bytes": number(64)},
    }
    return fields(**raw, **own[kind])(value)


RAW = fields(length_=number(64), payload_length_=number(64), data_=hexadecimal)
SIDE = one_of("local", "remote")
ENDPOINT = fields(ip_v4_=address(4), port_v4_=number(16), ip_v6_=address(6), port_v6_=number(16))
STATE = one_of(
    *("attempted", "handshake_started", "handshake_complete", "closed", "peer_validated", "early_write"),
    *("handshake_confirmed", "closing", "draining"),
)
STREAM_STATE = one_of(
    *("idle", "open", "closed", "half_closed_local", "half_closed_remote", "ready", "send", "data_sent", "reset_sent"),
    *("reset_received", "receive", "size_known", "data_read", "reset_read", "data_received", "destroyed"),
)
HEADER = fields(
    packet_type=one_of("initial", "handshake", "0RTT", "1RTT", "retry", "version_negotiation", "stateless_reset"),
    packet_number_=number(64),
)
STREAM_TYPE = one_of("request", "control", "push", "reserved", "unknown", "qpack_encode", "qpack_decode")
PARAMETERS = (
    *("max_idle_timeout", "max_udp_payload_size", "ack_delay_exponent", "max_ack_delay", "active_connection_id_limit"),
    *("initial_max_data", "initial_max_stream_data_bidi_local", "initial_max_stream_data_bidi_remote"),
    *("initial_max_stream_data_uni", "initial_max_streams_bidi", "initial_max_streams_uni", "max_datagram_frame_size"),
)
FRAME_EVENT = fields(stream_id=number(64), frame=frame)
DATAGRAM_EVENT = fields(quarter_stream_id=number(64), raw_=RAW)
CAPSULE_EVENT = fields(stream_id=number(64), capsule_type=number(64), raw=RAW)
EVENTS: dict[str, Callable[[Any], bool]] = {
    "quic:connection_started": fields(local=ENDPOINT, remote=ENDPOINT),
    "quic:connection_state_updated": fields(old_=STATE, new=STATE),
    "quic:connection_closed": fields(
        initiator_=SIDE,
        connection_error_=lambda value: value == "unknown" or bool(re.fullmatch("crypto_error_0x1[0-9a-f]{2}", value)),
        application_error_=one_of("unknown"),
        error_code_=number(64),
        trigger_=one_of(
            *("idle_timeout", "application", "error", "version_mismatch", "stateless_reset", "aborted", "unspecified")
        ),
    ),
    "quic:mtu_updated": fields(old_=number(32), new=number(32), done_=flag),
    "quic:alpn_information": fields(chosen_alpn_=fields(byte_value_=hexadecimal, string_value_=text)),
    "quic:parameters_set": fields(
        initiator_=SIDE,
        unknown_parameters_=each(fields(id=number(64), value_=hexadecimal)),
        **{f"{name}_": number(64) for name in PARAMETERS},
    ),
    "quic:packet_sent": fields(header=HEADER, raw_=RAW),
    "quic:packet_received": fields(header=HEADER, raw_=RAW),
    "quic:packet_lost": fields(
        header_=HEADER, trigger_=one_of("reordering_threshold", "time_threshold", "pto_expired")
    ),
    "quic:recovery_metrics_updated": fields(
        **{f"{name}_": real for name in ("min_rtt", "smoothed_rtt", "latest_rtt", "rtt_variance")},
        pto_count_=number(16),
        **{
            f"{name}_": number(64) for name in ("congestion_window", "bytes_in_flight", "ssthresh", "packets_in_flight")
        },
        pacing_rate_=number(64),
    ),
    "quic:stream_state_updated": fields(
        stream_id=number(64),
        stream_type_=one_of("unidirectional", "bidirectional"),
        old_=STREAM_STATE,
        new=STREAM_STATE,
        stream_side=one_of("sending", "receiving"),
        trigger_=SIDE,
    ),
    "http3:parameters_set": fields(
        initiator_=SIDE,
        max_field_section_size_=number(64),
        max_table_capacity_=number(64),
        blocked_streams_count_=number(64),
        extended_connect_=number(16),
        h3_datagram_=number(16),
    ),
    "http3:stream_type_set": fields(
        initiator_=SIDE, stream_id=number(64), stream_type=STREAM_TYPE, stream_type_bytes_=number(64)
    ),
    "http3:frame_created": FRAME_EVENT,
    "http3:frame_parsed": FRAME_EVENT,
    "http3:datagram_created": DATAGRAM_EVENT,
    "http3:datagram_parsed": DATAGRAM_EVENT,
    "loglevel:warning": fields(code_=number(64), message_=text),
    "webtransport:connection_numbered": fields(log_id=number(64)),
    "webtransport:session_opened": fields(
        session_id=number(64), log_id=number(64), path=text, dialect=text, status=number(16), is_earlier_=flag
    ),
    "webtransport:session_closed": fields(
        session_id=number(64),
        log_id=number(64),
        closed_by_=one_of("peer", "local", "transport"),
        code_=number(32),
        stream_bytes_received=number(64),
        stream_bytes_sent=number(64),
        datagrams_received=number(64),
        datagrams_sent=number(64),
    ),
    "webtransport:session_rejected": fields(status=number(16), path_=text),
    "webtransport:stream_opened": fields(session_id=number(64), stream_id=number(64), initiator=SIDE),
    "webtransport:capsule_created": CAPSULE_EVENT,
    "webtransport:capsule_parsed": CAPSULE_EVENT,
}
HEAD = fields(
    file_schema=one_of("urn:ietf:params:qlog:file:sequential"),
    serialization_format=one_of("application/qlog+json-seq"),
    title_=text,
    description_=text,
    trace=fields(
        common_fields_=fields(
            time_format_=one_of("relative_to_epoch", "relative_to_previous_event"),
            reference_time_=fields(
                clock_type=one_of("system", "monotonic"),
                epoch=one_of("unknown"),
                wall_clock_time_=lambda value: bool(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", value)),
            ),
        ),
        vantage_point_=fields(name_=text, type=one_of("client", "server", "network", "unknown")),
        event_schemas=each(text),
    ),
)


def read_qlog(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The head and the events of a file, each checked. RFC 7464: a record is between RS and LF."""
    first, *records = path.read_text(encoding="utf-8").split("\x1e")
    assert not first
    assert all(record.endswith("\n") for record in records)
    head, *events = [json.loads(record) for record in records]
    assert HEAD(head)
    namespaces = {
        schema.rpartition(":")[2].rpartition("/")[2].partition("-")[0] for schema in head["trace"]["event_schemas"]
    }
    last = 0.0
    for event in events:
        assert event.keys() == {"time", "name", "data"}
        assert event["name"].partition(":")[0] in namespaces
        assert EVENTS[event["name"]](event["data"]), event
        # The core has fewer digits.
        assert event["time"] >= last - 0.01, event
        last = event["time"]
    return head, events
