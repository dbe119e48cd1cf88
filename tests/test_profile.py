"""Whose time a sample is, and how the page shows it, without measuring any."""

from __future__ import annotations

import argparse
import re

import pytest
from benchmarks import attribution, charts, profile
from benchmarks.attribution import Frame, Sample, attribute, read_samples

KERNEL = "[kernel.kallsyms]"
CORE = "/somewhere/wtio/_core.abi3.so"
PYTHON = "/usr/lib/libpython3.12.so.1.0"
MAP = "/tmp/perf-7.map"

OUTPUT = f"""\
     7/7    \n\
\tffffffff813a2413 finish_task_switch.isra.0 ({KERNEL})
\tffffffff821f8914 __schedule ({KERNEL})
\t           cf545 epoll_wait (/usr/lib/libc.so.6)

     7/8    \n\
\t          2ec795 <wtio_engine::quic::tap::TapKey as quinn_proto::crypto::PacketKey>::encrypt ({CORE})

     9/9    \n\

"""


def sample(*frames: tuple[str, str]) -> Sample:
    return Sample(7, 7, tuple(Frame(*frame) for frame in frames))


def test_stacks_are_read_from_the_output_of_perf_script() -> None:
    first, second, third = read_samples(OUTPUT.splitlines(keepends=True))
    assert (first.process, first.thread) == (7, 7)
    assert [frame.symbol for frame in first.stack] == ["finish_task_switch.isra.0", "__schedule", "epoll_wait"]
    assert first.stack[0].file == KERNEL
    assert second.thread == 8
    assert second.stack == (Frame("<wtio_engine::quic::tap::TapKey as quinn_proto::crypto::PacketKey>::encrypt", CORE),)
    assert third.stack == ()


@pytest.mark.parametrize(
    ("stack", "category"),
    [
        ([("udp_sendmsg", KERNEL), ("__sys_sendmsg", KERNEL), ("quinn_udp::imp::send", CORE)], attribution.SENDING),
        ([("sock_def_readable", KERNEL), ("udp_sendmsg", KERNEL)], attribution.WAITING),
        ([("copy_to_user", KERNEL), ("do_recvmmsg", KERNEL)], attribution.RECEIVING),
        ([("__memmove_evex", "libc.so.6"), ("wtio_engine::stream::SendQueue::push", CORE)], attribution.ENGINE),
        (
            [("exc_page_fault", KERNEL), ("malloc", "libc.so.6"), ("_core::stream::Stream::read", CORE)],
            attribution.BRIDGE,
        ),
        ([("ring_core_0_17_14__aes_gcm_enc_update_vaes_avx2", CORE)], attribution.ENCRYPTION),
        ([("ring_core_0_17_14__x25519_scalar_mult_adx", CORE)], attribution.TLS),
        ([("<wtio_engine::Tap as quinn_proto::PacketKey>::encrypt", CORE)], attribution.ENGINE),
        ([("<quinn_proto::frame::Iter as core::iter::Iterator>::next", CORE)], attribution.CORE),
        (
            [("wtio_net::udp::UdpEndpoint::bind", CORE), ("wtio_net::endpoint::Endpoint::bind", CORE)],
            attribution.SOCKETS,
        ),
        (
            [("_PyEval_EvalFrameDefault", PYTHON), ("py::LoopDriver.drive:/x/wtio/_driver/loop.py", MAP)],
            attribution.DRIVER,
        ),
        ([("py::WebTransportReceiveStream.read:/x/wtio/stream.py", MAP)], attribution.STREAMS),
        ([("py::Connection.handle:/x/wtio/_connection.py", MAP)], attribution.SESSIONS),
        ([("py::decode:/x/wtio/protocol/varint.py", MAP)], attribution.PROTOCOL),
        ([("py::BaseEventLoop._run_once:/usr/lib/python3.12/asyncio/base_events.py", MAP)], attribution.ASYNCIO),
        (
            [("visit_decref", PYTHON), ("gc_collect_main", PYTHON), ("py::f:/x/wtio/stream.py", MAP)],
            attribution.COLLECTOR,
        ),
        ([("py::_answer_echo:/x/benchmarks/workloads.py", MAP)], attribution.APPLICATION),
        ([("mystery", "libmystery.so")], attribution.OTHER),
        ([], attribution.OTHER),
    ],
)
def test_the_first_known_frame_from_inside_decides(stack: list[tuple[str, str]], category: str) -> None:
    assert attribute(sample(*stack))[0] == category


def test_another_thread_is_the_guardian_whatever_it_calls() -> None:
    assert (
        attribute(Sample(7, 8, (Frame("quinn_proto::connection::Connection::poll", CORE),)))[0] == attribution.GUARDIAN
    )


def test_copies_are_named_with_whoever_copies() -> None:
    stack = sample(("__memmove_avx512_unaligned_erms", "libc.so.6"), ("wtio_engine::stream::SendQueue::push", CORE))
    assert attribute(stack)[1] == "copying in wtio_engine::stream::SendQueue::push"


def test_names_of_functions_fit_into_a_table() -> None:
    assert attribution.short(Frame("py::Stream.read:/a/b/wtio/stream.py", MAP)) == "Stream.read (stream.py)"
    assert attribution.short(Frame("<a::B<C> as d::E>::f", CORE)) == "a::B::f"
    assert attribution.short(Frame("udp_sendmsg", KERNEL)) == "udp_sendmsg (kernel)"


def test_every_category_of_a_rule_has_a_colour() -> None:
    assert {category for _, _, category in attribution.RULES} <= set(attribution.CATEGORIES)
    assert len(attribution.CATEGORIES) == len(set(attribution.CATEGORIES))
    assert len(attribution.GROUPS) <= len(charts.COLOURS)


def measured() -> profile.Measured:
    result = profile.Measured(wall=[120e-6], traced_processor=[200e-6])
    for side in profile.SIDES:
        result.processor[side] = [50e-6, 40e-6, 90e-6]
        for stack in ([("udp_sendmsg", KERNEL)], [("udp_sendmsg", KERNEL)], [("py::f:/x/wtio/stream.py", MAP)], []):
            result.profiles[side].add(sample(*stack))
    return result


def test_the_page_shows_shares_of_the_undisturbed_time() -> None:
    results = {name: {operation.name: measured() for operation in profile.OPERATIONS} for name in ("wtio", "bare")}
    text = profile.report(results, "Python 3.12.1", 0.1, argparse.Namespace(pairs=3, functions=1))
    assert f"| {attribution.SENDING} | 25.0 (50%) | 25.0 (50%) | 25.0 (50%) | 25.0 (50%) |" in text
    assert f"| {attribution.OTHER} | 12.5 (25%) |" in text
    assert "| **all** | **50.0** |" in text
    assert "From beginning to end 120 µs" in text
    assert "Most of the server: `udp_sendmsg (kernel)` 50.0%." in text
    assert attribution.CORE not in text


def test_the_picture_has_bars_as_long_as_their_parts() -> None:
    bars = [charts.Bar("long", {"a": 30.0, "b": 10.0}), charts.Bar("short", {"a": 5.0})]
    drawn = charts.stacked("title", "note", {"panel": bars})
    widths = [float(width) for width in re.findall(r'width="([\d.]+)" height="13"', drawn)]
    assert widths[:3] == pytest.approx([widths[0], widths[0] / 3, widths[0] / 6], rel=0.01)
    assert "40.0" in drawn
