"""A gateway with isoproxy and its rules, and a machine behind it, for test_transparent.py.

`python -m tests.process.cli.gateway DIRECTORY` enters namespaces of its own, and prints what
workstations at two addresses of the machine behind it reach.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import dns.message
import dns.rcode

from isoproxy.exec import namespace
from tests.kit.service import running, system_tor
from tests.kit.socks_port import SocksPort
from tests.kit.web_everywhere import web

GATEWAY: Final = "10.152.152.10"
GATEWAY6: Final = "fd19:c33d:88bc::10"
ONE, ONE6, TWO = "10.152.152.11", "fd19:c33d:88bc::11", "10.152.152.12"
ONION: Final = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion"
SECTIONS: Final = (
    f'transparent=[{{ address = "{GATEWAY}:9240", dns = "{GATEWAY}:9253" }}, '
    f'{{ address = "[{GATEWAY6}]:9240" }}]'
)


def run(*words: str, given: str | None = None) -> str:
    return subprocess.run(words, input=given, text=True, check=True, capture_output=True).stdout


def asked(client: str, name: str, rdtype: str = "A") -> dns.message.Message:
    """What the DNS says to `client`, whichever server it asks."""
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind((client, 0))
        sock.settimeout(30)
        sock.sendto(dns.message.make_query(name, rdtype).to_wire(), ("9.9.9.9", 53))
        return dns.message.from_wire(sock.recv(2000))


def addresses(client: str, name: str, rdtype: str = "A") -> list[str]:
    answer = asked(client, name, rdtype).answer
    return [rdata.to_text() for rrset in answer for rdata in rrset]


def page(client: str, address: str) -> str:
    """The page that `client` gets from the web server at `address`."""
    there = (address, 80)
    with socket.create_connection(there, timeout=30, source_address=(client, 0)) as sock:
        try:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return b"".join(iter(lambda: sock.recv(4096), b"")).decode().partition("\r\n\r\n")[2]
        except ConnectionError:
            return ""


def told(what: str, attempt: Callable[[], object]) -> None:
    try:
        attempt()
        print(what, "reached")
    except OSError as error:
        print(what, errno.errorcode.get(error.errno or 0, error))


def workstations() -> None:
    """In the namespace of the machine behind the gateway."""
    print("one has no records of the other family", addresses(ONE, "www.example.org", "AAAA"))
    (name,) = addresses(ONE, "www.example.org")
    print("one by name", page(ONE, name), end="")
    print("one by onion", page(ONE, *addresses(ONE, ONION)), end="")
    print("one by address", page(ONE, "93.184.216.34"), end="")
    print("one by IPv6", page(ONE6, "2606:2800::1"), end="")
    print("two by address", page(TWO, "93.184.216.34"), end="")
    print("two at the address of one's name", repr(page(TWO, name)))
    print("two by a name of its own", page(TWO, *addresses(TWO, "other.example")), end="")
    told(
        "a name server over tcp",
        lambda: socket.create_connection(("9.9.9.9", 53), timeout=30, source_address=(ONE, 0)),
    )
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.connect(("9.9.9.9", 443))
        sock.settimeout(30)
        sock.send(b"x")
        told("udp", lambda: sock.recv(1))
    print("an absent name", dns.rcode.to_text(asked(ONE, "printer.local").rcode()))


async def gateway(directory: Path) -> None:
    """In the namespace of the gateway, which has the other one beside it."""
    behind = await asyncio.create_subprocess_exec(
        "unshare", "--net", "sh", "-c", "echo; read line; exec \"$@\"", "sh",
        sys.executable, "-m", __spec__.name, "--behind",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert behind.stdout is not None
    await behind.stdout.readline()
    run("ip", "link", "set", "lo", "up")
    run(*f"ip link add eth1 type veth peer name eth0 netns {behind.pid}".split())
    for words in (f"addr add {GATEWAY}/24", f"addr add {GATEWAY6}/64 nodad"):
        run("ip", *words.split(), "dev", "eth1")
    run("ip", "link", "set", "eth1", "up")
    async with (
        SocksPort(web) as tor,
        running(directory, *system_tor(tor), "--set", SECTIONS, listeners=4, workers=2) as service,
    ):
        rules = await service.ask("transparent", "rules", "--set", SECTIONS, "eth1")
        assert rules.code == 0, rules.err
        run("nft", "-f", "-", given=rules.out)
        out, _ = await behind.communicate(b"go\n")
        print(out.decode(), end="")
        passwords = {
            (request.password, request.host == b"93.184.216.34") for request in tor.requests
        }
        of_addresses = {password for password, by_address in passwords if by_address}
        print("identities", len(of_addresses))
        print("of another section", len({word for word, _ in passwords} - of_addresses))
        assert await service.stop() == 0


def behind() -> None:
    """Once the cable is there."""
    for host in (f"{ONE}/24", f"{TWO}/24", f"{ONE6}/64"):
        run("ip", "addr", "add", host, "dev", "eth0", *(["nodad"] if ":" in host else []))
    run("ip", "link", "set", "eth0", "up")
    run("ip", "route", "add", "default", "via", GATEWAY)
    run("ip", "-6", "route", "add", "default", "via", GATEWAY6)
    workstations()


if __name__ == "__main__":
    if sys.argv[1] == "--behind":
        behind()
    else:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        namespace.enter()
        asyncio.run(gateway(Path(sys.argv[1])))
