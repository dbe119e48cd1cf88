"""The public surface: what it consists of, where it is found, and that nothing else slips in."""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import importlib
import importlib.resources
import inspect
import os
import pickle
import pkgutil
import subprocess
import sys
import types
import typing

import pytest

import wtio
import wtio.stream

# Names that programs rely on: none of them may go or change before 1.0.
PROMISED = (
    "Buffer",
    "ClientTLS",
    "ErrorCodes",
    "Limits",
    "ServerTLS",
    "StreamDiagnostics",
    "StreamDirection",
    "Timeouts",
    "WebTransportReceiveStream",
    "WebTransportSendStream",
    "WebTransportSession",
    "WebTransportStream",
    "connect",
    "serve",
)

STREAM_NAMES = (
    "Buffer",
    "ErrorCodes",
    "StreamDiagnostics",
    "StreamDirection",
    "WebTransportReceiveStream",
    "WebTransportSendStream",
    "WebTransportStream",
)

PUBLIC_MODULES = (
    "asgi",
    "client",
    "config",
    "errors",
    "hub",
    "opentelemetry",
    "prometheus",
    "protocol",
    "report",
    "routing",
    "secret",
    "server",
    "session",
    "steering",
    "stream",
    "testing",
    "tls",
    "workers",
)


@pytest.mark.parametrize("name", PROMISED)
def test_promised_names_are_there(name: str) -> None:
    assert name in wtio.__all__
    assert getattr(wtio, name) is not None


@pytest.mark.parametrize("name", STREAM_NAMES)
def test_stream_names_are_in_both_places(name: str) -> None:
    assert getattr(wtio, name) is getattr(wtio.stream, name)
    assert name in wtio.stream.__all__


