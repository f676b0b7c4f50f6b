"""Leaks: whatever clients do, no packet of isoproxy's goes anywhere but to Tor.

    python -m tests.fire.leaks --minutes 3          needs root

Theory of operation
    Everything runs in the namespace of `packets`: the private Tor network, name servers, a
    Bitcoin node, isoproxy with all its doors, `isoproxy publish`, and clients that use all
    of it in random order, refusals and new identities included.  Then the counters must be
    zero, but for the one of connections to Tor.

    The positive control comes last: deeds that are leaks, done in isoproxy's group; each
    must move the counters that it names.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import dns.message
import dns.query

from isoproxy.dns.sign import ZoneKey
from tests.fire import packets
from tests.kit.dial import Refused, dial
from tests.kit.isoproxy_process import TCP, Isoproxy
from tests.kit.ports import free_port
from tests.kit.servers import WebServer
from tests.kit.tornet import TorNetwork
from tests.network.bitcoin_ends import V1Client, V1Node, v2_node, version
from tests.network.name_world import NameWorld, name_world
from tests.network.programs import curl, program

CONTROLS: Final = {
    "socket.socket(type=socket.SOCK_DGRAM).sendto(b'?', ('203.0.113.1', 53))": (
        "beyond",
        "datagrams",
        "port53",
    ),
    "socket.socket(type=socket.SOCK_DGRAM).sendto(b'?', ('127.0.0.1', 53))": (
        "datagrams",
        "port53",
    ),
    "socket.socket(type=socket.SOCK_DGRAM).sendto(b'?', ('127.0.0.1', 9))": ("datagrams",),
    "connect(socket.AF_INET, '203.0.113.1', 443)": ("beyond", "elsewhere"),
    "connect(socket.AF_INET, '203.0.113.1', 53)": ("beyond", "elsewhere", "port53"),
    "connect(socket.AF_INET6, '2001:db8:1::1', 443)": ("beyond", "elsewhere"),
    "connect(socket.AF_INET, '127.0.0.1', 9)": ("elsewhere",),
}
"""Leaks, in Python, and the counters that each must move."""
_CONNECT: Final = """
import socket
def connect(family, host, port):
    client = socket.socket(family)
    client.setblocking(False)
    client.connect_ex((host, port))
