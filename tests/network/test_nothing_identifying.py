"""Promise: without the explicit option nothing that identifies anybody leaves the process:
not in the log at any level, not in metrics, status, dashboard or errors.

Marked names, users and passwords go through every protocol, into success and every kind of
failure.  The same with `safe_logging = false` shows that the search would find them.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from isoproxy.admin.client import ask
from isoproxy.errors import OperationError
from tests.kit.dial import Refused, dial
from tests.kit.isoproxy_process import TCP, Isoproxy, system
from tests.kit.servers import EchoServer, closed_port
from tests.kit.tornet import Node, TorNetwork

HOST: Final = "marked-host-kzqx"
USER: Final = "marked-user-wvjy"
PASSWORD: Final = "marked-password-tgbf"
TAG: Final = "marked-tag-hmrd"
# a service that does not exist: a valid address of no published descriptor, and a misspelt one
ONION: Final = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion"
BAD_ONION: Final = "a" + ONION[1:]
BASIC: Final = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
MARKS: Final = (HOST, USER, PASSWORD, TAG, BASIC, ONION[1:20])

_NAME: Final = HOST.encode() + b".test"
_LOGIN: Final = b"\x05\x01\x02\x01" + b"".join(
    bytes([len(text)]) + text.encode() for text in (USER, PASSWORD)
)


def encodings(mark: str) -> Iterator[str]:
    """How a mark could look in a text."""
    raw = mark.encode()
    yield mark.lower()
    yield raw.hex()
    yield "".join(f"\\x{byte:02x}" for byte in raw)
    for offset in range(3):  # base64 of a text that holds it, whatever stands before
        padded = base64.b64encode(b"\0" * offset + raw).decode()
        yield padded[4 if offset else 0 : len(padded) // 4 * 4 - 4].lower()


def found_in(text: str) -> set[str]:
    """The marks that a text holds, in whatever form."""
    lowered = text.lower()
    return {mark for mark in MARKS if any(form in lowered for form in encodings(mark))}


def socks5(host: bytes, port: int, command: int = 1) -> bytes:
    address = b"\x03" + bytes([len(host)]) + host + port.to_bytes(2, "big")
    return _LOGIN + bytes([5, command, 0]) + address


def socks4a(host: bytes, port: int) -> bytes:
    head = b"\x04\x01" + port.to_bytes(2, "big") + b"\x00\x00\x00\x01"
    return head + USER.encode() + b"\x00" + host + b"\x00"


def http(host: str, port: int, method: str = "CONNECT") -> bytes:
    return (
        f"{method} {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n"
        f"Proxy-Authorization: Basic {BASIC}\r\nX-Tor-Stream-Isolation: {TAG}\r\n\r\n"
    ).encode()


def conversations(closed: int) -> Iterator[bytes]:
    """What clients say, that ends in a refusal or in an answer."""
    for host, port in (
        (_NAME, closed),  # closed port
        (HOST.encode() + b".absent", 80),  # no such name
        (HOST.encode() + b".bit", 80),  # never sent to Tor
        (HOST.encode() + b" .test", 80),  # no name at all
        (HOST.encode() + b"\r\nX: y", 80),
        (HOST.encode() * 15, 80),
        (ONION.encode(), 80),
        (BAD_ONION.encode(), 80),
        (_NAME, 0),
    ):
        yield socks5(host, port)
        yield socks4a(host, port)
        yield http(host.decode(), port)
    yield socks5(_NAME, 80, command=0xF0)
    yield socks5(b"192.0.2.99", 0, command=0xF1)
    yield socks5(_NAME, 80, command=2)  # BIND
    yield http(_NAME.decode(), 80, method="GET")
    yield f"GET http://{HOST}.test/{TAG} HTTP/1.1\r\nCookie: {PASSWORD}\r\n\r\n".encode()
    yield _LOGIN.replace(USER.encode(), b"<torS0X>" + USER.encode()[8:])
    yield b"\x05\x01\x00" + b"\x05\x01\x00\x09" + _NAME  # unknown type of address
    yield b"\x04\x09" + USER.encode() + b"\x00" + _NAME + b"\x00"
    yield b"\x16\x03\x01\x02\x00\x01" + _NAME + USER.encode()  # TLS, with the name of a server
    yield USER.encode() + PASSWORD.encode() + _NAME + b"\r\n\r\n"
    yield socks5(_NAME, 80)[:-3]  # never finished


def say(proxy: Isoproxy, words: bytes) -> bytes:
    """One conversation up to the proxy's last word."""
    answer = b""
    with socket.create_connection(proxy.address, timeout=30) as client:
        client.sendall(words)
        with contextlib.suppress(ConnectionResetError):
            while data := client.recv(4096):
                answer += data
    return answer


