"""Promise: .bit names work out of the box, verified, each identity on circuits of its own.

The real process with the embedded light client, real ElectrumX servers behind exits and an
onion service, Tor's control port and the servers themselves as witnesses.
"""

from __future__ import annotations

import base64
import json
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest

from isoproxy.admin.client import ask
from isoproxy.daemon.compose.tls import root_files
from isoproxy.namecoin.chain.name_script import script_hash
from tests.kit.dial import Refused, dial
from tests.kit.isoproxy_process import TCP, Isoproxy, system
from tests.kit.namecoin.chain import RECORDED_TIP, recorded_answers
from tests.kit.namespaces import skip_without_namespaces
from tests.kit.onion import publish
from tests.kit.servers import WebServer, closed_port
from tests.kit.tornet import TorNetwork
from tests.kit.trace import Trace, leaks
from tests.kit.witness import Stream, Witness
from tests.network.name_world import NameWorld, name_world
from tests.network.programs import curl, program
from tests.unit.tls.shaking import server_context
from tests.unit.tls.sites import party

ANSWERS: Final = recorded_answers()
UNREADABLE: Final = {"d/bare-string", "d/json-array", "d/json-number", "d/not-json"}
"""Recorded names with values that are no JSON object: they are found, and say nothing."""


AUTHORITY: Final = party("secure-web.bit authority", authority=True)
"""The name's own, whose certificate its server does not send."""
SITE: Final = party("secure-web.bit", AUTHORITY, hosts=("secure-web.bit",), send_issuer=False)


def _https(*records: list[Any]) -> dict[str, Any]:
    """A value's part about the certificate of its HTTPS server; data as bytes."""
    written = [[*head, base64.b64encode(data).decode()] for *head, data in records]
    return {"map": {"_tcp": {"map": {"_443": {"tls": written}}}}}


@dataclass(frozen=True)
class Lab:
    """A running isoproxy, what its names lead to, and who serves them."""

    proxy: Isoproxy
    world: NameWorld
    web: WebServer
    onion: str
    publisher: str
    """The relay that offers the web server as an onion service."""

    def resolve(
        self, name: str, isolation: str = "someone", *, zone: bool = False
    ) -> dict[str, Any]:
        """What `isoproxy resolve --json` prints; of a `zone`, with `--records`."""
        words = {"name": name, "isolation": isolation, "zone": zone}
        answer = ask(self.proxy.admin, "resolve", timeout_s=90, **words)
        found: dict[str, Any] = answer["zone"] if "zone" in answer else answer["resolution"]
        return found


@dataclass(frozen=True)
class Place:
    """Where names lead to, and who serves them."""

    world: NameWorld
    web: WebServer
    onion: str


