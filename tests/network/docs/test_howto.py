"""Promise: the commands of the how-to pages work as they are written.

Each block marked "sh run" is run by bash, with the real programs, on the private network;
what differs there is in `Place.here`.  Tor says how many identities a page's lines were.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.kit.isoproxy_process import Isoproxy, system
from tests.kit.onion import publish
from tests.kit.servers import WebServer, git_repository
from tests.kit.service import environment
from tests.kit.tornet import TorNetwork
from tests.kit.witness import Witness
from tests.network.docs.pages import HOWTO, fenced, links, pages
from tests.network.docs.ssh_server import ssh_server

_TIMEOUT_S: Final = 120
_WHEEL: Final = "hello-1-py3-none-any.whl"
IDENTITIES: Final = {
    "README.md": 0,
    "apt-and-pip.md": 2,
    "bitcoin-core.md": 0,
    "bridges.md": 0,
    "chromium.md": 0,
    "curl.md": 4,  # bank by SOCKS and by HTTP, forum, research
    "electrum-nmc.md": 0,
    "electrum.md": 0,
    "exec.md": 0,
    "firefox.md": 0,
    "gateway.md": 0,
    "git.md": 2,  # over HTTP, over SSH
    "https-bit.md": 0,
    "onionshare.md": 0,
    "programming.md": 0,
    "sparrow.md": 0,
    "ssh.md": 2,
    "thunderbird.md": 0,
    "tor-browser.md": 0,
    "torsocks.md": 2,
}
"""Pages, and how many identities the lines that are run have to be."""


@dataclass(frozen=True)
class Place:
    """The private network's counterparts of what the pages name."""

    proxy: Isoproxy
    web: WebServer
    onion: str
    directory: Path
    ssh_lines: str

    def here(self, text: str) -> str:
        """A block as it has to be on this network."""
        files, port = self.directory / "files", self.proxy.address[1]
        web = self.web.url(name="example.org").rstrip("/")
        for theirs, ours in (
            ("127.0.0.1:9250", f"127.0.0.1:{port}"),
            ("-P 9250", f"-P {port}"),
            ("ssh://example.org/", f"ssh://example.org{files}/"),
            ("https://example.org/repository", f"{web}/files/repository/.git"),
            ("https://example.org", web),
            ("example.org:copy", f"example.org:{self.directory}/copy"),
            ("http://example.onion/", f"http://{self.onion}/"),
        ):
            text = text.replace(theirs, ours)
        return text

    def environment(self, home: Path, page: Path) -> dict[str, str]:
        """What a page's lines run with: the files that the page says to write are there."""
        (home / "bin").mkdir()
        ssh = "".join(fenced(page, "ssh-config")) + "Host *\n" + self.ssh_lines
        (home / "ssh_config").write_text(ssh)
        apt = self.here("".join(fenced(page, "apt-conf")))
        (home / "apt.conf").write_text(apt + 'APT::Sandbox::User "root";\n')
        options = shlex.join(self.proxy.options)
        python = shlex.quote(sys.executable)
        at = self.proxy.host_and_port
        for name, line in {
            "isoproxy": f'[ "$1" != dial ] || set -- "$@" --proxy {at}\n'
            f'exec {python} -m isoproxy "$@" {options}',
            "pip": f'exec {python} -m pip "$@"',
            **{
                name: f'exec /usr/bin/{name} -F {home}/ssh_config "$@"'
                for name in ("ssh", "scp", "sftp")
            },
        }.items():
            (home / "bin" / name).write_text(f"#!/bin/sh\n{line}\n")
            (home / "bin" / name).chmod(0o755)
        mine = environment(self.proxy.directory)
        return {
            **mine,
            "PATH": f"{home}/bin:{mine['PATH']}",
            "HOME": str(home),
            "LC_ALL": "C",
            "APT_CONFIG": str(home / "apt.conf"),
            "GIT_CONFIG_NOSYSTEM": "1",
            "PIP_CONFIG_FILE": "/dev/null",
            "PIP_TRUSTED_HOST": "example.org",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PYTHONWARNINGS": "",
        }


def _wheel(path: Path) -> None:
    """A package without a module."""
    with zipfile.ZipFile(path, "w") as wheel:
        info = "hello-1.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: hello\nVersion: 1\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture(scope="module")
def place(tor_network: TorNetwork, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("howto")
    files = directory / "files"
    files.mkdir()
    (files / "note").write_text("hello\n")
    git_repository(files / "repository")
    _wheel(files / _WHEEL)
    host, names = tor_network.server_ip, tor_network.dns.hosts
    names["example.org"] = [host]
    with (
        WebServer(host, tor_network.exit_of, files) as web,
        publish(tor_network.relays[1], {80: web.address}) as onion,
        ssh_server(host, directory) as ssh,
        Isoproxy(tmp_path_factory.mktemp("isoproxy"), system(tor_network.client)) as proxy,
    ):
        proxy.wait_ready()
        yield Place(proxy, web, onion.host, directory, ssh.client_lines)
    del names["example.org"]


@pytest.mark.parametrize("name", [name for name in IDENTITIES if fenced(HOWTO / name, "sh run")])
def test_the_lines_of_a_page_work(
    tor_network: TorNetwork, place: Place, tmp_path: Path, name: str
) -> None:
    page = HOWTO / name
    surroundings = place.environment(tmp_path, page)
    with Witness(tor_network.client) as witness:
        for block in fenced(page, "sh run"):
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", place.here(block)],
                cwd=tmp_path,
                env=surroundings,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
                check=False,
            )
            assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        witness.settle()
        streams = [stream for stream in witness.streams() if stream.succeeded]

        assert len({stream.credentials for stream in streams}) == IDENTITIES[name]
        if streams:
            witness.assert_isolated(streams, lambda stream: stream.credentials)
    expected = {
        "git.md": ["repository/README", "over-ssh/README"],
        "ssh.md": ["second"],
        "apt-and-pip.md": ["note", _WHEEL],
    }
    for file in expected.get(name, []):
        assert (tmp_path / file).stat().st_size, file


def test_every_page_is_listed_and_every_link_leads_somewhere() -> None:
    assert [page.name for page in pages()] == sorted(IDENTITIES)
    listed = links(HOWTO / "README.md")
    for page in pages():
        assert page in listed or page.name == "README.md"
        for target in links(page):
            assert target.exists(), f"{page.name}: {target}"


def test_a_page_that_is_not_run_says_what_was_tried() -> None:
    for page in pages():
        assert fenced(page, "sh run") or "## What was tried" in page.read_text(), page.name


def test_nobody_is_told_to_resolve_names_at_home() -> None:
    """socks5:// lets curl, git, apt and pip ask this machine's resolver."""
    for page in pages():
        for block in fenced(page, "sh run") + fenced(page, "apt-conf"):
            assert "socks5://" not in block, page.name
