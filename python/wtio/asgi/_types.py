"""The types of ASGI, as Starlette and others write them: messages are mappings, whose keys depend on their type."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import asyncio

__all__ = ["ASGIApplication", "Message", "Receive", "Scope", "Send", "Spawn"]

# Any, and not object: frameworks declare it so, and users would have to cast every value.
Scope: TypeAlias = MutableMapping[str, Any]
"""What an application is told about a request, a session or its lifespan."""
Message: TypeAlias = MutableMapping[str, Any]
"""What an application receives or sends; ``message["type"]`` says which."""
Receive: TypeAlias = Callable[[], Awaitable[Message]]
"""Waits for the next message."""
Send: TypeAlias = Callable[[Message], Awaitable[None]]
"""Sends a message, and waits while there is no room for it."""
ASGIApplication: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
"""An application of ASGI 3."""

Spawn: TypeAlias = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]
"""Runs a call of an application in a task with a name, which ends with the server at the latest."""