@pytest.fixture(scope="module")
def place(tor_network: TorNetwork, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    host = tor_network.server_ip
    with (
        WebServer(host, tor_network.exit_of) as web,
        WebServer(host, tls=server_context(SITE.pem)) as secure_web,
        publish(tor_network.exits[1], {80: web.address}) as onion,
        publish(tor_network.exits[1], {443: secure_web.address}) as secure,
        name_world(
            tor_network,
            tmp_path_factory.mktemp("electrumx"),
            {
                "d/onion-web": {"tor": onion.host, "ip": "192.0.2.1"},
                "d/ip-web": {"ip": host, "map": {"www": {"alias": ""}}},
                "d/secure-web": {"tor": secure.host, **_https([2, 1, 0, AUTHORITY.spki])},
                "d/wrong-web": {"tor": secure.host, **_https([3, 1, 0, AUTHORITY.spki])},
                **{f"d/alice-{n}": {"ip": f"192.0.2.{n}"} for n in range(4)},
                **{f"d/bob-{n}": {"ip": f"198.51.100.{n}"} for n in range(4)},
            },
        ) as world,
    ):
        yield Place(world, web, onion.host)


def names_of(place: Place, **changes: Any) -> list[str]:
    """Settings; the test servers' addresses are private ones."""
    return [*place.world.settings(**changes), "names.allow_private_addresses=true"]


@pytest.fixture(scope="module")
def lab(
    tor_network: TorNetwork, place: Place, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lab]:
    settings = [*system(tor_network.client), *names_of(place, pool_size=9)]
    directory, listeners = tmp_path_factory.mktemp("names"), (TCP, TCP + "\ntls = true")
    root_files(directory / "state").create(datetime.now(UTC).replace(microsecond=0))
    settings += ["tls.enabled=true"]
    with Isoproxy(directory, settings, listeners=listeners, develop=False) as proxy:
        yield Lab(proxy, place.world, place.web, place.onion, tor_network.exits[1].name)


def test_every_recorded_name_gives_what_namecoin_core_gave(lab: Lab) -> None:
    later = lab.world.chain.tip - RECORDED_TIP
    names = [name for name in ANSWERS if name.startswith("d/")]

    def outcome(name: str) -> dict[str, Any]:
        return lab.resolve(f"{name[2:]}.bit", zone=True)

    with ThreadPoolExecutor(8) as pool:
        found = dict(zip(names, pool.map(outcome, names), strict=True))
    for name, got in found.items():
        said = ANSWERS[name]
        if "txid" not in said:
            assert got["reason"] == "name_absent", name
        elif said["expired"] or int(str(said["expires_in"])) <= later:
            assert got["reason"] == "name_expired", name
        elif name in UNREADABLE and "reason" in got:
            assert got["reason"] == "name_invalid_value", name
        else:
            assert got["value"] == said["value"], name
            assert (got["txid"], got["height"]) == (said["txid"], said["height"]), name
            assert got["expires_in"] == int(str(said["expires_in"])) - later, name
            assert got["evidence"] == "spv-12conf"
            assert len(got["servers"]) >= 2


def test_curl_reaches_an_onion_service_by_its_name(lab: Lab) -> None:
    at = lab.proxy.host_and_port
    for url in ("http://onion-web.bit/a", "http://ONION-WEB.bit.onion/b"):
        assert "host=onion-web.bit" in curl("--proxy", f"socks5h://bank:1@{at}", url).lower()
    assert "path=/c" in curl("-p", "--proxy", f"http://bank:1@{at}", "http://onion-web.bit/c")
    came = {path: relay for relay, _, path in lab.web.requests}
    assert {came[path] for path in ("/a", "/b", "/c")} == {lab.publisher}
    answer = lab.resolve("onion-web.bit")
    assert (answer["status"], answer["target"], answer["type"]) == ("ok", lab.onion, "onion")


def test_a_program_that_knows_no_proxy_reaches_names_and_what_they_lead_to(lab: Lab) -> None:
    skip_without_namespaces()
    urls = ("http://onion-web.bit/exec", lab.web.url("/exec-ip", name="www.ip-web.bit"))
    for url in urls:
        assert "path=/exec" in lab.proxy.execute("curl", "-sS", url, isolation="shop")
    came = {path: relay for relay, _, path in lab.web.requests}
    assert came["/exec"] == lab.publisher
    assert came["/exec-ip"] != "none"


def https(lab: Lab, name: str, user: bytes = b"bank") -> bytes:
    """The page at https://`name`/, as a client that believes the root alone gets it."""
    at = lab.proxy.addresses[1]
    root = root_files(lab.proxy.directory / "state").certificate().decode()
    context = ssl.create_default_context(cadata=root)
    with dial(at, name, 443, user=user) as sock:
        sock.settimeout(60)
        with context.wrap_socket(sock, server_hostname=name) as tls:
            tls.sendall(f"GET /tls HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
            return tls.makefile("rb").read()


def test_https_is_answered_under_the_root_and_the_site_is_proven(lab: Lab) -> None:
    """An onion service without TLS, and one with the certificate that its name's record says."""
    assert b"host=onion-web.bit path=/tls" in https(lab, "onion-web.bit")
    assert b"host=secure-web.bit path=/tls" in https(lab, "secure-web.bit")
    with pytest.raises(ssl.SSLError, match="ACCESS_DENIED"):
        https(lab, "wrong-web.bit")
    with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
        https(lab, "ip-web.bit")
    told = json.loads(lab.proxy.command("tls", "status", "--json").stdout)
    counts = {stream["outcome"]: stream["count"] for stream in told["streams"]}
    assert counts == {"onion": 1, "record": 1, "wrong_certificate": 1, "no_record": 1}
    assert "web.bit" not in lab.proxy.text()
    assert "web.bit" not in lab.proxy.command("tls", "status").stdout


def test_curl_reaches_a_server_behind_an_exit_by_its_ip_record(lab: Lab) -> None:
    at = lab.proxy.host_and_port
    url = lab.web.url("/ip", name="ip-web.bit")
    assert "host=ip-web.bit" in curl("--proxy", f"socks5h://bank:1@{at}", url)
    assert "host=ip-web.bit" in curl("--proxy", f"socks4a://bank@{at}", url)
    www = lab.web.url("/www", name="www.ip-web.bit")
    assert "path=/www" in curl("--proxy", f"socks5h://bank:1@{at}", www)
    assert program("tor-resolve", "ip-web.bit", at).strip() == lab.web.host


@pytest.mark.parametrize(
    ("name", "reply", "reason"),
    [
        ("never-registered.bit", 4, "name_absent"),
        ("expired.bit", 4, "name_expired"),
        ("onion-web.bit.", None, None),
        ("ip-web.bit.onion", 4, "name_no_address"),
        ("empty.bit", 4, "name_no_address"),
        ("not-json.bit", 4, "name_invalid_value"),
    ],
)
def test_reasons_are_told_apart(lab: Lab, name: str, reply: int | None, reason: str | None) -> None:
    if reply is None:
        dial(lab.proxy.address, name, 80, user=b"u").close()
        return
    with pytest.raises(Refused) as refused:
        dial(lab.proxy.address, name, 80, user=b"u").close()
    assert refused.value.reply == reply
    assert lab.resolve(name)["reason"] == reason
    failed = lab.proxy.command("resolve", name)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "isoproxy resolve: " in failed.stderr


def doctor(proxy: Isoproxy, web: WebServer) -> dict[str, str]:
    """What it finds about names."""
    done = proxy.command("doctor", "--json", "--target", f"web.test:{web.port}")
    findings: list[dict[str, str]] = json.loads(done.stdout)["findings"]
    (finding,) = (one for one in findings if one["check"] == "names")
    return finding


def test_the_commands_print_it(lab: Lab) -> None:
    done = lab.proxy.command("resolve", "onion-web.bit", "--isolation", "me")
    assert (done.returncode, done.stdout) == (0, lab.onion + "\n")
    again = json.loads(
        lab.proxy.command("resolve", "onion-web.bit", "--isolation", "me", "--json").stdout
    )
    assert again["cached"] is True
    other = json.loads(
        lab.proxy.command("resolve", "onion-web.bit", "--isolation", "you", "--json").stdout
    )
    assert other["cached"] is False
    zone = lab.proxy.command("resolve", "ip-web.bit", "--records")
    assert f"ip-web.bit. IN A {lab.web.host}" in zone.stdout
    status = lab.proxy.status()["names"]
    assert status["backend"] == "electrum"
    assert status["tip"] == status["target"] == lab.world.chain.tip
    assert status["complete"] is True
    assert status["servers"]["known"] == status["servers"]["up"] == 3
    assert "names: electrum, ready at block" in lab.proxy.command("status").stdout
    assert doctor(lab.proxy, lab.web)["verdict"] == "ok"
    dial(lab.proxy.address, "onion-web.bit", 80, user=b"counted").close()
    metrics = str(ask(lab.proxy.admin, "metrics")["exposition"])
    assert 'isoproxy_names_total{backend="electrum",outcome="ok"}' in metrics
    for text in (json.dumps(status), metrics, lab.proxy.text()):
        assert "onion-web" not in text
        assert lab.onion not in text


def test_no_circuit_carries_two_identities_nor_outlives_a_renewal(
    lab: Lab, tor_network: TorNetwork
) -> None:
    at = lab.proxy.host_and_port

    def use(who: str) -> None:
        for number in range(4):
            assert lab.resolve(f"{who}-{number}.bit", isolation=who)["status"] == "ok"
        for path in ("/1", "/2"):
            for name in ("web.test", "ip-web.bit"):
                url = lab.web.url(path, name=name)
                assert curl("--proxy", f"socks5h://{who}:1@{at}", url)

    with Witness(tor_network.client) as witness:
        before_all = len(lab.world.tap.heard)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(use, ("alice", "bob")))
        before = witness.streams()
        witness.settle()
        witness.assert_isolated(before)

        mark = witness.mark()
        assert lab.proxy.command("newnym").returncode == 0
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(use, ("alice", "bob")))
        witness.settle()
        after = witness.streams(after=mark)
        witness.assert_isolated([*before, *after])
        # connections to name servers may be older than the witness, those of `after` are not
        for streams in (before, after):
            assert any(stream.port == lab.web.port for stream in streams)
            mixed = witness.mixed(streams, lambda stream: stream.port == lab.web.port)
            assert not mixed, "a look-up beside an application's stream"
        assert any(stream.port != lab.web.port for stream in after)
        used = {circuit for stream in before for circuit in stream.circuits}
        assert not used & {circuit for stream in after for circuit in stream.circuits}
    # and as the onion server heard it: each connection spoke of one identity's names only
    owner = _owners()
    heard = [{owner.get(name, "other") for name in names} for names in lab.world.tap.heard]
    assert all(len(owners) <= 1 for owners in heard), heard
    assert len(lab.world.tap.heard) > before_all
    assert {"alice", "bob"} <= set().union(*heard)


