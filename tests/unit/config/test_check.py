"""Rules between settings."""

from __future__ import annotations

import pytest

from isoproxy.config import load
from isoproxy.errors import ConfigError


def refused(*settings: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(None, settings)
    return str(caught.value)


VERBATIM = "tor.credentials=verbatim"


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ('listener.0.isolate=["SOCKSAuth", "ClientAddr"]',),
        ("listener.0.isolate=[]",),
        ('listener.0.isolate=["SOCKSAuth", "DestPort"]',),
        (
            'listener.0.isolate=["SOCKSAuth"]',
            "listener.1.address=127.0.0.1:9251",
            'listener.1.isolate=["SOCKSAuth"]',
        ),
        ("listener=[]", "bitcoin.proxy.0.address=127.0.0.1:1324"),
        ('listener.0.isolate=["SOCKSAuth"]', "bitcoin.proxy.0.address=127.0.0.1:1324"),
        ('listener.0.isolate=["SOCKSAuth"]', "transparent.0.address=127.0.0.1:1325"),
    ],
)
def test_verbatim_credentials_are_refused_where_tor_would_merge(settings: tuple[str, ...]) -> None:
    assert refused(VERBATIM, *settings).startswith("--set tor.credentials: ")


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ((VERBATIM, 'listener.0.isolate=["SOCKSAuth"]'), "tor.credentials"),
        (("tor.arti_rpc=127.0.0.1:9180",), "tor.arti_rpc"),
        (('tor.extra_arti=["proxy.socks_listen = 9150"]',), "tor.extra_arti"),
        (("onion_service.0.target=127.0.0.1:80",), "onion_service"),
    ],
)
def test_what_an_arti_cannot_do_is_refused(settings: tuple[str, ...], key: str) -> None:
    load(None, ["tor.mode=managed", *settings])
    assert f" {key}: " in refused("tor.mode=arti", *settings)


def test_verbatim_credentials_for_one_listener_that_isolates_by_them_alone() -> None:
    loaded = load(None, [VERBATIM, 'listener.0.isolate=["SOCKSAuth"]'])
    assert loaded.config.tor.credentials == "verbatim"


@pytest.mark.parametrize("key", ["tor.socks", "tor.control"])
def test_tor_is_nowhere_that_others_carry_our_words_to(key: str) -> None:
    far = f"{key}=203.0.113.1:9050"
    assert refused("tor.mode=system", far).startswith(f"--set {key}: must be a loopback or private")
    assert load(None, [far]).config.tor.mode == "managed"  # of no effect there
    for near in ("10.152.152.10:9050", "[fd19:c33d:88bc::10]:9050", "unix:/run/tor/socks"):
        load(None, ["tor.mode=system", f"{key}={near}"])
    load(None, ["tor.mode=system", "tor.control=none"])


def test_lines_for_a_tor_of_our_own_are_checked_before_it_is_started() -> None:
    lines = 'tor.extra_torrc=["Bridge 192.0.2.1:443", "+SocksPo 9050", "__DisableNetwork\\\\"]'
    problems = refused(lines).splitlines()
    assert [line.partition(";")[0] for line in problems] == [
        "--set tor.extra_torrc: SocksPo is set by isoproxy, because isolation rests on it",
        "--set tor.extra_torrc: an entry is one line of torrc, without continuation",
    ]
    load(None, ["tor.mode=system", lines])  # of no effect there


