"""Tuples, keys, epochs, and the credentials towards Tor; see the package for the theory."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final, Never

from isoproxy.errors import ErrorKind, LocalProtocolError, PolicyRefusal
from isoproxy.isolation.client import budget_of
from isoproxy.isolation.flags import DEFAULT_ISOLATION, ClientProtocol, Isolate

_KEY_PERSON: Final = b"isoproxy key 1"
_CREDENTIAL_PERSON: Final = b"isoproxy cred 1"
_LABEL_PERSON: Final = b"isoproxy label1"
_EXPORT_PERSON: Final = b"isoproxy export1"
_SECRET_LENGTH: Final = 32
_SEAL_LENGTH: Final = 16

PROP351_PREFIX: Final = b"<torS0X>"
PROP351_USERNAME: Final = b"<torS0X>0"


@dataclass(frozen=True, slots=True)
class ListenerRule:
    """What one listener contributes: its session group and its flags."""

    group: bytes
    isolate: Isolate = DEFAULT_ISOLATION


def shared_group(number: int) -> bytes:
    """The session group `SessionGroup=number`, common to all listeners that name it."""
    return b"shared %d" % number


def own_group(listener: str) -> bytes:
    """The session group of a listener that names none: its own."""
    return b"own " + listener.encode()


@dataclass(frozen=True, slots=True, repr=False)
class IsolationTuple:
    """All that may separate a stream from others; the listener's flags choose from it.

    `client` comes from `client_of_address` or `client_of_uid`.  `username` and
    `password` are the raw bytes the client sent, None where it sent none.  `dest_host`
    is the host asked for, before any resolution.
    """

    client: bytes | None
    protocol: ClientProtocol
    username: bytes | None = None
    password: bytes | None = None
    dest_host: bytes = b""
    dest_port: int = 0

    def __repr__(self) -> str:
        return f"<IsolationTuple {self.protocol.name}>"


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """SOCKS user name and password towards Tor; printable ASCII when derived."""

    username: bytes
    password: bytes

    def __repr__(self) -> str:
        return "<Credentials>"


_BUILDER: Final = object()


class IsolationKey:
    """The right to share a circuit, and the proof that somebody decided about it.

    Keys are equal exactly when their streams may share.  Opaque: only an `Isolator`
    makes one, and it cannot be copied to disk.

    `client` says whose budget its work draws on (`budget_of`); it decides nothing else.
    """

    __slots__ = ("__label_secret", "__secret", "client", "epoch", "verbatim")

    client: bytes
    epoch: int
    verbatim: Credentials | None

    def __init__(
        self,
        builder: object,
        secret: bytes,
        epoch: int,
        label_secret: bytes,
        verbatim: Credentials | None = None,
        client: bytes = b"",
    ) -> None:
        if builder is not _BUILDER:
            raise TypeError("an IsolationKey is built by an Isolator only")
        self.__secret = secret
        self.__label_secret = label_secret
        self.client = client
        self.epoch = epoch
        self.verbatim = verbatim

    @property
    def label(self) -> str:
        """Six hexadecimal digits, keyed per process: what logs and status may show."""
        return hashlib.blake2b(
            self.__secret, key=self.__label_secret, person=_LABEL_PERSON, digest_size=3
        ).hexdigest()

    def derive(self, purpose: bytes) -> bytes:
        """32 bytes that only this key and this purpose give; they reveal neither."""
        return hashlib.blake2b(
            purpose, key=self.__secret, person=_CREDENTIAL_PERSON, digest_size=_SECRET_LENGTH
        ).digest()

    def secret_for(self, builder: object) -> bytes:
        """What the key is made of, for an Isolator alone."""
        if builder is not _BUILDER:
            raise TypeError("an IsolationKey is opened by an Isolator only")
        return self.__secret

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IsolationKey) and self.__secret == other.__secret

    def __hash__(self) -> int:
        return hash(self.__secret)

    def __repr__(self) -> str:
        return f"<IsolationKey {self.label}>"

    def __reduce__(self) -> Never:
        raise TypeError("an IsolationKey never leaves memory")


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a stream is for; streams of different purposes never share a circuit."""

    tag: bytes


APP: Final = Purpose(b"app")
P2P: Final = Purpose(b"p2p")


def name_purpose(server: str) -> Purpose:
    """The purpose of look-ups at one name server (any text that identifies it)."""
    return Purpose(b"name:" + server.encode())


