"""wtio on both ends. What fails here is wrong in the scripts or in wtio, not between wtio and somebody else."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING

import wtio

from . import ours

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractAsyncContextManager

    from .peer import Difference, RunningServer, Target
    from .rows import Report, Row


class _Wtio:
    name = "wtio"
    title = "wtio"
    differences: Mapping[str, Difference] = types.MappingProxyType({})

    def prepare(self) -> str:
        return wtio.__version__

    def close(self) -> None:
        """Nothing was started."""


class WtioClient(_Wtio):
    """Our client, for our server."""

    async def run(self, row: Row, target: Target) -> Report:
        return await ours.run_client(row, target)


class WtioServer(_Wtio):
    """Our server, for our client."""

    def serve(self, certificate: wtio.DevCertificate, row: Row) -> AbstractAsyncContextManager[RunningServer]:
        return ours.serving(certificate)
