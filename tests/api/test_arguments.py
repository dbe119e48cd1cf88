"""Wrong arguments are named at the call: one table of everything public, and no argument without a row."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import functools
import inspect
import ssl
import unittest.mock
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.http3 import HttpClient

import wtio
import wtio.hub
import wtio.opentelemetry
import wtio.prometheus
import wtio.testing
import wtio.workers
from wtio.testing import Network, VirtualTimeLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

# What only the library makes: their constructors are not for applications.
MADE_BY_THE_LIBRARY = {
    wtio.CloseInfo,
    wtio.ConnectionReport,
    wtio.Connector,
    wtio.DevCertificate,
    wtio.HttpRequest,
    wtio.IncomingDatagrams,
    wtio.IncomingStreams,
    wtio.Server,
    wtio.SessionFacts,
    wtio.SessionRequest,
    wtio.ServerMemory,
    wtio.ServerStats,
    wtio.SessionStats,
    wtio.StreamDiagnostics,
    wtio.WebTransportReceiveStream,
    wtio.WebTransportSendStream,
    wtio.hub.HubStats,
    wtio.hub.Message,
    wtio.hub.Policy,
    wtio.hub.Subscription,
    wtio.testing.Direction,
    wtio.WebTransportSession,
    wtio.WebTransportStream,
    wtio.testing.VirtualTimeLoop,
    wtio.testing.WireCounts,
}


class Wrong:
    """Fits nowhere."""

    def __repr__(self) -> str:
        return "Wrong()"


class Asynchronous:
    """A handler that is an object."""

    async def __call__(self, session: wtio.WebTransportSession) -> None:
        await session.wait_closed()

    async def method(self, session: wtio.WebTransportSession, *further: object) -> None:
        await session.wait_closed()


async def generator(session: object) -> Any:
    yield session


def generator_function(request: object) -> Any:
    yield request


async def needs_more(request: object, further: object) -> None:
    """An admission that is none."""


def plain(session: object) -> None:
    """A handler that is none."""


TEXT = (5, b"x", Wrong())
FLAG: tuple[Any, ...] = ("yes", 1, Wrong(), 0, "", [])
CODE = ("1", 1.5, Wrong(), -1, 2**32, 2**70)
COUNT = ("1", 1.5, Wrong(), 0.0, -1.0, False)
BUFFER = ("text", 5, None, Wrong(), [1, 2], memoryview(b"abcd")[::2])
HEADERS = (5, "x: y", [5], ["ab"], [("a",)], {"a": 1}, {b"a": b"b"}, {":path": "/"}, {"a b": "c"}, {"a": "b\n"}, None)
PROTOCOLS = (5, "chat", b"chat", [5], ["a\n"], [""], ["x" * 513], ["ä"])
CLIENT_TLS = ("cert.pem", 5, True, False, ssl.create_default_context(), Wrong())
ORIGIN = (1, b"https://a", ["https://a"], "https://a\n", "https://ä", "\ud800")
LIMITS = (5, {"read_all": 5}, wtio.Timeouts(), Wrong(), False, 0)
TIMEOUTS = (5, 5.0, {"connect": 5}, wtio.Limits(), Wrong(), False, 0)
CONGESTION = (5, "reno", None, b"cubic", ["cubic"])
PATH = (5, b"cert.pem", Wrong(), "a\0b")
DATA = (5, ["x"], Wrong())
PORT = ("443", 443.0, None, True, -1, 65_536)
HOST: tuple[Any, ...] = (5, b"localhost", [5], [None], [], Wrong(), "a b\u3000")
HANDLER = (5, plain, print, generator, lambda session: None, Asynchronous, Wrong(), functools.partial(plain))
HOOK = (5, Wrong(), generator, generator_function)
TOPIC = (*TEXT, None, "", "a\n", "\ud800", "ä" * 128)
SHARE = ("0.1", None, True, 50, -0.1, float("nan"))

CLIENT = {
    "tls": CLIENT_TLS,
    "headers": HEADERS,
    "protocols": (*PROTOCOLS, None, ["a", "a"]),
    "origin": ORIGIN,
    "timeouts": TIMEOUTS,
    "limits": LIMITS,
    "congestion": CONGESTION,
    "reset_stream_at": (*FLAG, None),
    "strict": (*FLAG, None),
}
SERVER = {
    "handler": HANDLER,
    "admit": HANDLER,
    "host": HOST,
    "port": PORT,
    "tls": (*CLIENT_TLS, [], (), [5], ["cert.pem"], {}),
    "protocols": (*PROTOCOLS, None),
    "origins": (5, None, "https://a", b"*", [5], ["https://a/"], ["https://*.a"], [None], ["wss://a"]),
    "http": HOOK,
    "timeouts": TIMEOUTS,
    "limits": LIMITS,
    "congestion": CONGESTION,
    "reset_stream_at": (*FLAG, None),
    "strict": (*FLAG, None),
    "secret": (5, bytes(32), "x" * 32, Wrong()),
    "slot": ("1", 1.5, True, -1, 256, Wrong()),
    "server_id": (5, "1", b"", bytes(9), [1], Wrong()),
}
IO = {"io": (5, "threads", None, b"loop")}
LOCAL = {
    "local_addr": (5, "127.0.0.1", ["127.0.0.1", 0], ("127.0.0.1",), ("localhost", 0), (None, 0), ("::1", -1), ("", 0)),
}
URL = {"url": (5, None, b"https://a", "", "a", "http://a", "https://a:x", "https://a#b", "https://a b", "\ud800")}
ACCEPT: dict[str, tuple[Any, ...]] = {
    "protocol": (*TEXT, "not offered"),
    "headers": HEADERS,
    "status": (*COUNT, None, True, 100, 199, 300, 404),
}
READ = (*COUNT, None, -2, 2**70)
STREAM = {"send_order": (*COUNT, None, 2**31, -(2**31) - 1), "wait_until_available": (*FLAG, None)}
DELAY = ("1", None, True, -1, float("inf"), float("nan"))
CONDITIONS = {
    "latency": DELAY,
    "jitter": DELAY,
    "loss": SHARE,
    "reorder": SHARE,
    "duplicate": SHARE,
    "mtu": (*COUNT, None, True, 0),
    "bandwidth": ("1", True, 0, -1, float("nan")),
    "corrupt": SHARE,
    "replay": SHARE,
    "ecn": (5, None, "mark", b"drop"),
    "queue": DELAY,
}

ROUTE = (5, None, b"/", "", "a", "/?a", "/{a")

TABLE: dict[str, dict[str, tuple[Any, ...]]] = {
    "wtio.connect": {**URL, **CLIENT, **IO, **LOCAL},
    "wtio.serve": {
        **SERVER,
        **IO,
        "tls": (*SERVER["tls"], None),
        "sock": (5, "localhost", b"x", True, Wrong(), [], (), [5], [None]),
        "fd": ("3", 1.5, False, Wrong(), -1, 10**6, 2**70, [], [None], ["3"]),
    },
    "wtio.Client": {**CLIENT, **IO, **LOCAL},
    "wtio.systemd_sockets": {"name": (*TEXT, "\ud800")},
    "wtio.Client.connect": {
        **URL,
        "headers": HEADERS,
        "protocols": (*PROTOCOLS, ["a", "a"]),
        "origin": ORIGIN,
        "allow_pooling": (*FLAG, None),
    },
    "wtio.Limits": {
        field.name: ("5", 2.5, True, Wrong(), -1, 2**70, *(() if field.default is None else ("",)))
        for field in dataclasses.fields(wtio.Limits)
    },
    "wtio.Timeouts": {
        field.name: ("5", True, Wrong(), -1, float("inf"), float("nan"), 1e12)
        for field in dataclasses.fields(wtio.Timeouts)
    },
    "wtio.ClientTLS": {
        "cafile": PATH,
        "cadata": DATA,
        "certificate_hashes": (5, None, b"x" * 32, "ab", [5], [b"short"], ["xyz"], iter(())),
        "dangerously_trust_any_certificate": (*FLAG, None),
        "certfile": PATH,
        "keyfile": PATH,
    },
    "wtio.ServerTLS": {
        "certfile": PATH,
        "keyfile": PATH,
        "certdata": DATA,
        "keydata": DATA,
        "client_cafile": PATH,
        "client_cadata": DATA,
        "client_certificates": (5, True, "optional", b"required", "required"),
        "watch": (*FLAG, None, True),
    },
    "wtio.Secret": {"value": (5, None, "x" * 32, Wrong(), b"x" * 31)},
    "wtio.ServerId": {"value": (5, None, "1", Wrong(), b"", bytes(9))},
    "wtio.dev_certificate": {
        "names": (5, None, "localhost", b"localhost", [5], [], ["a b"], ["straße.example"]),
        "directory": PATH,
    },
    "wtio.run": {
        "main": (5, None, plain, Asynchronous().method, Asynchronous),
        "code": (*CODE, None),
        "reason": (*TEXT, None, "\ud800"),
        "debug": FLAG,
        "loop_factory": (5, "uvloop", Wrong()),
    },
    "wtio.HttpResponse": {
        "status": (*COUNT, None, True, 100, 199, 600),
        "headers": (*HEADERS, {"content-length": "five"}),
        "body": (*BUFFER, 1.5, [b"x", "text"], (5,), generator),
    },
    "wtio.HttpRequest.body": {"limit": READ},
    "wtio.ConnectionReport.setting": {"identifier": (*COUNT, None)},
    "wtio.ConnectionReport.transport_parameter": {"identifier": (*COUNT, None)},
    "wtio.SessionRequest.accept": ACCEPT | {"flush": (*FLAG, None)},
    "wtio.SessionRequest.serve": ACCEPT | {"handler": (*HANDLER, None)},
    "wtio.SessionRequest.reject": {"status": (*COUNT, True, 200, 299, 600), "headers": HEADERS, "body": BUFFER},
    "wtio.Router": {"admit": (*HANDLER, needs_more)},
    "wtio.Router.session": {"path": ROUTE, "admit": (*HANDLER, needs_more)},
    "wtio.Router.get": {"path": ROUTE},
    "wtio.Router.mount": {"path": (*ROUTE, "/{a}"), "site": (5, None, Wrong(), Asynchronous())},
    "wtio.Server.reload": {"tls": SERVER["tls"]},
    "wtio.Server.close": {
        "code": (*CODE, None),
        "reason": (*TEXT, None, "\ud800"),
        "drain": ("1", -1, float("nan"), True),
    },
    "wtio.WebTransportSession.create_bidirectional_stream": STREAM,
    "wtio.WebTransportSession.create_unidirectional_stream": STREAM,
    "wtio.WebTransportSession.serve_streams": {
        "handler": (*HANDLER, None),
        "unidirectional": HANDLER,
        "datagrams": (5, Wrong(), "echo"),
        "limit": (*COUNT, True, 0, -1),
    },
    "wtio.WebTransportSession.send_datagram": {"data": BUFFER},
    "wtio.WebTransportSession.start_qlog": {"path": (5, None, b"file", "a\0b")},
    "wtio.WebTransportSession.close": {"code": (*CODE, None), "reason": (*TEXT, None, "\ud800")},
    "wtio.WebTransportSession.export_keying_material": {
        "label": (*BUFFER, bytes(256)),
        "context": (*BUFFER, bytes(256)),
        "length": (*COUNT, None, 0, 4097, 2**70),
    },
    "wtio.WebTransportReceiveStream.read": {"max_bytes": READ},
    "wtio.WebTransportReceiveStream.readinto": {"buffer": (*BUFFER, b"xy", memoryview(b"xy"))},
    "wtio.WebTransportReceiveStream.readexactly": {"n": (*READ, -1)},
    "wtio.WebTransportReceiveStream.readline": {"limit": READ},
    "wtio.WebTransportReceiveStream.readuntil": {"separator": (*BUFFER, b""), "limit": READ},
    "wtio.WebTransportReceiveStream.stop_receiving": {"error_code": (*CODE, None)},
    "wtio.WebTransportSendStream.write": {"data": BUFFER, "end_stream": FLAG},
    "wtio.WebTransportSendStream.write_all": {
        "data": BUFFER,
        "chunk_size": (*COUNT, None, 0, -1),
        "end_stream": FLAG,
    },
    "wtio.WebTransportSendStream.reset": {"error_code": (*CODE, None)},
    "wtio.WebTransportSendStream.close": {"error_code": CODE},
    "wtio.WebTransportStream.close": {"error_code": CODE},
    "wtio.broadcast": {"sessions": (5, None, [5], [None], Wrong()), "data": BUFFER},
    "wtio.hub.Hub": {"bus": (5, "redis://localhost", Wrong()), "limits": (5, wtio.Limits(), Wrong(), False, 0)},
    "wtio.hub.Hub.publish": {"topic": TOPIC, "data": BUFFER, "key": (*TEXT, None, "a\n", "ä" * 128)},
    "wtio.hub.Hub.subscribe": {
        "session": (5, None, Wrong()),
        "topic": TOPIC,
        "policy": (5, None, "everything", wtio.hub.latest),
    },
    "wtio.hub.HubLimits": {
        **dict.fromkeys(("message", "subscriber_queue", "updates", "topics", "bus_queue"), (*COUNT, None, 0)),
        **dict.fromkeys(("patience", "subscribe", "bus_answer", "bus_check"), (*DELAY, None)),
        **dict.fromkeys(("bus_reconnect",), (*DELAY, None, 100)),
        "bus_reconnect_longest": (*DELAY, None, 0.01),
    },
    "wtio.hub.MessageReader": {"stream": (5, None, Wrong()), "max_bytes": (*COUNT, 0)},
    "wtio.hub.NatsBus": {
        "url": (*TEXT, None, "localhost", "redis://localhost", "nats://", "nats://h:port"),
        "prefix": (*TEXT, None, "", "a.b", "a*", "a b"),
    },
    "wtio.hub.RedisBus": {"url": (*TEXT, None, "localhost", "nats://localhost"), "prefix": (*TEXT, None)},
    "wtio.hub.decode_message": {"data": (*BUFFER, b"")},
    "wtio.hub.latest": {"key": (*TEXT, "a\n")},
    "wtio.hub.within": {"seconds": (*DELAY, None, 0, float("nan"))},
    "wtio.opentelemetry.session_span": {"session": (5, None, Wrong()), "tracer_provider": (5, Wrong())},
    "wtio.opentelemetry.traced": {"handler": (*HANDLER, None), "tracer_provider": (5, Wrong())},
    "wtio.prometheus.ServerCollector": {"servers": (5, None, Wrong(), {"a": Wrong()}, {5: None})},
    "wtio.prometheus.register": {"servers": (5, None, Wrong(), {"a": None}), "registry": (5, None, Wrong())},
    "wtio.workers.Supervisor": {
        **{name: SERVER[name] for name in ("host", "port", "protocols", "origins", "timeouts", "limits", "congestion")},
        **IO,
        "app": (*TEXT, None, "", "shop", "shop:", ":app", "shop.py:app", "a b:c"),
        "tls": (*SERVER["tls"], None),
        "workers": (*COUNT, None, 0, 129),
        "factory": (*FLAG, None),
        "directory": (*PATH, None),
        "worker_limits": (5, wtio.Limits(), Wrong(), False, 0),
        "secret": SERVER["secret"],
        "server_id": SERVER["server_id"],
        "sock": (5, "localhost", b"x", True, Wrong(), [5], [None]),
        "loop": (5, None, "trio"),
        "log_level": (5, "loud", Wrong()),
        "code": (*CODE, None),
        "reason": (*TEXT, None, "\ud800"),
        "pid_file": PATH,
        "health": (5, "localhost", ("localhost",), ("localhost", "80"), (5, 80), ("localhost", -1), ["localhost", 80]),
        "watch": (*FLAG, None),
    },
    "wtio.workers.WorkerLimits": {
        "slots": (*COUNT, 0, 257),
        **dict.fromkeys(("start", "settle", "drain", "report"), (*DELAY, None)),
        "silence": ("1", True, -1, float("inf"), float("nan"), 1),
        "restart": (*DELAY, None, 100),
        "restart_longest": (*DELAY, None, 0.1),
    },
    "wtio.workers.health": {"request": (5, None, Wrong())},
    "wtio.workers.run": {"app": (None, "shop"), "host": HOST, "port": PORT},
    "wtio.testing.run": {"main": (5, None, plain, Asynchronous().method), "debug": FLAG},
    "wtio.testing.session_pair": {
        "network": (5, Wrong(), "localhost"),
        "limits": LIMITS,
        "timeouts": TIMEOUTS,
        "conditions": ({"loss": 50}, {"jitter": "1"}, {"losses": 0.1}),
    },
    "wtio.testing.Conditions": {**CONDITIONS, "blackout": (*FLAG, None)},
    "wtio.testing.Network": {**CONDITIONS, "seed": (*COUNT, None, True)},
    "wtio.testing.Network.blackout": {"seconds": (*DELAY, float("inf")), "direction": (5, None, "up")},
    "wtio.testing.Network.rebind": {"address": (5, ("10.0.0.1", 1)), "ip": (5, "localhost", "10.0.0.1")},
    "wtio.testing.Network.after": {"seconds": (*DELAY, float("inf")), "call": (5, None)},
    "wtio.testing.Network.add_host": {"name": (*TEXT, None, "a b"), "addresses": (5, None, "localhost", "")},
    "wtio.testing.Network.serve": {**SERVER, **IO},
    "wtio.testing.Network.connect": {**URL, **CLIENT, **IO},
    "wtio.testing.Network.client": {**CLIENT, **IO},
}


MODULES: tuple[Any, ...] = (wtio, wtio.hub, wtio.opentelemetry, wtio.prometheus, wtio.testing, wtio.workers)


def public_callables() -> Iterator[tuple[str, Callable[..., object]]]:
    """Every function, constructor and method that applications may call, by its public name."""
    for module in MODULES:
        for name in module.__all__:
            value = getattr(module, name)
            called_by_others = (wtio.hub.Bus, wtio.hub.BusConnection, wtio.prometheus.ServerCollector)
            if inspect.isclass(value) and issubclass(value, called_by_others):
                # A hub calls the methods of its bus, and a registry those of its collectors.
                if not inspect.isabstract(value) and inspect.signature(value).parameters:
                    yield f"{module.__name__}.{name}", value
                continue
            full = f"{module.__name__}.{name}"
            if inspect.isfunction(value):
                yield full, value
            if not inspect.isclass(value) or issubclass(value, (BaseException, enum.Enum)) or name == "Buffer":
                continue
            if value not in MADE_BY_THE_LIBRARY:
                yield full, value
            for method, member in vars(value).items():
                # A loop's own methods are asyncio's, and asyncio checks their arguments.
                if method.startswith("_") or (value is VirtualTimeLoop and hasattr(asyncio.SelectorEventLoop, method)):
                    continue
                if inspect.isfunction(member):
                    yield f"{full}.{method}", member


def arguments(function: Callable[..., object]) -> list[str]:
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    found = inspect.signature(function).parameters.values()
    # What is passed on as it is belongs to another call, whose rows have it.
    passed_on = {"arguments", "named", "changes"}
    return [one.name for one in found if one.name != "self" and not (one.kind in variable and one.name in passed_on)]


def test_every_argument_of_everything_public_has_a_row() -> None:
    expected = {name: sorted(found) for name, function in public_callables() if (found := arguments(function))}
    assert {name: sorted(rows) for name, rows in TABLE.items()} == expected


class Lab:
    """One of everything, on a simulated network."""

    def __init__(self, certificate: wtio.DevCertificate) -> None:
        self.certificate = certificate
        self.network = Network()
        self.objects: dict[str, object] = {}
        self.required: Mapping[str, dict[str, object]] = {
            "wtio.connect": {"url": "https://localhost/"},
            "wtio.serve": {"tls": certificate.server_tls()},
            "wtio.SessionRequest.serve": {"handler": Asynchronous()},
            "wtio.Router.session": {"path": "/"},
            "wtio.Router.mount": {"path": "/", "site": wtio.Router()},
            "wtio.Client.connect": {"url": "https://localhost/"},
            "wtio.testing.Network.add_host": {"name": "example.org"},
            "wtio.testing.Network.blackout": {"seconds": 1},
            "wtio.testing.Network.after": {"seconds": 1, "call": print},
            "wtio.testing.run": {"main": None},
            "wtio.workers.Supervisor": {"app": "shop:app", "tls": certificate.server_tls()},
            "wtio.workers.run": {"app": "shop:app", "tls": certificate.server_tls()},
            "wtio.run": {"main": None},
            "wtio.WebTransportSession.export_keying_material": {"label": b"x", "length": 10},
            "wtio.WebTransportReceiveStream.readuntil": {"separator": b"x"},
            "wtio.WebTransportSendStream.write": {"data": b"x"},
            "wtio.WebTransportSendStream.write_all": {"data": b"x"},
            "wtio.HttpResponse": {"status": 200},
            "wtio.broadcast": {"sessions": [], "data": b"x"},
            "wtio.hub.Hub.publish": {"topic": "topic", "data": b"x"},
            "wtio.hub.NatsBus": {"url": "nats://localhost"},
            "wtio.hub.RedisBus": {"url": "redis://localhost"},
            "wtio.opentelemetry.traced": {"handler": Asynchronous()},
            "wtio.prometheus.register": {"servers": self.network.serve(Asynchronous())},
        }

    async def call(self, function: str, argument: str, value: object) -> None:
        """Call it with one wrong argument."""
        owners = [one for one in MODULES if function.startswith(f"{one.__name__}.")]
        module = max(owners, key=lambda one: len(one.__name__))
        owner, _, name = function.removeprefix(f"{module.__name__}.").rpartition(".")
        target = self.objects[owner] if owner else module
        called = getattr(target, name)
        given = dict(self.required.get(function, {}))
        if function == "wtio.hub.Hub.subscribe":
            given |= {"session": self.objects["WebTransportSession"], "topic": "topic"}
        if function == "wtio.opentelemetry.session_span":
            given["session"] = self.objects["WebTransportSession"]
        if function == "wtio.hub.MessageReader":
            given["stream"] = self.objects["WebTransportReceiveStream"]
        positional: tuple[object, ...] = ()
        if argument == "conditions":
            assert isinstance(value, dict)
            given.update(value)
        elif argument == "addresses":
            positional = (given.pop("name"), value)
        else:
            given[argument] = value
        if function in ("wtio.run", "wtio.testing.run") and argument != "main":
            given["main"] = self.certificate_of()
        try:
            result = called(*positional, **given)
            if inspect.iscoroutine(result):
                await result
        finally:
            if inspect.iscoroutine(main := given.get("main")):
                main.close()

    async def certificate_of(self) -> wtio.DevCertificate:
        return self.certificate


def rows() -> list[Any]:
    return [
        pytest.param(function, argument, id=f"{function.removeprefix('wtio.')}-{argument}")
        for function, table in TABLE.items()
        for argument in table
    ]


@pytest.mark.parametrize(("function", "argument"), rows())
def test_wrong_argument_is_named_at_the_call(certificate: wtio.DevCertificate, function: str, argument: str) -> None:
    async def main() -> None:
        lab = Lab(certificate)
        async with lab.network.serve() as server, lab.network.client() as client:
            asking = client.connect("https://localhost/")
            task = asyncio.ensure_future(asking._establish())
            request = await anext(server)
            if "SessionRequest" not in function:
                accepted = await request.accept()
                session = await task
                stream = await session.create_bidirectional_stream()
                await stream.write(data=b"abc")
                far = await anext(accepted.incoming_bidirectional_streams())
                lab.objects = {
                    "WebTransportSession": session,
                    "WebTransportStream": stream,
                    "WebTransportSendStream": stream,
                    "WebTransportReceiveStream": far,
                    "ConnectionReport": session.report,
                    "Hub": wtio.hub.Hub(),
                    "HttpRequest": wtio.HttpRequest(
                        method="GET", path="/", authority="localhost", headers=(), remote_address=("::1", 5)
                    ),
                }
            lab.objects |= {
                "Router": wtio.Router(),
                "SessionRequest": request,
                "Server": server,
                "Client": client,
                "Network": lab.network,
            }
            for value in TABLE[function][argument]:
                with pytest.raises((TypeError, ValueError)) as caught:
                    await lab.call(function, argument, value)
                word = "losses" if value == {"losses": 0.1} else argument
                if argument == "conditions":
                    [word] = value
                text = str(caught.value).lower()
                assert word in text or word.replace("_", " ").removesuffix("es") in text, (value, caught.value)
            # Nothing has changed: what was wrong has had no effect.
            if "SessionRequest" in function:
                accepted = await request.accept()
                session = await task
            else:
                assert await far.read() == b"abc"
                await stream.write(data=b"d", end_stream=True)
                assert await far.read_all() == b"d"
            session.send_datagram(b"still here")
            assert await accepted.receive_datagram() == b"still here"

    wtio.testing.run(main())


@pytest.mark.parametrize(
    "handler",
    [
        None,
        Asynchronous(),
        Asynchronous().method,
        functools.partial(Asynchronous().method),
        functools.partial(functools.partial(Asynchronous()), further=5),
        functools.wraps(Asynchronous().method)(lambda session: Asynchronous().method(session)),
        unittest.mock.AsyncMock(),
    ],
    ids=["none", "object", "method", "partial", "nested", "wrapper", "mock"],
)
def test_everything_that_gives_something_to_await_is_a_handler(handler: Any) -> None:
    Network().serve(handler)


@pytest.mark.parametrize("hook", [None, plain, Asynchronous(), Asynchronous().method, functools.partial(plain), print])
def test_everything_that_can_be_called_and_returns_is_a_hook(hook: Any) -> None:
    Network().serve(http=hook)


def test_coroutine_instead_of_a_hook_is_refused_without_a_warning() -> None:
    with pytest.raises(TypeError, match="without calling it"):
        Network().serve(http=Asynchronous()(None))  # type: ignore[arg-type]


def test_coroutine_instead_of_a_handler_is_refused_without_a_warning() -> None:
    with pytest.raises(TypeError, match="without calling it"):
        Network().serve(Asynchronous()(None))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda made: wtio.connect("https://a", tls=made), r"use its client_tls\(\)"),
        (lambda made: wtio.connect("https://a", tls=made.server_tls()), "for wtio.serve"),
        (lambda made: wtio.serve(tls=made), r"use its server_tls\(\)"),
        (lambda made: wtio.serve(tls=made.client_tls()), "for wtio.connect"),
        (lambda made: wtio.connect("https://a", timeouts=made.not_after), r"wtio\.Timeouts\(connect=5\)"),
    ],
)
def test_way_out_is_named(certificate: wtio.DevCertificate, call: Callable[[Any], object], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        call(certificate)


@pytest.mark.parametrize("word", ["reset", "stop"])
def test_codes_of_other_enumerations_are_integers(word: str) -> None:
    class Code(enum.IntEnum):
        BUSY = 7

    async def main() -> None:
        async with wtio.testing.session_pair() as (client, _):
            stream = await client.create_bidirectional_stream()
            await (stream.reset if word == "reset" else stream.stop_receiving)(error_code=Code.BUSY)

    wtio.testing.run(main())


@pytest.mark.unaudited("its client is a raw one, which keeps streams")
def test_hook_that_answers_nonsense_is_an_error_of_that_request_only(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        network = Network()
        async with (
            network.serve(http=lambda request: "hello"),  # type: ignore[arg-type,return-value]
            HttpClient(network) as client,
        ):
            assert (await client.get("/?token=x")).status == 500

    wtio.testing.run(main())
    assert "HttpResponse" in caplog.text
    assert "token" not in caplog.text
    caplog.clear()


async def test_attributes_that_do_nothing_cannot_be_set(certificate: wtio.DevCertificate) -> None:
    network = Network()
    async with (
        wtio.serve(None, "127.0.0.1", 0, tls=certificate.server_tls()) as server,
        wtio.Client(tls=certificate.client_tls()) as client,
    ):
        connector = client.connect(f"https://127.0.0.1:{server.addresses[0][1]}/")
        task = asyncio.ensure_future(connector._establish())
        request = await anext(server)
        accepted = await request.accept()
        session = await task
        both = await session.create_bidirectional_stream()
        one = await session.create_unidirectional_stream()
        await one.write(data=b"x")
        incoming = accepted.incoming_unidirectional_streams()
        arrived = await anext(incoming)
        await accepted.close()
        objects: list[Any] = [
            server,
            client,
            connector,
            request,
            session,
            both,
            one,
            arrived,
            incoming,
            session.incoming_datagrams(),
            session.facts,
            session.stats(),
            session.report,
            both.diagnostics(),
            await session.wait_closed(),
            certificate,
            certificate.client_tls(),
            certificate.server_tls(),
            wtio.Limits(),
            wtio.Timeouts(),
            wtio.HttpResponse(status=200),
            network,
            network.conditions,
        ]
    for value in objects:
        with pytest.raises(AttributeError, match="no_such_attribute"):
            value.no_such_attribute = 1
        settable = {"send_order", "body_raised_code"} | (set(dir(value)) if value is network.conditions else set())
        for name in dir(value):
            if not name.startswith("_") and name not in settable:
                with pytest.raises(AttributeError):
                    setattr(value, name, None)
