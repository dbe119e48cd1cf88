"""Checks of the arguments of public calls. Errors are raised at the call, with the argument's name and what to do."""

from __future__ import annotations

import asyncio
import functools
import inspect
import operator
import os
from dataclasses import FrozenInstanceError
from typing import Any, TypeVar

from wtio._field_texts import with_texts
from wtio.protocol.codes import MAX_APPLICATION_CODE

__all__ = [
    "check_bool",
    "check_choice",
    "check_code",
    "check_handler",
    "check_hook",
    "check_instance",
    "check_integer",
    "check_number",
    "check_text",
    "sealed",
    "strings",
]

_Class = TypeVar("_Class", bound=type)


def check_bool(name: str, value: object) -> None:
    """Raise TypeError for anything but a bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, not {_kind(value)}")


def check_integer(name: str, value: object, least: int | None = None, most: int | None = None) -> None:
    """Raise TypeError for anything but an integer, bool included, and ValueError for one out of its range."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an int, not {_kind(value)}")
    number = operator.index(value)
    if (least is not None and number < least) or (most is not None and number > most):
        limits = f"at least {least}" if most is None else f"between {least} and {most}"
        raise ValueError(f"{name} is {number}; it must be {limits}")


def check_code(name: str, value: object, what: str) -> None:
    """Check an application's error code.

    Args:
        name: Name of the argument.
        value: Its value.
        what: What kind of code it is, in words.

    Raises:
        TypeError: It is not an integer.
        ValueError: It does not fit into 32 bits.
    """
    check_integer(name, value)
    if not 0 <= operator.index(value) <= MAX_APPLICATION_CODE:  # type: ignore[arg-type]
        raise ValueError(f"{what} {value} is outside 0 to {MAX_APPLICATION_CODE} (32 bits); see `{name}`")


def check_number(name: str, value: object, least: float, most: float, unit: str = "") -> None:
    """Raise TypeError for anything but an int or a float, and ValueError for one out of its range or NaN."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number{unit}, not {_kind(value)}")
    if not least <= value <= most:
        limits = f"{least:g} or more" if most == float("inf") else f"between {least:g} and {most:g}"
        raise ValueError(f"{name} is {value}; it must be {limits}{unit}")


def check_text(name: str, value: object, *, optional: bool = False) -> None:
    """Check text that is sent as UTF-8.

    Raises:
        TypeError: It is not a str.
        ValueError: It contains lone surrogates, which UTF-8 cannot encode.
    """
    if value is None and optional:
        return
    if not isinstance(value, str):
        raise TypeError(f"{name} must be str{' or None' * optional}, not {_kind(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} has half a surrogate pair at position {error.start}, which is no text") from None


def check_path(name: str, value: object, hint: str = "") -> None:
    """Check the path of a file or directory.

    Args:
        name: Name of the argument.
        value: Its value.
        hint: What to do instead, in words, if it is of another type.

    Raises:
        TypeError: It is neither a str nor a path object of str.
        ValueError: It contains a null character.
    """
    if not isinstance(value, (str, os.PathLike)) or not isinstance(path := os.fspath(value), str):
        words = f"{name} must be a path (str or os.PathLike), not {_kind(value)}"
        raise TypeError(f"{words}; {hint}" if hint else words)
    if "\0" in path:
        raise ValueError(f"{name} has a null character in it")


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise ValueError for anything but one of these words."""
    if value not in choices:
        words = ", ".join(map(repr, choices[:-1])) + f" or {choices[-1]!r}"
        raise ValueError(f"{name} is {value!r}; it must be {words}")


def check_instance(name: str, value: object, kind: type, way: str, *, optional: bool = True) -> None:
    """Raise TypeError for an object of another class.

    Args:
        name: Name of the argument.
        value: Its value.
        kind: The class that is required.
        way: How to get an instance, in words.
        optional: Whether None is accepted too.
    """
    if not isinstance(value, kind) and not (optional and value is None):
        home = "wtio.hub" if kind.__module__.startswith("wtio.hub.") else "wtio"
        words = f"{home}.{kind.__name__}" + (" or None" if optional else "")
        raise TypeError(f"{name} must be {words}, not {_kind(value)}; {way}")


