"""Onion services on the private network (control-spec §3.27, §3.30; rend-spec-v3).

    with publish(net.relays[1], {80: web.address}) as service:
        ...                                  # curl http://<service.host>/

The service lives as long as the context: it belongs to a control connection of its own.
`publish` returns when every directory has taken the descriptor, so the first client finds
it wherever it asks.
"""

from __future__ import annotations

import base64
import contextlib
import queue
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tests.kit.tornet import Control, Node, TorNetError

_NEW_KEY: Final = "NEW:ED25519-V3"
# Directories get the descriptor within moments of each other; a pause this long is the end.
_QUIET_S: Final = 0.5
_GIVEN_UP_S: Final = 5.0


@dataclass(frozen=True)
class ClientKey:
    """A client's key pair for an onion service that asks for authorization."""

    private: bytes = field(repr=False)
    public: bytes

    @classmethod
    def generate(cls) -> ClientKey:
        key = X25519PrivateKey.generate()
        private = key.private_bytes(
            serialization.Encoding.Raw,
            serialization.PrivateFormat.Raw,
            serialization.NoEncryption(),
        )
        return cls(private, key.public_key().public_bytes_raw())

    @property
    def service_form(self) -> str:
        """As the service wants it: base32 of the public key."""
        return base64.b32encode(self.public).decode().rstrip("=")

    @property
    def client_form(self) -> str:
        """As the client's tor wants it: base64 of the private key."""
        return base64.b64encode(self.private).decode()

    def file_form(self, service_id: str) -> str:
        """As people hand it out: what tor's `.auth_private` files hold."""
        private = base64.b32encode(self.private).decode().rstrip("=")
        return f"{service_id}:descriptor:x25519:{private}"


@dataclass(frozen=True)
class OnionService:
    """A published service."""

    service_id: str
    key: str = field(repr=False)
    """For `publish(key=...)`: the same service again."""

    @property
    def host(self) -> str:
        return self.service_id + ".onion"


@contextlib.contextmanager
def publish(
    node: Node,
    ports: Mapping[int, tuple[str, int]],
    *,
    key: str = _NEW_KEY,
    clients: Sequence[ClientKey] = (),
    timeout: float = 60.0,
) -> Iterator[OnionService]:
    """Offer `ports` (virtual port to address) from a node; any tor will do, relays too.

    With `clients`, only these can connect, once `authorize` told their tor the key.
    """
    command = ["ADD_ONION", key]
    if clients:
        command.append("Flags=V3Auth")
    command += [f"Port={port},{host}:{target}" for port, (host, target) in ports.items()]
    command += [f"ClientAuthV3={client.service_form}" for client in clients]
    with node.control() as control:
        control.check("SETEVENTS HS_DESC")
        reply = dict(
            line[4:].split("=", 1) for line in control.check(" ".join(command)) if "=" in line
        )
        service = OnionService(reply["ServiceID"], reply.get("PrivateKey", key))
        _await_uploads(control, service.service_id, time.monotonic() + timeout)
        yield service


def _await_uploads(control: Control, service_id: str, deadline: float) -> None:
    """Wait until every upload of the descriptor has been answered, one at least with yes.

    Tor gives up uploads of a descriptor it has renewed meanwhile and does not say so: once
    one was taken, silence is an answer.
    """
    count = dict.fromkeys(("UPLOAD", "UPLOADED", "FAILED"), 0)
    while True:
        answered = count["UPLOADED"] + count["FAILED"] == count["UPLOAD"]
        finished = count["UPLOADED"] > 0
        seconds = _QUIET_S if answered else _GIVEN_UP_S
        left = seconds if finished else deadline - time.monotonic()
        try:
            line = control.events.get(timeout=max(left, 0))
        except queue.Empty:
            if finished:
                return
            raise TorNetError(f"the descriptor was not taken in time: {count}") from None
        if line is None:
            raise ConnectionError("tor closed the control connection")
        words = line.split(" ")  # 650 HS_DESC UPLOADED service auth directory ...
        if words[3:4] == [service_id] and words[2] in count:
            count[words[2]] += 1


def authorize(node: Node, service: OnionService, client: ClientKey) -> None:
    """Give a client's tor the key to a service that asks for authorization."""
    with node.control() as control:
        control.check(f"ONION_CLIENT_AUTH_ADD {service.service_id} x25519:{client.client_form}")
