"""What a peer did wrong, as exceptions that never leave the protocol layer, and the one for our own mistakes.

``ConnectionFault`` ends the connection, ``StreamFault`` ends one request stream. ``H3Connection`` catches both and
turns them into outputs and events. ``SessionStateError`` is raised to the caller.
"""

__all__ = ["ConnectionFault", "SessionStateError", "StreamFault"]


class ConnectionFault(Exception):
    """The peer broke a rule whose breach ends the connection.

    Attributes:
        code: HTTP/3 or QPACK error code for CONNECTION_CLOSE.
        reason: One sentence for the log and for the peer.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code: int = int(code)
        self.reason = reason


class StreamFault(Exception):
    """The peer broke a rule whose breach ends one request or session.

    Attributes:
        code: HTTP/3 or WebTransport error code for RESET_STREAM and STOP_SENDING.
        reason: One sentence for the log.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code: int = int(code)
        self.reason = reason


class SessionStateError(RuntimeError):
    """A local call that the state of the session or the connection does not allow, such as a second accept.

    Attributes:
        state: Name of the state, such as ``"open"`` or ``"finished"``.
    """

    def __init__(self, message: str, state: str) -> None:
        super().__init__(message)
        self.state = state
