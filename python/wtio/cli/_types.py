"""Types of argparse that the commands use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import argparse

# add_subparsers returns a class that argparse keeps private.
Subparsers: TypeAlias = "argparse._SubParsersAction[Any]"