def strings(name: str, value: Any, what: str = "sequence of str") -> tuple[str, ...]:
    """Return a collection of str as a tuple.

    Raises:
        TypeError: It is a single str or not a collection, or a member is not a str.
    """
    if isinstance(value, (str, bytes)):
        raise TypeError(f"{name} must be a {what}, not one {_kind(value)}; write [{value!r}]")
    try:
        members = tuple(value)
    except TypeError:
        raise TypeError(f"{name} must be a {what}, not {_kind(value)}") from None
    for member in members:
        if not isinstance(member, str):
            raise TypeError(f"{name} must be a {what}; {member!r} in it is of type {_kind(member)}")
    return members


def check_handler(name: str, value: object) -> None:
    """Raise TypeError for anything but a coroutine function, instead of failing later in the task that runs it."""
    if value is None or is_coroutine_function(value):
        return
    given = f"`{getattr(value, '__qualname__', type(value).__qualname__)}`"
    if inspect.iscoroutine(value):
        value.close()  # otherwise Python warns about it too
        raise TypeError(f"{name} must be a coroutine function, not a coroutine; pass it without calling it")
    if inspect.isasyncgenfunction(value):
        raise TypeError(
            f"{name} must be a coroutine function; {given} is an asynchronous generator, for it has `yield`"
        )
    if not callable(value):
        raise TypeError(f"{name} must be a coroutine function (async def) or None, not {_kind(value)}")
    raise TypeError(
        f"{name} must be a coroutine function, and {given} is none; define it with `async def`, and use "
        "functools.partial to give it further arguments"
    )


def check_some_handler(name: str, value: object) -> None:
    """As ``check_handler``, but refuse None as well."""
    if value is None:
        raise TypeError(f"{name} must be a coroutine function (async def), not None")
    check_handler(name, value)


def check_function(name: str, value: object) -> None:
    """Raise TypeError for anything but a function or None; it may be a coroutine function."""
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be a function or None, not {_kind(value)}")


def check_hook(name: str, value: object) -> None:
    """Raise TypeError for anything but a function, plain or a coroutine function."""
    if inspect.iscoroutine(value):
        value.close()  # otherwise Python warns about it too
        raise TypeError(f"{name} must be a function, not a coroutine; pass it without calling it")
    check_function(name, value)
    if inspect.isasyncgenfunction(value) or inspect.isgeneratorfunction(value):
        given = getattr(value, "__qualname__", "it")
        raise TypeError(f"{name} must be a function that returns; `{given}` is a generator, for it has `yield`")


def is_coroutine_function(value: object) -> bool:
    """Whether calling it returns an awaitable, also for partials, methods, and objects with such a ``__call__``."""
    while isinstance(value, functools.partial):
        value = value.func
    if inspect.iscoroutinefunction(value):
        return True
    # Look at the class: an attribute of the instance with this name is not called.
    if callable(value) and inspect.iscoroutinefunction(type(value).__call__):
        return True
    # Compiled functions and mocks have asyncio's mark; for a wrapper made with functools.wraps, look at the wrapped
    # one.
    if getattr(value, "_is_coroutine", None) is getattr(asyncio.coroutines, "_is_coroutine", False):
        return True
    wrapped = getattr(value, "__wrapped__", None)
    return wrapped is not None and wrapped is not value and is_coroutine_function(wrapped)


def sealed(cls: _Class) -> _Class:
    """Make a frozen dataclass with slots say that it is frozen when any attribute is set, and ``help`` show its fields.

    Before Python 3.14, the method that ``dataclass`` makes fails with an obscure error for names that are not fields.
    """

    def refuse(self: object, name: str, value: object = None) -> None:
        known = name in type(self).__dataclass_fields__  # type: ignore[attr-defined]
        words = f"{cls.__name__} is immutable" if known else f"{cls.__name__} has no attribute {name!r}"
        raise FrozenInstanceError(f"{words}; dataclasses.replace makes a changed copy")

    cls.__setattr__ = refuse  # type: ignore[method-assign]
    cls.__delattr__ = refuse  # type: ignore[assignment,method-assign]
    return with_texts(cls)


def _kind(value: Any) -> str:
    return "None" if value is None else type(value).__name__
