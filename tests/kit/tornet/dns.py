"""The exits' resolver: answers from a table, and remembers every question.

One thread, one UDP socket per exit, so that the asker is known by the socket that was
asked.  The log is what leak tests look at: a name that is not in it did not reach an exit.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

OWN_ADDRESS: Final = "@exit"
_TTL_S: Final = 60
_LOG_LIMIT: Final = 100_000


class Query(NamedTuple):
    """One question of one exit."""

    time: float
    kind: str
    name: str
    exit: str


class StubDNS:
    """Answers A, AAAA and PTR questions; a name it does not know is NXDOMAIN.

    `hosts` maps a lower-case name, or "*.suffix", to IPv4 and IPv6 addresses; the address
    "@exit" stands for the asking exit's own.
    """

    def __init__(self, hosts: Mapping[str, Sequence[str]]):
        self.hosts = {name: list(addresses) for name, addresses in hosts.items()}
        self.queries: deque[Query] = deque(maxlen=_LOG_LIMIT)
        self._selector = selectors.EpollSelector()
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="stub-dns", daemon=True)
        self._thread.start()

    def serve(self, ip: str, exit_name: str) -> tuple[str, int]:
        """Open a socket for one exit; returns the address to put in its resolv.conf."""
        asked = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        asked.bind((ip, 0))
        self._selector.register(asked, selectors.EVENT_READ, (ip, exit_name))
        host, port = asked.getsockname()
        return str(host), int(port)

    def names(self) -> set[str]:
        """Every name that any exit asked for, in lower case, without the final dot."""
        return {query.name for query in list(self.queries)}

    def close(self) -> None:
        self._wake.close()
        self._thread.join(5)
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._selector.close()

    def _run(self) -> None:
        while True:
            # epoll sees a socket that `serve` adds while it waits
            for key, _ in self._selector.select():
                if key.fileobj is self._woken:
                    return
                if isinstance(key.fileobj, socket.socket):
                    self._serve_one(key.fileobj, *key.data)

    def _serve_one(self, asked: socket.socket, ip: str, exit_name: str) -> None:
        with contextlib.suppress(OSError, dns.exception.DNSException):
            data, peer = asked.recvfrom(4096)
            query = dns.message.from_wire(data)
            if len(query.question) == 1:
                asked.sendto(self._answer(query, ip, exit_name), peer)

    def _answer(self, query: dns.message.Message, ip: str, exit_name: str) -> bytes:
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        self.queries.append(Query(time.time(), kind, name, exit_name))
        response = dns.message.make_response(query, recursion_available=True)
        known, values = self._values(kind, name, ip)
        if not known:
            response.set_rcode(dns.rcode.NXDOMAIN)
        if values:
            response.answer.append(
                dns.rrset.from_text(question.name, _TTL_S, dns.rdataclass.IN, kind, *values)
            )
        return response.to_wire()

    def _values(self, kind: str, name: str, own_ip: str) -> tuple[bool, list[str]]:
        if kind == "PTR" and name.endswith(".in-addr.arpa"):
            address = ".".join(reversed(name.split(".")[:4]))
            hosts = [h for h, ips in self.hosts.items() if address in ips and h[0] != "*"]
            return bool(hosts), [hosts[0] + "."] if hosts else []
        found = self._lookup(name)
        if found is None:
            return False, []
        addresses = [own_ip if address == OWN_ADDRESS else address for address in found]
        wanted = {"A": False, "AAAA": True}.get(kind)
        return True, [a for a in addresses if (":" in a) is wanted]

    def _lookup(self, name: str) -> list[str] | None:
        if name in self.hosts:
            return self.hosts[name]
        labels = name.split(".")
        for i in range(1, len(labels)):
            found = self.hosts.get("*." + ".".join(labels[i:]))
            if found is not None:
                return found
        return None
