"""Ports at which nobody is, and which nobody gets by chance."""

from __future__ import annotations

import random
import socket

# Below those that a system gives to whoever asks for any, which begin at 32768 on Linux and at 49152 elsewhere: one of
# those, free when it was looked at, may be another test's a moment later.
PORTS = range(20_000, 32_768)


def free_port(*kinds: socket.SocketKind) -> int:
    """A port of 127.0.0.1 that is free for each of these kinds of socket; for UDP if there are none."""
    # Hypothesis seeds the generator that is shared.
    for port in random.SystemRandom().sample(PORTS, 100):
        try:
            for kind in kinds or (socket.SOCK_DGRAM,):
                with socket.socket(socket.AF_INET, kind) as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return port
    raise AssertionError("no port is free")