def dashboard_says(proxy: Isoproxy, path: str) -> str:
    """Head and body of what the dashboard answers to a GET of `path`."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(proxy.status()["dashboard"].removeprefix("unix:"))
        client.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        with client.makefile("rb") as answer:
            return answer.read().decode()


def use(proxy: Isoproxy, tor: Node, echo: EchoServer) -> str:
    """All kinds of traffic; returns everything that the process told anybody but clients."""
    told = []
    user, password = USER.encode(), PASSWORD.encode()
    with contextlib.ExitStack() as held, closed_port(echo.host) as closed:
        for listener in proxy.addresses:
            stream = dial(listener, _NAME, echo.port, user=user, password=password)
            held.enter_context(stream).sendall(USER.encode())
        for words in conversations(closed):
            say(proxy, words)
        told += [json.dumps(proxy.status()), proxy.command("status").stdout]
        told.append(ask(proxy.admin, "metrics")["exposition"])
        told += [dashboard_says(proxy, path) for path in ("/", "/status.json", "/metrics", HOST)]
        for listener, target in ((HOST, "a:1"), ("default", USER)):
            asked: dict[str, Any] = {"listener": listener, "target": target}
            with pytest.raises(OperationError) as refused:
                ask(proxy.admin, "explain", username=USER, password=PASSWORD, **asked)
            told.append(str(refused.value))
        tor.kill()  # relays that break, dials that fail
        for words in (socks5(_NAME, 80), socks4a(_NAME, 80), http(_NAME.decode(), 80)):
            say(proxy, words)
    with pytest.raises(Refused):
        dial(proxy.address, _NAME, 80, user=user, password=password)
    os.kill(proxy.pid, signal.SIGHUP)
    proxy.wait_for("reload", lambda: "reloaded" in proxy.text())
    told.append(Path(f"/proc/{proxy.pid}/cmdline").read_text())
    proxy.stop()
    told.append(proxy.text())
    return "\n".join(told)


def run(net: TorNetwork, directory: Path, *settings: str) -> str:
    listeners = [TCP, f'address = "unix:{directory}/socks"']
    common = ["limits.handshake_timeout_s=1", "limits.drain_timeout_s=0"]
    common.append(f"observe.dashboard=unix:{directory}/dashboard")
    with (
        EchoServer(net.server_ip) as echo,
        net.temporary_client() as tor,
        Isoproxy(directory, [*system(tor), *common, *settings], listeners=listeners) as proxy,
    ):
        proxy.wait_ready()
        return use(proxy, tor, echo)


@pytest.mark.parametrize("form", ["text", "json"])
def test_nothing_at_any_level(tor_network: TorNetwork, tmp_path: Path, form: str) -> None:
    told = run(tor_network, tmp_path, "observe.log_level=debug", f"observe.log_format={form}")
    assert "[scrubbed]" in told
    assert "refused" in told
    assert not found_in(told), [line for line in told.splitlines() if found_in(line)]


def test_the_explicit_option_shows_them(tor_network: TorNetwork, tmp_path: Path) -> None:
    """The search finds what there is to be found."""
    told = run(tor_network, tmp_path, "observe.log_level=debug", "observe.safe_logging=false")
    assert found_in(told) == set(MARKS)
    assert f'"target":"{HOST}.test:' in told  # the dashboard's
    assert "safe_logging_is_off" in told


@pytest.mark.parametrize("mark", MARKS)
def test_the_search_finds_every_form(mark: str) -> None:
    raw = b"user=" + mark.encode() + b";"
    for text in (raw.decode(), raw.decode().upper(), repr(raw), raw.hex(), str(raw)):
        assert mark in found_in(text), text
    for before in range(6):
        assert mark in found_in(base64.b64encode(b"x" * before + raw).decode())
    assert not found_in(f"time=2026 level=debug pid={os.getpid()} {sys.version}")
