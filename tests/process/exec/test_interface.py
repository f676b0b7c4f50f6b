"""The network of a namespace: every address is there, and nothing else."""

from __future__ import annotations

import subprocess
import sys

from tests.kit.namespaces import skip_without_namespaces

_PROGRAM = """
import socket
from isoproxy.exec import interface, namespace
namespace.enter()
try:
    socket.create_connection(("203.0.113.9", 80), timeout=5)
except OSError as error:
    print(error.strerror)
interface.make_everything_local()
for family, there in ((socket.AF_INET, "203.0.113.9"), (socket.AF_INET6, "2001:db8::9")):
    if family == socket.AF_INET6 and not interface.has_ipv6():
        print(there)
        continue
    with socket.create_server(("", 80), family=family) as server:
        with socket.create_connection((there, 80), timeout=5) as client:
            print(client.getpeername()[0])
    with socket.socket(family, socket.SOCK_DGRAM) as udp:
        udp.connect(("192.0.2.1" if family == socket.AF_INET else "2001:db8:1::1", 9))
print([name for _, name in socket.if_nameindex()])
try:
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    interface._ask(netlink, 24, interface._all_local(2, 99))
except OSError as error:
    print(error.strerror)
"""


def test_every_address_is_the_namespaces_own() -> None:
    skip_without_namespaces()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _PROGRAM],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "Network is unreachable",
        "203.0.113.9",
        "2001:db8::9",
        "['lo']",
        "No such device",
    ]
