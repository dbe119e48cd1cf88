"""Where a conversation is shown: lines for a person, plain text for a pipe, or one JSON object per line."""

from __future__ import annotations

import base64
import json
import sys
from typing import Final

from wtio.cli._terminal import colour, decode, print_above_prompt, visible
from wtio.cli._words import in_options

__all__ = ["Screen"]

# What a peer's text is introduced with, after "< ".
_KINDS: Final = {"answer": "", "datagram": "datagram: ", "stream": "stream {stream}: "}


class Screen:
    """Shows what arrives and what happens. A pipe gets only what the peer sends; the rest goes to standard error."""

    def __init__(self, *, as_json: bool, has_prompt: bool) -> None:
        """Make a screen.

        Args:
            as_json: Everything is a JSON object on standard output, for programs.
            has_prompt: Somebody may be typing in the last line, so lines go above it.
        """
        self.as_json = as_json
        self._has_prompt = has_prompt
        self._is_terminal = sys.stdout.isatty()

    def prompt_ends(self) -> None:
        """Nobody types any more; further lines simply follow."""
        self._has_prompt = False

    def received(self, kind: str, data: bytes, stream: int | None = None) -> None:
        """Show what the peer sent: an ``answer``, a ``datagram``, or a ``stream`` that it opened."""
        if self.as_json:
            facts: dict[str, object] = {} if stream is None else {"stream": stream}
            try:
                facts["text"] = data.decode()
            except UnicodeDecodeError:
                facts["base64"] = base64.b64encode(data).decode()
            self._object(kind, facts)
            return
        text = decode(data, lines=True)
        if self._is_terminal:
            head = "< " + _KINDS[kind].format(stream=stream)
            # Further lines are set in, so that no peer can write one that looks like ours.
            text = colour(head, "32", sys.stdout) + text.replace("\n", "\n  ")
        self._line(text)

    def happened(self, event: str, text: str, **facts: object) -> None:
        """Show an event of the session itself."""
        if self.as_json:
            self._object(event, facts)
        elif self._is_terminal:
            self._line(colour(visible(text, lines=True), "2", sys.stdout))
        else:
            print(visible(text, lines=True), file=sys.stderr, flush=True)

    def failed(self, text: str) -> None:
        """Show what did not work."""
        text = visible(in_options(text))
        if self.as_json:
            self._object("error", {"message": text})
        elif self._has_prompt:
            self._line(colour(f"error: {text}", "31", sys.stdout))
        else:
            print(f"error: {text}", file=sys.stderr, flush=True)

    def _object(self, event: str, facts: dict[str, object]) -> None:
        print(json.dumps({"event": event, **facts}), flush=True)

    def _line(self, text: str) -> None:
        if self._has_prompt:
            print_above_prompt(text)
        else:
            print(text, flush=True)
