"""Keys of ours for onion services that ask their clients for one.

Theory of operation
    A service with client authorization encrypts its descriptor to the public keys of its
    clients.  `read_client_key` takes a private key as people hand it out: alone, or as tor's
    own `.auth_private` file has it.  `ClientKeys` gives Tor the keys on each new control
    connection, and takes them back when we end.

    Tor then lets *every* stream in, whoever's it is.  So a key belongs to one listener, and
    the dialer refuses that service to all others, in the words in which a Tor without the
    key does (`DialerSettings.onions_of_listeners`).

Invariants
    A key is in no log, error or repr.  Tor is given a key only after those who call `add`
    have seen to it that other listeners' clients are refused.

Specification: rend-spec-v3 appendix G; control-spec §3.30 (ONION_CLIENT_AUTH_ADD), §3.31.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from isoproxy.errors import ConfigError, IsoproxyError, OperationError
from isoproxy.net.onion_address import onion_host
from isoproxy.observe.log import logger
from isoproxy.tor.control.connection import Control, ControlState, Phase

_KEY: Final = re.compile(r"(?:([a-z2-7]{56}):)?(?:descriptor:)?(?:x25519:)?([A-Z2-7]{52})", re.I)
_log: Final = logger("onion")


@dataclass(frozen=True, slots=True)
class ClientKey:
    """A private x25519 key, base32, for the service `service` (its address without .onion)."""

    service: str = field(repr=False)
    key: str = field(repr=False)

    @property
    def text(self) -> str:
        """As tor's `.auth_private` files have it."""
        return f"{self.service}:descriptor:x25519:{self.key}"

    @property
    def blob(self) -> str:
        """As the control port takes it: base64."""
        return base64.b64encode(base64.b32decode(self.key + "====")).decode()


def service_of(address: str) -> str:
    """The service that `address` leads to, without `.onion`; raises ConfigError."""
    host = onion_host(address.strip().removesuffix(".").removesuffix("/"))
    if host is None:
        raise ConfigError("expected the address of an onion service, 56 letters and digits.onion")
    return host.split(".")[-2]


def read_client_key(address: str, text: str) -> ClientKey:
    """The key in a file's `text` for the service at `address`; raises ConfigError."""
    service = service_of(address)
    match = _KEY.fullmatch(text.strip())
    if match is None:
        raise ConfigError(
            "the key file does not hold a client's private key: 52 letters and digits of base32, "
            "alone or as tor writes it, ADDRESS:descriptor:x25519:KEY"
        )
    if match[1] is not None and match[1].lower() != service:
        raise ConfigError("the key file is for another onion service")
    return ClientKey(service, match[2].upper())


class ClientKeys:
    """Has Tor hold `keys`, by service, as long as we and `control` live."""

    def __init__(self, control: Control, keys: Mapping[str, ClientKey]) -> None:
        self._control = control
        self._keys = dict(keys)
        self._tasks: set[asyncio.Task[None]] = set()
        self._leave = control.on_state(self._changed)

    async def add(self, key: ClientKey) -> None:
        """Give Tor a key, now and on each new connection; raises OperationError."""
        if self._control.endpoint.is_none:
            raise OperationError(
                "Tor is given client keys at its control port, and there is none; set tor.control"
            )
        await self._give(key)
        self._keys[key.service] = key

    async def remove(self, service: str) -> None:
        """Have Tor forget the key for `service`; raises OperationError."""
        if self._keys.pop(service, None) is not None and self._control.state.phase is Phase.READY:
            reply = await self._control.message(f"ONION_CLIENT_AUTH_REMOVE {service}")
            if not reply.is_ok:
                raise OperationError("Tor, or a filter in front of it, keeps the client key")

    async def close(self) -> None:
        """Take the keys back."""
        self._leave()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for service in tuple(self._keys):
            with contextlib.suppress(IsoproxyError):
                await self.remove(service)

    def _changed(self, state: ControlState) -> None:
        if state.phase is Phase.READY and self._keys:
            task = asyncio.create_task(self._give_all())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _give_all(self) -> None:
        for key in tuple(self._keys.values()):
            try:
                await self._give(key)
            except OperationError as error:
                _log.warn("client_key_refused", problem=str(error))

    async def _give(self, key: ClientKey) -> None:
        reply = await self._control.message(
            f"ONION_CLIENT_AUTH_ADD {key.service} x25519:{key.blob}"
        )
        if not reply.is_ok:
            raise OperationError(
                "Tor, or a filter in front of it, refused the client key; run isoproxy where it "
                "may use Tor's own control port"
            )
