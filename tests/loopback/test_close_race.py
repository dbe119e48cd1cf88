"""A close whose answer is there before the call has returned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from wtio._driver.loop import LoopDriver

if TYPE_CHECKING:
    import wtio


@pytest.mark.parametrize("closing_side", ["client", "server"])
async def test_a_close_that_is_answered_at_once_keeps_its_code(
    pair: tuple[wtio.WebTransportSession, wtio.WebTransportSession],
    closing_side: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    near, far = pair if closing_side == "client" else pair[::-1]
    drivers = [session._link.driver for session in (near, far)]  # type: ignore[attr-defined]
    drive = LoopDriver.drive

    def drive_both(driver: LoopDriver, readable: bool = False) -> None:
        """As if the other process ran whenever this one sends something, and this one were slow."""
        drive(driver, readable)
        for _ in range(5):
            for each in drivers:
                drive(each, True)

    with monkeypatch.context() as patch:
        patch.setattr(LoopDriver, "drive", drive_both)
        await near.close(7, "done")
    info = await near.wait_closed()
    assert (info.code, info.reason, info.closed_by) == (7, "done", "local")
    info = await far.wait_closed()
    assert (info.code, info.reason, info.closed_by) == (7, "done", "peer")
