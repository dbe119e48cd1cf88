"""How a server is found among several at one address: the ID by which load balancers know it."""

from __future__ import annotations

import base64
import binascii
import os
import re
from dataclasses import dataclass

from wtio._arguments import check_text, sealed
from wtio.config import LONGEST_SERVER_ID

__all__ = ["ServerId"]

_HEXADECIMAL = re.compile(r"0x((?:[0-9a-fA-F]{2})+)")


@sealed
@dataclass(frozen=True, slots=True)
class ServerId:
    """The ID of a server among those that share an address, for ``wtio.serve(server_id=...)``.

    It is in every connection ID of the server, where a load balancer that speaks QUIC-LB reads it: packets then reach
    the server also if the addresses of its clients change. It is no secret, and in the plain form of QUIC-LB everybody
    on the way can read it. See docs/more-than-one-machine.md.

    Args:
        value: The ID, 1 to 8 bytes, which no other server behind the same balancer has. All of them must be of the same
            length, as the balancer is set up. AWS's Network Load Balancer wants 8.

    Raises:
        TypeError: ``value`` is not bytes.
        ValueError: ``value`` is empty, or longer than 8 bytes.

    Source: draft-ietf-quic-load-balancers-21, sections 3 and 5.2.
    """

    value: bytes
    """The ID itself."""

    def __post_init__(self) -> None:
        if not isinstance(self.value, (bytes, bytearray)):
            raise TypeError(
                f"value must be bytes, not {type(self.value).__name__}; see also wtio.ServerId.from_environment"
            )
        _check_length(self.value, "value")
        # The only way to set a field of a frozen class.
        object.__setattr__(self, "value", bytes(self.value))

    def __repr__(self) -> str:
        return f"ServerId(0x{self.value.hex()})"

    @classmethod
    def from_environment(cls, name: str = "AWS_LBC_QUIC_SERVER_ID") -> ServerId:
        """Read the ID from an environment variable, which nothing else reads.

        Its text is base64, as AWS's controller for Kubernetes sets it, or ``0x`` and hexadecimal digits, as in the API
        of its load balancer.

        Args:
            name: Name of the variable. Default ``AWS_LBC_QUIC_SERVER_ID``.

        Raises:
            ValueError: The variable is not set, is neither of these, or has no ID of 1 to 8 bytes.
            TypeError: ``name`` is not a str.
        """
        check_text("name", name)
        text = os.environ.get(name)
        if text is None:
            raise ValueError(f"environment variable {name} is not set; it says which server this is")
        origin = f"environment variable {name}"
        digits = _HEXADECIMAL.fullmatch(text)
        try:
            value = bytes.fromhex(digits[1]) if digits else base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(
                f"{origin} is {text!r}; it must be base64, such as 'AAAAAAAAAAE=', or 0x and hexadecimal digits, such "
                "as '0x0000000000000001'"
            ) from None
        _check_length(value, origin)
        return cls(value)


def _check_length(value: bytes, origin: str) -> None:
    if not 1 <= len(value) <= LONGEST_SERVER_ID:
        raise ValueError(f"{origin} is a server ID of {len(value)} bytes; it must have 1 to {LONGEST_SERVER_ID}")
