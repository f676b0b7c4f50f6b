"""What the package is made of holds together; `make deb-check` tries it on a clean machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from isoproxy.config import load
from tests.kit.repository import ROOT
from tests.packaging.clean_debian import MOST_EXPOSED

PACKAGING = ROOT / "packaging"
UNITS = sorted((PACKAGING / "systemd").iterdir())
PROFILES = sorted((PACKAGING / "apparmor").iterdir())


def program(*words: str | Path, **environment: str) -> str:
    """What a program of the distribution says; the test fails if it is not there, or fails."""
    name = str(words[0])
    assert shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin"), f"{name} is missing"
    done = subprocess.run(
        words,
        env={"PATH": os.environ["PATH"] + ":/usr/sbin:/sbin", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, with a program in them that exists here."""
    for unit in UNITS:
        text = re.sub(
            r"^(Exec\w+=)/usr/bin/(isoproxy|stemns) .*",
            r"\1/bin/true",
            unit.read_text(),
            flags=re.M,
        )
        (tmp_path / unit.name).write_text(text)
    return tmp_path


def test_systemd_takes_the_units(units: Path) -> None:
    for unit in UNITS:
        said = program(
            "systemd-analyze",
            "verify",
            "--man=no",
            units / unit.name,
            SYSTEMD_UNIT_PATH=f"{units}:",
        )
        complaints = [line for line in said.splitlines() if str(units) in line]
        assert complaints == [], unit.name


@pytest.mark.parametrize("name", [unit.name for unit in UNITS if unit.suffix == ".service"])
def test_services_are_exposed_little(units: Path, name: str) -> None:
    said = program("systemd-analyze", "security", "--offline=true", "--no-pager", units / name)
    found = re.search(r"Overall exposure level.*?: ([0-9.]+)", said)
    assert found is not None, said
    assert 0 < float(found[1]) <= MOST_EXPOSED


@pytest.mark.parametrize("unit", [unit for unit in UNITS if unit.suffix == ".service"], ids=str)
def test_no_service_reaches_beyond_this_machine(unit: Path) -> None:
    text = unit.read_text()
    assert "\nIPAddressDeny=any\n" in text
    assert re.findall(r"^IPAddressAllow=(.*)$", text, re.M) == ["localhost"]
    assert "\nCapabilityBoundingSet=\n" in text
    assert re.search(r"^Environment=HOME=/var/lib/", text, re.M), "Python would ask for its home"


@pytest.mark.parametrize("unit", [unit for unit in UNITS if unit.suffix == ".service"], ids=str)
def test_a_wrong_configuration_is_not_tried_again(unit: Path) -> None:
    """systemd looks at the exit status of the main process alone, not at one before it."""
    text = unit.read_text()
    assert "\nRestartPreventExitStatus=2\n" in text
    assert "ExecStartPre" not in text


@pytest.mark.parametrize("profile", PROFILES, ids=str)
def test_apparmor_takes_the_profiles(profile: Path) -> None:
    program("apparmor_parser", "--skip-kernel-load", "--skip-cache", profile)
    assert f"include if exists <local/{profile.name}>" in profile.read_text()


@pytest.mark.parametrize("profile", PROFILES, ids=str)
def test_confined_programs_read_who_vouches_for_name_servers(profile: Path) -> None:
    """Without authorities every server would be taken by the certificate it shows first."""
    rules = program("apparmor_parser", "--preprocess", profile)
    assert re.search(r"^ */etc/(\{,libre\})?ssl/certs/\{,\*\*\} r,$", rules, re.M)
    package = (PACKAGING / "debian" / "control").read_text().partition("\nPackage: isoproxy\n")[2]
    depends = re.search(r"^Depends: (.*(?:\n .*)*)", package, re.M)
    assert depends is not None
    assert "ca-certificates" in re.split(r"[\s,|]+", depends[1])


