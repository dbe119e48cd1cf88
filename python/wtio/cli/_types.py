"""What the commands need to know about argparse's types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import argparse

# argparse keeps its class private although it is what add_subparsers returns.
Subparsers: TypeAlias = "argparse._SubParsersAction[Any]"
