"""Sends a line to an echo server behind an onion service and prints what comes back.

python examples/echo/client.py MULTIADDR TEXT [--isolation ID] [--proxy IP:PORT]
"""

from __future__ import annotations

import argparse
import asyncio

import isoproxy


async def main() -> None:
    parser = argparse.ArgumentParser(description="Talk to an echo server through isoproxy.")
    parser.add_argument("target", metavar="MULTIADDR")
    parser.add_argument("text")
    parser.add_argument("--isolation", metavar="ID")
    parser.add_argument("--proxy", metavar="ADDRESS", default="127.0.0.1:9250")
    options = parser.parse_args()
    reader, writer = await isoproxy.connect(
        options.target, isolation=options.isolation, proxy=options.proxy
    )
    writer.write(options.text.encode() + b"\n")
    await writer.drain()
    print((await reader.readline()).decode(), end="")
    writer.close()
    await writer.wait_closed()


if __name__ == "__main__":
    asyncio.run(main())
