"""The shipped files agree with each other, and with the programs that read them."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from isoproxy.config import Loaded, load
from tests.kit.repository import ROOT
from tests.network.whonix.install import LIST, installed

DOCUMENT = ROOT / "docs" / "whonix.md"
READ_ONLY = ROOT / "packaging" / "onion-grater" / "40_isoproxy.yml"


def shipped(name: str) -> Path:
    (file,) = (file for file, _ in installed() if file.name == name and "systemd" not in str(file))
    return file


@pytest.fixture
def drop_in() -> configparser.ConfigParser:
    """The systemd drop-in; of a key given several times, the last counts here."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.read(ROOT / "packaging" / "whonix" / "systemd" / "40_whonix.conf")
    return parser


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    """The shipped settings, those that are off by default too."""
    (tmp_path / "conf.d").mkdir()
    for file, _ in installed():
        if file.suffix == ".toml":
            (tmp_path / "conf.d" / file.name).symlink_to(file)
    (tmp_path / "isoproxy.toml").touch()
    return load(tmp_path / "isoproxy.toml")


def test_the_list_names_every_file_and_each_is_there() -> None:
    listed = {file for file, _ in installed()}
    assert all(file.is_file() for file in listed)
    here = {file for file in LIST.parent.rglob("*") if file.is_file()}
    assert here - listed == {LIST, LIST.parent / "README.md"}


def test_every_file_is_documented() -> None:
    text = DOCUMENT.read_text()
    for file, _ in installed():
        assert f"`{file.relative_to(ROOT / 'packaging')}`" in text


def test_the_settings_are_valid_and_stay_inside_the_confinement(loaded: Loaded) -> None:
    told = ("firewall must say which", "every user can read it")  # the tree's own files are public
    assert all(any(words in warning for words in told) for warning in loaded.warnings)
    text = (ROOT / "packaging" / "whonix" / "systemd" / "40_whonix.conf").read_text()
    networks = [ip_network(n) for n in re.findall(r"^IPAddressAllow=(\S+)$", text, re.M)]
    config = loaded.config
    places = [listener.address.host or "" for listener in config.listener]
    places += [place.endpoint.host or "" for place in config.names.rpc.clients.values()]
    assert len(places) == 4
    for place in places:
        assert any(ip_address(place) in network for network in networks), place


def test_each_workstation_has_a_password_of_its_own(loaded: Loaded) -> None:
    passwords = [place.password for place in loaded.config.names.rpc.clients.values()]
    assert None not in passwords
    assert len(set(passwords)) == len(passwords)


def test_the_ports_agree(loaded: Loaded) -> None:
    snippet = next(file for file, at in installed() if "whonix_firewall.d" in str(at)).read_text()
    ports = {listener.address.port for listener in loaded.config.listener}
    assert re.findall(r'INTERNAL_OPEN_PORTS\+=" (\d+) "', snippet) == [str(*ports)]
    torrc = shipped("75_isoproxy.conf").read_text()
    assert f"\nSocksPort {loaded.config.tor.socks} IsolateSOCKSAuth " in torrc


def test_tor_takes_its_drop_in_without_a_warning(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    torrc = tmp_path / "torrc"
    torrc.write_text(f"DataDirectory {tmp_path}/data\n%include {shipped('75_isoproxy.conf')}\n")
    words = ["tor", "-f", str(torrc), "--defaults-torrc", "/dev/null", "--verify-config"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout
    complaints = [line for line in done.stdout.splitlines() if re.search(r"\[(warn|err)\]", line)]
    assert [line for line in complaints if "as root" not in line] == []


def test_tors_confinement_allows_its_port() -> None:
    """Debian's AppArmor profile of tor knows two sockets; a third would end tor's start."""
    profile = Path("/etc/apparmor.d/system_tor")
    if not profile.exists():
        pytest.skip("Debian's AppArmor profile of tor is not here; it comes with Debian's tor")
    allowed_sockets = set(re.findall(r"run/tor/(\w+) w,", profile.read_text()))
    for torrc in (shipped("75_isoproxy.conf"), ROOT / "torrc.sample"):
        used = re.findall(r"^\w+ (?:unix:)?/run/tor/([\w.]+)", torrc.read_text(), re.M)
        assert set(used) - {"control.authcookie"} <= allowed_sockets, torrc


def test_systemd_takes_the_drop_in(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here; apt-get install systemd")
    (tmp_path / "isoproxy.service.d").mkdir()
    (tmp_path / "isoproxy.service").write_text("[Service]\nExecStart=/bin/true\n")
    source = ROOT / "packaging" / "whonix" / "systemd" / "40_whonix.conf"
    (tmp_path / "isoproxy.service.d" / source.name).symlink_to(source)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / "isoproxy.service")],
        env={"PATH": os.environ["PATH"], "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert str(source.name) not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr


def fenced(kind: str) -> str:
    (block,) = re.findall(rf"^```sh {kind}\n(.*?)^```$", DOCUMENT.read_text(), re.M | re.S)
    return str(block)


def test_the_documented_commands_install_and_remove(tmp_path: Path) -> None:
    def run(kind: str) -> None:
        script = fenced(kind).replace("sudo ", "").replace('"/$', '"$root/$')
        script = script.replace(" /usr/local", ' "$root"/usr/local')
        words = ["bash", "-euc", script]
        environment = {"PATH": os.environ["PATH"], "root": str(tmp_path)}
        subprocess.run(words, cwd=ROOT, env=environment, check=True, timeout=30)

    run("install")
    for file, place in installed():
        assert (tmp_path / place.relative_to("/")).read_bytes() == file.read_bytes()
    run("uninstall")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def allowed(line: str, profile: Path) -> bool:
    """Whether a profile's patterns, each matched whole, allow a command."""
    patterns: dict[str, list[str]] = {}
    verb = ""
    commands = profile.read_text().split("  commands:\n")[1]
    for text in commands.splitlines():
        if heading := re.fullmatch(r"    ([A-Z]+):", text):
            verb = heading[1]
        elif pattern := re.fullmatch(r"      - '(.*)'", text):
            patterns.setdefault(verb, []).append(pattern[1])
        else:
            assert text.lstrip().startswith("#")
    verb, _, arguments = line.partition(" ")
    return any(re.fullmatch(pattern, arguments) for pattern in patterns.get(verb, []))


@pytest.mark.parametrize(
    "line",
    [
        "PROTOCOLINFO 1",
        "GETINFO version",
        "GETINFO status/bootstrap-phase",
        "GETINFO status/circuit-established",
        "GETINFO consensus/valid-until",
    ],
)
def test_the_read_only_profile_allows_questions_about_tor(line: str) -> None:
    assert allowed(line, READ_ONLY)


@pytest.mark.parametrize(
    "line",
    [
        "GETINFO stream-status",
        "GETINFO circuit-status",
        "GETINFO address",
        "GETINFO version address",
        "GETCONF SocksPort",
        "SETCONF SocksPort=1",
        "SETEVENTS STREAM",
        "SIGNAL NEWNYM",
        "REDIRECTSTREAM 1 a",
        "ATTACHSTREAM 1 0",
    ],
)
def test_the_read_only_profile_allows_nothing_else(line: str) -> None:
    assert not allowed(line, READ_ONLY)
    assert "events:" not in READ_ONLY.read_text()
