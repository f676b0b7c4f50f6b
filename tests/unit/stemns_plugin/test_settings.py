"""Settings of stemns: defaults, every key, and errors that name file and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from isoproxy.errors import ConfigError
from isoproxy.net.endpoint import Endpoint
from stemns_plugin import settings
from stemns_plugin.settings import DEFAULT_COMMAND, Settings, read_settings


def read(tmp_path: Path, text: str) -> Settings:
    (tmp_path / "s.toml").write_text(text)
    return read_settings(tmp_path / "s.toml")


def test_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(settings, "DEFAULT_FILE", tmp_path / "none")
    found = read_settings(None)
    assert found.controller.control == Endpoint.tcp("127.0.0.1", 9051)
    assert not found.controller.allow_internal
    assert found.services == {"bit": DEFAULT_COMMAND, "bit.onion": DEFAULT_COMMAND}
    assert found.control_filter is None


def test_every_key(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        """
        [stemns]
        control = "unix:/run/tor/control"
        control_password = "secret"
        allow_private_addresses = true
        timeout_s = 5
        state = "/var/lib/stemns"
        [services]
        bit = ["ncprop279", "-conf=x"]
        ".Pet.Onion." = ["petnames"]
        [control_filter]
        listen = ["10.152.152.10:9253"]
        suffixes = ["bit", "pet.onion"]
        username = "namecoin:.*"
        """,
    )
    assert found.controller.control == Endpoint.unix("/run/tor/control")
    assert found.controller.password == "secret"
    assert "secret" not in repr(found)
    assert found.controller.allow_internal
    assert found.timeout_s == 5
    assert found.state == Path("/var/lib/stemns")
    assert found.services == {
        "bit": ("ncprop279", "-conf=x"),
        "bit.onion": ("ncprop279", "-conf=x"),
        "pet.onion": ("petnames",),
    }
    assert found.control_filter is not None
    assert found.control_filter.listen == (Endpoint.tcp("10.152.152.10", 9253),)
    assert found.control_filter.suffixes == ("bit", "pet.onion")
    assert found.control_filter.username is not None
    assert found.control_filter.username.fullmatch(b"namecoin:x")


def test_the_example_in_the_documentation_is_valid(tmp_path: Path) -> None:
    assert settings.__doc__ is not None
    lines = [line[4:] for line in settings.__doc__.splitlines() if line.startswith("    ")]
    text = "\n".join(
        line for line in lines if "stemns_config" not in line and "An unknown" not in line
    )
    assert read(tmp_path, text[: text.index("username")]).control_filter is not None


def test_stemns_directory_and_what_is_set_over_it(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.mkdir()
    (config / "a.py").write_text(
        "def tor_control_port():\n    return 9151\n"
        "service_to_command = {'bit': ['a'], 'x.onion': ['b']}\n"
    )
    found = read(tmp_path, f"[stemns]\nstemns_config = '{config}'\n[services]\nbit = ['c']\n")
    assert found.controller.control == Endpoint.tcp("127.0.0.1", 9151)
    assert found.services == {"bit": ("c",), "bit.onion": ("c",), "x.onion": ("b",)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[stems]\n", r"s\.toml: stems: "),
        ("services = 1\n", r"s\.toml: services: "),
        ("[stemns]\ncolour = 1\n", r"stemns\.colour: there is no such"),
        ("[stemns]\ncontrol = 9051\n", r"stemns\.control: .*type"),
        ("[stemns]\ncontrol = 'localhost:1'\n", r"stemns\.control: .*127\.0\.0\.1"),
        ("[stemns]\ncontrol = 'none'\n", r"stemns\.control: .*without"),
        ("[stemns]\ntimeout_s = true\n", r"stemns\.timeout_s: "),
        ("[services]\nbit = 'a'\n", r"services\.bit: "),
        ("[services]\nbit = []\n", r"services\.bit: "),
        ("[services]\n'a b' = ['a']\n", r"services\.a b: "),
        ("[control_filter]\n", r"control_filter\.listen: "),
        ("[control_filter]\nlisten = ['unix:/a']\n", r"control_filter\.listen: "),
        ("[control_filter]\nlisten = [1]\n", r"control_filter\.listen: "),
        (
            "[control_filter]\nlisten = ['127.0.0.1:1']\nusername = '('\n",
            r"control_filter\.username: ",
        ),
        (
            "[control_filter]\nlisten = ['127.0.0.1:1']\nsuffixes = ['a b']\n",
            r"control_filter\.suffixes: ",
        ),
        ("= 1\n", r"s\.toml: "),
    ],
)
def test_errors_say_where(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, text)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml"):
        read_settings(tmp_path / "none.toml")
