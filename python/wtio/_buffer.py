"""The type of data that can be written, ``Buffer``, and its conversion to contiguous bytes."""

from __future__ import annotations

import array
import mmap
import sys
from abc import ABCMeta
from typing import TYPE_CHECKING

if sys.version_info >= (3, 12):
    from collections.abc import Buffer
elif TYPE_CHECKING:
    from typing_extensions import Buffer
else:

    class _BufferMeta(ABCMeta):
        def __instancecheck__(cls, instance):
            if super().__instancecheck__(instance):
                return True
            try:
                memoryview(instance).release()
            except TypeError:
                return False
            return True

    class Buffer(metaclass=_BufferMeta):
        """Anything with the buffer protocol (Python 3.12 has this class in ``collections.abc``)."""

        __slots__ = ()

    for _class in (bytes, bytearray, memoryview, array.array, mmap.mmap):
        Buffer.register(_class)

__all__ = ["Buffer", "contiguous_bytes"]


def contiguous_bytes(data: Buffer, name: str = "data") -> bytes | bytearray | memoryview:
    """Return ``data`` as an object whose ``len()`` is its number of bytes, without copying.

    Args:
        data: Any object with the buffer protocol whose memory is C-contiguous.
        name: What to call it in an error.

    Returns:
        ``data`` itself if it is ``bytes`` or ``bytearray``, else a memoryview of format ``B``.

    Raises:
        TypeError: ``data`` is text, has no buffer, or is not contiguous. The message says what to do.
    """
    if isinstance(data, (bytes, bytearray)):
        return data
    if isinstance(data, str):
        raise TypeError(f"{name} must be bytes-like, not str; encode it first: {name}.encode()")
    try:
        view = memoryview(data)
    except TypeError:
        raise TypeError(
            f"{name} must be bytes-like (bytes, bytearray, memoryview, …), not {type(data).__name__}"
        ) from None
    if view.nbytes == 0:
        return b""
    if not view.c_contiguous:
        raise TypeError(f"{name} is a memoryview that is not contiguous; copy it first: bytes({name})")
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")
