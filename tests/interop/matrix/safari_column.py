"""The emulated Safari, in each of its dialects."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from tests.interop import safari

from .halves import offered, play_client

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .peer import Difference, Target
    from .rows import Report, Row


class SafariClient:
    """A client that wants what Safari wants, for our server."""

    differences: Mapping[str, Difference] = MappingProxyType({})

    def __init__(self, flavour: safari.Flavour) -> None:
        self._flavour = flavour
        self.name = f"safari-{flavour.value}"
        self.title = f"Safari {flavour.value}"

    def prepare(self) -> str:
        return "emulated"

    def close(self) -> None:
        """Nothing was started."""

    async def run(self, row: Row, target: Target) -> Report:
        connecting = safari.connect(
            "127.0.0.1", target.port, row.path, flavour=self._flavour, protocols=offered(row.path)
        )
        try:
            async with connecting as session:
                report = await play_client(session)
        except safari.PeerSessionRejected as rejection:
            return {"rejected": True, "status": rejection.status}
        return report | ({"error": session.complaints} if session.complaints else {})
