"""An echo server: every stream and every datagram comes back.

Run `python examples/echo_server.py`, then `python examples/echo_client.py` in another terminal. The certificate is one
for development, which clients on this machine trust by its hash; elsewhere, use `wtio.ServerTLS` with your own files.
"""

import argparse
import contextlib

import wtio


async def echo(session: wtio.WebTransportSession) -> None:
    def echo_datagram(data: bytes) -> None:
        # The path back may have a smaller limit, and datagrams may get lost anyway.
        with contextlib.suppress(wtio.DatagramTooLargeError):
            session.send_datagram(data)

    await session.serve_streams(echo_stream, datagrams=echo_datagram)


async def echo_stream(stream: wtio.WebTransportStream) -> None:
    # A client may give up one stream (reset or stop), which ends this handler and nothing else.
    async for chunk in stream:
        await stream.write(data=chunk)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=4433)
    options = parser.parse_args()

    certificate = wtio.dev_certificate()
    async with wtio.serve(echo, "localhost", options.port, tls=certificate.server_tls()) as server:
        print(f"listening on https://localhost:{server.addresses[0][1]}/", flush=True)
        await server.wait_closed()


if __name__ == "__main__":
    wtio.run(main())