"""


@dataclass
class Lab:
    """Everything that clients can use."""

    proxy: Isoproxy
    web: WebServer
    names: NameWorld
    dns_port: int
    peer_port: int
    onion: str
    chance: random.Random

    @property
    def user(self) -> str:
        return f"user{self.chance.randrange(5)}"

    # -- what clients do

    def browse(self) -> None:
        at, url = self.proxy.host_and_port, self.web.url(name="web.test")
        scheme = self.chance.choice(("socks5h", "socks4a"))
        assert curl("--proxy", f"{scheme}://{self.user}@{at}", url)
        assert curl("--proxy", f"socks5://{self.user}:1@{at}", self.web.url())
        assert curl("-p", "--proxy", f"http://{self.user}:p@{at}", url)
        assert program("tor-resolve", "www.test", at)

    def be_refused(self) -> None:
        for host in ("absent.example", "host.local", "a b", "x" * 56 + ".onion", "none.bit", ""):
            with contextlib.suppress(Refused, ConnectionError):
                dial(self.proxy.address, host, 80, user=self.user.encode()).close()

    def use_names(self) -> None:
        name = f"leak-{self.chance.randrange(3)}.bit"
        url = f"http://{name}:{self.web.port}/"
        assert curl("--proxy", f"socks5h://{self.user}@{self.proxy.host_and_port}", url)
        told = self.proxy.command("resolve", name, wrapper=packets.wrapper())
        assert told.returncode == 0, told.stderr

    def ask_dns(self) -> None:
        for name in (f"leak-{self.chance.randrange(3)}.bit", "none.bit", "example.com"):
            for ask in (dns.query.udp, dns.query.tcp):
                query = dns.message.make_query(name, "A", want_dnssec=self.chance.random() < 0.5)
                answer = ask(query, "127.0.0.1", port=self.dns_port, timeout=60)
                assert bool(answer.answer) == name.startswith("leak"), answer

    def be_a_peer(self) -> None:
        user = self.user.encode()
        with contextlib.closing(dial(self.proxy.address, "p.test", self.peer_port, user=user)) as s:
            peer = V1Client(s)
            peer.hello()
            peer.ping()
        proxy = self.proxy.addresses[1]
        with contextlib.closing(dial(proxy, "p.test", self.peer_port, user=user)) as s:
            V1Client(s).hello()

    def visit_the_onion(self) -> None:
        with contextlib.closing(
            dial(self.proxy.address, self.onion, 18444, user=self.user.encode())
        ) as s:
            s.sendall(version())
            peer = V1Client(s)
            assert peer.next()[0] == "version"

    def start_afresh(self) -> None:
        assert self.proxy.command("newnym", wrapper=packets.wrapper()).returncode == 0
        assert self.proxy.command("reload", wrapper=packets.wrapper()).returncode == 0
        self.proxy.status()

    @property
    def deeds(self) -> list[Callable[[], None]]:
        return [
            self.browse,
            self.be_refused,
            self.use_names,
            self.ask_dns,
            self.be_a_peer,
            self.visit_the_onion,
            self.start_afresh,
        ]


@contextlib.contextmanager
def lab(directory: Path, chance: random.Random) -> Iterator[Lab]:
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(TorNetwork())
        values = {f"d/leak-{n}": {"ip": network.server_ip} for n in range(3)}
        names = stack.enter_context(name_world(network, directory / "electrumx", values))
        web = stack.enter_context(WebServer(network.server_ip, network.exit_of))
        node = stack.enter_context(V1Node("127.0.0.1"))
        _, peer_port = stack.enter_context(v2_node(network.server_ip))
        dns_port = free_port()
        key = directory / "dns.key"
        ZoneKey.generate().store(key)
        tor = [network.client.socks, network.client.controlport]
        socks, control = ("{}:{}".format(*address) for address in tor)
        mode = ["tor.mode=system", f"tor.socks={socks}", f"tor.control={control}"]
        settings = [
            *mode,
            *names.settings(),
            "names.allow_private_addresses=true",
            f"bitcoin.ports=[{peer_port},18444]",
            f"dns.address=127.0.0.1:{dns_port}",
            f"dns.key_file={key}",
        ]
        packets.count([*tor, node.address], dns_port)  # the node is what `publish` is for
        proxy = stack.enter_context(
            Isoproxy(
                directory,
                settings,
                listeners=[TCP],
                proxies=['address = "127.0.0.1:0"\nnetwork = "regtest"'],
                wrapper=packets.wrapper(),
                develop=False,
            )
        )
        proxy.wait_ready()
        proxy.wait_for("names", lambda: proxy.status()["names"]["ready"], 90)
        onion = stack.enter_context(published(mode, "{}:{}".format(*node.address)))
        yield Lab(proxy, web, names, dns_port, peer_port, onion, chance)


@contextlib.contextmanager
def published(tor: list[str], target: str) -> Iterator[str]:
    """`isoproxy publish --v2` of a local node; gives its onion address."""
    settings = [word for setting in tor for word in ("--set", setting)]
    words = [*packets.wrapper(), sys.executable, "-m", "isoproxy", "publish", *settings]
    words += ["--v2", "--network", "regtest", "--port", "18444", target]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split(":")[0].strip()
        finally:
            process.send_signal(signal.SIGTERM)


def use(there: Lab, seconds: float) -> Counter[str]:
    """Every deed once, then deeds in random order until the time is over."""
    done: Counter[str] = Counter()
    end = time.monotonic() + seconds
    order = list(there.deeds)
    there.chance.shuffle(order)
    while order or time.monotonic() < end:
        deed = order.pop() if order else there.chance.choice(there.deeds)
        deed()
        done[deed.__name__] += 1
    return done


def controls() -> dict[str, dict[str, int]]:
    """Leak on purpose: what each deed added to the counters."""
    moved = {}
    for deed in CONTROLS:
        before = packets.counted()
        words = [*packets.wrapper(), sys.executable, "-c", f"{_CONNECT}\n{deed}"]
        subprocess.run(words, check=True)
        after = packets.counted()
        moved[deed] = {name: after[name] - before[name] for name in after}
    return moved


def faults(report: dict[str, Any]) -> list[str]:
    """What is wrong with a run, or with the way it was counted."""
    found = [
        f"{report['packets'][name]} packets: {name}"
        for name in packets.MUST_BE_ZERO
        if report["packets"][name]
    ]
    if not report["packets"]["tor"]:
        found.append("no connection to Tor was seen: nothing was watched")
    for deed, moved in report["controls"].items():
        found += [f"not counted as {name}: {deed}" for name in CONTROLS[deed] if not moved[name]]
    return found


def inside(minutes: float, seed: int) -> dict[str, Any]:
    """The run; in the namespace."""
    with tempfile.TemporaryDirectory(prefix="leaks") as name:
        with lab(Path(name), random.Random(seed)) as there:
            done = use(there, minutes * 60)
        seen = packets.counted()
    return {"seed": seed, "minutes": minutes, "done": done, "packets": seen, "controls": controls()}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fire.leaks")
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--out", type=Path, default=Path(".cache/fire/leaks"))
    parser.add_argument("--controls", action="store_true", help="the positive control alone")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if reason := packets.missing():
        print(f"leaks: skipped: {reason}")
        return 0
    if not options.inside:
        return packets.enter(
            "tests.fire.leaks", [*sys.argv[1:], "--seed", str(options.seed), "--inside"]
        )
    if options.controls:
        packets.count([("127.0.0.1", 1)], free_port())
        nothing = dict.fromkeys(packets.MUST_BE_ZERO, 0)
        unseen = faults({"packets": nothing | {"tor": 1}, "controls": controls()})
        print("\n".join(unseen) or "every leak was counted")
        return 1 if unseen else 0
    print(f"leaks: {options.minutes} min, --seed {options.seed}", flush=True)
    report = inside(options.minutes, options.seed)
    report["faults"] = faults(report)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "leaks.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    return 1 if report["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
