"""ElligatorSwift keys and the BIP324 key exchange, by libsecp256k1.

Theory of operation
    The only importer of coincurve's cffi library, which carries libsecp256k1 with its
    ElligatorSwift module.  That library checks no lengths and aborts the process on
    illegal arguments, so every length is checked here before the call.  The module is
    not part of coincurve's public interface; `self_test` makes sure, before the first key
    is made, that what is there computes what BIP324 says.

    A private key comes from the operating system's generator, is computed with inside
    libsecp256k1 alone, and is overwritten when its KeyPair has done its one exchange.
"""

from __future__ import annotations

import functools
import os
from typing import Any, Final

from isoproxy.bitcoin.bip324 import ellswift_inverse
from isoproxy.errors import LocalProtocolError, OperationError

SECRET_LENGTH: Final = 32
ENCODED_LENGTH: Final = 64
MAX_PREFIX: Final = 32
"""Bytes of an encoding that can be chosen: all of u."""

_REMEDY: Final = "coincurve's libsecp256k1 cannot do BIP324; install coincurve 19.0.1 or later"


class _Library:
    """libsecp256k1 behind coincurve's cffi module, with a blinded context of our own."""

    def __init__(self) -> None:
        try:
            from coincurve._libsecp256k1 import ffi, lib

            self.hash: Any = lib.secp256k1_ellswift_xdh_hash_function_bip324
            self.create: Any = lib.secp256k1_ellswift_create
        except (ImportError, AttributeError):
            raise OperationError(_REMEDY) from None
        self.ffi: Any = ffi
        self.lib: Any = lib
        context = lib.secp256k1_context_create(lib.SECP256K1_CONTEXT_NONE)
        self.context: Any = ffi.gc(context, lib.secp256k1_context_destroy)
        if not lib.secp256k1_context_randomize(self.context, os.urandom(SECRET_LENGTH)):
            raise OperationError(_REMEDY)

    def x_of(self, point: Any) -> bytes:
        """The x coordinate of a public key of libsecp256k1."""
        out, size = self.ffi.new("unsigned char[33]"), self.ffi.new("size_t *", 33)
        compressed = self.lib.SECP256K1_EC_COMPRESSED
        self.lib.secp256k1_ec_pubkey_serialize(self.context, out, size, point, compressed)
        return bytes(self.ffi.buffer(out, 33))[1:]


@functools.cache
def _library() -> _Library:
    return _Library()


def _sized(data: bytes | bytearray, length: int) -> Any:
    """`data` as libsecp256k1 wants it; raises LocalProtocolError for another length."""
    if len(data) != length:
        raise LocalProtocolError("an argument of libsecp256k1 has a wrong length")
    return _library().ffi.from_buffer(data)


def encode(secret: bytes | bytearray, aux: bytes) -> bytes:
    """An encoding (64 bytes) of the public key of `secret`, chosen by `aux` (32 bytes).

    Raises LocalProtocolError if `secret` is no private key (zero, or beyond the order).
    """
    library = _library()
    out = library.ffi.new("unsigned char[64]")
    key, randomness = _sized(secret, SECRET_LENGTH), _sized(aux, SECRET_LENGTH)
    if not library.create(library.context, out, key, randomness):
        raise LocalProtocolError("not a private key of secp256k1")
    return bytes(library.ffi.buffer(out, ENCODED_LENGTH))


def decode(encoded: bytes) -> bytes:
    """The x coordinate (32 bytes) that an encoding stands for."""
    library = _library()
    point = library.ffi.new("secp256k1_pubkey *")
    data = _sized(encoded, ENCODED_LENGTH)
    library.lib.secp256k1_ellswift_decode(library.context, point, data)
    return library.x_of(point)


def public_x(secret: bytes | bytearray) -> bytes | None:
    """The x coordinate of the public key of `secret`, None if that is no private key."""
    library = _library()
    point = library.ffi.new("secp256k1_pubkey *")
    key = _sized(secret, SECRET_LENGTH)
    if not library.lib.secp256k1_ec_pubkey_create(library.context, point, key):
        return None
    return library.x_of(point)


