"""What is over is freed at once, without the help of the garbage collector."""

import gc
from collections.abc import Callable, Iterator

import pytest

from wtio.protocol.codes import ErrorCodes
from wtio.protocol.connection import H3Connection
from wtio.protocol.frames import RecordReader
from wtio.protocol.request import RequestStream
from wtio.protocol.session import Session

from .pair import (
    DRAFT15_CLIENT,
    FLOW_CONTROL,
    Side,
    close,
    data,
    headers,
    open_client,
    open_server,
    requested_server,
    server,
)

PARTS = (H3Connection, RecordReader, RequestStream, Session)


@pytest.fixture
def garbage() -> Iterator[Callable[[], list[object]]]:
    """The parts of a connection that only the collector finds."""

    def find() -> list[object]:
        gc.collect()
        found: list[object] = [item for item in gc.garbage if isinstance(item, PARTS)]
        gc.garbage.clear()
        return found

    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    yield find
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


def ended_by_us() -> Side:
    side = open_server()
    side.run(lambda: side.h3.close_session(0, 1, "done"))
    side.receive(0, b"", True)
    return side


def ended_by_the_client() -> Side:
    side = open_server()
    side.receive(0, close(1, "done")[:5])  # the capsule is read in pieces
    side.receive(0, close(1, "done")[5:], True)
    return side


def ended_by_the_server() -> Side:
    side = open_client()
    side.receive(0, close(1, "done"), True)
    return side


def ended_with_credit() -> Side:
    side = open_server(settings=[*DRAFT15_CLIENT, *FLOW_CONTROL], initial_max_data=1000)
    side.receive(0, data(bytes.fromhex("990b4d3d48ff")))  # WT_MAX_DATA
    side.reset(0, ErrorCodes.H3_REQUEST_CANCELLED)
    return side


def broken() -> Side:
    side = open_client()
    side.receive(0, data(b"\x68\x43\x00"))  # WT_CLOSE_SESSION without a code
    return side


def rejected() -> Side:
    side = requested_server()
    side.receive(0, data(b"\x80\x00\x78\xae\x00"))  # WT_DRAIN_SESSION, which is held
    side.run(lambda: side.h3.reject(0, 403))
    side.receive(0, b"", True)
    return side


def ordinary() -> Side:
    side = server()
    side.receive(0, headers((":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/")))
    side.run(lambda: side.h3.reject(0, 404))
    return side


ENDS = [ended_by_us, ended_by_the_client, ended_by_the_server, ended_with_credit, broken, rejected, ordinary]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.unmeasured
def test_stream_of_an_ended_request_needs_no_collector(
    end: Callable[[], Side], garbage: Callable[[], list[object]]
) -> None:
    side = end()
    assert side.is_free(0)
    assert garbage() == []
    assert not [item for item in gc.get_objects() if isinstance(item, (RequestStream, Session))]
    assert side.close_code is None


@pytest.mark.parametrize("start", [open_client, open_server])
def test_connection_with_an_open_session_needs_no_collector(
    start: Callable[[], Side], garbage: Callable[[], list[object]]
) -> None:
    side: Side | None = start()
    assert side
    side.receive(0, close()[:4])
    del side
    assert garbage() == []
