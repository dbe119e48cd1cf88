"""The border between Python and Rust: everything that crosses it has a name, and errors are Python's."""

from __future__ import annotations

import ast
import inspect
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest

import wtio
from wtio import _core, testing
from wtio._connection.base import Connection
from wtio._core import EngineEvent
from wtio._driver import Driver
from wtio._options import EndpointOptions

STUB = Path(wtio.__file__).with_name("_core.pyi").read_text(encoding="utf-8")
OPTIONS = EndpointOptions(
    limits=wtio.Limits(),
    timeouts=wtio.Timeouts(),
    congestion="tolerant",
    reset_stream_at=True,
    strict=False,
    io="loop",
)
FIGURES = ("CertificateFacts", "ConnectionFacts", "ConnectionStats", "Credit", "DatagramStats", "EndpointStats")


def handled(function: object) -> set[str]:
    """Names of the events that a function has a case for."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))  # type: ignore[arg-type]
    patterns = (case.pattern for node in ast.walk(tree) if isinstance(node, ast.Match) for case in node.cases)
    return {p.cls.attr for p in patterns if isinstance(p, ast.MatchClass) and isinstance(p.cls, ast.Attribute)}


def test_every_event_has_a_case() -> None:
    events = {event.__name__ for event in EngineEvent.__subclasses__()}
    assert {name for name in dir(EngineEvent) if name[0].isupper()} == events
    of_connections, of_endpoints = handled(Connection.handle), handled(Driver._pass_on_event)
    assert of_connections | of_endpoints == events
    assert not of_connections & of_endpoints


def test_nothing_crosses_the_border_by_number_or_by_key() -> None:
    for shape in ("EVENT_", "tuple[Any, ...]", "dict[str"):
        assert shape not in STUB


@pytest.mark.parametrize("name", [*FIGURES, "StreamStats", "HalfState", "EngineEvent"])
def test_figures_can_be_neither_changed_nor_made(name: str) -> None:
    kind = getattr(_core, name)
    with pytest.raises(TypeError):
        kind()
    with pytest.raises(TypeError):
        kind(1, 2)


def test_a_misspelt_figure_is_no_zero() -> None:
    async def main() -> None:
        async with testing.session_pair() as (client, _):
            stats = client._core.stats()
            assert stats.rtt > 0
            with pytest.raises(AttributeError):
                _ = stats.round_trip_time  # type: ignore[attr-defined]
            with pytest.raises(AttributeError):
                stats.rtt = 1.0  # type: ignore[misc]

    testing.run(main())


def test_members_of_an_enum_are_single_objects() -> None:
    waits, ends = _core.ReadAnswer.WAIT, _core.ReadAnswer.ENDED
    assert waits is _core.ReadAnswer.WAIT
    assert waits is not ends
    assert _core.CloseCause.IDLE.name == "idle"


class _Strange:
    """Options with one value that Python would refuse."""

    def __init__(self, **values: object) -> None:
        self._values = values

    def __getattr__(self, name: str) -> object:
        return self._values[name] if name in self._values else getattr(OPTIONS, name)


def _endpoint(**values: object) -> _core.Endpoint:
    return _core.Endpoint(_Strange(**values), server_tls=None, seed=b"border")  # type: ignore[arg-type]


def test_options_and_addresses_that_cannot_be_used_are_no_errors_of_tls() -> None:
    with pytest.raises(ValueError, match="congestion control `hope` is unknown"):
        _endpoint(congestion="hope")
    with pytest.raises(ValueError, match="idle timeout"):
        _endpoint(timeouts=SimpleNamespace(idle=1e18, datagram_send=None))
    tls = testing._certificate().client_tls()._engine
    with pytest.raises(OSError, match="address"):
        _endpoint().connect(("127.0.0.1", 0), "localhost", tls, None)
    with pytest.raises(_core.TlsError):
        _core.ClientTls(mode="roots", roots_pem=b"none", hashes=[], certificate_pem=b"", key_pem=b"", key_log_file=None)


def test_keying_material_that_the_connection_no_longer_has_is_the_end_of_the_session() -> None:
    async def main() -> None:
        async with testing.session_pair() as (client, server):
            assert client.export_keying_material(b"x", length=32) == server.export_keying_material(b"x", length=32)
            assert client._core.export_keying_material(b"x", b"", 1 << 20) is None
            core = client._core
            client._core = SimpleNamespace(export_keying_material=lambda *_: None)  # type: ignore[assignment]
            try:
                with pytest.raises(wtio.SessionClosed, match="the connection was lost"):
                    client.export_keying_material(b"x", length=32)
            finally:
                client._core = core

    testing.run(main())
