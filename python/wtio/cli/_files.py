"""Files of one directory over streams: the rules, and both sides.

The client opens a bidirectional stream, writes one line and, with PUT, the bytes of the file, and ends it:

- ``LIST`` is answered with ``OK COUNT`` and one line ``SIZE NAME`` for each file, also those in subdirectories; the
  line ``and more`` follows if not all are listed;
- ``GET NAME`` with ``OK SIZE`` and the bytes;
- ``PUT SIZE NAME`` with ``OK SIZE`` once the file is complete and has its name.

Anything else is answered with ``ERROR WORDS``. Names are relative, with ``/`` between their parts. No name leaves the
directory, and no symbolic link is followed, because every part is opened from the one before (openat) with O_NOFOLLOW.
What is hidden, because a part of its name begins with a dot, is neither listed nor sent nor received: there are keys
and settings among it, and what is put there may be run. Neither is what has control characters in its name.
A file that is being received has a hidden name, and takes its own only when it is complete; a file that exists is never
replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from wtio.cli._standard import write_output
from wtio.cli._terminal import visible
from wtio.cli._words import of_system
from wtio.errors import StreamError, StreamStoppedError, WebTransportError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from wtio.session import WebTransportSession
    from wtio.stream import WebTransportStream

__all__ = ["FILES", "Directory", "FileError", "answer_header", "check_name", "open_to_put", "put", "serve_files"]

FILES: Final = "/files"
"""The path at which `wtio serve --dir` has them."""
CHUNK: Final = 256 * 1024
# Bytes of a line and of a name in it, parts of a name, files in a list, and entries that are looked at for one.
LINE: Final = 4096
_LONGEST_NAME: Final = LINE - 32
_DEEPEST: Final = 32
_MOST_LISTED: Final = 10_000
_MOST_SEEN: Final = 100_000


class FileError(Exception):
    """What a client asked for cannot be done; the message is for it."""


def check_name(name: str) -> None:
    """Raise FileError for a name that cannot be asked for, whatever there is at the other side."""
    if visible(name) != name:
        raise FileError(
            f"`{visible(name)}` has control characters or bytes that are no UTF-8; no file of such a name is sent"
        )
    if len(name.encode()) > _LONGEST_NAME:
        raise FileError(f"the name has {len(name.encode())} bytes; {_LONGEST_NAME} are allowed")


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
        check_name(name)
        parts = name.split("/")
        if any(part in ("", ".", "..") for part in parts):
            raise FileError(f"`{name}` is no name of a file here")
        if any(part.startswith(".") for part in parts):
            raise FileError(
                f"`{name}` is hidden (a name begins with a dot); hidden files are neither sent nor received"
            )
        if len(parts) > _DEEPEST:
            raise FileError(f"the name has {len(parts)} parts; {_DEEPEST} are allowed")
        current = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for part in parts[:-1]:
                try:
                    following = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=current)
                except OSError as error:
                    raise _refusal(error, name, current, part) from error
                os.close(current)
                current = following
            yield current, parts[-1]
        finally:
            os.close(current)

    def open(self, name: str) -> tuple[int, int]:
        """Open a file to read it; its descriptor and its size."""
        with self.parent_of(name) as (parent, last):
            # O_NONBLOCK: to open a named pipe would wait for a writer.
            try:
                file = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=parent)
            except OSError as error:
                raise _refusal(error, name, parent, last) from error
        facts = os.fstat(file)
        if not stat.S_ISREG(facts.st_mode):
            os.close(file)
            raise FileError(
                f"`{name}` is a directory" if stat.S_ISDIR(facts.st_mode) else f"`{name}` is no regular file"
            )
        return file, facts.st_size

    def list(self) -> tuple[list[tuple[int, str]], bool]:
        """Sizes and names of files that can be asked for, and whether these are all."""
        listing = _Listing()
        current = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            listing.add(current, "", 1)
        finally:
            os.close(current)
        return sorted(listing.found, key=lambda item: item[1]), listing.is_whole

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


class _Listing:
    """Files below a directory."""

    def __init__(self) -> None:
        # Sizes and names up to now, entries seen, and whether nothing had to be left out.
        self.found: list[tuple[int, str]] = []
        self._seen = 0
        self.is_whole = True

    def add(self, directory: int, above: str, depth: int) -> None:
        """Add the files of an open directory, and of those in it; ``above`` is what their names begin with."""
        below = []
        with os.scandir(directory) as entries:
            for entry in entries:
                self._seen += 1
                if len(self.found) >= _MOST_LISTED or self._seen > _MOST_SEEN:
                    self.is_whole = False
                    return
                name = above + entry.name
                if entry.name.startswith(".") or visible(name) != name or len(name.encode()) > _LONGEST_NAME:
                    continue
                # It may be gone by now.
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        below.append(entry.name)
                    elif entry.is_file(follow_symlinks=False):
                        self.found.append((entry.stat(follow_symlinks=False).st_size, name))
        for part in sorted(below) if depth < _DEEPEST else ():
            # What this process may not read cannot be asked for either.
            with contextlib.suppress(OSError):
                following = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
                try:
                    self.add(following, f"{above}{part}/", depth + 1)
                finally:
                    os.close(following)


def _refusal(error: OSError, name: str, parent: int, part: str) -> FileError:
    """Why a part of a name could not be opened, in words for the client."""
    is_link = False
    with contextlib.suppress(OSError):
        is_link = stat.S_ISLNK(os.stat(part, dir_fd=parent, follow_symlinks=False).st_mode)
    if is_link:
        return FileError(f"`{name}` is a symbolic link or leads through one; links are not followed")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return FileError(f"there is no `{name}` here")
    if error.errno in (errno.EACCES, errno.EPERM):
        return FileError(f"the server is not permitted to open `{name}`")
    return FileError(f"`{name}` cannot be opened: {of_system(error, with_file=False)}")


# -- the server's side


async def serve_files(session: WebTransportSession, directory: Directory, tell: Callable[[str], None]) -> None:
    """Answer each stream of a session; ``tell`` gets a line about each."""

    async def answer(stream: WebTransportStream) -> None:
        try:
            await _answer(stream, directory, tell)
        except (FileError, OSError) as error:
            if isinstance(error, StreamError):
                return  # The client wants no more.
            words = str(error)
            if not isinstance(error, FileError):
                # Where the directory is concerns nobody else.
                words = f"the server cannot do that: {of_system(error, with_file=False)}"
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
            found, is_whole = await asyncio.to_thread(directory.list)
            lines = [f"{size} {name}\n" for size, name in found]
            rest = "" if is_whole else "and more\n"
            await stream.write(data=f"OK {len(lines)}\n{''.join(lines)}{rest}".encode(), end_stream=True)
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
        unfinished = f".wtio-{secrets.token_hex(8)}"
        file = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644, dir_fd=parent)
        try:
            with os.fdopen(file, "wb", buffering=0) as output:
                left = size
                async for data in stream:
                    if len(data) > left:
                        raise FileError(f"more than the {size} bytes arrived that were announced")
                    # All of it: a disk that is almost full takes a part, and says so only the next time.
                    await asyncio.to_thread(write_output, data, output.fileno())
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


async def answer_header(stream: WebTransportStream, url: str) -> int:
    """Read the first line of an answer; its number, or FileError with the server's words.

    ``url`` is where the stream goes, for the words if there are no files.
    """
    try:
        line = await _read_line(stream)
    except FileError as error:
        raise FileError(_no_files(url)) from error
    word, _, rest = line.partition(" ")
    if word == "OK" and _is_number(rest):
        return int(rest)
    raise FileError(rest if word == "ERROR" else _no_files(url))


def _no_files(url: str) -> str:
    """Why something answers there, but not about files."""
    scheme, _, rest = url.partition("//")
    authority, _, path = rest.partition("/")
    if f"/{path}" == FILES:
        return f"there are no files at {url}; a server of wtio has them if it was started with `wtio serve --dir`"
    return (
        f"there are no files at the path /{path}; `wtio serve --dir` has them at {FILES}: {scheme}//{authority}{FILES}"
    )


def open_to_put(path: str) -> int:
    """Open a file to send it; ValueError for what has no size or a name that cannot be sent, OSError as ``os.open``."""
    # O_NONBLOCK: to open a named pipe would wait for a writer.
    file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        mode = os.fstat(file).st_mode
        if stat.S_ISDIR(mode):
            raise ValueError(f"--put: `{path}` is a directory; one file is sent at a time")
        if not stat.S_ISREG(mode):
            raise ValueError(
                f"--put: `{path}` is no regular file, so nobody knows its size; give one, or copy it with --pipe"
            )
        check_name(os.path.basename(path))
    except FileError as error:
        os.close(file)
        raise ValueError(f"--put: {error}") from error
    except BaseException:
        os.close(file)
        raise
    return file


async def put(stream: WebTransportStream, name: str, file: int, add: Callable[[int], None], url: str) -> int:
    """Send a file that is open; how many bytes the server has stored. ``url`` is as for ``answer_header``."""
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
        return await answer_header(stream, url)
    except WebTransportError as error:
        raise FileError(f"the server has not taken it: {error}") from error
