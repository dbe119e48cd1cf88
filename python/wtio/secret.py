"""A secret from which a server derives what has to stay the same when it is restarted."""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path

from wtio._arguments import check_path, check_text, sealed
from wtio.config import LEAST_SECRET

__all__ = ["Secret"]

_HOW_TO_MAKE_ONE = "make one with `openssl rand -hex 32`"


@sealed
@dataclass(frozen=True, slots=True)
class Secret:
    """A server's secret, for ``wtio.serve(secret=...)``: the same before and after a restart.

    The keys of stateless resets (RFC 9000, section 10.3), of connection IDs and of address validation tokens are
    derived from it. A server that was killed and started again can then tell its old clients that their connections
    are gone; without it, they wait for ``Timeouts.idle``. It has nothing to do with TLS. Somebody who learns it can end
    connections whose packets he sees, and use forged addresses as if they were validated, but he can read nothing. Its
    value is in no repr and no log.

    Args:
        value: The secret, at least 32 random bytes, such as from ``secrets.token_bytes(32)``.

    Raises:
        TypeError: ``value`` is not bytes.
        ValueError: ``value`` is shorter than 32 bytes.

    Source: RFC 9000, section 10.3.2.
    """

    value: bytes = field(repr=False)
    """The secret itself."""

    def __post_init__(self) -> None:
        if not isinstance(self.value, (bytes, bytearray)):
            raise TypeError(f"value must be bytes, not {type(self.value).__name__}; see also wtio.Secret.from_file")
        if len(self.value) < LEAST_SECRET:
            raise ValueError(
                f"value is a secret of {len(self.value)} bytes; it must have {LEAST_SECRET} or more: {_HOW_TO_MAKE_ONE}"
            )
        # The only way to set a field of a frozen class.
        object.__setattr__(self, "value", bytes(self.value))

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Secret:
        """Read a secret from a file, such as one of ``openssl rand -hex 32 > secret`` with mode 0600.

        The bytes are taken as they are, but for a newline at the end of more than 32. The file's group may read it only
        if it belongs to root and this process does not run as root, as with the secrets of systemd and Kubernetes. On
        Windows, where files have no mode, nobody checks who else can read it.

        Args:
            path: The file.

        Raises:
            OSError: The file cannot be read.
            ValueError: Others can read the file, or it is shorter than 32 bytes.
            TypeError: ``path`` is not a path.
        """
        check_path("path", path)
        with Path(path).open("rb") as file:
            if sys.platform != "win32":
                facts = os.fstat(file.fileno())
                mode = stat.S_IMODE(facts.st_mode)
                allowed = 0o740 if facts.st_uid == 0 != os.geteuid() else 0o700
                if mode & ~allowed & 0o077:
                    raise ValueError(
                        f"secret file `{os.fspath(path)}` has mode {mode:04o}, so that others can read or change it; "
                        "run `chmod 600` on it, and replace a secret that others may have read"
                    )
            value = file.read()
        if len(value) > LEAST_SECRET:
            value = value.removesuffix(b"\n").removesuffix(b"\r")
        return cls._checked(value, f"secret file `{os.fspath(path)}`")

    @classmethod
    def from_environment(cls, name: str = "WTIO_SECRET") -> Secret:
        """Read a secret from an environment variable, whose text is taken as it is.

        Args:
            name: Name of the variable. Default ``WTIO_SECRET``.

        Raises:
            ValueError: The variable is not set, or has less than 32 bytes.
            TypeError: ``name`` is not a str.
        """
        check_text("name", name)
        value = os.environ.get(name)
        if value is None:
            raise ValueError(f"environment variable {name} is not set; {_HOW_TO_MAKE_ONE}")
        return cls._checked(os.fsencode(value), f"environment variable {name}")

    @classmethod
    def _checked(cls, value: bytes, origin: str) -> Secret:
        if len(value) < LEAST_SECRET:
            raise ValueError(
                f"{origin} has {len(value)} bytes; it must have {LEAST_SECRET} or more: {_HOW_TO_MAKE_ONE}"
            )
        return cls(value)
