"""`make screenshots`: the dashboard and its twin in the terminal, as they are at work.

    python -m tests.kit.screenshots [DIRECTORY] [--minutes N]

    DIRECTORY   where to put them; docs/evidence by default
    --minutes   for how long the traffic is watched before they are taken; 1 by default

Theory of operation
    A private Tor network, ElectrumX servers with a small chain, a Bitcoin peer that speaks
    BIP324, web servers, and isoproxy between them as its users start it.  Clients of a few
    identities hold streams open and move bytes for as long as the pictures are taken.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

from textual.widgets import Label

from isoproxy.admin.client import ask
from isoproxy.cli.status_text import status_text
from isoproxy.cli.watch import Watch
from tests.kit.axe import faults
from tests.kit.chromium import Chromium
from tests.kit.dial import Refused, dial
from tests.kit.isoproxy_process import Isoproxy, system
from tests.kit.servers import EchoServer, closed_port
from tests.kit.tornet import Address, TorNetwork
from tests.network.bitcoin_ends import V1Client, v2_node
from tests.network.name_world import name_world

TERMINAL: Final = (124, 38)
DESKTOP: Final[dict[str, Any]] = {"width": 1160, "height": 720}
PHONE: Final[dict[str, Any]] = {"width": 390, "height": 844, "scale": 1.5}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kit.screenshots")
    parser.add_argument("directory", nargs="?", type=Path, default=Path("docs/evidence"))
    parser.add_argument("--minutes", type=float, default=1)
    options = parser.parse_args()
    to: Path = options.directory
    to.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="isoproxy-") as directory,
        at_work(Path(directory)) as proxy,
    ):
        take(proxy, Path(directory), to, 60 * options.minutes)
    return 0


def take(proxy: Isoproxy, directory: Path, to: Path, watched_s: float) -> None:
    """The pictures of one isoproxy at work."""
    url = proxy.status()["dashboard"]
    with Chromium(directory) as chromium:
        page = chromium.open(url, **DESKTOP)
        page.wait_for("document.querySelector('#live')?.className === 'good'")
        time.sleep(watched_s)
        page.value("document.querySelector('#identities button').click(), 0")
        for name, look in (
            ("dashboard-light", {**DESKTOP}),
            ("dashboard-dark", {**DESKTOP, "dark": True}),
            ("dashboard-phone", {**PHONE}),
        ):
            page.look(**look)
            time.sleep(2.5)
            page.screenshot(to / f"{name}.png")
            print(to / f"{name}.png", flush=True)
            if found := [*page.complaints, *filter(None, [faults(page)])]:
                raise SystemExit("\n".join(found))
        picture = directory / "terminal.html"
        picture.write_text(f"<style>body {{ margin: 0 }}</style>{asyncio.run(terminal(proxy))}")
        view = chromium.open(picture.as_uri(), width=1240, height=820)
        view.wait_for("document.querySelector('svg') !== null")
        view.screenshot(to / "status-watch.png")
        print(to / "status-watch.png", flush=True)
    (to / "status.txt").write_text(status_text(proxy.status(), columns=80) + "\n")
    print(to / "status.txt")


async def terminal(proxy: Isoproxy) -> str:
    """The view of `status --watch` as an SVG, after some of its rounds."""
    view = Watch(partial(ask, proxy.admin))
    async with view.run_test(size=TERMINAL) as pilot:
        while "/s" not in str(view.query_one("#up-now", Label).content):
            await pilot.pause(1)
        await pilot.pause(6)
        picture = view.export_screenshot(title="isoproxy status --watch")
        await pilot.press("q")
    # the font that it would fetch from elsewhere
    return re.sub(r"@font-face \{.*?\}", "", picture, flags=re.DOTALL)


@contextlib.contextmanager
def at_work(directory: Path) -> Iterator[Isoproxy]:
    """isoproxy with a dashboard, names, streams of several identities, Bitcoin peers."""
    with contextlib.ExitStack() as stack:
        net = stack.enter_context(TorNetwork())
        host = net.server_ip
        echo = stack.enter_context(EchoServer(host))
        _, port = stack.enter_context(v2_node(host))
        names = {"d/example": {"ip": host}, "d/shop": {"ip": host}}
        world = stack.enter_context(name_world(net, directory, names))
        settings = [
            *system(net.client),
            *world.settings(),
            "names.allow_private_addresses=true",
            f"bitcoin.ports=[{port}]",
            'observe.dashboard="127.0.0.1:0"',
        ]
        listeners = [
            'name = "default"\naddress = "127.0.0.1:0"',
            'name = "workstations"\naddress = "127.0.0.1:0"\nisolate = '
            '["ClientAddr", "SOCKSAuth", "DestAddr"]',
            f'name = "local"\naddress = "unix:{directory}/socks"',
        ]
        proxies = ['name = "node"\naddress = "127.0.0.1:0"']
        proxy = stack.enter_context(
            Isoproxy(directory, settings, listeners=listeners, proxies=proxies, develop=False)
        )
        proxy.wait_ready()
        proxy.wait_for("names", lambda: proxy.status()["names"]["ready"], 60)
        stop = threading.Event()
        threads = [
            threading.Thread(target=trickle, args=(sock, burst, stop), daemon=True)
            for sock, burst in streams(proxy, echo, stack)
        ]
        for user in (b"node", b"wallet"):
            peer = V1Client(dial(proxy.address, "peer.test", port, user=user, timeout=60))
            stack.callback(peer.sock.close)
            peer.hello()
            threads.append(threading.Thread(target=pings, args=(peer, stop), daemon=True))
        be_refused(proxy, host)
        for thread in threads:
            thread.start()
        try:
            yield proxy
        finally:
            stop.set()
            for thread in threads:
                thread.join(10)


def streams(
    proxy: Isoproxy, echo: EchoServer, stack: contextlib.ExitStack
) -> Iterator[tuple[socket.socket, int]]:
    """Open streams, and the bytes that each moves in a burst."""
    default, workstations, local = proxy.addresses[:3]
    plan: list[tuple[Address, str, bytes, int]] = [
        (default, "example.bit", b"alice", 40_000),
        (default, "mail.test", b"alice", 600),
        (default, "www.test", b"alice", 9_000),
        (default, "shop.bit", b"bob", 120_000),
        (default, "www.test", b"bob", 2_000),
        (workstations, "updates.test", b"apt", 300_000),
        (workstations, "www.test", b"apt", 5_000),
        (local, "chat.test", b"carol", 200),
    ]
    for address, name, user, burst in plan:
        sock = dial(address, name, echo.port, user=user, timeout=90)
        yield stack.enter_context(sock), burst


def trickle(sock: socket.socket, burst: int, stop: threading.Event) -> None:
    """Send bursts, unlike each other as people's are, and read them back."""
    step = 0
    while not stop.wait(0.4 + burst % 7 / 10):
        step += 1
        size = max(1, burst * (1 + step * 7 % 5) // 4)
        with contextlib.suppress(OSError):
            sock.sendall(bytes(size))
            while size > 0:
                size -= len(sock.recv(65536)) or size


def pings(peer: V1Client, stop: threading.Event) -> None:
    while not stop.wait(1.5):
        peer.ping()


def be_refused(proxy: Isoproxy, host: str) -> None:
    """A closed port, a name that nobody has, a name that no one may be asked for."""
    with closed_port(host) as closed:
        for name, port in (("www.test", closed), ("nobody.bit", 80), ("printer.local", 80)):
            with contextlib.suppress(Refused):
                dial(proxy.address, name, port, user=b"dave", timeout=90).close()


if __name__ == "__main__":
    sys.exit(main())
