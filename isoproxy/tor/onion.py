"""Version 3 onion services in front of local ports, through Tor's control port.

Theory of operation
    `OnionService` adds its service (ADD_ONION) on each new control connection: Tor ends
    a service with the connection it was added on, and forgets all when it restarts, so
    the address stays up exactly as long as we and Tor do.  Tor makes the key at the first
    publication; afterwards the same key is used, so the address does not change.

    Nobody can connect before a directory has taken the service's descriptor, seconds after
    ADD_ONION: only then is the service published (HS_DESC UPLOADED).  Where a filter in
    front of Tor hides that event, ADD_ONION has to do, and the state says so.

    With a key file the address also outlives us.  The file is made once, complete or not
    at all, with mode 0600; a `hs_ed25519_secret_key` of tor's own is read as well.  With
    `clients`, only the holders of these x25519 keys can reach the service.

Invariants
    A key is never logged, nor part of an exception's text or of a repr.  A key file that
    others may read is refused.  Only local targets: an IP literal and port, or a unix
    socket; nothing is resolved.

Specification: control-spec §3.27 (ADD_ONION), §3.28 (DEL_ONION), §4.1.25 (HS_DESC);
rend-spec-v3.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import enum
import errno
import os
import re
import stat
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from isoproxy.errors import ConfigError, IsoproxyError, OperationError
from isoproxy.net.backoff import Backoff
from isoproxy.net.endpoint import Endpoint
from isoproxy.tor.control.connection import UPLOADS, Control, ControlState, Phase
from isoproxy.tor.observers import Observers

_KEY_TYPE: Final = "ED25519-V3"
_KEY_BYTES: Final = 64
_TOR_HEADER: Final = b"== ed25519v1-secret: type0 ==\0\0\0"
_SERVICE_ID = re.compile(r"[a-z2-7]{56}")
_CLIENT_KEY = re.compile(r"[A-Z2-7]{52}")
_CLIENT_PREFIX: Final = "descriptor:x25519:"
UNSEEN: Final = "whether its descriptor was uploaded is hidden by a filter in front of Tor"


@dataclass(frozen=True, slots=True)
class OnionPort:
    """The service's `port`, and the local `target` that its connections go to."""

    port: int
    target: Endpoint

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65535:
            raise ConfigError("an onion service's port must be between 1 and 65535")
        if self.target.is_none:
            raise ConfigError("an onion service needs a local target, as in '127.0.0.1:8080'")
        if self.target.path is not None and (set(self.target.path) & set(' ,"\\')):
            raise ConfigError(
                "the path of an onion service's unix socket may hold no spaces, commas, quotes "
                "or backslashes: Tor's control port has no way to write them"
            )

    def __str__(self) -> str:
        return f"{self.port},{self.target}"


class OnionStage(enum.Enum):
    """Whether Tor holds the service now."""

    WAITING = "waiting for tor"
    UPLOADING = "uploading its descriptor"
    PUBLISHED = "published"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class OnionState:
    """A stage, and why it is so if something went wrong."""

    stage: OnionStage
    problem: str | None = None


def client_key(text: str) -> str:
    """The base32 public x25519 key in `text`, also as tor's `authorized_clients` has it."""
    key = text.strip().removeprefix(_CLIENT_PREFIX).upper()
    if not _CLIENT_KEY.fullmatch(key):
        raise ConfigError(
            "an onion service's client is named by its public x25519 key in base32: 52 letters "
            "and digits, with or without 'descriptor:x25519:' in front"
        )
    return key


