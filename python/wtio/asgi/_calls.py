"""The wait for a call of an application, whose task goes on when the one that waits for it is cancelled."""

from __future__ import annotations

import asyncio

from wtio._words import SERVER_CLOSES

__all__ = ["end_of_call"]


async def end_of_call(call: asyncio.Task[None]) -> None:
    """Wait until a call has ended; what it has raised is left to the caller.

    Cancelling does not interrupt the wait: it is passed on to the call if the server is closing, and otherwise takes
    effect when the call has ended, for an application is not cancelled because its client has left. There may be
    several: a client takes its request back, and then its connection is lost.
    """
    cancelled: asyncio.CancelledError | None = None
    while not call.done():
        try:
            await asyncio.wait((call,))
        except asyncio.CancelledError as error:
            cancelled = error
            if error.args == (SERVER_CLOSES,):
                call.cancel(SERVER_CLOSES)
    if cancelled is not None:
        raise cancelled