def test_a_dns_server_alone_is_something_to_do_and_an_admin_socket_is_not() -> None:
    assert load(None, ["listener=[]", "dns.address=127.0.0.1:5353"]).config.listener == ()
    assert "nothing to do" in refused("listener=[]", "observe.admin=unix:/a")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ("listener.0.address=127.0.0.1:1", "listener.1.address=127.0.0.1:1"),
            "--set listener.1.address: the same address as listener.0.address",
        ),
        (
            ("listener.0.address=unix:/a", "bitcoin.proxy.0.address=unix:/a"),
            "--set bitcoin.proxy.0.address: the same address as listener.0.address",
        ),
        (
            ("listener.0.name=a", "listener.1.address=127.0.0.1:1", "listener.1.name=a"),
            "--set listener.1.name: the same name as listener.0",
        ),
        (
            ("onion_service.0.target=8.8.8.8:80",),
            "--set onion_service.0.target: must be a loopback or private address",
        ),
        (
            ("listener.0.address=0.0.0.0:9250", 'listener.0.isolate=["SOCKSAuth"]'),
            "add ClientAddr",
        ),
        (("tor.mode=system", "listener.0.address=127.0.0.1:9050"), "Tor's own address"),
        (("listener=[]",), "--set listener: nothing to do"),
        (('names.top_levels={bit="tor"}',), "bit can never be"),
        (('names.top_levels={"x.bit"="tor"}',), "bit can never be"),
        (('names.top_levels={lan="namecoin"}',), "only names under bit"),
        (("names.electrum.checkpoint_height=1",), "checkpoint_root go together"),
        (('names.rpc.clients={"10.0.0.1/32"="10.0.0.1:1"}',), "needs names.backend"),
        (('names.electrum.servers=["a.onion:1:t"]',), "more than the 1 configured servers"),
        (("names.electrum.anchor_height=1",), "go together"),
        (("names.rpc.cookie_file=/a", "names.rpc.username=b"), "not both"),
        (("names.rpc.password=b",), "a password needs a username"),
        (("observe.admin=127.0.0.1:1",), "must be a unix socket"),
        (("observe.dashboard=0.0.0.0:1",), "must be a unix socket or a loopback address"),
        (("limits.max_connections=10",), "more than limits.max_connections (10)"),
        (("listener.0.tls=true",), "--set listener.0.tls: needs tls.enabled = true"),
        (("tls.enabled=true", "listener.0.tls=true", "names.backend=none"), "needs names"),
        (("onion_service.0.ports=[80]",), "--set onion_service.0.ports: onion_service.0.target"),
    ],
)
def test_contradictions_are_refused(settings: tuple[str, ...], message: str) -> None:
    assert message in refused(*settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("listener.0.address=127.0.0.1:9150",), "Whonix"),
        (("listener.0.address=10.152.152.10:9250",), "other machines can reach this"),
        (("listener.0.isolate=[]",), "all its clients share circuits"),
        (("dns.address=10.0.0.1:53",), "other machines can reach this"),
        (("observe.safe_logging=false",), "for debugging only"),
        (("names.rpc.allow_unisolated=true",), "can be linked"),
    ],
)
def test_what_deserves_a_word_is_warned_of(settings: tuple[str, ...], message: str) -> None:
    (warning,) = load(None, settings).warnings
    assert message in warning
    assert warning.startswith(f"--set {settings[0].partition('=')[0]}: ")


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ('address = "unix:/x"', "transparent.0.address: connections are redirected to an IP"),
        ('address = "127.0.0.1:1", dns = "unix:/x"', "transparent.0.dns: must be an IP"),
        ('address = "127.0.0.1:1", dns = "[::1]:2"', "transparent.0.dns: must be an IP"),
        ('address = "10.0.0.1:1", isolate = []', "transparent.0.isolate: a listener that other"),
        ('address = "127.0.0.1:1", name = "default"', "transparent.0.name: the name of another"),
        ('address = "127.0.0.1:9250"', "transparent.0.address: the same address as listener.0"),
    ],
)
def test_where_connections_are_redirected_to_is_checked(section: str, said: str) -> None:
    assert said in refused(f"transparent=[{{ {section} }}]", "listener.0.address=127.0.0.1:9250")


def test_transparent_sections_alone_are_something_to_do() -> None:
    loaded = load(None, ["listener=[]", 'transparent=[{ address = "127.0.0.1:1" }]'])
    assert [section.name for section in loaded.config.transparent] == ["transparent"]


def test_two_listeners_may_both_let_the_system_choose_a_port() -> None:
    loaded = load(None, ["listener.0.address=127.0.0.1:0", "listener.1.address=127.0.0.1:0"])
    assert (len(loaded.config.listener), loaded.warnings) == (2, ())