class CredentialForm(Enum):
    """How the credentials towards Tor are written."""

    PROP351 = "prop351"
    """User name `<torS0X>0`, the digest as password: Tor 0.4.9 and later, Arti."""
    PLAIN = "plain"
    """A pair of digests: Tor before 0.4.9."""


def upstream_credentials(
    key: IsolationKey, purpose: Purpose, form: CredentialForm = CredentialForm.PROP351
) -> Credentials:
    """The credentials that put a stream on the circuits of (key, purpose) alone.

    For an application's own stream they are the ones the application sent, where the
    configuration says `tor.credentials = "verbatim"`.
    """
    if key.verbatim is not None and purpose == APP:
        return key.verbatim
    digest = key.derive(purpose.tag).hex().encode()
    if form is CredentialForm.PROP351:
        return Credentials(PROP351_USERNAME, digest)
    return Credentials(digest[:32], digest[32:])


def accepts_username(username: bytes) -> bool:
    """False for the reserved user names that Tor refuses (proposal 351)."""
    return not username.startswith(PROP351_PREFIX) or username == PROP351_USERNAME


def canonical_fields(rule: ListenerRule, stream: IsolationTuple) -> list[tuple[str, bytes | None]]:
    """The fields of `stream` that `rule` selects, in their fixed order, with their names."""
    fields: list[tuple[str, bytes | None]] = [("session group", rule.group)]
    selected = rule.isolate
    if Isolate.CLIENT_ADDR in selected:
        fields.append(("client address", stream.client))
    if Isolate.CLIENT_PROTOCOL in selected:
        fields.append(("client protocol", stream.protocol.value))
    if Isolate.SOCKS_AUTH in selected:
        fields.append(("user name", stream.username))
        fields.append(("password", stream.password))
    if Isolate.DEST_ADDR in selected:
        fields.append(("destination address", stream.dest_host.lower()))
    if Isolate.DEST_PORT in selected:
        fields.append(("destination port", b"%d" % stream.dest_port))
    return fields


def _encode(rule: ListenerRule, stream: IsolationTuple) -> bytes:
    """The flags, then each selected field as a presence byte, a length and its bytes.

    The same fields as `canonical_fields` (a property test holds it); this runs for every
    stream, that one for `isoproxy explain`.
    """
    selected = rule.isolate.value
    fields: list[bytes | None] = [rule.group]
    if selected & _CLIENT_ADDR:
        fields.append(stream.client)
    if selected & _CLIENT_PROTOCOL:
        fields.append(stream.protocol.value)
    if selected & _SOCKS_AUTH:
        fields.append(stream.username)
        fields.append(stream.password)
    if selected & _DEST_ADDR:
        fields.append(stream.dest_host.lower())
    if selected & _DEST_PORT:
        fields.append(b"%d" % stream.dest_port)
    return b"%c" % selected + b"".join(
        b"\x00" if value is None else b"\x01" + len(value).to_bytes(4) + value for value in fields
    )


_CLIENT_ADDR: Final = Isolate.CLIENT_ADDR.value
_SOCKS_AUTH: Final = Isolate.SOCKS_AUTH.value
_CLIENT_PROTOCOL: Final = Isolate.CLIENT_PROTOCOL.value
_DEST_ADDR: Final = Isolate.DEST_ADDR.value
_DEST_PORT: Final = Isolate.DEST_PORT.value