class OnionService:
    """A service that is published whenever `control` is connected.

    `ports` must not be empty; `clients` are public keys, none of them: everybody may
    connect.  `address` is None until the first publication.
    """

    def __init__(
        self,
        control: Control,
        ports: Sequence[OnionPort],
        *,
        key_file: Path | None = None,
        clients: Sequence[str] = (),
        backoff: Backoff | None = None,
    ) -> None:
        if not ports:
            raise ConfigError("an onion service needs at least one port")
        if len({port.port for port in ports}) < len(ports):
            raise ConfigError("an onion service has one target for each port")
        self.address: str | None = None
        self._control = control
        self._ports = tuple(ports)
        self._key_file = key_file
        self._clients = tuple(client_key(client) for client in clients)
        self._backoff = backoff or Backoff(1.0, 60.0)
        self._key = None if key_file is None else read_key(key_file)
        self._state = OnionState(OnionStage.WAITING)
        self._states: Observers[OnionState] = Observers()
        self._changed = asyncio.Event()
        self._publishing = asyncio.Lock()
        self._uploads: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    @property
    def state(self) -> OnionState:
        return self._state

    def on_state(self, callback: Callable[[OnionState], None]) -> Callable[[], None]:
        """Tell `callback` of each change of `state`; the result ends that."""
        return self._states.add(callback)

    def start(self) -> None:
        """Publish now and after each reconnect, in the background."""
        if self._control.endpoint.is_none:
            raise ConfigError(
                "an onion service needs Tor's control port; set tor.control in the configuration"
            )
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="onion service")

    async def wait_published(self) -> str:
        """The address, once the service is published; put a deadline around it."""
        if self._state.stage is not OnionStage.PUBLISHED:
            await self._states.first(lambda state: state.stage is OnionStage.PUBLISHED)
        assert self.address is not None
        return self.address

    async def withdraw(self) -> None:
        """Take the service back; Tor lets open connections live."""
        task, self._task = self._task, None
        if task is None:
            return
        async with self._publishing:  # Tor may be adding it just now
            task.cancel()
        await asyncio.wait([task])
        if self.address is not None:
            with contextlib.suppress(IsoproxyError):
                await self._control.message(f"DEL_ONION {self.address.removesuffix('.onion')}")
        self._set(OnionState(OnionStage.WITHDRAWN))

    async def _run(self) -> None:
        remove = self._control.on_state(self._control_changed)
        remove_upload = self._control.on_upload(self._uploaded)
        try:
            while True:
                await self._control.wait_ready()
                self._changed.clear()
                if self._control.state.phase is not Phase.READY:
                    continue
                delay = await self._attempt()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay):
                        await self._changed.wait()
        finally:
            remove()
            remove_upload()

    def _control_changed(self, state: ControlState) -> None:
        self._changed.set()
        held = (OnionStage.UPLOADING, OnionStage.PUBLISHED)
        if state.phase is not Phase.READY and self._state.stage in held:
            self._set(OnionState(OnionStage.WAITING))

    def _uploaded(self, service_id: str) -> None:
        address = f"{service_id}.onion"
        if self._publishing.locked():  # we may not have read yet that the address is ours
            self._uploads.add(address)
        elif self._state.stage is OnionStage.UPLOADING and address == self.address:
            self._set(OnionState(OnionStage.PUBLISHED))

    async def _attempt(self) -> float | None:
        """Publish once; returns in how many seconds to try again, None if it worked."""
        self._uploads.clear()
        try:
            async with self._publishing:
                await self._publish()
        except IsoproxyError as error:
            self._set(OnionState(OnionStage.REFUSED, str(error)))
            return self._backoff.next()
        self._backoff.reset()
        if UPLOADS not in self._control.hears:
            self._set(OnionState(OnionStage.PUBLISHED, UNSEEN))
        elif self.address in self._uploads:
            self._set(OnionState(OnionStage.PUBLISHED))
        else:
            self._set(OnionState(OnionStage.UPLOADING))
        return None

    async def _publish(self) -> None:
        if self._key is None and self._key_file is not None:
            self._key = read_key(self._key_file)  # it may have been made meanwhile
        words = ["ADD_ONION", self._key or f"NEW:{_KEY_TYPE}"]
        if self._clients:
            words.append("Flags=V3Auth")
        words += [f"Port={port}" for port in self._ports]
        words += [f"ClientAuthV3={client}" for client in self._clients]
        reply = await self._control.message(" ".join(words))
        if not reply.is_ok:
            raise OperationError(
                "Tor refused the onion service: another program may publish it with the same "
                "key, or this tor is too old for client authorization (0.4.6)"
            )
        answer = dict(line.decode("ascii", "replace").partition("=")[::2] for line in reply.lines)
        service_id = answer.get("ServiceID", "")
        if not _SERVICE_ID.fullmatch(service_id):
            raise OperationError("Tor's answer to ADD_ONION cannot be read")
        if self._key is None:
            await self._keep(service_id, answer.get("PrivateKey", ""))
        self.address = f"{service_id}.onion"

    async def _keep(self, service_id: str, key: str) -> None:
        """Remember the key that Tor made; a service whose key would be lost is taken back."""
        try:
            _check(key)
            if self._key_file is not None:
                write_key(self._key_file, key)
        except (ConfigError, OSError) as error:
            await self._control.message(f"DEL_ONION {service_id}")
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise OperationError(f"the onion service's key cannot be stored: {reason}") from None
        self._key = key

    def _set(self, state: OnionState) -> None:
        if state != self._state:
            self._state = state
            self._states.notify(state)


def read_key(path: Path) -> str | None:
    """The key in a file, in ADD_ONION's form; None if there is no such file yet."""
    try:
        # a pipe must not hold us up before it is seen to be one
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ConfigError(
                "the onion service's key file may not be a symbolic link; name the file itself"
            ) from None
        raise ConfigError(f"the onion service's key file: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or stat.S_IMODE(status.st_mode) & 0o077:
            raise ConfigError(
                "the onion service's key file must be a file that only its owner may read; "
                "chmod 600 it"
            )
        content = file.read(1024)
    if content.startswith(_TOR_HEADER):
        key = f"{_KEY_TYPE}:{base64.b64encode(content[len(_TOR_HEADER) :]).decode()}"
    else:
        key = content.decode("ascii", "replace").strip()
    return _check(key)


def write_key(path: Path, key: str) -> None:
    """Make the key file: complete and private, or not at all; never over an older one."""
    descriptor, fresh = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(key + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(fresh, path)
    finally:
        os.unlink(fresh)


def _check(key: str) -> str:
    kind, _, text = key.partition(":")
    with contextlib.suppress(binascii.Error, ValueError):
        if kind == _KEY_TYPE and len(base64.b64decode(text, validate=True)) == _KEY_BYTES:
            return key
    raise ConfigError(
        "the onion service's key file does not hold a version 3 key; move it away to have a "
        "new one made, with a new address"
    )
