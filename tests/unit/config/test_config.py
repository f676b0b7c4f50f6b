"""Loading: files, drop-ins, options, the sample, the default."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from isoproxy.config import (
    Config,
    LoginAt,
    admin_address,
    changed_keys,
    load,
    sample_toml,
)
from isoproxy.errors import ConfigError
from isoproxy.isolation import Isolate
from isoproxy.net.endpoint import Endpoint


def write(directory: Path, text: str, name: str = "isoproxy.toml") -> Path:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def problems_of(directory: Path, text: str, *settings: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(write(directory, text), settings)
    return [line.removeprefix(f"{directory}/") for line in str(caught.value).splitlines()]


def test_without_a_file_managed_tor_and_the_default_port() -> None:
    config = Config()
    assert config.tor.mode == "managed"
    assert [str(one.address) for one in config.listener] == ["127.0.0.1:9250", "127.0.0.1:9251"]
    assert config.listener[0].isolate == Isolate.CLIENT_ADDR | Isolate.SOCKS_AUTH
    assert config.observe.safe_logging is True


def test_the_design_sample_is_accepted(tmp_path: Path) -> None:
    config = load(
        write(
            tmp_path,
            """
            [tor]
            mode = "system"
            credentials = "derived"
            socks = "unix:/run/tor/socks"
            control = "none"
            extra_torrc = ["ConfluxEnabled 0", "ConfluxEnabled 0"]
            [[listener]]
            address = "127.0.0.1:9250"
            isolate = ["ClientAddr", "IsolateDestPort"]
            session_group = 1
            extended_errors = false
            require_auth = true
            [[listener]]
            address = "unix:/run/isoproxy/socks"
            mode = "0600"
            [names]
            backend = "namecoin-core"
            only_onion = true
            top_levels = { lan = "refuse", bit = "namecoin" }
            [names.electrum]
            network = "regtest"
            servers = ["[::1]:50002:s", "abc.onion:50001:t"]
            quorum = 2
            [names.rpc]
            address = "127.0.0.1:8336"
            username = "u"
            password = "p"
            clients = { "10.152.152.11/32" = "10.152.152.11:8336" }
            [bitcoin]
            v1_fallback = "never"
            [[bitcoin.proxy]]
            address = "127.0.0.1:1324"
            isolate = ["DestAddr"]
            network = "regtest"
            peers = { "127.0.0.2:8333" = "peer.onion:8333" }
            [dns]
            address = "127.0.0.1:5353"
            [[onion_service]]
            ports = [80, 443]
            target = "127.0.0.1:8080"
            key_file = "/var/lib/isoproxy/web.key"
            v2 = true
            [observe]
            admin = "unix:/run/isoproxy/admin"
            dashboard = "[::1]:9251"
            log_level = "debug"
            """,
        )
    ).config
    assert config.tor.socks == Endpoint.unix("/run/tor/socks")
    assert config.tor.control.is_none
    assert config.tor.extra_torrc == ("ConfluxEnabled 0", "ConfluxEnabled 0")
    first, second = config.listener
    assert first.isolate == Isolate.CLIENT_ADDR | Isolate.DEST_PORT
    assert (first.name, second.name) == ("default", "listener2")
    assert (first.session_group, first.extended_errors, first.require_auth) == (1, False, True)
    assert (second.address.path, int(second.mode)) == ("/run/isoproxy/socks", 0o600)
    assert config.names.rpc.clients["10.152.152.11/32"] == LoginAt(
        Endpoint.tcp("10.152.152.11", 8336)
    )
    (proxy,) = config.bitcoin.proxy
    assert (proxy.name, proxy.network) == ("proxy", "regtest")
    assert proxy.peers == {"127.0.0.2:8333": "peer.onion:8333"}
    assert config.dns.address == Endpoint("127.0.0.1", 5353)
    assert config.onion_service[0].ports == (80, 443)
    assert str(admin_address(config, {})) == "/run/isoproxy/admin"


def test_all_problems_of_all_files_are_reported_with_their_lines(tmp_path: Path) -> None:
    write(tmp_path, "[tor]\n\ncredentals = 1\n", "conf.d/50_x.toml")
    write(tmp_path, "[tor\n", "conf.d/60_y.toml")
    problems = problems_of(
        tmp_path,
        "[tor]\n# a comment\nmode = 'manged'\nsock = 1\n"
        "[[listener]]\naddress = 'localhost:1'\n[[listener]]\nisolate = ['DestAdr']\n"
        "[nonsense]\nlog_level = 'x'\n",
        "limits.max_pending_circuits=33",
        "garbage",
    )
    assert set(problems) == {
        "conf.d/60_y.toml:1: not TOML: Expected ']' at the end of a table declaration",
        "--set: expected key=value, such as tor.mode=system",
        'isoproxy.toml:3: tor.mode: expected one of "managed", "system", "arti" '
        "(did you mean managed?)",
        'isoproxy.toml:4: unknown key "tor.sock" (did you mean tor.socks?)',
        'conf.d/50_x.toml:3: unknown key "tor.credentals" (did you mean tor.credentials?)',
        "isoproxy.toml:6: listener.0.address: an endpoint's host must be an IP address, because "
        "a name would have to be asked of the system's resolver; write 127.0.0.1 instead of "
        "localhost",
        "isoproxy.toml:8: listener.1.isolate: unknown isolation flag (did you mean DestAddr?); "
        'known: "ClientAddr", "SOCKSAuth", "ClientProtocol", "DestAddr", "DestPort"',
        'isoproxy.toml:9: unknown key "nonsense" (did you mean observe?)',
        "--set limits.max_pending_circuits: expected a whole number from 2 to 32",
    }


def test_a_number_of_thousands_of_digits_is_a_wrong_setting_like_others(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, "", "limits.max_connections=" + "1" * 5000)
    assert problem.startswith("--set limits.max_connections: expected a whole number from 1 to ")


@pytest.mark.parametrize("index", ["\u00b2", "9" * 5000, "-1", "x"])
def test_what_is_no_index_is_a_wrong_setting_like_others(tmp_path: Path, index: str) -> None:
    write(tmp_path, f'[listener."{index}"]\nname = "x"\n', "conf.d/50_x.toml")
    (problem,) = problems_of(tmp_path, "[[listener]]\naddress = '127.0.0.1:1'\n")
    assert problem.startswith("conf.d/50_x.toml:1: unknown key")


def test_a_setting_deeper_than_any_is_an_unknown_key(tmp_path: Path) -> None:
    deep = ".a" * 3000
    problems = problems_of(tmp_path, f"tor{deep} = 1\n", f"names{deep}=1")
    assert len(problems) == 2
    assert all("unknown key" in problem for problem in problems)


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("[tor]\nextra_tor = []", "tor.extra_torrc"),
        ("log_level = 'info'", "observe.log_level"),
        ("[[bitcoin.proxy]]\npers = {}", "bitcoin.proxy.peers"),
        ("[names.electrum]\nsever = []", "names.electrum.servers"),
        ("[[listener]]\nsock = ''", "listener.socks"),
        ("[limits]\nzzz = 1", "limits."),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(
    tmp_path: Path, text: str, nearest: str
) -> None:
    (problem,) = problems_of(tmp_path, text)
    assert f"did you mean {nearest}" in problem


def test_drop_ins_come_in_name_order_and_later_wins(tmp_path: Path) -> None:
    main = write(tmp_path, "[observe]\nlog_level='info'\n[[listener]]\naddress='127.0.0.1:1000'")
    write(tmp_path, "[observe]\nlog_level='err'\n", "conf.d/90_b.toml")
    write(
        tmp_path,
        "[observe]\nlog_level='warn'\nsafe_logging=true\n"
        "[[listener]]\naddress='127.0.0.1:1000'\nrequire_auth=true\n"
        "[[listener]]\naddress='127.0.0.1:2000'\n",
        "conf.d/10_a.toml",
    )
    write(tmp_path, "nonsense", "conf.d/10_a.toml.dpkg-old")
    loaded = load(main)
    assert [path.name for path in loaded.files] == ["isoproxy.toml", "10_a.toml", "90_b.toml"]
    assert loaded.config.observe.log_level == "err"
    listeners = [(one.address.port, one.require_auth) for one in loaded.config.listener]
    assert listeners == [(1000, True), (2000, False)]


def test_set_takes_toml_and_plain_text_and_indices(tmp_path: Path) -> None:
    main = write(tmp_path, "[[listener]]\naddress='127.0.0.1:1000'\nname='a'")
    config = load(
        main,
        [
            "tor.socks=127.0.0.1:9999",
            "tor.mode = system",
            "listener.0.require_auth=true",
            "listener.1.address=127.0.0.1:0",
            "limits.handshake_timeout_s=2",
            'names.top_levels={ lan = "refuse" }',
        ],
    ).config
    assert config.tor.socks.port == 9999
    assert [(one.name, one.require_auth) for one in config.listener] == [
        ("a", True),
        ("listener2", False),
    ]
    assert config.limits.handshake_timeout_s == 2.0


def test_set_changes_the_default_listener() -> None:
    (listener,) = load(None, ["listener.0.address=127.0.0.1:0"]).config.listener
    assert (listener.address.port, listener.name) == (0, "default")


def test_a_missing_file_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load(tmp_path / "absent.toml")


def _no_directory(place: Path) -> None:
    place.write_text("")


def _link_to_nothing(place: Path) -> None:
    place.symlink_to("nothing")


@pytest.mark.parametrize("make", [_no_directory, _link_to_nothing])
def test_drop_ins_that_cannot_be_read_are_not_passed_over(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    main = write(tmp_path, "")
    make(tmp_path / "conf.d")
    with pytest.raises(ConfigError, match=r"conf\.d: cannot be read"):
        load(main)


@pytest.mark.parametrize("name", ["isoproxy.toml", "conf.d"])
def test_settings_of_the_system_that_cannot_be_read_are_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("CONFIGURATION_DIRECTORY", str(tmp_path))
    assert load().files == ()
    _link_to_nothing(tmp_path / name)
    with pytest.raises(ConfigError, match=f"{name}: cannot be read"):
        load()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"[tor]\nmode = '\xff'", ":2: not UTF-8"),
        (b"x = " + b"[" * 5000, "not TOML"),
        (b"#" * (1 << 20) + b"#", "larger than"),
        (b"a = 1\na = 2\n", ":2: not TOML: Cannot overwrite a value"),
        (b"a = '''", ":1: not TOML"),
        (b"x = 1" + b"0" * 5000, "not TOML"),
    ],
)
def test_hostile_files_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "isoproxy.toml"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=re.escape(message)):
        load(path)


def test_the_sample_changes_nothing(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, sample_toml()))
    assert changed_keys(loaded.config, Config()) == ()


def test_the_samples_settings_are_the_defaults(tmp_path: Path) -> None:
    """With every "#" before a setting removed, each is read and is the default."""
    active, count = re.subn(r"^#(?=[a-z])", "", sample_toml(), flags=re.MULTILINE)
    assert count > 40
    loaded = load(write(tmp_path, active))
    assert changed_keys(loaded.config, Config()) == ()


def test_a_sample_of_a_configuration_says_what_it_says(tmp_path: Path) -> None:
    changes = [
        'tor.mode="system"',
        'tor.socks="unix:/run/tor/socks"',
        "listener.0.require_auth=true",
        'listener.1.address="127.0.0.1:9251"',
        'listener.1.isolate=["ClientAddr","DestAddr"]',
        'bitcoin.proxy.0.address="127.0.0.1:1324"',
        'bitcoin.proxy.0.peer="node.test:8333"',
        'names.top_levels={ lan = "refuse" }',
        'names.electrum.servers=["a.test:50002:s", "b.test:50002:s"]',
        "limits.idle_timeout_s=0.5e2",
    ]
    config = load(None, changes).config
    again = load(write(tmp_path, sample_toml(config))).config
    assert changed_keys(again, config) == ()
    assert again.tor.mode == "system"
    assert len(again.listener) == 2
    assert sample_toml(again) == sample_toml(config)
    assert sample_toml(load(None, []).config) == sample_toml()


def test_the_sample_names_every_setting() -> None:
    sample = sample_toml()

    def walk(kind: object) -> None:
        for field in fields(kind):  # type: ignore[arg-type]  # sections are dataclasses
            option = field.metadata["isoproxy"]
            assert option.doc.endswith("."), f"{field.name} needs a sentence"
            assert re.search(rf"\b{field.name}\b", sample), field.name
            if option.section is not None:
                walk(option.section)

    walk(Config)


def test_examples_of_unset_settings_are_accepted(tmp_path: Path) -> None:
    examples = re.findall(r"an example: (\w+) = (.*)$", sample_toml(), flags=re.MULTILINE)
    assert {name for name, _ in examples} >= {"session_group", "control_password", "admin"}
    for _, value in examples:
        (problem,) = problems_of(tmp_path, f"x = {value}")
        assert "unknown key" in problem


def test_a_configuration_is_frozen_and_hides_its_secrets() -> None:
    config = load(None, ["names.rpc.username=MARKED1", "names.rpc.password=MARKED2"]).config
    with pytest.raises(FrozenInstanceError):
        config.tor.mode = "system"  # type: ignore[misc]  # that is the point
    assert "MARKED" not in repr(config)


def test_each_client_network_may_have_a_login_of_its_own() -> None:
    clients = '{ "10.0.0.1/32" = "me:p@ss:word@10.0.0.1:8336", "10.0.0.2/32" = "unix:/a@b" }'
    config = load(None, ["names.backend=electrum-nmc", f"names.rpc.clients={clients}"]).config
    first, second = config.names.rpc.clients.values()
    assert first == LoginAt(Endpoint.tcp("10.0.0.1", 8336), "me", "p@ss:word")
    assert second == LoginAt(Endpoint.unix("/a@b"))
    assert "ss:word" not in repr(config) + repr(first)


@pytest.mark.parametrize(
    "place", ["me@10.0.0.1:1", ":p@10.0.0.1:1", "me:p@host:1", "me:p@", "none"]
)
def test_a_client_network_needs_an_address(place: str) -> None:
    clients = f'{{ "10.0.0.1/32" = "{place}" }}'
    with pytest.raises(ConfigError, match=r"names\.rpc\.clients"):
        load(None, ["names.backend=electrum-nmc", f"names.rpc.clients={clients}"])


def test_changed_keys_say_what_but_not_to_what(tmp_path: Path) -> None:
    auth = "listener.0.require_auth={}"
    old = load(None, ["tor.control_password=one", auth.format("false")]).config
    new = load(None, ["tor.control_password=two", auth.format("true")]).config
    assert changed_keys(old, new) == ("listener.0.require_auth", "tor.control_password")
    longer = load(None, ["listener.0.name=a", "listener.1.address=127.0.0.1:9251"]).config
    assert changed_keys(old, longer) == ("listener", "tor.control_password")


def test_a_runtime_directory_too_long_for_a_socket_is_a_sentence() -> None:
    environment = {"RUNTIME_DIRECTORY": "/run/" + "x" * 110}
    with pytest.raises(ConfigError, match=r"this one has 121; .*observe\.admin"):
        admin_address(Config(), environment)
    assert admin_address(Config(), {"RUNTIME_DIRECTORY": "/run/i"}) == Path("/run/i/admin")