def test_one_identity_is_renewed_and_another_notices_nothing(
    lab: Lab, tor_network: TorNetwork, tmp_path: Path
) -> None:
    """Its next stream is on a new circuit and it knows no name; nothing of another's changes."""
    at = lab.proxy.host_and_port

    def use(who: str) -> None:
        assert lab.resolve(f"{who}-0.bit", isolation=f"{who} at home")["status"] == "ok"
        for name in ("web.test", "ip-web.bit"):
            assert curl("--proxy", f"socks5h://{who}-r:1@{at}", lab.web.url("/r", name=name))

    def key(who: str) -> str:
        explained = lab.proxy.command("explain", f"{who}-r", "1", "--json").stdout
        return str(json.loads(explained)["key"])

    file = tmp_path / "identity"
    file.write_text("alice at home\n")
    file.chmod(0o600)
    with Witness(tor_network.client) as witness:
        used = {}
        for who in ("alice", "bob"):
            mark = witness.mark()
            use(who)
            witness.settle()
            used[who] = [s for s in witness.streams(after=mark) if s.port == lab.web.port]
        keys = {who: key(who) for who in used}
        assert lab.proxy.command("newnym", keys["alice"]).returncode == 0
        assert lab.proxy.command("newnym", "--isolation-file", str(file)).returncode == 0
        assert key("alice") != keys["alice"]
        assert key("bob") == keys["bob"]
        assert not lab.resolve("alice-0.bit", isolation="alice at home")["cached"]
        assert lab.resolve("bob-0.bit", isolation="bob at home")["cached"]
        again = {}
        asked = {}
        for who in ("bob", "alice"):
            mark = witness.mark()
            heard = names_asked(lab)
            use(who)
            witness.settle()
            again[who] = [s for s in witness.streams(after=mark) if s.port == lab.web.port]
            asked[who] = names_asked(lab) - heard

    def circuits(streams: list[Stream]) -> set[int]:
        return {circuit for stream in streams for circuit in stream.circuits}

    assert circuits(again["bob"]) <= circuits(used["bob"])
    assert not circuits(again["alice"]) & circuits(used["alice"])
    assert not circuits(again["alice"]) & circuits([*used["bob"], *again["bob"]])
    assert (asked["bob"], asked["alice"] > 0) == (0, True)


