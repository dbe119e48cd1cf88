"""What docs/routes.md shows does what the page says."""

from __future__ import annotations

from typing import Any

from tests.support.http3 import HttpClient

import wtio
from wtio.testing import Network, run

from .programs import ROOT
from .test_readme import blocks


def test_the_routes_of_the_page(certificate: wtio.DevCertificate) -> None:
    page: dict[str, Any] = {}
    for code in blocks(ROOT / "docs" / "routes.md", "python"):
        exec(compile(code, "docs/routes.md", "exec"), page)
    assert isinstance(page["serve"](certificate.server_tls()), wtio.Server)

    async def main() -> None:
        network = Network()

        async def status(path: str) -> int:
            try:
                async with network.connect(f"https://localhost{path}") as session:
                    return session.facts.status
            except wtio.SessionRejectedError as error:
                return error.status

        async with network.serve(page["router"]), HttpClient(network) as client:
            async with network.connect("https://localhost/rooms/blue", headers={"cookie": "token=s3cret"}) as session:
                assert await session.receive_datagram() == b"ada is in blue"
            async with network.connect("https://localhost/clock/15") as session:
                assert (await session.wait_closed()).code == 3
            assert await status("/rooms/blue") == 401
            assert await status("/clock/late") == 405
            assert await status("/games/6ba7b810-9dad-11d1-80b4-00c04fd430c8") == 200
            assert await status("/games/chess") == 405
            answer = await client.get("/health")
            assert (answer.status, bytes(answer.body)) == (200, b"fine\n")
            answer = await client.get("/clock/3")
            assert (answer.status, answer.headers["allow"]) == (405, "CONNECT")

    run(main())