def test_a_confined_isoproxy_may_start_a_tor_of_its_own() -> None:
    """Under its own profile: NoNewPrivileges lets no program change into another one."""
    rules = program("apparmor_parser", "--preprocess", PACKAGING / "apparmor" / "system_isoproxy")
    for rule in ("/usr/{,s}bin/tor mrix", "/usr/share/tor/** r", "owner /var/lib/isoproxy/** rwk"):
        assert re.search(rf"^ *{re.escape(rule)},$", rules, re.M), rule
    assert "\nNoNewPrivileges=yes\n" in (PACKAGING / "systemd" / "isoproxy.service").read_text()


@pytest.mark.parametrize("transport", ["obfs4", "snowflake"])
def test_a_transport_opens_what_it_needs_and_nothing_else(transport: str, tmp_path: Path) -> None:
    folder = PACKAGING / "transports"
    drop_in = (folder / f"{transport}.conf").read_text()
    opened = [line for line in drop_in.splitlines() if line and not line.startswith(("#", "["))]
    netlink = ["RestrictAddressFamilies=AF_NETLINK"] if transport == "snowflake" else []
    assert opened == ["IPAddressAllow=any", *netlink]
    local = tmp_path / "local" / "system_isoproxy"
    local.parent.mkdir()
    local.write_text((folder / f"{transport}.apparmor").read_text())
    profile = PACKAGING / "apparmor" / "system_isoproxy"
    words = ("--skip-kernel-load", "--skip-cache", "--Include", str(tmp_path))
    program("apparmor_parser", *words, profile)
    rules = program("apparmor_parser", "--preprocess", "--Include", str(tmp_path), profile)
    assert re.search(r"^ */usr/bin/[^ ]*(obfs4proxy|snowflake-client)[^ ]* mrix,$", rules, re.M)
    assert ("/etc/{resolv.conf" in rules) == (transport == "snowflake")


def test_units_enter_the_profiles_that_are_there() -> None:
    for unit in UNITS:
        for name in re.findall(r"^AppArmorProfile=-?(.+)$", unit.read_text(), re.M):
            assert PACKAGING / "apparmor" / name in PROFILES


def test_the_packaged_settings_are_the_sample_of_what_they_set(tmp_path: Path) -> None:
    """As packaging/debian/rules makes /etc/isoproxy/isoproxy.toml."""
    lines = (PACKAGING / "system.settings").read_text().splitlines()
    settings = [line for line in lines if line and not line.startswith("#")]
    words = [word for setting in settings for word in ("--set", setting)]
    sample = program(sys.executable, "-m", "isoproxy", "check", "--sample", *words)
    file = tmp_path / "isoproxy.toml"
    file.write_text(sample)
    tmp_path.joinpath("none.toml").touch()
    assert load(file, []).config == load(tmp_path / "none.toml", settings).config
    assert load(file, []).config.tor.mode == "system"


def test_the_sockets_name_and_address_are_those_of_the_default_listener(tmp_path: Path) -> None:
    (tmp_path / "none.toml").touch()
    listener, *_ = load(tmp_path / "none.toml", []).config.listener
    text = (PACKAGING / "systemd" / "isoproxy.socket").read_text()
    assert f"\nListenStream={listener.address}\n" in text
    assert f"\nFileDescriptorName=socks-{listener.name}\n" in text


def test_what_the_lists_of_files_name_is_there() -> None:
    root = PACKAGING.parent
    for name in ("isoproxy.install", "isoproxy.examples", "isoproxy.docs"):
        for line in (PACKAGING / "debian" / name).read_text().splitlines():
            assert list(root.glob(line.split()[0])), line


def test_changelog_and_project_have_the_same_version() -> None:
    version = re.search(
        r'^version = "(.+)"', (PACKAGING.parent / "pyproject.toml").read_text(), re.M
    )
    assert version is not None
    assert (PACKAGING / "debian" / "changelog").read_text().startswith(f"isoproxy ({version[1]})")


def test_scripts_of_the_package_are_sound() -> None:
    for script in (PACKAGING / "debian").glob("*.p[or]*[tm]"):
        program("sh", "-n", script)
        assert "#DEBHELPER#" in script.read_text()
    program("bash", "-n", PACKAGING / "debian" / "tests" / "service")
