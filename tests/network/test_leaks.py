"""Promise: isoproxy talks to Tor and to its clients, and to nobody else; it never asks the
system's resolver.

strace watches a whole session from start to stop, in both modes, with clients of every kind,
refusals and failures.  The commands that people run beside it are watched as well.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.kit.dial import Refused, dial
from tests.kit.isoproxy_process import TCP, Isoproxy, managed, system
from tests.kit.servers import WebServer
from tests.kit.tornet import TorNetwork
from tests.kit.trace import Trace, leaks
from tests.network.programs import curl, program

TLS_HELLO = bytes.fromhex("1603010200010001fc0303") + bytes(64)


def use(proxy: Isoproxy, web: WebServer) -> None:
    """Clients of every kind, streams that open and streams that do not."""
    at, url = proxy.host_and_port, web.url(name="web.test")
    assert curl("--proxy", f"socks5h://a:1@{at}", url)
    assert curl("--proxy", f"socks5://a:1@{at}", web.url())
    assert curl("--proxy", f"socks4a://a@{at}", url)
    assert curl("-p", "--proxy", f"http://u:p@{at}", url)
    assert program("curl", "-sS", f"http://{at}/")
    assert program("tor-resolve", "www.test", at)
    with dial(proxy.addresses[1], "web.test", web.port):
        pass
    for name in ("name.bit", "host.local", "a b", "absent.example", "x" * 56 + ".onion", ""):
        with pytest.raises((Refused, ConnectionError)):
            dial(proxy.address, name, 80, user=b"u").close()
    for hello in (b"\x05\x01\x01", b"\x05\x01\x00\x05\x03\x00\x01" + bytes(6), TLS_HELLO, b"\xff"):
        with subprocess.Popen(
            [sys.executable, "-c", _SEND, *map(str, proxy.address), hello.hex()]
        ) as client:
            assert client.wait(30) == 0
    assert proxy.command("newnym").returncode == 0
    assert curl("--proxy", f"socks5h://a:1@{at}", url)
    proxy.status()


_SEND = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 10) as client:
    client.sendall(bytes.fromhex(sys.argv[3]))
    while client.recv(4096):
        pass
"""


@pytest.mark.parametrize("mode", ["system", "system, TCP", "managed"])
def test_a_whole_session(tor_network: TorNetwork, tmp_path: Path, mode: str) -> None:
    client = tor_network.client
    tors = {f"unix:{client.socks_path}", f"unix:{client.control_path}"}
    settings = system(client)
    if mode == "managed":
        tors = {f"unix:{tmp_path}/state/tor/{name}" for name in ("socks", "control")}
        settings = managed(tor_network)
    elif mode == "system, TCP":
        ports = ["{}:{}".format(*address) for address in (client.socks, client.controlport)]
        tors = set(ports)
        settings = ["tor.mode=system", f"tor.socks={ports[0]}", f"tor.control={ports[1]}"]
    listeners = [TCP, f'address = "unix:{tmp_path}/socks"']
    trace, newnym = Trace(tmp_path / "trace"), Trace(tmp_path / "newnym")
    with (
        WebServer(tor_network.server_ip, tor_network.exit_of) as web,
        Isoproxy(tmp_path, settings, listeners=listeners, wrapper=trace.wrapper) as proxy,
    ):
        proxy.wait_ready()
        use(proxy, web)
        assert proxy.command("newnym", wrapper=newnym.wrapper).returncode == 0
    own = [call for call in trace.calls() if call.program != "tor"]
    binds = {"127.0.0.1:0", f"unix:{tmp_path}/socks", f"unix:{proxy.admin}"}
    binds.add(f"unix:{proxy.admin}.exec")
    # before it binds the admin socket, isoproxy looks whether another one listens there
    found = leaks(own, connects={*tors, f"unix:{proxy.admin}"}, binds=binds)
    assert not found, "\n".join(map(str, found))
    # the trace saw what there was to see
    count = Counter((call.name, call.address) for call in own)
    assert all(count["connect", address] for address in tors), count
    assert all(count["bind", address] for address in binds), count
    commands = newnym.calls()
    assert Counter(call.address for call in commands if call.name == "connect") == {
        f"unix:{proxy.admin}": 1
    }
    assert not leaks(commands, connects={f"unix:{proxy.admin}"}, binds=())


@pytest.mark.parametrize(
    "deed",
    [
        "socket.getaddrinfo('name.test', 80)",
        "socket.socket().connect_ex(('127.0.0.1', 53))",
        "socket.socket(type=socket.SOCK_DGRAM)",
        "socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)",
        "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
        "socket.socket(socket.AF_UNIX).connect_ex('/run/nscd/socket')",
        "socket.socket().bind(('0.0.0.0', 0))",
        "open('/etc/resolv.conf')",
        "threading.Thread(target=socket.gethostbyname, args=('localhost',)).start()",
        "subprocess.run([sys.executable, '-c', 'open(\"/etc/hosts\")'])",
    ],
)
def test_a_leak_is_found(tmp_path: Path, deed: str) -> None:
    """The judge is not blind: each of these is a leak, in whatever thread or child."""
    trace = Trace(tmp_path / "trace")
    code = f"import socket, subprocess, sys, threading\n{deed}"
    subprocess.run([*trace.wrapper, sys.executable, "-c", code], capture_output=True)
    assert leaks(trace.calls(), connects={"127.0.0.1:9050"}, binds={"127.0.0.1:9250"})


def test_doing_nothing_is_no_leak(tmp_path: Path) -> None:
    trace = Trace(tmp_path / "trace")
    subprocess.run([*trace.wrapper, sys.executable, "-c", "pass"], check=True)
    assert trace.calls()
    assert not leaks(trace.calls(), connects=(), binds=())
