"""The pipe that wakes a loop which cannot watch it: asyncio's default loop on Windows.

Such a loop (``asyncio.ProactorEventLoop``) starts operations and hears of their end; it has no ``add_reader``.
"""

from __future__ import annotations

import asyncio
import socket
import weakref
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["PipeReader", "can_watch"]

# Bytes read at once. There is one at most (crates/net/src/handoff.rs).
_AT_ONCE: Final = 16


def can_watch(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the loop has ``add_reader``."""
    return type(loop).add_reader is not asyncio.AbstractEventLoop.add_reader


class PipeReader:
    """Reads from the pipe until it is closed, and calls back after each read.

    ``loop.sock_recv`` is a coroutine, but a task for it would be among ``asyncio.all_tasks()``, and cancelled by
    whoever cancels those. So it is stepped by hand: each step gives a future of the loop, and when that is done the
    next step is due. This uses no private name of asyncio.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        descriptor: int,
        *,
        woken: Callable[[], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._loop = loop
        # Owned: nobody else closes the descriptor.
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)
        # If the driver is forgotten after its loop was closed, there is nothing left to close but this.
        weakref.finalize(self, self._socket.close)
        # Called after each read.
        self._woken = woken
        # Called if reading fails, after which nothing more is read.
        self._failed = failed
        # The read that is going on, and what it waits for; None between two reads, and at the end.
        self._reading: Coroutine[Any, Any, bytes] | None = None
        self._waited_for: asyncio.Future[Any] | None = None
        # Set by ``close``.
        self._is_closed = False
        self._read()

    def close(self) -> None:
        """End reading, and close the pipe's end. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._waited_for is not None and not self._loop.is_closed():
            self._waited_for.cancel()
            # A loop that watches sockets inside stops doing so when it hears of that.
            self._loop.call_soon(self._socket.close)
        else:
            self._socket.close()
        if self._reading is not None:
            self._reading.close()
        self._waited_for = self._reading = None

    def _read(self) -> None:
        if not self._is_closed:
            self._reading = self._loop.sock_recv(self._socket, _AT_ONCE)
            self._step()

    def _step(self, done: asyncio.Future[Any] | None = None) -> None:
        """Go on with the read: at its beginning, and when what it waited for is done."""
        if self._reading is None:
            return
        try:
            self._waited_for = self._reading.send(None)
        except StopIteration:
            self._waited_for = self._reading = None
            if done is None:
                # It did not have to wait. Whoever began it may be in the middle of something.
                self._loop.call_soon(self._go_on)
            else:
                self._go_on()
        except asyncio.CancelledError:
            # The loop is being closed.
            self.close()
        except OSError as error:
            self.close()
            self._failed(error)
        else:
            self._waited_for.add_done_callback(self._step)

    def _go_on(self) -> None:
        if self._is_closed:
            return
        try:
            self._woken()
        finally:
            # Nothing, if that has closed it.
            self._read()
