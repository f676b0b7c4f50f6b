"""An echo server behind an onion service.

    python examples/echo/server.py [options of isoproxy publish]

Prints the service's address and multiaddr; `client.py` talks to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys

PORT = 7


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send every line back, until the client hangs up."""
    try:
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
    except (ConnectionError, ValueError):  # gone, or a line without end
        pass
    finally:
        writer.close()


async def main() -> None:
    task = asyncio.current_task()
    assert task is not None
    # Else the service would outlive us, and lead to whoever gets our port next.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    publish = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "isoproxy", "publish"),
        *(f"127.0.0.1:{port}", "--port", str(PORT), *sys.argv[1:]),
    )
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await publish.wait()
    finally:
        if publish.returncode is None:
            publish.terminate()
            await publish.wait()


if __name__ == "__main__":
    asyncio.run(main())
