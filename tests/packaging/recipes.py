"""`python -m tests.packaging.recipes LEADER`: the recipes, on the machine as it is installed.

Theory of operation
    This runs in the network of the machine whose systemd has process id LEADER.  It starts
    a private Tor network there, lets Debian's tor join it (/etc/tor/torrc), and tries the
    lines of `make demo` at the packaged service, and two users of the machine at a unix
    socket of it.  Debian's tor is the witness of who shared a circuit.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Final

from tests.kit.demo import DemoError, Line, lines, try_all
from tests.kit.onion import publish
from tests.kit.servers import WebServer
from tests.kit.tornet import Node, TorNetwork
from tests.kit.witness import Witness
from tests.packaging.machine import run

PORT: Final = 9250
SOCKET: Final = "/run/isoproxy/socks"
USERS: Final = ("alice", "bob")
_BOOTSTRAP_S: Final = 90


def main() -> int:
    leader = int(sys.argv[1])
    inside = Path(f"/proc/{leader}/root")
    enter = ["nsenter", "-t", str(leader), "-a", "--"]
    with TorNetwork() as net:
        tor = _debians_tor(net, inside)
        with (inside / "etc/tor/torrc").open("a") as torrc:
            # Of a conflux set an identity may take now one circuit, now two.
            torrc.write("\n".join(["", *net.joining_lines, "ConfluxEnabled 0", ""]))
        run([*enter, "systemctl", "restart", "tor@default"])
        _await_bootstrap(tor)
        with (
            WebServer(net.server_ip, net.exit_of, port=8080) as web,
            publish(net.relays[1], {80: web.address}) as service,
            Witness(tor) as witness,
        ):
            url = web.url(name="web.test")
            tries = lines(f"127.0.0.1:{PORT}", url, f"http://{service.host}/")
            for user in USERS:
                curl = ["curl", "-sS", "--proxy", f"socks5h://localhost{SOCKET}", url]
                line = [*enter, "runuser", "-u", user, "--", *curl]
                tries += [Line(f"User {user} at the unix socket", f"user {user}", line)] * 2
            try_all(tries, witness)
    return 0


def _debians_tor(net: TorNetwork, inside: Path) -> Node:
    """A handle to the machine's own tor, by its control socket."""
    node = Node(["tor"], net.dir / "debian", "debian", "127.0.0.1", "client")
    node.control_path = str(inside / "run/tor/control")
    node.cookie = str(inside / "run/tor/control.authcookie")
    node.exit_status = lambda: None  # type: ignore[method-assign]  # systemd runs it, not the node
    return node


def _await_bootstrap(tor: Node) -> None:
    deadline = time.monotonic() + _BOOTSTRAP_S
    phase = ""
    while time.monotonic() < deadline:
        control = tor.control()
        phase = control.getinfo("status/bootstrap-phase")
        control.close()
        if "PROGRESS=100" in phase:
            return
        time.sleep(0.5)
    raise DemoError(f"Debian's tor did not join the private network: {phase}")


if __name__ == "__main__":
    sys.exit(main())
