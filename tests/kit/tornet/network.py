"""The private network: starts its nodes in the order that makes it quick, and ends them."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.kit.tornet import owner, torrc
from tests.kit.tornet.control import TorNetError
from tests.kit.tornet.dns import OWN_ADDRESS, StubDNS
from tests.kit.tornet.keys import AuthorityKeys
from tests.kit.tornet.node import DIR_PORT, OR_PORT, Node, Role
from tests.kit.tornet.place import Place

_Result = TypeVar("_Result")

_FIRST_CLIENT = 200
_SERVERS = 250


class TorNetwork:
    """A private Tor network; a context manager.

    authorities     directory authorities; they are exits too
    exits, middles  further relays; onion services need four relays in all
    clients         client tors; more with `add_client`
    conflux         whether those clients use it.  Off: it moves streams of one isolation
                    tuple between circuits, and leaves fresh tuples without a ready one
    hosts           names for the exits' DNS: {"www.test": ["127.0.0.1"]}
    params          consensus parameters, {"cfx_enabled": 0}
    client_options  more torrc text for the clients; "{ip}" and "{dir}" are their own
    relay_options   more torrc text for authorities and relays
    timeout         seconds for the start, and for each later client's
    keep            leave the directory behind, to look at its logs
    """

    def __init__(
        self,
        *,
        authorities: int = 1,
        exits: int = 4,
        middles: int = 0,
        clients: int = 1,
        conflux: bool = False,
        hosts: Mapping[str, Sequence[str]] | None = None,
        params: Mapping[str, int] | None = None,
        client_options: str = "",
        relay_options: str = "",
        parent_dir: str | None = None,
        keep: bool = False,
        log_level: str = "notice",
        timeout: float = 60.0,
        verbose: bool = False,
    ):
        self._counts: dict[Role, int] = {
            "authority": authorities,
            "exit": exits,
            "middle": middles,
        }
        self._first_clients = clients
        self._conflux = conflux
        self._hosts = dict(hosts or {})
        self._params = dict(params or {})
        self._client_options, self._relay_options = client_options, relay_options
        self._parent_dir, self._keep = parent_dir, keep
        self._log_level, self._timeout, self._verbose = log_level, timeout, verbose
        program = os.environ.get("TOR", "tor")
        self._tor = [program, "--defaults-torrc", os.devnull, "--hush"]
        self._gencert = os.environ.get("TOR_GENCERT", "tor-gencert")
        self._directory_lines = ""
        self._began = self._deadline = 0.0
        self._undo = contextlib.ExitStack()
        self._client_numbers = itertools.count()
        self.relays: list[Node] = []
        self.clients: list[Node] = []
        self.timings: list[tuple[float, str]] = []
        """Seconds since the start at which each step was done."""
        self.startup_seconds = 0.0

    # -- what tests look at

    @property
    def client(self) -> Node:
        return self.clients[0]

    @property
    def nodes(self) -> list[Node]:
        return self.relays + self.clients

    @property
    def authorities(self) -> list[Node]:
        return [node for node in self.relays if node.role == "authority"]

    @property
    def exits(self) -> list[Node]:
        return [node for node in self.relays if node.role != "middle"]

    @property
    def dir(self) -> Path:
        return self._place.dir

    @property
    def server_ip(self) -> str:
        """Where test servers listen; "*.test" resolves to it at the exits."""
        return self._place.address(_SERVERS)

    @property
    def subnet(self) -> str:
        """All addresses of the network and its servers, as `127.x.y.0/24`."""
        return self._place.address(0) + "/24"

    @property
    def joining_lines(self) -> list[str]:
        """Lines of torrc that make a tor of the caller's own a client of this network."""
        lines = (self._directory_lines + torrc.COMMON).splitlines()
        return [line for line in lines if line and not line.startswith(("#", "SafeLogging"))]

    def exit_of(self, connection: Any) -> Node | None:
        """The relay at the other end of an accepted, still open TCP connection."""
        inode = owner.peer_inode(connection)
        if inode is None:
            return None
        return next((node for node in self.relays if owner.holds(node.pid, inode)), None)

    def relay_at(self, ip: str) -> Node | None:
        """The relay with this address: what a server sees for a name in "exit.test"."""
        return next((node for node in self.relays if node.ip == ip), None)

    def describe(self) -> dict[str, Any]:
        """All addresses, for people and for programs that read JSON."""
        return {
            "dir": str(self.dir),
            "server_ip": self.server_ip,
            "seconds": round(self.startup_seconds, 2),
            "relays": [
                {
                    "name": n.name,
                    "role": n.role,
                    "pid": n.pid,
                    "ip": n.ip,
                    "fingerprint": n.fingerprint,
                }
                for n in self.relays
            ],
            "clients": [
                {
                    "name": n.name,
                    "pid": n.pid,
                    "socks": f"{n.socks[0]}:{n.socks[1]}",
                    "socks_path": n.socks_path,
                    "control": f"{n.controlport[0]}:{n.controlport[1]}",
                    "control_path": n.control_path,
                    "cookie": n.cookie,
                }
                for n in self.clients
            ],
        }

    # -- start

    def start(self) -> Self:
        self._began = time.monotonic()
        self._deadline = self._began + self._timeout
        for program in (self._tor[0], self._gencert):
            if shutil.which(program) is None:
                raise TorNetError(
                    f"{program} is not installed; the private Tor network is made of the real "
                    "one.  Install the package tor (Debian: apt-get install tor)."
                )
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def _start(self) -> None:
        self._place = Place(self._parent_dir, keep=self._keep)
        self._undo.callback(self._place.release)
        self.dns = StubDNS(
            {"*.test": [self.server_ip], "*.exit.test": [OWN_ADDRESS], **self._hosts}
        )
        self._undo.callback(self.dns.close)
        self._undo.callback(self._stop_nodes)
        for role, count in self._counts.items():
            for _ in range(count):
                number = len(self.relays)
                self.relays.append(self._node(f"{role}{number}", number + 1, role))
        keys = [AuthorityKeys(node, self._tor, self._gencert) for node in self.authorities]
        self._directory_lines = "".join([key.directory_line() for key in keys])
        self._mark("authority keys")
        for node in self.relays:
            node.configure(self._relay_torrc(node))
            node.start()
        for _ in range(self._first_clients):
            self._start_client(self._client_options, conflux=self._conflux)
        for node in self.nodes:
            node.own()
        self._mark("processes started")
        self._make_consensus()
        self._distribute_consensus()
        self._let_in(self.clients)
        self.startup_seconds = self.timings[-1][0]

    def add_client(
        self, options: str = "", *, conflux: bool = False, wrapper: Sequence[str] = ()
    ) -> Node:
        """Start one more client; returns when it has bootstrapped.

        `wrapper` is a command to run tor under, which must become tor itself.
        """
        self._deadline = time.monotonic() + self._timeout
        node = self._start_client(options, conflux=conflux, wrapper=wrapper)
        node.own()
        self._let_in([node])
        return node

    @contextlib.contextmanager
    def temporary_client(
        self, options: str = "", *, conflux: bool = False, wrapper: Sequence[str] = ()
    ) -> Iterator[Node]:
        """A client of a test's own: to kill, to count circuits of, to configure."""
        node = self.add_client(options, conflux=conflux, wrapper=wrapper)
        try:
            yield node
        finally:
            node.stop()
            self.clients.remove(node)

    def _node(self, name: str, last_byte: int, role: Role, wrapper: Sequence[str] = ()) -> Node:
        command = [*wrapper, *self._tor]
        return Node(command, self.dir / name, name, self._place.address(last_byte), role)

    def _head(self, node: Node) -> str:
        return self._directory_lines + torrc.head(
            nickname=node.name,
            directory=str(node.dir),
            control=node.control_path,
            cookie=node.cookie,
            log_level=self._log_level,
            log=str(node.log),
        )

    def _relay_torrc(self, node: Node) -> str:
        host, port = self.dns.serve(node.ip, node.name)
        resolv = node.dir / "resolv.conf"
        resolv.write_text(f"nameserver {host}:{port}\noptions ndots:0 timeout:2\n")
        text = self._head(node) + torrc.COMMON + torrc.RELAY
        text += torrc.MIDDLE if node.role == "middle" else torrc.EXIT
        text += (
            f"Address {node.ip}\nORPort {node.ip}:{OR_PORT}\nOutboundBindAddress {node.ip}\n"
            f"ServerDNSResolvConfFile {resolv}\n"
        )
        if node.role == "authority":
            # the next vote by the clock: 29 minutes from now
            text += torrc.AUTHORITY.format(offset=int(time.time() - 60) % 1800)
            text += f"DirPort {node.ip}:{DIR_PORT}\n"
            if self._params:
                values = " ".join(f"{k}={v}" for k, v in sorted(self._params.items()))
                text += f"ConsensusParams {values}\n"
        else:
            text += torrc.NO_AUTHORITY
        return text + torrc.fill(self._relay_options, ip=node.ip, directory=str(node.dir))

    def _start_client(self, options: str, *, conflux: bool, wrapper: Sequence[str] = ()) -> Node:
        number = next(self._client_numbers)
        node = self._node(f"client{number}", _FIRST_CLIENT + number % 50, "client", wrapper)
        text = self._head(node) + torrc.COMMON
        text += torrc.CLIENT.format(ip=node.ip, dir=node.dir, conflux=int(conflux))
        node.configure(text + torrc.fill(options, ip=node.ip, directory=str(node.dir)))
        node.start(once="DisableNetwork 1\n")
        self.clients.append(node)
        return node

    def _make_consensus(self) -> None:
        self._until(
            "descriptors at the authorities",
            lambda: self._all_know(self.authorities, "desc/all-recent", r"^router "),
        )
        # Vote now.  SETCONF makes tor run its voting schedule one second later; with an
        # interval of 5 s that schedule is: vote at T-2, compute at T-1, publish at T, and
        # steps in the past are done at once.  A lone authority needs T > now+1, several
        # need a second more to swap votes.
        while not 0.02 < time.time() % 1 < 0.85:
            time.sleep(0.02)
        publish = int(time.time()) + (2 if len(self.authorities) == 1 else 3)
        for node in self.authorities:
            node.ctl.check(
                "SETCONF TestingV3AuthInitialVotingInterval=5 "
                f"TestingV3AuthVotingStartOffset={publish % 5}"
            )
        self._until(
            "consensus at the authorities",
            lambda: self._all_know(self.authorities, "ns/all", r"^r "),
        )

    def _distribute_consensus(self) -> None:
        next_reload = 0.0

        def have_it() -> bool:
            nonlocal next_reload
            waiting = [n for n in self.relays if not self._all_know([n], "ns/all", r"^r ")]
            if waiting and time.monotonic() >= next_reload:
                for node in waiting:  # fetch again, without back-off
                    node.ctl.check("SIGNAL RELOAD")
                next_reload = time.monotonic() + 0.4
            return not waiting

        self._until("consensus at the relays", have_it)
        self._until(
            "descriptors at the relays",
            lambda: all(n.ctl.getinfo("status/enough-dir-info") == "1" for n in self.relays),
        )
        for node in self.relays:
            node.fingerprint = node.ctl.getinfo("fingerprint")

    def _all_know(self, nodes: Iterable[Node], key: str, entry: str) -> bool:
        """Whether each of these nodes has an entry for every relay of the network."""
        wanted = len(self.relays)
        return all(len(re.findall(entry, n.ctl.getinfo(key), re.M)) >= wanted for n in nodes)

    def _let_in(self, clients: list[Node]) -> None:
        for node in clients:
            node.ctl.check("SETCONF DisableNetwork=0")
        self._until("clients bootstrapped", lambda: all(n.has_bootstrapped() for n in clients))

    # -- waiting, and the end

    def _mark(self, step: str) -> None:
        self.timings.append((time.monotonic() - self._began, step))
        if self._verbose:
            print("[{:6.2f}] {}".format(*self.timings[-1]), file=sys.stderr, flush=True)

    def _until(self, step: str, test: Callable[[], _Result]) -> _Result:
        while not (result := test()):
            for node in self.nodes:
                if node.has_crashed():
                    raise TorNetError(
                        f"{node.name} exited ({node.exit_status()})\n{node.log_tail()}"
                    )
            if time.monotonic() > self._deadline:
                logs = "\n".join(f"{n.name}:\n{n.log_tail(6)}" for n in self.nodes)
                raise TorNetError(f"{step}: not within {self._timeout} s\n{logs}")
            time.sleep(0.05)
        self._mark(step)
        return result

    def stop(self) -> None:
        self._undo.close()

    def _stop_nodes(self) -> None:
        for node in self.nodes:
            node.terminate()
        for node in self.nodes:
            node.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.stop()