def names_asked(lab: Lab) -> int:
    """How many look-ups no cache has answered until now."""
    exposition = str(ask(lab.proxy.admin, "metrics")["exposition"])
    counted = [
        line
        for line in exposition.splitlines()
        if line.startswith("isoproxy_name_cache_misses_total")
    ]
    return sum(int(float(line.split()[-1])) for line in counted)


def _owners() -> dict[str, str]:
    """Whose name a script hash is."""
    return {
        script_hash(f"d/{who}-{number}".encode()): who
        for who in ("alice", "bob")
        for number in range(4)
    }


def test_only_tor_is_contacted(tor_network: TorNetwork, place: Place, tmp_path: Path) -> None:
    client = tor_network.client
    tors = {f"unix:{client.socks_path}", f"unix:{client.control_path}"}
    daemon, alone = Trace(tmp_path / "trace"), Trace(tmp_path / "alone")
    settings = [*system(client), *names_of(place)]
    with Isoproxy(tmp_path, settings, wrapper=daemon.wrapper, develop=False) as proxy:
        proxy.wait_ready()
        at = proxy.host_and_port
        assert curl("--proxy", f"socks5h://a:1@{at}", "http://onion-web.bit/")
        assert curl("--proxy", f"socks5h://a:1@{at}", place.web.url(name="ip-web.bit"))
        assert program("tor-resolve", "ip-web.bit", at)
        for name in ("gone.bit", "expired.bit", "not-json.bit", "a..bit", "bit"):
            with pytest.raises(Refused):
                dial(proxy.address, name, 80, user=b"u").close()
        assert proxy.command("newnym").returncode == 0
        assert curl("--proxy", f"socks5h://a:1@{at}", "http://onion-web.bit/")
    done = proxy.command("resolve", "onion-web.bit", wrapper=alone.wrapper)
    assert (done.returncode, done.stdout) == (0, place.onion + "\n"), done.stderr
    admin = f"unix:{proxy.admin}"
    for trace, binds in ((daemon, {"127.0.0.1:0", admin, f"{admin}.exec"}), (alone, set())):
        calls = trace.calls()
        found = leaks(calls, connects={*tors, admin}, binds=binds)
        assert not found, "\n".join(map(str, found))
        assert tors <= {call.address for call in calls if call.name == "connect"}


