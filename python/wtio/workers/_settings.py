"""What each worker is told to serve, and the same as a message; and how a limit is divided between workers."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from wtio.config import Limits, Timeouts
from wtio.secret import Secret
from wtio.steering import ServerId
from wtio.tls import ServerTLS, dev_certificate, development_names

if TYPE_CHECKING:
    from wtio.workers._messages import Message

__all__ = ["Settings", "divided"]

# Limits of a whole server: each worker has its share. All others are those of one connection, session or request.
_DIVIDED: Final = (
    "connections",
    "half_open_connections",
    "unvalidated_connections",
    "connections_per_address",
    "handshakes_per_address",
    "sessions",
    "sessions_per_address",
    "pending_requests",
    "server_memory",
    "http_requests",
)


def divided(limits: Limits, workers: int) -> Limits:
    """Return the limits of one of several workers. Rounded up, and never below the least that a limit may be."""
    least = {field.name: field.metadata["range"].least for field in dataclasses.fields(limits)}
    shares = {
        name: max(-(-value // workers), least[name])
        for name in _DIVIDED
        if (value := getattr(limits, name)) is not None
    }
    return dataclasses.replace(limits, **shares)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What all workers of a supervisor have in common."""

    app: str
    """Where the application is: ``module:attribute``."""
    factory: bool
    """Whether that is called to get it."""
    directory: str
    """Where modules are looked for first."""
    tls: tuple[ServerTLS, ...]
    limits: Limits
    """Those of one worker."""
    timeouts: Timeouts
    secret: Secret
    server_id: ServerId | None
    origins: tuple[str, ...] | str
    protocols: tuple[str, ...]
    congestion: str
    io: str
    loop: str
    """``"asyncio"`` or ``"uvloop"``."""
    log_level: str | None
    """Level of a log on standard error; None leaves logging to the application."""
    code: int
    reason: str
    """For the sessions that a worker closes."""
    settle: float
    report: float
    """See ``WorkerLimits``."""

    def to_message(self) -> dict[str, Any]:
        """As JSON can have it."""
        return {
            **{name: getattr(self, name) for name in _PLAIN},
            "tls": [_tls_to_message(one) for one in self.tls],
            "limits": dataclasses.asdict(self.limits),
            "timeouts": dataclasses.asdict(self.timeouts),
            "secret": self.secret.value.hex(),
            "server_id": None if self.server_id is None else self.server_id.value.hex(),
        }

    @classmethod
    def from_message(cls, message: Message) -> Settings:
        """Read what ``to_message`` made, perhaps with another version of wtio.

        Raises:
            KeyError: Something is missing that this version has no default for.
            CertificateError: A file cannot be used.
        """
        plain = {name: message[name] for name in _PLAIN}
        for name in ("origins", "protocols"):
            plain[name] = tuple(plain[name]) if isinstance(plain[name], list) else plain[name]
        return cls(
            **plain,
            tls=tuple(map(_tls_from_message, message["tls"])),
            limits=Limits(**_fields_of(Limits, message["limits"])),
            timeouts=Timeouts(**_fields_of(Timeouts, message["timeouts"])),
            secret=Secret(bytes.fromhex(message["secret"])),
            server_id=None if message["server_id"] is None else ServerId(bytes.fromhex(message["server_id"])),
        )


_PLAIN: Final = tuple(
    field.name
    for field in dataclasses.fields(Settings)
    if field.name not in ("tls", "limits", "timeouts", "secret", "server_id")
)
_TLS_FIELDS: Final = tuple(field.name for field in dataclasses.fields(ServerTLS) if field.init)


def _fields_of(kind: type[Limits | Timeouts], values: dict[str, Any]) -> dict[str, Any]:
    """Those that this version has; the others keep their defaults."""
    names = {field.name for field in dataclasses.fields(kind)}
    return {name: value for name, value in values.items() if name in names}


def _tls_to_message(tls: ServerTLS) -> dict[str, Any]:
    if (names := development_names(tls)) is not None:
        # The worker renews it, too.
        return {"development": names, "directory": str(Path(tls.files[0]).parent)}
    given = {name: getattr(tls, name) for name in _TLS_FIELDS}
    return {name: _as_text(value) for name, value in given.items() if value is not None}


def _tls_from_message(message: dict[str, Any]) -> ServerTLS:
    if "development" in message:
        return dev_certificate(message["development"], directory=message["directory"]).server_tls()
    return ServerTLS(**{name: value for name, value in message.items() if name in _TLS_FIELDS})


def _as_text(value: object) -> object:
    """Paths as they are for any working directory, and PEM as text."""
    if isinstance(value, os.PathLike):
        return os.path.abspath(value)
    return value.decode("ascii", "replace") if isinstance(value, (bytes, bytearray)) else value
