"""A headless Firefox, driven over WebDriver BiDi, which it speaks itself: no geckodriver is needed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from websockets.asyncio.client import ClientConnection

EXECUTABLE = "/usr/bin/firefox-esr"
PREFERENCES: dict[str, object] = {
    "network.webtransport.enabled": True,
    "network.webtransport.datagrams.enabled": True,
    # A certificate authority that somebody added to the machine would turn HTTP/3 off as a whole.
    "network.http.http3.disable_when_third_party_roots_found": False,
    "app.normandy.enabled": False,
    "app.update.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.page": 0,
    "datareporting.policy.dataSubmissionEnabled": False,
    "toolkit.telemetry.enabled": False,
    "toolkit.telemetry.server": "",
}
_LISTENING = re.compile(rb"WebDriver BiDi listening on (ws://\S+)")


def missing() -> str | None:
    """What to install when there is no Firefox to test with; None when all is there."""
    if not Path(EXECUTABLE).exists():
        elsewhere = shutil.which("firefox-esr") or shutil.which("firefox")
        found = f" (there is one at `{elsewhere}`)" if elsewhere else ""
        return f"`{EXECUTABLE}` is missing{found}; install it with `apt-get install firefox-esr`"
    try:
        import websockets  # noqa: F401
    except ImportError:
        return "the Python package `websockets` is missing; install it with `pip install websockets`"
    return None


class FirefoxError(Exception):
    """Firefox refused a command, or the script in the page threw."""


class FirefoxPage:
    """One tab, with the methods of Playwright's page that the tests use."""

    def __init__(self, firefox: Firefox, context: str) -> None:
        self._firefox = firefox
        self._context = context

    async def goto(self, url: str) -> None:
        """Load ``url`` and wait for it."""
        await self._firefox.command("browsingContext.navigate", context=self._context, url=url, wait="complete")

    async def reload(self) -> None:
        """Load the page anew and wait for it."""
        await self._firefox.command("browsingContext.reload", context=self._context, wait="complete")

    async def evaluate(self, script: str, argument: object = None) -> Any:
        """Run a function with ``argument``, or an expression, and return what comes of it; both travel as JSON."""
        answer = await self._firefox.command(
            "script.callFunction",
            functionDeclaration=f"""async (text) => {{
                const value = ({script});
                const result = await (typeof value === "function" ? value(JSON.parse(text)) : value);
                return JSON.stringify(result ?? null);
            }}""",
            awaitPromise=True,
            target={"context": self._context},
            arguments=[{"type": "string", "value": json.dumps(argument)}],
        )
        if answer["type"] == "exception":
            raise FirefoxError(answer["exceptionDetails"]["text"])
        return json.loads(answer["result"]["value"])

    async def close(self) -> None:
        """Close the tab."""
        await self._firefox.command("browsingContext.close", context=self._context)


class Firefox:
    """A running Firefox; ``launch`` makes one."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._numbers = count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.version = ""

    async def new_page(self) -> FirefoxPage:
        """Open a tab."""
        created = await self.command("browsingContext.create", type="tab")
        return FirefoxPage(self, created["context"])

    async def command(self, method: str, **parameters: object) -> dict[str, Any]:
        """Send a command of WebDriver BiDi and return its result."""
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            await self._connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
            reply = await answer
        finally:
            del self._waiting[number]
        if reply["type"] != "success":
            raise FirefoxError(f"{method}: {reply.get('error')}: {reply.get('message')}")
        result: dict[str, Any] = reply["result"]
        return result

    async def dispatch(self) -> None:
        """Hand answers to their commands until the connection ends, then fail those that wait."""
        async for message in self._connection:
            reply = json.loads(message)
            answer = self._waiting.get(reply.get("id"))
            if answer is not None and not answer.done():
                answer.set_result(reply)
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(FirefoxError("Firefox has gone away"))


@contextlib.asynccontextmanager
async def launch(profile: Path) -> AsyncIterator[Firefox]:
    """Start Firefox with a new profile in the empty directory ``profile``; it ends with the context."""
    from websockets.asyncio.client import connect

    lines = (f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in PREFERENCES.items())
    (profile / "user.js").write_text("".join(lines))
    process = await asyncio.create_subprocess_exec(
        EXECUTABLE,
        "--headless",
        "--no-remote",
        "--profile",
        str(profile),
        "--remote-debugging-port",
        "0",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        # As another user than the one whose home directory it is, Firefox refuses to start.
        env={**os.environ, "HOME": str(profile)},
    )
    output = process.stderr
    assert output is not None
    try:
        async with asyncio.timeout(60):
            address = await _listening_address(output)
        # A pipe that nobody reads would stop Firefox after some warnings.
        draining = asyncio.ensure_future(_drain(output))
        # No pings: nothing on this machine drops a quiet connection, and each would draw from `random`, whose state
        # Hypothesis guards.
        async with connect(f"{address}/session", max_size=None, proxy=None, ping_interval=None) as connection:
            firefox = Firefox(connection)
            dispatching = asyncio.ensure_future(firefox.dispatch())
            session = await firefox.command("session.new", capabilities={})
            firefox.version = session["capabilities"]["browserVersion"]
            yield firefox
            with contextlib.suppress(FirefoxError):
                await firefox.command("browser.close")
        await asyncio.gather(dispatching, draining)
    finally:
        await _end(process)


async def _listening_address(output: asyncio.StreamReader) -> str:
    seen = b""
    while line := await output.readline():
        if (found := _LISTENING.search(line)) is not None:
            return found[1].decode()
        seen += line
    raise FirefoxError(f"Firefox ended at once: {seen.decode(errors='replace')}")


async def _drain(output: asyncio.StreamReader) -> None:
    while await output.read(65536):
        pass


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
    try:
        async with asyncio.timeout(10):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
