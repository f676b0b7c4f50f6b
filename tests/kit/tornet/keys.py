"""A directory authority's keys, made with tor-gencert and tor itself."""

from __future__ import annotations

import re
import subprocess

from tests.kit.tornet import torrc
from tests.kit.tornet.control import TorNetError
from tests.kit.tornet.node import DIR_PORT, OR_PORT, Node


class AuthorityKeys:
    """Makes one authority's keys; the two programs run while others start."""

    def __init__(self, node: Node, tor: list[str], gencert: str):
        self._node = node
        self._prefix = str(node.dir / "keys" / "authority_")
        self._gencert = subprocess.Popen(
            [
                gencert,
                "--create-identity-key",
                "-m",
                "12",
                "-a",
                f"{node.ip}:{DIR_PORT}",
                "-i",
                self._prefix + "identity_key",
                "-s",
                self._prefix + "signing_key",
                "-c",
                self._prefix + "certificate",
                "--passphrase-fd",
                "0",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        settings = node.dir / "torrc.keys"
        settings.write_text(
            torrc.authority_keys_only(
                directory=str(node.dir), ip=node.ip, or_port=OR_PORT, nickname=node.name
            )
        )
        self._fingerprint = subprocess.Popen(
            [*tor, "-f", str(settings), "--list-fingerprint"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def directory_line(self) -> str:
        """Wait for the keys; returns the DirAuthority line all nodes need."""
        _, errors = self._gencert.communicate(b"tornet\n")
        output, _ = self._fingerprint.communicate()
        text = output.decode(errors="replace")
        found = re.search(r"^\w+ ((?:[0-9A-F]{4} ?){10})$", text, re.MULTILINE)
        if self._gencert.returncode or self._fingerprint.returncode or found is None:
            raise TorNetError(f"no keys for {self._node.name}: {errors!r} {text}")
        self._node.fingerprint = found.group(1).replace(" ", "")
        with open(self._prefix + "certificate") as file:
            identity = re.search(r"^fingerprint (\w+)", file.read(), re.MULTILINE)
        if identity is None:
            raise TorNetError(f"no fingerprint in the certificate of {self._node.name}")
        return (
            f"DirAuthority {self._node.name} orport={OR_PORT} no-v2 "
            f"v3ident={identity.group(1)} {self._node.ip}:{DIR_PORT} {self._node.fingerprint}\n"
        )
