"""An echo client: one message on a stream, one in a datagram.

Start `python examples/echo_server.py` first, then run `python examples/echo_client.py`.
"""

import argparse
import asyncio

import wtio


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url", nargs="?", default="https://localhost:4433/")
    options = parser.parse_args()

    # The server's certificate for development is the one that this machine keeps.
    tls = wtio.dev_certificate().client_tls()
    async with wtio.connect(options.url, tls=tls) as session:
        async with await session.create_bidirectional_stream() as stream:
            await stream.write(data=b"hello on a stream", end_stream=True)
            print((await stream.read_all()).decode())

        session.send_datagram(b"hello in a datagram")
        try:
            async with asyncio.timeout(2):
                print((await session.receive_datagram()).decode())
        except TimeoutError:
            print("the datagram got lost, as datagrams may")


if __name__ == "__main__":
    asyncio.run(main())