def shared_secret(
    secret: bytes | bytearray, ours: bytes, theirs: bytes, *, initiator: bool
) -> bytes:
    """The 32-byte BIP324 secret both sides share; any 64 bytes of theirs will do."""
    library = _library()
    first, second = (ours, theirs) if initiator else (theirs, ours)
    out = library.ffi.new("unsigned char[32]")
    done = library.lib.secp256k1_ellswift_xdh(
        library.context,
        out,
        _sized(first, ENCODED_LENGTH),
        _sized(second, ENCODED_LENGTH),
        _sized(secret, SECRET_LENGTH),
        0 if initiator else 1,
        library.hash,
        library.ffi.NULL,
    )
    if not done:
        raise LocalProtocolError("not a private key of secp256k1")
    return bytes(library.ffi.buffer(out, SECRET_LENGTH))


class KeyPair:
    """A private key for one handshake, and its encoding."""

    __slots__ = ("_secret", "encoded")

    def __init__(self, secret: bytes | bytearray, encoded: bytes) -> None:
        self._secret = bytearray(secret)
        self.encoded = encoded

    @classmethod
    def fresh(cls, prefix: bytes = b"") -> KeyPair:
        """A new key whose encoding begins with `prefix` (at most 32 bytes)."""
        self_test()
        if len(prefix) > MAX_PREFIX:
            raise LocalProtocolError("at most 32 bytes of a BIP324 key can be chosen")
        while True:
            secret = bytearray(os.urandom(SECRET_LENGTH))
            encoded = _with_prefix(secret, prefix) if prefix else _encode_fresh(secret)
            if encoded is not None:
                return cls(secret, encoded)

    @property
    def spent(self) -> bool:
        """True once the private key is gone."""
        return not self._secret

    def exchange(self, theirs: bytes, *, initiator: bool) -> bytes:
        """The shared secret with `theirs` (64 bytes); overwrites and forgets the key."""
        if not self._secret:
            raise LocalProtocolError("a BIP324 key is used once")
        try:
            return shared_secret(self._secret, self.encoded, theirs, initiator=initiator)
        finally:
            self.wipe()

    def wipe(self) -> None:
        """Overwrite the private key."""
        self._secret[:] = bytes(len(self._secret))
        self._secret = bytearray()


def _encode_fresh(secret: bytearray) -> bytes | None:
    try:
        return encode(secret, os.urandom(SECRET_LENGTH))
    except LocalProtocolError:  # zero or beyond the order: about once in 2^127 draws
        return None


def _with_prefix(secret: bytearray, prefix: bytes) -> bytes | None:
    """An encoding that begins with `prefix`; None if this draw has none."""
    x = public_x(secret)
    u = prefix + os.urandom(MAX_PREFIX - len(prefix))
    case = os.urandom(1)[0] % ellswift_inverse.CASES
    if x is None or int.from_bytes(u, "big") % ellswift_inverse.P == 0:
        return None
    t = ellswift_inverse.inverse(int.from_bytes(x, "big"), int.from_bytes(u, "big"), case)
    if t is None:
        return None
    encoded = u + t.to_bytes(32, "big")
    return encoded if decode(encoded) == x else None


@functools.cache
def self_test() -> None:
    """Make sure that libsecp256k1 agrees with BIP324; raises OperationError if not."""
    secrets = (bytes(31) + b"\x02", bytes(31) + b"\x03")
    one, two = (encode(secret, bytes(32)) for secret in secrets)
    agreed = shared_secret(secrets[0], one, two, initiator=True)
    decoded = ellswift_inverse.decode(one).to_bytes(32, "big")
    if (
        agreed != shared_secret(secrets[1], two, one, initiator=False)
        or decoded != decode(one)
        or decoded != public_x(secrets[0])
    ):
        raise OperationError(_REMEDY)