def test_without_a_server_names_fail_closed_and_the_rest_works(
    tor_network: TorNetwork, place: Place, tmp_path: Path
) -> None:
    host = tor_network.server_ip
    with closed_port(host) as first, closed_port(host) as second:
        dead = [f"{host}:{port}:s" for port in (first, second)]
        settings = [*system(tor_network.client), *names_of(place, servers=dead)]
        with (
            Witness(tor_network.client) as witness,
            Isoproxy(tmp_path, [*settings, "names.timeout_s=4"], develop=False) as proxy,
        ):
            at = proxy.host_and_port
            proxy.wait_ready()
            began = time.monotonic()
            with pytest.raises(Refused) as refused:
                dial(proxy.address, "onion-web.bit", 80, user=b"u").close()
            assert refused.value.reply in (1, 6)  # no server, or not in time
            assert time.monotonic() - began < 20  # 4 as set, not 60
            assert curl("--proxy", f"socks5h://a:1@{at}", place.web.url(name="web.test"))
            assert curl("--proxy", f"socks5h://a:1@{at}", f"http://{place.onion}/")
            answer = json.loads(proxy.command("resolve", "--json", "ip-web.bit").stdout)
            assert (answer["status"], answer["reason"]) == ("failed", "name_backend_down")
            status = proxy.status()["names"]
            assert status["ready"] is False
            assert status["servers"]["up"] == 0
            finding = doctor(proxy, place.web)
            assert finding["verdict"] == "failed"
            assert finding["found"] == (
                "None of the 2 name servers that were tried, of 2, can be reached through Tor"
            )
        assert not [s for s in witness.streams() if s.host.rstrip(".").endswith("bit")]


def test_a_reload_brings_other_servers_and_another_policy(
    tor_network: TorNetwork, place: Place, tmp_path: Path
) -> None:
    settings = [*system(tor_network.client), *place.world.settings()]
    drop_in = tmp_path / "conf.d" / "names.toml"
    drop_in.parent.mkdir()
    with Isoproxy(tmp_path, settings, develop=False) as proxy:

        def resolve(name: str, *more: str) -> str:
            return proxy.command("resolve", name, *more).stdout.strip()

        assert resolve("onion-web.bit") == place.onion
        assert resolve("ip-web.bit") == ""  # a private address
        drop_in.write_text("[names]\nallow_private_addresses = true\n")
        changed = proxy.command("reload").stdout
        assert changed == "changed: names.allow_private_addresses\n"
        assert resolve("ip-web.bit") == place.web.host
        assert proxy.status()["names"]["tip"] == place.world.chain.tip
        drop_in.write_text('[names]\ntop_levels = { bit = "refuse" }\n')
        assert proxy.command("reload").returncode == 0
        with pytest.raises(Refused) as refused:
            dial(proxy.address, "onion-web.bit", 80, user=b"u").close()
        assert refused.value.reply == 2
