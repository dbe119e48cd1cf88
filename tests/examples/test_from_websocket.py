"""The programs of docs/from-websocket.md, before and after, do the same."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING

import pytest
from tests.support.ports import free_port

import wtio

from .programs import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from .programs import Start

PAGE = (ROOT / "docs" / "from-websocket.md").read_text(encoding="utf-8")
KINDS = {"ws_": socket.SOCK_STREAM, "": socket.SOCK_DGRAM}


@pytest.mark.parametrize("prefix", KINDS, ids=["before", "after"])
async def test_the_echo_answers_before_and_after(start: Start, tmp_path: Path, prefix: str) -> None:
    port = str(free_port(KINDS[prefix]))
    certificate = wtio.dev_certificate(directory=tmp_path)
    for code in re.findall(r"^```python\n(# .*?)^```$", PAGE, re.DOTALL | re.MULTILINE):
        # Programs run in the directory of the repository; a reader runs them where the files are.
        text = code.replace("4433", port)
        text = text.replace('"cert.pem"', repr(str(certificate.certfile))).replace(
            '"key.pem"', repr(str(certificate.keyfile))
        )
        (tmp_path / code.splitlines()[0].removeprefix("# ")).write_text(text)
    async with start(tmp_path / f"{prefix}server.py") as server:
        await server.until("listening")
        async with start(tmp_path / f"{prefix}client.py") as client:
            assert await client.finish() == 0, client.output
        assert client.output == "one\ntwo\n"
