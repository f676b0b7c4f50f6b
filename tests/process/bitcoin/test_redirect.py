"""nftables rules, and where the kernel says that a redirected connection was going."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from isoproxy.bitcoin.redirect import DEFAULT_PORTS, nft_rules
from isoproxy.errors import OperationError
from tests.kit.repository import ROOT


def test_rules_name_the_group_the_ports_and_the_proxy() -> None:
    rules = nft_rules("bitcoin", proxy_port=1325, ports=[8333, 18444, 8333])
    assert 'meta skgid "bitcoin" oifname != "lo" tcp dport { 8333, 18444 } redirect' in rules
    assert "redirect to :1325" in rules
    assert 'meta skgid "bitcoin" reject' in rules
    assert "meta skgid 1000 " in nft_rules("1000")
    assert {8333, 38333, 8334} <= set(DEFAULT_PORTS)


@pytest.mark.parametrize("group", ["", "a b", 'x" accept', "$(id)", "é", "a" * 40, "x\n"])
def test_what_is_no_group_never_becomes_a_rule(group: str) -> None:
    with pytest.raises(OperationError, match="group"):
        nft_rules(group)


@pytest.mark.parametrize("port", [-1, 65536])
def test_what_is_no_port_never_becomes_a_rule(port: int) -> None:
    with pytest.raises(OperationError, match="port"):
        nft_rules("0", ports=[port])
    with pytest.raises(OperationError, match="port"):
        nft_rules("0", proxy_port=port)


def test_nft_accepts_the_rules() -> None:
    if shutil.which("nft") is None:
        pytest.skip("nft is not installed; apt-get install nftables to check the rules with it")
    probe = ["unshare", "--net", "nft", "-c", "-f", "-"]
    checked = subprocess.run(
        probe, input=nft_rules("0"), text=True, capture_output=True, check=False
    )
    if "not permitted" in checked.stderr:
        pytest.skip("no network namespace may be made here, so nft cannot check the rules")
    assert checked.returncode == 0, checked.stderr


_TOGETHER = """
set -eu
redirect=$1
(
    "$redirect" 4242 sleep 2
) &
until nft list table inet isoproxy_bitcoin_4242 >/dev/null 2>&1; do sleep 0.05; done
"$redirect" 4242 true
"$redirect" 4343 true
nft list ruleset
wait
nft delete table inet isoproxy_bitcoin_4343
nft list tables
"""


def test_a_program_that_ends_leaves_the_others_confined(tmp_path: Path) -> None:
    """`examples/bitcoin/redirect.sh`, twice in one group and once in another."""
    for name in ("nft", "setpriv"):
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed")
    settings = tmp_path / "isoproxy.toml"
    settings.write_text('[[bitcoin.proxy]]\naddress = "127.0.0.1:1324"\n')
    program = tmp_path / "isoproxy"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m isoproxy "$@" -c {settings}\n')
    program.chmod(0o755)
    script = ROOT / "examples" / "bitcoin" / "redirect.sh"
    done = subprocess.run(
        ["timeout", "60", "unshare", "--net", "sh", "-c", _TOGETHER, "sh", script],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        text=True,
        capture_output=True,
        check=False,
    )
    if "not permitted" in done.stderr:
        pytest.skip("no network namespace may be made here")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("redirect to :1324") == 2  # each group's once, however often loaded
    assert done.stdout.endswith("table inet isoproxy_bitcoin_4242\n")


_NETWORK = """
import os, socket, subprocess, sys
from isoproxy.bitcoin.redirect import nft_rules
from isoproxy.net.original_destination import original_destination
run = lambda *words, **more: subprocess.run(words, check=True, **more)
run("ip", "link", "set", "lo", "up")
run("ip", "link", "add", "name", "out", "type", "veth", "peer", "name", "far")
run("ip", "link", "set", "far", "up")
run("ip", "addr", "add", "10.99.0.1/24", "dev", "out")
run("ip", "-6", "addr", "add", "2001:db8::1/64", "dev", "out", "nodad")
run("ip", "link", "set", "out", "up")
run("ip", "route", "add", "default", "dev", "out")
run("ip", "-6", "route", "add", "default", "dev", "out")
"""
_REDIRECTED = """
run("nft", "-f", "-", input=nft_rules("4242", proxy_port=1324), text=True)
for family, here, there in (
    (socket.AF_INET, "127.0.0.1", "203.0.113.9"),
    (socket.AF_INET6, "::1", "2001:db8:1::9"),
):
    with socket.create_server((here, 1324), family=family) as server:
        os.setegid(4242)
        with socket.create_connection((there, 8333), timeout=5):
            client, _ = server.accept()
            print(*original_destination(client))
            client.close()
        try:
            socket.create_connection((there, 80), timeout=5)
        except OSError as error:
            print(type(error).__name__)
        os.setegid(0)
    with socket.socket(family, socket.SOCK_DGRAM) as resolver:
        resolver.bind((here, 53))
        os.setegid(4242)
        with socket.socket(family, socket.SOCK_DGRAM) as client:
            try:
                client.sendto(b"query", (here, 53))
                print(resolver.recv(100, socket.MSG_DONTWAIT))
            except OSError as error:
                print(type(error).__name__)
        os.setegid(0)
"""


_LEFT_BEHIND = """
script = sys.argv[1]
def leaves(group):
    os.setegid(group)
    try:
        with socket.socket() as client:
            client.settimeout(0.5)
            client.connect(("203.0.113.9", 80))
    except ConnectionRefusedError:
        return False
    except OSError:  # there is nobody out there
        return True
    finally:
        os.setegid(0)
first = subprocess.Popen([script, "4242", "sleep", "60"])
while first.poll() is None and leaves(4242):
    pass
run(script, "4343", "true")
print(leaves(4242), leaves(4343), leaves(4444))
rules = lambda: subprocess.check_output(["nft", "list", "ruleset"]).count(b"skgid")
before = rules()
run(script, "4343", "true")
print(rules() - before)
"""


def in_a_network(program: str, *words: str, path: str = os.environ["PATH"]) -> list[str]:
    """The lines that `program` prints in a network of its own, where all roads lead out."""
    if shutil.which("nft") is None or shutil.which("ip") is None:
        pytest.skip("nft and ip are needed; apt-get install nftables iproute2")
    done = subprocess.run(
        ["unshare", "--net", "--pid", "--fork", sys.executable, "-c", _NETWORK + program, *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if "not permitted" in done.stderr or "not supported" in done.stderr:
        pytest.skip("no network namespace with NAT may be made here: " + done.stderr[-100:])
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_redirected_connections_are_asked_back_from_the_kernel() -> None:
    assert in_a_network(_REDIRECTED) == [
        "203.0.113.9 8333",
        "ConnectionRefusedError",
        "PermissionError",
        "2001:db8:1::9 8333",
        "ConnectionRefusedError",
        "PermissionError",
    ]


def test_the_example_leaves_no_way_out_to_what_its_program_leaves_behind(tmp_path: Path) -> None:
    proxy = "--set bitcoin.proxy.0.address=127.0.0.1:1324"
    isoproxy = tmp_path / "isoproxy"
    isoproxy.write_text(f'#!/bin/sh\nexec {sys.executable} -m isoproxy "$@" {proxy}\n')
    isoproxy.chmod(0o755)
    script = ROOT / "examples" / "bitcoin" / "redirect.sh"
    path = f"{tmp_path}:{os.environ['PATH']}"
    assert in_a_network(_LEFT_BEHIND, str(script), path=path) == ["False False True", "0"]
