"""Finding an application by its name, such as ``shop.main:app``, and making a handler of what is found."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from typing import TYPE_CHECKING, Any

from wtio._arguments import check_text, is_coroutine_function
from wtio._site import Site

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["check_name", "describe", "load"]

_FORM = "it must be `module:attribute`, such as `shop.main:app`"


def check_name(name: str) -> tuple[str, str]:
    """Return module and attribute of an application's name.

    Raises:
        TypeError: It is not a str.
        ValueError: It has not the form ``module:attribute``.
    """
    check_text("app", name)
    module, colon, attribute = name.partition(":")
    parts = [*module.split("."), *attribute.split(".")]
    is_file = module.endswith(".py")
    if not colon or is_file or not all(part.isidentifier() for part in parts):
        hint = "; name the module, not its file" if is_file else ""
        raise ValueError(f"app is {name!r}; {_FORM}{hint}")
    return module, attribute


def load(name: str, *, factory: bool, directory: str) -> Callable[..., Any]:
    """Import an application, and return it as ``wtio.serve`` takes it.

    Args:
        name: ``module:attribute``.
        factory: Whether the attribute is to be called, without arguments, to get the application.
        directory: Where modules are looked for first.

    Raises:
        ValueError: There is no such attribute, or it is no application.
        BaseException: Whatever the import and the factory raise.
    """
    module_name, attribute = check_name(name)
    sys.path.insert(0, directory)
    found: Any = importlib.import_module(module_name)
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ValueError(f"module `{module_name}` has no attribute `{attribute}`") from None
    if factory:
        if not callable(found):
            raise ValueError(f"`{name}` is {_kind(found)}, which cannot be called; it is no factory")
        found = found()
    return _as_handler(name, found)


def _as_handler(name: str, found: Any) -> Callable[..., Any]:
    """Tell session handlers, sites and ASGI applications apart, by what they can be called with."""
    if isinstance(found, Site):
        return found
    if callable(found) and not inspect.isclass(found):
        if _takes(found, 3) and is_coroutine_function(found):
            from wtio.asgi import Application

            return Application(found)
        if _takes(found, 1) and is_coroutine_function(found):
            return found  # type: ignore[no-any-return]
        if _takes(found, 0):
            raise ValueError(f"`{name}` takes no argument; if it is a factory, say so (factory=True, --factory)")
    raise ValueError(
        f"`{name}` is {_kind(found)}; it must be a session handler (async def handle(session)), a wtio.Router, or an "
        "ASGI application"
    )


def _takes(function: Callable[..., Any], count: int) -> bool:
    """Whether it can be called with so many positional arguments."""
    try:
        inspect.signature(function).bind(*range(count))
    except (TypeError, ValueError):
        return False
    return True


def _kind(value: object) -> str:
    return f"of type {type(value).__name__}"


def describe(error: BaseException) -> str:
    """Say in one line what went wrong, and in which line of the application."""
    words = " ".join(f"{type(error).__name__}: {error}".rstrip(": ").split())
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen")]
    own = [frame for frame in frames if frame.filename not in _OURS]
    return f"{words} ({own[-1].filename}, line {own[-1].lineno})" if own else words


_OURS = frozenset((__file__, importlib.__file__))