class Isolator:
    """Turns isolation tuples into keys under the secret of the current epoch.

    verbatim       pass an application's own credentials on to Tor; only for a single
                   listener that isolates by nothing but them, else Tor would merge what
                   we keep apart (the configuration refuses it)
    random_bytes   `random_bytes(n)` is where secrets come from; tests pass their own
    """

    def __init__(
        self,
        *,
        verbatim: bool = False,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._verbatim = verbatim
        self._random_bytes = random_bytes
        self._label_secret = random_bytes(_SECRET_LENGTH)
        self._epoch_secret = random_bytes(_SECRET_LENGTH)
        self._epoch = 0
        self._followers: list[Callable[[], None]] = []

    @property
    def epoch(self) -> int:
        """Counts the epochs of this process from 0."""
        return self._epoch

    def key_for(self, rule: ListenerRule, stream: IsolationTuple) -> IsolationKey:
        """The key of `stream` at a listener with `rule`, in the current epoch."""
        if not rule.group:
            raise LocalProtocolError(
                "a listener without a session group cannot isolate", kind=ErrorKind.INTERNAL
            )
        secret = hashlib.blake2b(
            _encode(rule, stream),
            key=self._epoch_secret,
            person=_KEY_PERSON,
            digest_size=_SECRET_LENGTH,
        ).digest()
        verbatim = self._application_credentials(stream) if self._verbatim else None
        client = budget_of(stream.client)
        return IsolationKey(_BUILDER, secret, self._epoch, self._label_secret, verbatim, client)

    @staticmethod
    def _application_credentials(stream: IsolationTuple) -> Credentials | None:
        """What Tor would tell apart as we do: nothing absent, empty or too long."""
        if not stream.username or stream.password is None:
            return None
        if len(stream.username) > 255 or len(stream.password) > 255:
            return None
        return Credentials(stream.username, stream.password)

    def own_key(self, what: str) -> IsolationKey:
        """A key nobody else has, for one piece of our own upkeep (a pooled connection)."""
        unique = what.encode() + b" " + self._random_bytes(_SECRET_LENGTH)
        rule = ListenerRule(own_group("isoproxy itself"), Isolate.SOCKS_AUTH)
        return self.key_for(rule, IsolationTuple(None, ClientProtocol.INTERNAL, username=unique))

    def is_current(self, key: IsolationKey) -> bool:
        """False once a new epoch began: such a key must not open anything any more."""
        return key.epoch == self._epoch

    def new_epoch(self) -> None:
        """Change every key at once and tell the followers, who free what the old ones held."""
        self._epoch_secret = self._random_bytes(_SECRET_LENGTH)
        self._epoch += 1
        for follower in tuple(self._followers):
            follower()

    @property
    def verbatim(self) -> bool:
        """Whether an application's own credentials are passed on to Tor."""
        return self._verbatim

    def export_state(self) -> bytes:
        """What another process of ours needs, to `import_state`, for the same keys and labels.

        Secret: it may go over a socket that nobody else has, and nowhere else.
        """
        return self._epoch.to_bytes(8) + self._epoch_secret + self._label_secret

    def import_state(self, state: bytes) -> None:
        """Be in the epoch of another Isolator from now on; raises LocalProtocolError."""
        if len(state) != 8 + 2 * _SECRET_LENGTH:
            raise LocalProtocolError("not the state of an Isolator", kind=ErrorKind.INTERNAL)
        self._epoch = int.from_bytes(state[:8])
        self._epoch_secret = state[8 : 8 + _SECRET_LENGTH]
        self._label_secret = state[8 + _SECRET_LENGTH :]
        for follower in tuple(self._followers):
            follower()

    def export_key(self, key: IsolationKey) -> bytes:
        """`key` for `import_key` in another process of ours that is in the same epoch.

        As secret as `export_state`, and for the same socket alone.
        Raises PolicyRefusal(STALE_KEY) for a key of an older epoch.
        """
        if not self.is_current(key):
            raise PolicyRefusal(kind=ErrorKind.STALE_KEY)
        content = key.secret_for(_BUILDER) + key.client
        return self._seal(content) + content

    def import_key(self, exported: bytes) -> IsolationKey:
        """The key that another process of ours exported in this epoch.

        It has no credentials of an application's: it is for look-ups and comparisons.
        Raises PolicyRefusal(STALE_KEY) for anything else.
        """
        seal, content = exported[:_SEAL_LENGTH], exported[_SEAL_LENGTH:]
        if not hmac.compare_digest(seal, self._seal(content)):
            raise PolicyRefusal(kind=ErrorKind.STALE_KEY)
        secret, client = content[:_SECRET_LENGTH], content[_SECRET_LENGTH:]
        return IsolationKey(_BUILDER, secret, self._epoch, self._label_secret, client=client)

    def _seal(self, content: bytes) -> bytes:
        """Proof that an Isolator of this epoch exported the key with this content."""
        return hashlib.blake2b(
            content, key=self._epoch_secret, person=_EXPORT_PERSON, digest_size=_SEAL_LENGTH
        ).digest()

    def on_new_epoch(self, follower: Callable[[], None]) -> Callable[[], None]:
        """Call `follower()` after each change of epoch, until what is returned is called."""
        self._followers.append(follower)

        def leave() -> None:
            if follower in self._followers:
                self._followers.remove(follower)

        return leave
