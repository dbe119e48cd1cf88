"""Files of one directory over streams: the rules, and both sides.

The client opens a bidirectional stream, writes one line and, with PUT, the bytes of the file, and ends it:

- ``LIST`` is answered with ``OK COUNT`` and one line ``SIZE NAME`` for each file;
- ``GET NAME`` with ``OK SIZE`` and the bytes;
- ``PUT SIZE NAME`` with ``OK SIZE`` once the file is complete and has its name.

Anything else is answered with ``ERROR WORDS``. Names are relative, with ``/`` between their parts. No name leaves the
directory, and no symbolic link is followed, because every part is opened from the one before (openat) with O_NOFOLLOW.
A file that is being received has a name that no client can ask for, and takes its own only when it is complete; a file
that exists is never replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from wtio.cli._terminal import visible
from wtio.errors import StreamError, StreamStoppedError, WebTransportError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from wtio.session import WebTransportSession
    from wtio.stream import WebTransportStream

__all__ = ["Directory", "FileError", "answer_header", "serve_files"]

CHUNK: Final = 256 * 1024
# Bytes of a line, parts of a name, and files in a list.
LINE: Final = 4096
_DEEPEST: Final = 32
_MOST_LISTED: Final = 10_000
# What the names of unfinished files begin with.
_UNFINISHED: Final = ".wtio-"


class FileError(Exception):
    """What a client asked for cannot be done; the message is for it."""


@dataclass
class Directory:
    """A directory whose files are served and, unless ``is_read_only``, received."""

    path: Path
    is_read_only: bool
    file_size: int
    """Most bytes of a file that is received."""
    total_size: int
    """Most bytes of all files that are received while the server runs."""
    received: int = 0
    """How many of these have come, or are announced by files under way."""

    def __post_init__(self) -> None:
        """Raise OSError if there is no such directory, ValueError if this system cannot serve one safely."""
        if not {os.open, os.stat, os.link, os.unlink} <= os.supports_dir_fd:
            raise ValueError("--dir needs a system that opens files relative to directories, which this one does not")
        os.close(os.open(self.path, os.O_RDONLY | os.O_DIRECTORY))

    @contextlib.contextmanager
    def parent_of(self, name: str) -> Iterator[tuple[int, str]]:
        """A descriptor of the directory that has the file, and the last part of the name."""
        parts = name.split("/")
        for part in parts:
            if part in ("", ".", "..") or "\0" in part or part.startswith(_UNFINISHED):
                raise FileError(f"`{name}` is no name of a file here")
        if len(parts) > _DEEPEST:
            raise FileError(f"the name has {len(parts)} parts; {_DEEPEST} are allowed")
        current = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for part in parts[:-1]:
                following = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=current)
                os.close(current)
                current = following
            yield current, parts[-1]
        finally:
            os.close(current)

    def open(self, name: str) -> tuple[int, int]:
        """Open a file to read it; its descriptor and its size."""
        with self.parent_of(name) as (parent, last):
            # O_NONBLOCK: to open a named pipe would wait for a writer.
            file = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=parent)
        facts = os.fstat(file)
        if not stat.S_ISREG(facts.st_mode):
            os.close(file)
            raise FileError(f"`{name}` is no file")
        return file, facts.st_size

    def list(self) -> list[tuple[int, str]]:
        """Sizes and names of files directly in the directory."""
        found = []
        with os.scandir(self.path) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False) and not entry.name.startswith(_UNFINISHED):
                    found.append((entry.stat(follow_symlinks=False).st_size, entry.name))
                if len(found) >= _MOST_LISTED:
                    break
        return sorted(found, key=lambda item: item[1])

    @contextlib.contextmanager
    def reserving(self, size: int) -> Iterator[None]:
        """Count a file that is being received; what does not arrive is not counted."""
        if self.is_read_only:
            raise FileError("nothing is received here, only served")
        if size > self.file_size:
            raise FileError(f"the file has {size} bytes; {self.file_size} are allowed")
        if self.received + size > self.total_size:
            raise FileError(f"{self.total_size - self.received} bytes are left for files; this one has {size}")
        self.received += size
        try:
            yield
        except BaseException:
            self.received -= size
            raise


# -- the server's side


async def serve_files(session: WebTransportSession, directory: Directory, tell: Callable[[str], None]) -> None:
    """Answer each stream of a session; ``tell`` gets a line about each."""

    async def answer(stream: WebTransportStream) -> None:
        try:
            await _answer(stream, directory, tell)
        except (FileError, OSError) as error:
            if isinstance(error, StreamError):
                return  # The client wants no more.
            words = str(error) if isinstance(error, FileError) else (error.strerror or str(error)).lower()
            tell(f"refused: {words}")
            with contextlib.suppress(StreamError):
                # The client may still be sending what nobody wants.
                await stream.write(data=f"ERROR {words}\n".encode(), end_stream=True)
                await stream.stop_receiving()

    await session.serve_streams(answer)


async def _answer(stream: WebTransportStream, directory: Directory, tell: Callable[[str], None]) -> None:
    line = await _read_line(stream)
    word, _, rest = line.partition(" ")
    match word:
        case "LIST" if not rest:
            found = await asyncio.to_thread(directory.list)
            # A name that would break the line cannot be asked for.
            lines = [f"{size} {name}\n" for size, name in found if visible(name) == name]
            await stream.write(data=f"OK {len(lines)}\n{''.join(lines)}".encode(), end_stream=True)
        case "GET" if rest:
            await _send(stream, directory, rest)
            tell(f"sent {rest}")
        case "PUT" if rest.partition(" ")[2] and _is_number(rest.partition(" ")[0]):
            size, _, name = rest.partition(" ")
            await _receive(stream, directory, name, int(size))
            tell(f"received {name}, {size} bytes")
            await stream.write(data=f"OK {size}\n".encode(), end_stream=True)
        case _:
            raise FileError("write LIST, GET NAME or PUT SIZE NAME")


async def _read_line(stream: WebTransportStream) -> str:
    try:
        line = await stream.readline(limit=LINE)
    except (asyncio.LimitOverrunError, asyncio.IncompleteReadError) as error:
        raise FileError(f"the first line has no end within {LINE} bytes") from error
    try:
        return line.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise FileError("the first line is not UTF-8") from error


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20


async def _send(stream: WebTransportStream, directory: Directory, name: str) -> None:
    file, size = await asyncio.to_thread(directory.open, name)
    try:
        await stream.write(data=f"OK {size}\n".encode())
        left = size
        while left:
            data = await asyncio.to_thread(os.read, file, min(CHUNK, left))
            if not data:
                # It became shorter meanwhile. The end of the stream would look like the end of the file.
                await stream.reset()
                return
            await stream.write(data=data)
            left -= len(data)
        await stream.write(data=b"", end_stream=True)
    finally:
        os.close(file)


async def _receive(stream: WebTransportStream, directory: Directory, name: str, size: int) -> None:
    with directory.reserving(size), directory.parent_of(name) as (parent, last):
        with contextlib.suppress(FileNotFoundError):
            os.stat(last, dir_fd=parent, follow_symlinks=False)
            raise FileError(f"`{name}` exists")
        unfinished = f"{_UNFINISHED}{secrets.token_hex(8)}"
        file = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644, dir_fd=parent)
        try:
            with os.fdopen(file, "wb", buffering=0) as output:
                left = size
                async for data in stream:
                    if len(data) > left:
                        raise FileError(f"more than the {size} bytes arrived that were announced")
                    await asyncio.to_thread(output.write, data)
                    left -= len(data)
                if left:
                    raise FileError(f"{size - left} bytes arrived of {size}")
                await asyncio.to_thread(os.fsync, output.fileno())
            try:
                # Unlike a rename, this fails if somebody else was faster.
                os.link(unfinished, last, src_dir_fd=parent, dst_dir_fd=parent, follow_symlinks=False)
            except FileExistsError as error:
                raise FileError(f"`{name}` exists") from error
        finally:
            os.unlink(unfinished, dir_fd=parent)


# -- the client's side


async def answer_header(stream: WebTransportStream) -> int:
    """Read the first line of an answer; its number, or FileError with the server's words."""
    try:
        line = await _read_line(stream)
    except FileError as error:
        raise FileError("the server does not answer as `wtio serve --dir` does; is the path /files?") from error
    word, _, rest = line.partition(" ")
    if word == "OK" and _is_number(rest):
        return int(rest)
    raise FileError(rest if word == "ERROR" else "the server does not answer as `wtio serve --dir` does")


async def put(stream: WebTransportStream, name: str, file: int, add: Callable[[int], None]) -> int:
    """Send a file that is open; how many bytes the server has stored."""
    size = os.fstat(file).st_size
    try:
        await stream.write(data=f"PUT {size} {name}\n".encode())
        while data := await asyncio.to_thread(os.read, file, CHUNK):
            await stream.write(data=data)
            add(len(data))
        await stream.write(data=b"", end_stream=True)
    except StreamStoppedError:
        pass  # Its answer says why.
    try:
        return await answer_header(stream)
    except WebTransportError as error:
        raise FileError(f"the server has not taken it: {error}") from error
