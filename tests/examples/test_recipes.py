"""What docs/recipes.md, authentication.md, cancellation.md and going-public.md show does what the pages say."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any

import pytest

import wtio
from wtio.testing import Network, run, session_pair

from .programs import ROOT
from .test_readme import blocks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def names(page: str) -> dict[str, Any]:
    """What the code of a page defines."""
    defined: dict[str, Any] = {"__name__": "page"}
    for code in blocks(ROOT / "docs" / f"{page}.md", "python"):
        exec(compile(code, f"docs/{page}.md", "exec"), defined)
    return defined


@pytest.fixture(scope="module")
def recipes() -> dict[str, Any]:
    return names("recipes")


def test_messages_keep_their_borders_and_end_with_the_stream(recipes: dict[str, Any]) -> None:
    async def main() -> None:
        async with session_pair() as (client, server):
            stream = await client.create_bidirectional_stream()
            sent = [b"one", b"", bytes(100_000)]
            for message in sent:
                await recipes["send_message"](stream, message)
            await stream.write(data=b"", end_stream=True)
            far = await anext(server.incoming_bidirectional_streams())
            assert [await recipes["receive_message"](far) for _ in sent] == sent
            assert await recipes["receive_message"](far) is None

    run(main())


def reader_of(recipes: dict[str, Any], kind: str, stream: wtio.WebTransportReceiveStream) -> Callable[[], Any]:
    """What reads the next message of a stream."""
    return recipes["Messages"](stream).__anext__ if kind == "class" else lambda: recipes["receive_message"](stream)


@pytest.mark.parametrize("kind", ["class", "function"])
def test_a_message_that_is_too_long_is_refused_before_it_is_read(recipes: dict[str, Any], kind: str) -> None:
    async def main() -> None:
        async with session_pair() as (client, server):
            stream = await client.create_bidirectional_stream()
            await stream.write(data=b"\xff\xff\xff\xff")
            read = reader_of(recipes, kind, await anext(server.incoming_bidirectional_streams()))
            with pytest.raises(ValueError, match="at most"):
                await read()
            assert await stream.wait_stopped() == 1
            # And nothing of it is read by the next call.
            with pytest.raises((ValueError, wtio.StreamClosedError)):
                await read()

    run(main())


def test_cancelling_the_class_for_messages_loses_nothing(recipes: dict[str, Any]) -> None:
    async def main() -> None:
        async with session_pair() as (client, server):
            stream = await client.create_bidirectional_stream()
            whole = b"\0\0\0\5hello\0\0\0\3you"

            async def trickle() -> None:
                for position in range(len(whole)):
                    await stream.write(data=whole[position : position + 1])
                    await asyncio.sleep(1)

            sending = asyncio.create_task(trickle())
            messages = recipes["Messages"](await anext(server.incoming_bidirectional_streams()))
            received: list[bytes] = []
            while len(received) < 2:
                try:
                    async with asyncio.timeout(0.7):
                        received.append(await messages.receive())
                except TimeoutError:
                    pass
            assert received == [b"hello", b"you"]
            await sending

    run(main())


def test_the_loop_over_messages_ends_with_the_stream(
    recipes: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    async def main() -> None:
        async with session_pair() as (client, server):
            stream = await client.create_bidirectional_stream()
            for message in (b"one", b"", b"three"):
                await recipes["send_message"](stream, message)
            await stream.write(data=b"", end_stream=True)
            far = await anext(server.incoming_bidirectional_streams())
            await recipes["print_messages"](far)
            # The end stays the end.
            assert await recipes["Messages"](far).receive() is None

    run(main())
    assert capsys.readouterr().out == "b'one'\nb''\nb'three'\n"


@pytest.mark.parametrize("kind", ["class", "function"])
@pytest.mark.parametrize("cut", [b"\0\0", b"\0\0\0\5", b"\0\0\0\5hel"], ids=["in length", "behind length", "in text"])
def test_a_message_that_is_cut_off_is_an_error(recipes: dict[str, Any], cut: bytes, kind: str) -> None:
    async def main() -> None:
        async with session_pair() as (client, server):
            stream = await client.create_bidirectional_stream()
            await recipes["send_message"](stream, b"whole")
            await stream.write(data=cut, end_stream=True)
            read = reader_of(recipes, kind, await anext(server.incoming_bidirectional_streams()))
            assert await read() == b"whole"
            with pytest.raises(asyncio.IncompleteReadError):
                await read()

    run(main())


@pytest.mark.parametrize("kind", ["class", "function"])
def test_a_reset_between_messages_is_no_end(recipes: dict[str, Any], kind: str) -> None:
    async def main() -> None:
        async with session_pair() as (client, server):
            stream = await client.create_bidirectional_stream()
            await recipes["send_message"](stream, b"whole")
            read = reader_of(recipes, kind, await anext(server.incoming_bidirectional_streams()))
            assert await read() == b"whole"
            await stream.reset(error_code=7)
            with pytest.raises(wtio.StreamResetError):
                await read()

    run(main())


def test_an_item_is_stored_once_although_its_first_answer_is_lost(recipes: dict[str, Any]) -> None:
    async def main() -> None:
        network = Network()
        lost: list[bytes] = []

        async def handle(session: wtio.WebTransportSession) -> None:
            async def store(stream: wtio.WebTransportStream) -> None:
                if lost:
                    await recipes["store"](stream)
                else:
                    lost.append(await stream.readexactly(n=16))
                    recipes["stored"][lost[0]] = await stream.read_all()
                    await session.abort()

            await session.serve_streams(store)

        key = secrets.token_bytes(16)
        async with network.serve(handle):
            async for session in network.connect():
                try:
                    await recipes["deliver"](session, key, b"item")
                    break
                except (wtio.SessionClosed, wtio.StreamError):
                    continue
        assert lost == [key]
        assert recipes["stored"] == {key: b"item"}

    run(main())


@pytest.mark.parametrize(("code", "said"), [(0, "closed in good order"), (7, "closed by peer with 7")])
def test_nested_groups_become_one_sentence(recipes: dict[str, Any], code: int, said: str) -> None:
    async def main() -> None:
        async with session_pair() as (client, server):
            running = asyncio.create_task(recipes["run_until_closed"](client))
            await asyncio.sleep(1)
            await server.close(code)
            assert await running == said

    run(main())


def test_a_request_needs_a_good_token_in_a_header_a_cookie_or_the_query() -> None:
    page = names("authentication")
    good = page["token_for"]("ada")

    async def main() -> None:
        network = Network()

        async def greeting(url: str, headers: dict[str, str]) -> bytes:
            async with network.connect(url, headers=headers) as session:
                return await session.receive_datagram()

        async with network.serve(page["handle"], admit=page["admit"]):
            for url, headers in (
                ("https://localhost/", {"authorization": f"Bearer {good}"}),
                ("https://localhost/", {"cookie": f"session={good}"}),
                (f"https://localhost/?token={good}", {}),
            ):
                assert await greeting(url, headers) == b"hello, ada"
            for url in ("https://localhost/", "https://localhost/?token=ada.00", "https://localhost/?token=ada"):
                with pytest.raises(wtio.SessionRejectedError) as caught:
                    await greeting(url, {})
                assert caught.value.status == 401

    run(main())


def test_half_a_line_stays_and_a_patient_write_arrives_whole() -> None:
    page = names("cancellation")

    async def main() -> None:
        async with session_pair() as (client, server):
            stream = await client.create_bidirectional_stream()
            await stream.write(data=b"half ")
            far = await anext(server.incoming_bidirectional_streams())
            assert await page["line_or_nothing"](far) is None
            await stream.write(data=b"a line\n")
            assert await page["line_or_nothing"](far) == b"half a line\n"

            data = secrets.token_bytes(8 * 1024 * 1024)
            writing = asyncio.create_task(page["write_patiently"](stream, data))
            await asyncio.sleep(5)  # nobody reads: writes are cancelled again and again
            received = b""
            while len(received) < len(data):
                received += await far.read()
            assert received == data
            await writing

    run(main())


async def test_the_public_server_reads_its_certificate_from_a_directory(tmp_path: Path) -> None:
    import trustme

    page = names("going-public")
    authority = trustme.CA()
    own = authority.issue_cert("localhost")
    (tmp_path / "privkey.pem").write_bytes(own.private_key_pem.bytes())
    (tmp_path / "fullchain.pem").write_bytes(b"".join(part.bytes() for part in own.cert_chain_pems))
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    async with page["serve"](str(tmp_path), "localhost", 0) as server:
        url = f"https://localhost:{server.addresses[0][1]}/"
        tls = wtio.ClientTLS(cafile=tmp_path / "authority.pem")
        async with wtio.connect(url, tls=tls, origin="https://example.org") as session:
            stream = await session.create_bidirectional_stream()
            await stream.write(data=b"hello", end_stream=True)
            assert await stream.read_all() == b"HELLO"
        with pytest.raises(wtio.SessionRejectedError):
            await wtio.connect(url, tls=tls, origin="https://example.net")
