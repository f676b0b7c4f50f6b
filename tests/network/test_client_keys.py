"""Promise: the key to an onion service that asks for one lets in clients of one listener alone."""

from __future__ import annotations

from pathlib import Path

from tests.kit.dial import Refused, dial, receive_exactly
from tests.kit.isoproxy_process import TCP, Isoproxy, system
from tests.kit.onion import ClientKey, publish
from tests.kit.servers import EchoServer
from tests.kit.tornet import Address, TorNetwork

MISSING = 0xF4


def reply_of(proxy: Address, host: str, user: bytes) -> int:
    """0 if the service echoes, else the SOCKS reply."""
    try:
        with dial(proxy, host, 80, user=user) as stream:
            stream.sendall(b"hello")
            assert receive_exactly(stream, 5) == b"hello"
    except Refused as refused:
        assert refused.reply is not None
        return refused.reply
    return 0


def test_clients_of_one_listener_get_in_and_others_see_a_tor_without_the_key(
    tor_network: TorNetwork, tmp_path: Path
) -> None:
    client = ClientKey.generate()
    listeners = [f'name = "{name}"\n{TCP}' for name in ("alice", "bob")]
    with (
        EchoServer(tor_network.server_ip) as server,
        publish(tor_network.relays[1], {80: server.address}, clients=[client]) as service,
        tor_network.temporary_client() as node,
    ):
        file = tmp_path / "key"
        file.write_text(client.file_form(service.service_id) + "\n")
        file.chmod(0o600)
        with Isoproxy(tmp_path, system(node), listeners=listeners) as proxy:
            proxy.wait_ready()
            alice, bob = proxy.addresses
            assert reply_of(alice, service.host, b"1") == MISSING
            words = ("onions", "trust", service.host, str(file), "--listener")
            assert proxy.command(*words, "nobody").returncode == 1
            trusted = proxy.command(*words, "alice")
            assert (trusted.returncode, trusted.stderr) == (0, "")
            assert reply_of(alice, service.host, b"2") == 0
            assert reply_of(bob, service.host, b"3") == MISSING
            assert reply_of(bob, f"www.{service.host}", b"3") == MISSING
            # Tor itself would let everybody in: it is isoproxy that does not
            assert reply_of(node.socks, service.host, b"4") == 0
            assert service.service_id not in proxy.text()
        with Isoproxy(tmp_path, system(node), listeners=listeners) as proxy:
            proxy.wait_ready()
            alice, bob = proxy.addresses
            assert reply_of(bob, service.host, b"5") == MISSING
            assert reply_of(alice, service.host, b"6") == 0
            assert proxy.command("onions", "distrust", service.host).returncode == 0
            assert not list(tmp_path.rglob("*.auth_private"))
            with node.control() as control:
                assert "x25519" not in "".join(control.check("ONION_CLIENT_AUTH_VIEW"))
