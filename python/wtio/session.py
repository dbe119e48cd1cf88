"""Sessions: the class, what it says of itself, and the iterators that it gives.

The class is defined in ``wtio.stream``, because sessions and streams name each other in their signatures.
"""

from __future__ import annotations

from wtio._facts import CloseInfo, SessionFacts, SessionStats
from wtio._incoming import IncomingDatagrams, IncomingStreams
from wtio.stream import WebTransportSession

__all__ = [
    "CloseInfo",
    "IncomingDatagrams",
    "IncomingStreams",
    "SessionFacts",
    "SessionStats",
    "WebTransportSession",
]
