"""Keys, epochs, and the credentials towards Tor; see the package for the theory."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple, Never

from isoproxy.errors import ErrorKind, LocalProtocolError, PolicyRefusal
from isoproxy.isolation.client import budget_of
from isoproxy.isolation.flags import ClientProtocol, Isolate
from isoproxy.isolation.renewals import LABEL_BYTES, Renewals
from isoproxy.isolation.tuples import IsolationTuple, ListenerRule, encode, own_group

_KEY_PERSON: Final = b"isoproxy key 1"
_CREDENTIAL_PERSON: Final = b"isoproxy cred 1"
_LABEL_PERSON: Final = b"isoproxy label1"
_EXPORT_PERSON: Final = b"isoproxy export1"
_RENEWAL_PERSON: Final = b"isoproxy renew 1"
_SECRET_LENGTH: Final = 32
_SEAL_LENGTH: Final = 16
_STATE_LENGTH: Final = 8 + 2 * _SECRET_LENGTH

PROP351_PREFIX: Final = b"<torS0X>"
PROP351_USERNAME: Final = b"<torS0X>0"


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
            self.__secret, key=self.__label_secret, person=_LABEL_PERSON, digest_size=LABEL_BYTES
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


class Purpose(NamedTuple):
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
        self._renewals = Renewals()
        self._followers: list[Callable[[], None]] = []
        self._renewal_followers: list[Callable[[], None]] = []

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
            encode(rule, stream),
            key=self._epoch_secret,
            person=_KEY_PERSON,
            digest_size=_SECRET_LENGTH,
        ).digest()
        verbatim = self._application_credentials(stream) if self._verbatim else None
        client = budget_of(stream.client)
        key = IsolationKey(_BUILDER, secret, self._epoch, self._label_secret, verbatim, client)
        while not self.is_current(key):
            key = self._successor(key)
        return key

    def _successor(self, key: IsolationKey) -> IsolationKey:
        """The key of the same tuple after its renewal; nobody can tell that from the two."""
        secret = hashlib.blake2b(
            key.secret_for(_BUILDER),
            key=self._epoch_secret,
            person=_RENEWAL_PERSON,
            digest_size=_SECRET_LENGTH,
        ).digest()
        return IsolationKey(
            _BUILDER, secret, self._epoch, self._label_secret, key.verbatim, key.client
        )

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
        """False once a new epoch began, or the key's identity was given another one.

        Such a key must not open anything any more.
        """
        if key.epoch != self._epoch:
            return False
        over = self._renewals.labels
        return not over or key.label not in over

    def is_over(self, label: str) -> bool:
        """Whether the identity of `label` was given another key in this epoch."""
        return label in self._renewals

    def new_epoch(self) -> None:
        """Change every key at once and tell the followers, who free what the old ones held."""
        self._epoch_secret = self._random_bytes(_SECRET_LENGTH)
        self._epoch += 1
        self._renewals.clear()
        for follower in tuple(self._followers):
            follower()

    def renew(self, label: str) -> None:
        """Give the identity whose key has `label` another key, and tell those who follow.

        Raises OperationError: what is no label, a key that is over already, or too many.
        """
        self._renewals.add(label)
        for follower in tuple(self._renewal_followers):
            follower()

    @property
    def verbatim(self) -> bool:
        """Whether an application's own credentials are passed on to Tor."""
        return self._verbatim

    def export_state(self) -> bytes:
        """What another process of ours needs, to `import_state`, for the same keys and labels.

        Secret: it may go over a socket that nobody else has, and nowhere else.
        """
        secrets_of_both = self._epoch_secret + self._label_secret
        return self._epoch.to_bytes(8) + secrets_of_both + self._renewals.export_state()

    def import_state(self, state: bytes) -> None:
        """Be in the epoch of another Isolator from now on; raises LocalProtocolError.

        Within the epoch one was in, that is a renewal, and every other key stays.
        """
        labels = len(state) - _STATE_LENGTH
        if labels < 0 or labels % LABEL_BYTES:
            raise LocalProtocolError("not the state of an Isolator", kind=ErrorKind.INTERNAL)
        before = self._epoch_secret
        self._epoch = int.from_bytes(state[:8])
        self._epoch_secret = state[8 : 8 + _SECRET_LENGTH]
        self._label_secret = state[8 + _SECRET_LENGTH : _STATE_LENGTH]
        self._renewals.import_state(state[_STATE_LENGTH:])
        same = hmac.compare_digest(before, self._epoch_secret)
        for follower in tuple(self._renewal_followers if same else self._followers):
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
        key = IsolationKey(_BUILDER, secret, self._epoch, self._label_secret, client=client)
        if not self.is_current(key):
            raise PolicyRefusal(kind=ErrorKind.STALE_KEY)
        return key

    def _seal(self, content: bytes) -> bytes:
        """Proof that an Isolator of this epoch exported the key with this content."""
        return hashlib.blake2b(
            content, key=self._epoch_secret, person=_EXPORT_PERSON, digest_size=_SEAL_LENGTH
        ).digest()

    def on_new_epoch(self, follower: Callable[[], None]) -> Callable[[], None]:
        """Call `follower()` after each change of epoch, until what is returned is called."""
        return _follow(self._followers, follower)

    def on_renewal(self, follower: Callable[[], None]) -> Callable[[], None]:
        """Call `follower()` when some key is not current any more although its epoch is.

        It frees what it holds for keys of which `is_current` is false, and for no other.
        What is returned ends that.
        """
        return _follow(self._renewal_followers, follower)


def _follow(
    followers: list[Callable[[], None]], follower: Callable[[], None]
) -> Callable[[], None]:
    followers.append(follower)

    def leave() -> None:
        if follower in followers:
            followers.remove(follower)

    return leave