def test_all_is_complete_sorted_and_without_doubles() -> None:
    assert len(set(wtio.__all__)) == len(wtio.__all__)
    assert sorted(wtio.__all__) == sorted(set(wtio.__all__))
    for name in wtio.__all__:
        assert getattr(wtio, name) is not None  # loads it, if nothing has yet
    public = {
        name
        for name, value in vars(wtio).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert public == set(wtio.__all__)
    assert set(wtio.__all__) <= set(dir(wtio))


def test_type_checkers_and_programs_find_names_in_the_same_places() -> None:
    tree = ast.parse(inspect.getsource(wtio))
    (told,) = (
        node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "typing.TYPE_CHECKING"
    )
    imports = [node for node in told.body if isinstance(node, ast.ImportFrom) and node.module != "wtio"]
    assert {alias.name: node.module for node in imports for alias in node.names} == wtio._HOMES
    assert set(wtio._HOMES) == set(wtio.__all__)


def test_star_import_gives_exactly_all() -> None:
    namespace: dict[str, object] = {}
    exec("from wtio import *", namespace)
    assert set(namespace) - {"__builtins__"} == set(wtio.__all__)


def test_every_public_name_says_where_it_comes_from() -> None:
    for name in wtio.__all__:
        value = getattr(wtio, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__module__.startswith("wtio") or name == "Buffer", name
            assert value.__doc__, name


def test_no_module_is_public_by_accident() -> None:
    found = {module.name for module in pkgutil.iter_modules(wtio.__path__) if not module.name.startswith("_")}
    assert found - {"cli"} <= set(PUBLIC_MODULES)


@pytest.mark.parametrize("name", PUBLIC_MODULES)
def test_all_of_every_module_exists(name: str) -> None:
    module = importlib.import_module(f"wtio.{name}")
    for member in getattr(module, "__all__", ()):
        assert hasattr(module, member), member
    assert module.__doc__


def test_version_is_a_version() -> None:
    assert all(part.isdigit() for part in wtio.__version__.split(".")[:2])


def test_package_is_typed() -> None:
    assert importlib.resources.files("wtio").joinpath("py.typed").is_file()


@pytest.mark.parametrize("name", [name for name in wtio.__all__ if not isinstance(getattr(wtio, name), int)])
def test_annotations_can_be_read_at_run_time(name: str) -> None:
    # Of functions and data classes: programs that check or convert values look at them.
    value = getattr(wtio, name)
    if inspect.isfunction(value) or dataclasses.is_dataclass(value):
        assert typing.get_type_hints(value)


# -- relations


def test_bidirectional_streams_are_both() -> None:
    assert issubclass(wtio.WebTransportStream, wtio.WebTransportReceiveStream)
    assert issubclass(wtio.WebTransportStream, wtio.WebTransportSendStream)
    assert not issubclass(wtio.WebTransportSendStream, wtio.WebTransportReceiveStream)


@pytest.mark.parametrize(
    ("name", "bases"),
    [
        ("ConnectError", (ConnectionError,)),
        ("InvalidURLError", (wtio.ConnectError, ValueError)),
        ("CertificateError", (wtio.ConnectError,)),
        ("ConnectionRefused", (wtio.ConnectError, ConnectionRefusedError)),
        ("HandshakeTimeout", (wtio.ConnectError, TimeoutError)),
        ("SessionRejectedError", (wtio.ConnectError,)),
        ("SessionClosed", (ConnectionError,)),
        ("SessionClosedOK", (wtio.SessionClosed,)),
        ("SessionClosedError", (wtio.SessionClosed,)),
        ("StreamResetError", (wtio.StreamError, ConnectionResetError)),
        ("StreamStoppedError", (wtio.StreamError, BrokenPipeError)),
        ("StreamClosedError", (wtio.StreamError,)),
        ("ReadLimitError", (wtio.StreamError, asyncio.LimitOverrunError)),
        ("DatagramTooLargeError", (ValueError,)),
        ("LocalProtocolError", (wtio.ProtocolError,)),
        ("RemoteProtocolError", (wtio.ProtocolError,)),
        ("BusyError", (RuntimeError,)),
    ],
)
def test_errors_are_what_programs_catch(name: str, bases: tuple[type, ...]) -> None:
    error = getattr(wtio, name)
    assert issubclass(error, wtio.WebTransportError)
    for base in bases:
        assert issubclass(error, base)


def test_stream_errors_and_session_errors_are_apart() -> None:
    # `except StreamError` must not swallow the end of the session, and neither must catch a cancellation.
    assert not issubclass(wtio.SessionClosed, wtio.StreamError)
    assert not issubclass(wtio.StreamError, wtio.SessionClosed)
    assert not issubclass(wtio.WebTransportError, asyncio.CancelledError)


@pytest.mark.parametrize(
    "error",
    [
        wtio.StreamResetError("reset", error_code=5, wire_code=6, partial=b"x", stream_id=4),
        wtio.StreamStoppedError("stopped", error_code=None, wire_code=6),
        wtio.SessionClosedError(code=5, reason="because", closed_by="peer"),
        wtio.SessionClosedOK(code=0, reason="", closed_by="local"),
        wtio.SessionRejectedError("rejected", status=404, headers=(("a", "b"),)),
        wtio.DatagramTooLargeError("large", size=5, limit=4),
        wtio.ReadLimitError("limit", limit=5, setting="Limits.line", stream_id=4),
        wtio.InvalidURLError("url", url="x"),
        wtio.HandshakeTimeout("late", timeout=1.0),
        wtio.RemoteProtocolError("bad", error_code=0x101),
        wtio.BusyError("busy"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_pickling(error: wtio.WebTransportError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_limits_and_timeouts_are_immutable_and_keyword_only() -> None:
    for kind in (wtio.Limits, wtio.Timeouts):
        value = kind()
        assert value == kind()
        assert hash(value) == hash(kind())
        name = next(iter(inspect.signature(kind).parameters))
        with pytest.raises(AttributeError):
            setattr(value, name, 1)
        with pytest.raises(TypeError):
            kind(1)  # type: ignore[call-arg]


def test_import_of_the_library_imports_nothing_heavy() -> None:
    heavy: tuple[str, ...] = (
        "uvloop",
        "aioquic",
        "cryptography",
        "typing_extensions",
        "wtio.hub",
        "wtio.workers",
        "redis",
        "nats",
    )
    heavy += ("prometheus_client", "opentelemetry")
    # Of the standard library: a tenth of the time that the names take to load, for what few use.
    heavy += ("email", "json")
    source = f"import sys; from wtio import *; print(*[name for name in {heavy} if name in sys.modules])"
    assert _in_a_new_interpreter(source, measured=False) == ""


def _in_a_new_interpreter(source: str, *, measured: bool = True) -> str:
    # What measures the lines that tests run loads modules of its own, `json` among them.
    environment = {name: value for name, value in os.environ.items() if measured or not name.startswith("COVERAGE_")}
    command = [sys.executable, "-c", source]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


def test_a_python_without_openssl_will_do() -> None:
    source = """
import sys
sys.modules["ssl"] = sys.modules["_ssl"] = None
import asyncio, tempfile, wtio
async def here(stream):
    await stream.write(data=b"here", end_stream=True)
async def answer(session):
    await session.serve_streams(here)
async def main():
    for attempt in range(2):  # the second finds the certificate of the first
        made = wtio.dev_certificate(directory=directory)
        async with wtio.serve(answer, "127.0.0.1", 0, tls=made.server_tls()) as server:
            url = f"https://127.0.0.1:{server.addresses[0][1]}/"
            async with wtio.connect(url, tls=made.client_tls()) as session:
                stream = await session.create_bidirectional_stream()
                await stream.write(data=b"", end_stream=True)
                print((await stream.read_all()).decode())
with tempfile.TemporaryDirectory() as directory:
    asyncio.run(main())
"""
    assert _in_a_new_interpreter(source) == "here\nhere"


def test_import_loads_the_extension_and_no_module_of_commands_or_tests() -> None:
    loaded = "print(*sorted(name for name in sys.modules if name.startswith('wtio')))"
    assert _in_a_new_interpreter(f"import sys, wtio; {loaded}") == "wtio wtio._core"
    everything = _in_a_new_interpreter(f"import sys; from wtio import *; {loaded}").split()
    assert "wtio.server" in everything
    tools = ("wtio.cli.", "wtio.testing", "wtio._driver.simulated")
    assert not [name for name in everything if name.startswith(tools)]


def test_who_only_connects_loads_no_server_and_who_only_serves_no_connector() -> None:
    loaded = "print(*[name for name in sys.modules if name in ('wtio.server', 'wtio.client', 'wtio._service')])"
    assert "wtio.client" not in _in_a_new_interpreter(f"import sys, wtio; wtio.serve; {loaded}").split()
    assert _in_a_new_interpreter(f"import sys, wtio; wtio.connect; {loaded}").split() == ["wtio.client"]


def test_modules_can_be_named_after_import_wtio_alone() -> None:
    for name in ("errors", "config", "tls", "testing"):
        assert _in_a_new_interpreter(f"import wtio; print(wtio.{name}.__name__)") == f"wtio.{name}"


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'conect'"):
        wtio.conect  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'conect'"):
        exec("from wtio import conect")


def test_an_extension_that_is_missing_or_broken_shows_at_import() -> None:
    source = "import sys; sys.modules['wtio._core'] = None; import wtio"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
    assert done.returncode == 1
    assert "import of wtio._core halted" in done.stderr
