"""What is secret stays out of what is written down: queries, headers and tokens in logs, errors, reports and names."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.http3 import HttpClient

import wtio
from wtio.testing import Network, run

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "hunter2"
URL = f"https://localhost/room/1?token={SECRET}&more={SECRET}"
HEADERS = {"authorization": f"Bearer {SECRET}", "cookie": f"a={SECRET}"}


@pytest.fixture(autouse=True)
def nothing_secret_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.DEBUG):
        yield
    formatter = logging.Formatter()
    for record in caplog.get_records("call"):
        assert SECRET not in formatter.format(record)
    caplog.clear()


def check(*values: object) -> None:
    for value in values:
        assert SECRET not in repr(value), repr(value)
        assert SECRET not in str(value), str(value)


def test_session_shows_no_secret_wherever_it_is_written_down(caplog: pytest.LogCaptureFixture) -> None:
    names: list[str] = []

    async def handler(session: wtio.WebTransportSession) -> None:
        task = asyncio.current_task()
        assert task is not None
        names.append(task.get_name())
        await session.receive_datagram()
        raise RuntimeError("a fault of the application")

    async def main() -> None:
        network = Network()
        async with (
            network.serve(handler) as server,
            network.client(headers=HEADERS) as client,
            client.connect(URL) as session,
        ):
            connector = client.connect(URL)
            [accepted] = server.sessions
            for side in (session, accepted):
                assert SECRET in side.path
                stream = await side.create_bidirectional_stream()
                check(side, side.facts, side.report, side.stats(), stream, stream.diagnostics(), side.report.url)
                assert SECRET not in json.dumps(side.report.as_dict())
                assert "/room/1" in repr(side)
            check(server, client, connector, *names)
            session.send_datagram(b"go on")
            info = await session.wait_closed()
            check(session, info, session.report, session._state.closed_error())

    run(main())
    assert "/room/1" in names[0]
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "/room/1" in record.getMessage()


@pytest.mark.unaudited("no session comes of its connection, which its client gives up at once")
def test_request_shows_no_secret() -> None:
    async def main() -> None:
        network = Network()
        async with network.serve() as server, network.client() as client:
            task = asyncio.ensure_future(client.connect(URL, headers=HEADERS)._establish())
            request = await anext(server)
            assert SECRET in request.path
            check(request)
            await request.reject(403, headers={"set-cookie": SECRET})
            with pytest.raises(wtio.LocalProtocolError) as caught:
                await request.accept()
            check(caught.value)
            with pytest.raises(wtio.SessionRejectedError) as rejected:
                await task
            assert rejected.value.headers
            check(rejected.value, rejected.value.report)

    run(main())


@pytest.mark.parametrize("answer", [302, 404, "gone", "silence", "nobody", "no name"])
@pytest.mark.unaudited("no session comes of its connection, which its client gives up at once")
def test_failure_to_connect_shows_no_secret(answer: int | str) -> None:
    async def main() -> None:
        network = Network()
        url = URL.replace("localhost", "nowhere") if answer == "no name" else URL
        timeouts = wtio.Timeouts(connect=1)
        async with network.serve(port=443 if answer != "nobody" else 444) as server:
            task = asyncio.ensure_future(network.connect(url, headers=HEADERS, timeouts=timeouts)._establish())
            if answer not in ("nobody", "no name"):
                request = await anext(server)
                if answer == "gone":
                    request._state._connection.close_connection(0x102, "broken")  # type: ignore[attr-defined]
                elif isinstance(answer, int):
                    await request.reject(answer, headers={"location": URL})
            with pytest.raises(wtio.ConnectError) as caught:
                await task
        error = caught.value
        check(error, error.report, *getattr(error, "__notes__", ()))
        assert error.report is not None
        assert SECRET not in json.dumps(error.report.as_dict())
        assert error.report.url == f"https://{'nowhere' if answer == 'no name' else 'localhost'}/room/1"

    run(main())


@pytest.mark.parametrize(
    "url",
    [
        f"http://a/?token={SECRET}",
        f"https://user:{SECRET}@a/",
        f"https://{SECRET}@a/",
        f"https://user:{SECRET}/x@a/",
        f"https://a:b:{SECRET}@c/",
        f"//user:{SECRET}@a/",
        f"user:{SECRET}@a",
        f"https://a/?{SECRET} ",
        f"https://a/#{SECRET}",
        f"https://a..b/?{SECRET}",
        f"https://a:port/?{SECRET}@",
        f"https://[::g]/?{SECRET}",
        f"?{SECRET}",
    ],
)
def test_refused_url_is_shown_without_its_secrets(url: str) -> None:
    with pytest.raises(wtio.InvalidURLError) as caught:
        wtio.connect(url)
    check(caught.value)
    assert caught.value.url == url


@pytest.mark.parametrize("headers", [{"authorization": f"{SECRET}\n"}, {"authorization": f" {SECRET}"}])
def test_refused_header_is_shown_without_its_value(headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="authorization") as caught:
        wtio.connect("https://a/", headers=headers)
    check(caught.value)


@pytest.mark.parametrize("kind", ["raises", "nonsense", "cannot be sent"])
@pytest.mark.unaudited("its peer is a raw one, which keeps streams")
def test_hook_that_fails_is_logged_without_secrets(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[wtio.HttpRequest] = []

    def hook(request: wtio.HttpRequest) -> Any:
        seen.append(request)
        if kind == "raises":
            raise RuntimeError("a fault of the application")
        return "hello" if kind == "nonsense" else wtio.HttpResponse(status=200, headers={"a": "b\n"})

    async def main() -> None:
        network = Network()
        async with network.serve(http=hook), HttpClient(network) as client:
            answer = await client.get(f"/room/1?token={SECRET}")
            assert answer.status == 500

    run(main())
    check(*seen, wtio.HttpResponse(status=200, headers={"a": SECRET}, body=SECRET.encode()))
    assert SECRET in seen[0].path
    assert "/room/1" in caplog.text


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("https://user:secret@example.org/room?token=secret", "https://example.org/room"),
        ("//secret@example.org/a@b", "//example.org/a@b"),
        ("/a@b#secret", "/a@b"),
    ],
)
@pytest.mark.unaudited("no session comes of its connection, which its client gives up at once")
def test_a_redirect_shows_neither_user_nor_query_of_where_it_leads(location: str, shown: str) -> None:
    async def main() -> None:
        network = Network()
        async with network.serve(None) as server:
            connecting = asyncio.ensure_future(_opened(network))
            await (await anext(server)).reject(302, headers={"location": location})
            with pytest.raises(wtio.SessionRejectedError) as caught:
                await connecting
            assert f"redirects to {shown}," in str(caught.value)
            assert "secret" not in str(caught.value)

    run(main())


async def _opened(network: Network) -> wtio.WebTransportSession:
    return await network.connect("https://localhost/")
