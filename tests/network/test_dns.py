"""Promise: DNS clients get verified .bit records, each isolation ID on circuits of its own.

The real process with the embedded light client and real ElectrumX servers; dig asks, the
servers and Tor's control port are the witnesses.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import dns.edns
import dns.message
import dns.query
import dns.rcode
import pytest

from isoproxy.dns.query import ISOLATION_OPTION
from isoproxy.dns.sign import ZoneKey
from isoproxy.namecoin.chain.name_script import script_hash
from tests.kit.isoproxy_process import Isoproxy, system
from tests.kit.ports import free_port
from tests.kit.tornet import TorNetwork
from tests.kit.witness import Witness
from tests.network.name_world import NameWorld, name_world

IDENTITIES = {
    "alice": ("127.0.0.1", b"tab of alice"),
    "bob": ("127.0.0.1", b"tab of bob"),
    "carol": ("127.0.0.1", None),
    "dave": ("127.0.0.2", None),
}
"""The address each asks from, and its isolation ID if it sends one."""
NAMES_EACH = 4


@dataclass(frozen=True)
class Lab:
    proxy: Isoproxy
    world: NameWorld
    witness: Witness
    port: int

    def ask(self, who: str, name: str) -> dns.message.Message:
        source, isolation = IDENTITIES[who]
        options: list[dns.edns.Option] = []
        if isolation is not None:
            code = dns.edns.OptionType.make(ISOLATION_OPTION)
            options.append(dns.edns.GenericOption(code, isolation))
        query = dns.message.make_query(name, "A")
        query.use_edns(0, 0, 1232, options=options)
        return dns.query.udp(query, "127.0.0.1", port=self.port, source=source, timeout=60)


@pytest.fixture(scope="module")
def lab(tor_network: TorNetwork, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    directory = tmp_path_factory.mktemp("dns")
    port, key = free_port(), directory / "dns.key"
    values = {
        f"d/{who}-{number}": {"ip": f"192.0.2.{number + 1}"}
        for who in IDENTITIES
        for number in range(NAMES_EACH)
    }
    with name_world(tor_network, directory / "electrumx", values) as world:
        settings = [
            *system(tor_network.client),
            *world.settings(pool_size=12),
            f"dns.address=127.0.0.1:{port}",
        ]
        ZoneKey.generate().store(key)
        settings.append(f"dns.key_file={key}")
        # The witness is there first: connections to name servers are opened ahead of their use.
        # Not in development mode, which warns of every hundred milliseconds on a busy machine.
        with (
            Witness(tor_network.client) as witness,
            Isoproxy(directory, settings, develop=False) as proxy,
        ):
            proxy.wait_for("headers", lambda: proxy.status()["names"]["ready"], 90)
            yield Lab(proxy, world, witness, port)


def test_each_id_and_each_address_looks_up_on_circuits_of_its_own(lab: Lab) -> None:
    def use(who: str) -> None:
        for number in range(NAMES_EACH):
            response = lab.ask(who, f"{who}-{number}.bit")
            assert response.rcode() == dns.rcode.NOERROR
            assert [rdata.to_text() for rdata in response.answer[0]] == [f"192.0.2.{number + 1}"]

    with ThreadPoolExecutor(len(IDENTITIES)) as pool:
        list(pool.map(use, IDENTITIES))
    lab.witness.settle()
    lab.witness.assert_isolated(lab.witness.streams())
    owner = {
        script_hash(f"d/{who}-{number}".encode()): who
        for who in IDENTITIES
        for number in range(NAMES_EACH)
    }
    heard = [{owner[name] for name in names} for names in lab.world.tap.heard if names]
    assert heard, "the server that listens was never asked"
    assert all(len(owners) == 1 for owners in heard), heard
    for text in (lab.proxy.text(), str(lab.proxy.status())):
        assert not any(who in text for who in IDENTITIES)


def test_answers_are_signed_and_absence_is_proved(lab: Lab) -> None:
    for name, rcode in (("alice-0.bit", "NOERROR"), ("never-registered.bit", "NXDOMAIN")):
        out = subprocess.run(
            ["dig", "@127.0.0.1", "-p", str(lab.port), "+timeout=60", name, "A"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert f"status: {rcode}" in out
    signed = lab.proxy.command("dns", "lookup", "--dnssec", "alice-0.bit")
    assert signed.returncode == 0, signed.stderr
    assert "IN RRSIG A 13 2 600" in signed.stdout
    absent = lab.proxy.command("dns", "lookup", "--dnssec", "never-registered.bit")
    assert absent.returncode == 1
    assert "IN NSEC \\000.never-registered.bit." in absent.stdout
