"""The private network as programs of others see it, and an isoproxy with its usual ports.

A visit is one fetch of a page at "<who>.test", or at that subdomain of an onion service: by the
name that Tor is asked for a stream is known to be of `who`, whatever program made it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.kit.electrumx import self_signed
from tests.kit.isoproxy_process import TCP, Isoproxy, system
from tests.kit.onion import publish
from tests.kit.servers import WebServer, git_repository
from tests.kit.service import environment
from tests.kit.tornet import TorNetwork
from tests.kit.witness import Witness
from tests.network.docs.pages import HOWTO, fenced
from tests.network.docs.ssh_server import ssh_server
from tests.network.real.electrum import ElectrumServer

PEOPLE: Final = ("alice", "bob")
SERVERS: Final = tuple(f"server{number}" for number in range(7))
"""Electrum servers of which none may know that another has the same client."""
LISTENERS: Final = {
    9250: TCP,
    9251: TCP + '\npreset = "no-credentials"',
    9254: TCP + "\nproxy_auth_challenge = true",
}
"""The two that are there by default, and the one of docs/howto/README.md that asks."""
_RUN_S: Final = 90


@dataclass(frozen=True)
class World:
    """Servers beyond the exits and isoproxy in front of them; `witness` listens to its tor."""

    proxy: Isoproxy
    witness: Witness
    web: WebServer
    secure: WebServer
    electrum: ElectrumServer
    onion: str
    certificate: Path
    ssh_lines: str
    directory: Path

    def at(self, port: int) -> str:
        """The counterpart of 127.0.0.1:`port`."""
        address = self.proxy.addresses[list(LISTENERS).index(port)]
        assert not isinstance(address, str)
        return "{}:{}".format(*address)

    def here(self, text: str, port: int | None = None) -> str:
        """What a page says, with this network's ports; with `port` for each that it names."""
        named = re.compile(r"\b(" + "|".join(map(str, LISTENERS)) + r")\b")
        return named.sub(lambda match: self.at(port or int(match[1])).split(":")[1], text)

    def page(self, who: str, *, secure: bool = False) -> str:
        """The address of a page that is `who`'s."""
        return (self.secure if secure else self.web).url(name=f"{who}.test")

    def hidden_page(self, who: str) -> str:
        return f"http://{who}.{self.onion}/"

    def folder(self, name: str) -> Path:
        """A new directory."""
        number = len(list(self.directory.glob(f"{name}-*")))
        made = self.directory / f"{name}-{number}"
        made.mkdir()
        return made

    def run(self, *command: str, seconds: float = _RUN_S, **variables: str) -> str:
        """Run a program to its end; returns its output, raises CalledProcessError if it failed."""
        mine = {"PATH": os.environ["PATH"], "HOME": str(self.directory), "LC_ALL": "C"}
        done = subprocess.run(
            command,
            env={**mine, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=True,
        )
        return done.stdout

    def example(self, language: str) -> Path:
        """The program of docs/howto/programming.md in a file, at the counterpart of 9250."""
        suffix = {"java": "Fetch.java", "js": "fetch.js", "go": "fetch.go"}[language]
        file = self.directory / suffix
        if not file.exists():
            (text,) = fenced(HOWTO / "programming.md", language)
            file.write_text(self.here(text))
        return file

    def isoproxy_command(self) -> Path:
        """`isoproxy` as a program of its own, which `dial`s through this one."""
        file = self.directory / "isoproxy"
        if not file.exists():
            lines = [f"export {name}={value!r}" for name, value in self._environment().items()]
            line = f'exec {sys.executable} -m isoproxy "$@" --proxy {self.at(9250)}'
            file.write_text("\n".join(["#!/bin/sh", *lines, line, ""]))
            file.chmod(0o755)
        return file

    def _environment(self) -> dict[str, str]:
        mine = environment(self.proxy.directory)
        return {name: mine[name] for name in ("PYTHONPATH", "CONFIGURATION_DIRECTORY")}


@contextlib.contextmanager
def world(net: TorNetwork, directory: Path) -> Iterator[World]:
    """Everything started, and ended."""
    names = [f"{who}.test" for who in (*PEOPLE, *SERVERS)]
    certificate, key, _ = self_signed(directory, names[0], names)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    files = directory / "files"
    files.mkdir()
    git_repository(files / "repository")
    host = net.server_ip
    # What browsers ask for by themselves is to fail at once, and by no exit's fault.
    net.dns.hosts.update({f"*.{ending}": [host] for ending in ("com", "net", "org")})
    with contextlib.ExitStack() as stack:
        web = stack.enter_context(WebServer(host, net.exit_of, files))
        secure = stack.enter_context(WebServer(host, net.exit_of, files, tls=tls))
        electrum = stack.enter_context(ElectrumServer(host, tls))
        onion = stack.enter_context(publish(net.relays[1], {80: web.address}))
        ssh = stack.enter_context(ssh_server(host, directory))
        own = directory / "isoproxy-own"
        own.mkdir()
        listeners = list(LISTENERS.values())
        proxy = stack.enter_context(Isoproxy(own, system(net.client), listeners=listeners))
        proxy.wait_ready()
        witness = stack.enter_context(Witness(net.client))
        yield World(
            proxy,
            witness,
            web,
            secure,
            electrum,
            onion.host,
            certificate,
            ssh.client_lines,
            directory,
        )


def installed(*programs: str) -> str:
    """The first of `programs` that is not on this machine, or ""."""
    return next((program for program in programs if shutil.which(program) is None), "")
