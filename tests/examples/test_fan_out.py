"""What docs/fan-out.md shows does what the page says."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from typing import Any

import pytest

import wtio
from wtio import hub as fan
from wtio.testing import Network, run

from .programs import ROOT
from .test_readme import blocks

PAGE = ROOT / "docs" / "fan-out.md"


def test_the_hub_of_the_page(certificate: wtio.DevCertificate, monkeypatch: pytest.MonkeyPatch) -> None:
    page: dict[str, Any] = {}
    for code in blocks(PAGE, "python"):
        exec(compile(code, "docs/fan-out.md", "exec"), page)
    assert isinstance(page["serve"](certificate.server_tls()), wtio.Server)

    async def main() -> None:
        network = Network()
        monkeypatch.setattr(wtio, "connect", network.connect)
        async with network.serve(page["router"]) as server:
            blue = "https://localhost/rooms/blue"
            async with network.connect(blue) as ada, network.connect(blue) as bob:
                await asyncio.sleep(1)
                ada.send_datagram(b"hello")
                for session in (ada, bob):
                    reader = fan.MessageReader(await anext(session.incoming_unidirectional_streams()))
                    assert await anext(reader) == fan.Message("rooms/blue", "", b"hello")
            async with network.connect("https://localhost/positions") as session:
                await asyncio.sleep(1)
                session.send_datagram(b"here")
                assert fan.decode_message(await session.receive_datagram()).data == b"here"
            letters = "https://localhost/letters/blue"
            async with network.connect(letters) as ada, network.connect(letters) as bob:
                await asyncio.sleep(1)
                async with await ada.create_unidirectional_stream() as stream:
                    await stream.write(data=b"dear", end_stream=True)
                for session in (ada, bob):
                    reader = fan.MessageReader(await anext(session.incoming_unidirectional_streams()))
                    assert await anext(reader) == fan.Message("letters/blue", "", b"dear")
            watching = asyncio.ensure_future(page["watch"]("https://localhost/board", None))
            await asyncio.sleep(1)
            for square, color in (("a1", b"red"), ("b2", b"blue"), ("a1", b"green")):
                await page["paint"](square, color)
                await asyncio.sleep(1)
            await server.close()
            assert await watching == {"a1": b"green", "b2": b"blue"}
            assert page["hub"].stats().published == 6

    run(main())


def test_the_page_in_a_browser_splits_messages() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node here")
    [code] = blocks(PAGE, "javascript")
    whole = b"\x05topic\x01k\x40\x64" + bytes(100) + b"\x01t\x00\x00" + b"\x01t"
    code += (
        f"for (const one of messages(new Uint8Array({list(whole)}))) console.log(JSON.stringify([one.topic, one.key, "
    )
    code += "one.data.length, one.end]));"
    result = subprocess.run([node, "-e", code], capture_output=True, text=True, check=True)
    assert [json.loads(line) for line in result.stdout.splitlines()] == [["topic", "k", 100, 110], ["t", "", 0, 114]]
