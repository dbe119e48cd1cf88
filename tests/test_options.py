"""Options have one home each: their defaults and ranges in ``config.py``, and one value that carries all of them."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import wtio
import wtio.testing
from wtio import _core, config
from wtio._options import EndpointOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

PRODUCT = Path(wtio.__file__).parent

PUBLIC = {
    "client.py: connect",
    "client.py: Client.__init__",
    "server.py: serve",
    "workers/_supervisor.py: Supervisor.__init__",
    "testing.py: Network.serve",
    "testing.py: Network.connect",
    "testing.py: Network.client",
}


def options(limits: wtio.Limits | None = None, timeouts: wtio.Timeouts | None = None, **others: Any) -> EndpointOptions:
    given: dict[str, Any] = {"congestion": "tolerant", "reset_stream_at": True, "strict": False, "io": "loop"}
    return EndpointOptions(limits=limits or wtio.Limits(), timeouts=timeouts or wtio.Timeouts(), **(given | others))


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function of a module, by its qualified name."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield prefix + node.name, node
        name = getattr(node, "name", None)
        yield from functions(node, f"{prefix}{name}." if isinstance(name, str) else prefix)


def test_a_field_without_a_range_fails_when_its_module_is_imported() -> None:
    @dataclasses.dataclass
    class Made:
        size: int = 5

    with pytest.raises(AssertionError, match=r"Made\.size needs a range"):
        config._checks(Made)


def test_a_default_outside_its_range_fails_when_its_module_is_imported() -> None:
    @dataclasses.dataclass
    class Made:
        size: int = config._limit(0, least=1)

    with pytest.raises(ValueError, match=r"Made\.size is 0; it must be between 1"):
        config._checks(Made)


def test_nothing_below_the_public_calls_takes_an_option_by_itself() -> None:
    found = set()
    for path in PRODUCT.rglob("*.py"):
        for name, function in functions(ast.parse(path.read_text(encoding="utf-8"))):
            arguments = function.args
            names = {one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
            if names & {"congestion", "reset_stream_at", "strict", "io"}:
                found.add(f"{path.relative_to(PRODUCT)}: {name}")
    assert found == PUBLIC


@pytest.mark.parametrize("function", [_core.Endpoint, _core.Connection.add_session])
def test_the_engine_has_no_default_of_an_option(function: object) -> None:
    signature = getattr(function, "__text_signature__", None)
    assert signature
    assert "=" not in signature


def test_keep_alive_leaves_room_for_three_lost_pings() -> None:
    assert options(timeouts=wtio.Timeouts(idle=30, keep_alive=5)).keep_alive == 5
    assert options(timeouts=wtio.Timeouts(idle=30, keep_alive=20)).keep_alive == 10
    assert options(timeouts=wtio.Timeouts(keep_alive=None)).keep_alive is None


def test_session_credit_is_twice_that_of_the_connection_unless_given() -> None:
    limits = wtio.Limits(connection_receive_window=5000, bidirectional_streams=3, unidirectional_streams=2)
    assert options(limits).session_credit == (10_000, 6, 4)
    # HTTP/3 makes the connection allow 2.
    assert options(dataclasses.replace(limits, unidirectional_streams=1)).session_credit == (10_000, 6, 1)
    largest = dataclasses.replace(limits, connection_receive_window=config.LARGEST_LIMIT)
    assert options(largest).session_credit.data == config.LARGEST_LIMIT
    given = dataclasses.replace(
        limits, session_receive_window=1, session_bidirectional_streams=0, session_unidirectional_streams=9
    )
    assert options(given).session_credit == (1, 0, 9)


def test_http3_takes_no_streams_from_those_of_sessions() -> None:
    limits = wtio.Limits(bidirectional_streams=5, unidirectional_streams=7)
    assert options(limits).peer_streams(is_server=True) == (6, 8)
    assert options(limits).peer_streams(is_server=False) == (5, 8)
    none = wtio.Limits(bidirectional_streams=0, unidirectional_streams=0)
    assert options(none).peer_streams(is_server=True) == (1, 3)


def test_options_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        options().strict = True  # type: ignore[misc]
    changed = dataclasses.replace(options(), timeouts=wtio.Timeouts(idle=3))
    assert changed.keep_alive == 1
    assert changed != options()


def test_a_simulated_network_takes_every_option_and_needs_no_thread() -> None:
    async def main() -> None:
        async def handler(session: wtio.WebTransportSession) -> None:
            await session.wait_closed()

        network = wtio.testing.Network()
        async with network.serve(handler, io="thread"), network.client(io="thread") as client:
            for connector in (network.connect(io="thread"), client.connect("https://localhost/")):
                async with connector as session:
                    assert not session.is_closed

    wtio.testing.run(main())


@pytest.mark.parametrize(("cls", "name"), [(wtio.Timeouts, "drain"), (wtio.Limits, "bidirectional_streams")])
def test_values_that_only_equal_the_default_are_checked(cls: Any, name: str) -> None:
    default = getattr(cls(), name)
    given = False if default == 0 else float(default)
    assert given == default
    with pytest.raises(TypeError, match=name):
        cls(**{name: given})
