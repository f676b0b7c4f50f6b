"""Onion services that ask for a client key, and the one listener whose clients may go there.

Theory of operation
    `isoproxy onions trust` stores a key in the state directory, one file a service in a
    directory for its listener.  The stream processes are told first which listener a
    service belongs to; only then Tor is given the key (`tor.client_keys`).

Invariants
    Between a key that Tor holds and a client of another listener there is always a dialer
    that refuses: keys are given after, and taken back before.  Files are private.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

from isoproxy.config import private_directory
from isoproxy.errors import ConfigError, OperationError
from isoproxy.observe.log import logger
from isoproxy.private_file import replace_file
from isoproxy.tor.client_keys import ClientKey, ClientKeys, read_client_key
from isoproxy.tor.control.connection import Control

_SUFFIX: Final = ".auth_private"
_log: Final = logger("onion")


class TrustedServices:
    """The services with keys in `directory`; `listeners` says whose each is."""

    def __init__(self, control: Control, directory: Path) -> None:
        self._directory = directory
        found = dict(_stored(directory))
        self._listeners = {service: listener for service, (listener, _) in found.items()}
        self._keys = ClientKeys(control, {service: key for service, (_, key) in found.items()})

    @property
    def listeners(self) -> Mapping[str, str]:
        """Service (without .onion) to the name of the listener whose clients may go there."""
        return dict(self._listeners)

    async def trust(
        self, key: ClientKey, listener: str, tell: Callable[[], Awaitable[None]]
    ) -> None:
        """Have clients of `listener`, and of no other, reach the service of `key`.

        `tell()` returns when all stream processes follow `listeners`.  Raises OperationError.
        """
        service, known = key.service, key.service in self._listeners
        owner = self._listeners.get(service, listener)
        if owner != listener:
            raise OperationError(
                f"this service is for clients of listener {owner}; first: isoproxy onions distrust"
            )
        self._listeners[service] = listener
        await tell()
        try:
            await self._keys.add(key)
            folder = private_directory(private_directory(self._directory) / listener)
            replace_file(folder / f"{service}{_SUFFIX}", key.text + "\n")
        except (OperationError, OSError) as error:
            if not known:
                await self._forget(service, tell)
            if isinstance(error, OSError):
                raise OperationError(f"the key cannot be stored: {error.strerror}") from None
            raise

    async def distrust(self, service: str, tell: Callable[[], Awaitable[None]]) -> None:
        """Have Tor and the disk forget the key of `service`.  Raises OperationError."""
        listener = self._listeners.get(service)
        if listener is None:
            raise OperationError("there is no client key for this service")
        (self._directory / listener / f"{service}{_SUFFIX}").unlink(missing_ok=True)
        await self._forget(service, tell)

    async def _forget(self, service: str, tell: Callable[[], Awaitable[None]]) -> None:
        await self._keys.remove(service)
        del self._listeners[service]
        await tell()

    async def close(self) -> None:
        """Have Tor forget all keys."""
        await self._keys.close()


def _stored(directory: Path) -> list[tuple[str, tuple[str, ClientKey]]]:
    found = []
    for file in sorted(directory.glob(f"*/*{_SUFFIX}")):
        try:
            key = read_client_key(f"{file.name.removesuffix(_SUFFIX)}.onion", file.read_text())
        except (ConfigError, OSError, ValueError):
            _log.warn("client_key_unreadable", listener=file.parent.name)
            continue
        found.append((key.service, (file.parent.name, key)))
    return found
