"""What the commands need to know about argparse's types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import argparse


class Subparsers(Protocol):
    """What ``add_subparsers`` returns; argparse keeps its class private."""

    def add_parser(self, name: str, *, help: str, **options: Any) -> argparse.ArgumentParser: ...
