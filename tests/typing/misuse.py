"""What the type checker has to refuse: each line without a complaint is one too many (unused ignores are errors)."""

from __future__ import annotations

import wtio


async def misuse(
    both: wtio.WebTransportStream,
    incoming: wtio.WebTransportReceiveStream,
    outgoing: wtio.WebTransportSendStream,
    session: wtio.WebTransportSession,
) -> None:
    await both.read(5)  # type: ignore[call-arg]
    await both.readexactly(5)  # type: ignore[call-arg]
    await both.readuntil(b"\n")  # type: ignore[call-arg]
    await both.write(b"x")  # type: ignore[call-arg]
    await both.write(data="text")  # type: ignore[arg-type]
    await outgoing.reset(5)  # type: ignore[call-arg]
    await outgoing.read()  # type: ignore[attr-defined]
    await incoming.write(data=b"x")  # type: ignore[attr-defined]
    await incoming.close(error_code=5)  # type: ignore[call-arg]
    session.send_datagram("text")  # type: ignore[arg-type]
    both.can_read = False  # type: ignore[misc]
    wtio.ServerTLS("cert.pem")  # type: ignore[call-arg]
    wtio.Limits(64)  # type: ignore[call-arg]
    wtio.serve(None, None, 0)  # type: ignore[call-arg]
    _ = wtio.Rooter  # type: ignore[attr-defined]
    wtio.Router().session(5)  # type: ignore[arg-type]
    wtio.Router().get("/")(lambda request: "hello")  # type: ignore[type-var]
    wtio.Router().mount("/", both)  # type: ignore[arg-type]
