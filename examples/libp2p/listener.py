"""A libp2p peer behind an onion service that answers pings.

    python examples/libp2p/listener.py [options of isoproxy publish]

Prints one line: its multiaddr with its peer ID, for `dialer.py`.
"""

from __future__ import annotations

import signal
import subprocess
import sys

import trio
from libp2p.host.ping import ID, handle_ping
from multiaddr import Multiaddr
from tor_transport import TorTransport, tor_host

PORT = 4001


async def cancel_when_terminated(scope: trio.CancelScope) -> None:
    """Else the service would outlive us, and lead to whoever gets our port next."""
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()


async def main() -> None:
    host = tor_host(TorTransport(isolation=None, proxy="127.0.0.1:9250"), listen=[])
    host.set_stream_handler(ID, handle_ping)
    async with trio.open_nursery() as nursery, host.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        nursery.start_soon(cancel_when_terminated, nursery.cancel_scope)
        (local,) = host.get_transport_addrs()
        target = f"127.0.0.1:{local.value_for_protocol('tcp')}"
        command = [sys.executable, "-m", "isoproxy", "publish", target, "--port", str(PORT)]
        publish = await trio.lowlevel.open_process(
            [*command, *sys.argv[1:]], stdout=subprocess.PIPE
        )
        try:
            line = b""
            async for block in publish.stdout:
                line += block
                if line.endswith(b"\n"):
                    multiaddr = line.decode().split()[1]
                    print(f"{multiaddr}/p2p/{host.get_id()}", flush=True)
        finally:
            publish.terminate()
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
