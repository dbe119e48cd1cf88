"""What the README and the documentation show does work."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING

import pytest
from tests.support.ports import free_port

from .programs import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from .programs import Start

DOCUMENTS = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "STYLE.md", "CHANGELOG.md")]
DOCUMENTS += sorted(page for page in (ROOT / "docs").rglob("*.md") if "_build" not in page.parts)


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_the_first_step_is_the_same_wherever_there_is_one() -> None:
    pages = [ROOT / "README.md", ROOT / "docs" / "first-session.md", ROOT / "docs" / "tutorial.md"]
    # The README says first what will do some day.
    [first, *others] = [blocks(page, "")[page.name == "README.md"].splitlines() for page in pages]
    clone, _, install = first
    directory = f"./{clone.split()[-1]}"
    assert install.endswith(f" {directory}")
    for other in others:
        assert other[:3] == first
    # Each also says what becomes of it with a release, and for whom has a checkout already.
    for page in pages:
        words = " ".join(page.read_text(encoding="utf-8").split())
        assert "nce the first release is on PyPI, " in words
        # The README's is a block of its own, without an environment.
        assert f"{install.removesuffix(directory)}wtio`" in words or blocks(page, "")[0] == "pip install wtio\n"
        assert f"If you have a checkout already, write its path in place of `{directory}`." in words
    assert clone in " ".join((ROOT / "docs" / "chat.md").read_text(encoding="utf-8").split())


async def test_server_and_client_of_the_readme(start: Start, tmp_path: Path) -> None:
    port = str(free_port())
    server_code, client_code = (code.replace("4433", port) for code in blocks(ROOT / "README.md", "python"))
    (tmp_path / "server.py").write_text(server_code)
    (tmp_path / "client.py").write_text(client_code)
    async with start(tmp_path / "server.py") as server:
        await server.until("serverCertificateHashes")
        async with start(tmp_path / "client.py") as client:
            assert await client.finish() == 0, client.output
        assert client.output == "b'hello'\n"


async def test_the_server_of_the_readme_says_goodbye_on_sigterm(start: Start, tmp_path: Path) -> None:
    server_code, _ = blocks(ROOT / "README.md", "python")
    port = str(free_port())
    (tmp_path / "server.py").write_text(server_code.replace("4433", port))
    async with start(tmp_path / "server.py") as server:
        await server.until("serverCertificateHashes")
        async with start("-m", "wtio", "connect", f"https://localhost:{port}/", "--dev") as client:
            await client.until("connected in")
            server.process.terminate()
            assert "closed by the peer with code 0: server is closing" in await client.until("closed by")
        assert await server.finish() == 0, server.output


async def test_the_last_line_of_a_first_program_that_fails_says_what_to_do(start: Start, tmp_path: Path) -> None:
    port = str(free_port())
    server_code, client_code = (code.replace("4433", port) for code in blocks(ROOT / "README.md", "python"))
    (tmp_path / "server.py").write_text(server_code)
    (tmp_path / "client.py").write_text(client_code)
    async with start(tmp_path / "client.py") as client:
        assert await client.finish() == 1
    last = client.output.splitlines()[-1]
    assert last.startswith("wtio.errors.ConnectionRefused: no connection to `localhost:")
    assert last.endswith(
        "nothing listens at this UDP port: connection refused (ECONNREFUSED); does the server run, "
        "and is this its port?"
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", int(port)))
        async with start(tmp_path / "server.py") as server:
            assert await server.finish() == 1
    last = server.output.splitlines()[-1]
    assert f"cannot listen on UDP 127.0.0.1 port {port}" in last
    assert last.endswith("another program uses it: choose another port, or 0 for any free one")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_in_the_documents_compiles_and_links_lead_somewhere(document: Path) -> None:
    for code in blocks(document, "python"):
        # Snippets await outside of a function.
        body = "".join(f"    {line}\n" for line in code.splitlines())
        compile(f"async def snippet():\n{body}", document.name, "exec")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_the_readme_names_commands_that_exist() -> None:
    commands = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in DOCUMENTS:
        named = set(
            re.findall(r"(?:^|`)(?:PYTHON=\S+ )?make ([a-z-]+)", document.read_text(encoding="utf-8"), re.MULTILINE)
        )
        assert named <= commands, f"{document.name}: {named - commands}"
