"""The packet ciphers of BIP324: FSChaCha20 for lengths, FSChaCha20Poly1305 for the rest.

Theory of operation
    Each direction has two ciphers that advance together, one step a packet, and take a
    new key after every 224 steps.

    *Lengths*: in epoch e the 3-byte lengths are masked with one ChaCha20 keystream (key
    K_e, nonce 0^32 || LE64(e), counter from 0); of its 704 bytes 672 are masks and the
    last 32 are K_{e+1}.  *Contents*: packet n of epoch e is an RFC 8439 AEAD message with
    the nonce LE32(n) || LE64(e); K_{e+1} is the first 32 bytes of the encryption of 32
    zeros with n = 0xffffffff.

    Both keep the keystream or the AEAD object of the running epoch, since making one
    costs as much as using it.  A header byte (0x80: decoy) is encrypted with the
    contents; the length counts the contents alone.

Invariants
    Packets are sealed and opened where the caller says, and nothing is copied.  Keys of past
    epochs and the secrets of the key schedule are dropped at once; Python cannot promise
    that no copy of them stays in memory.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from isoproxy.bitcoin.buffer import ByteQueue
from isoproxy.bitcoin.messages import MAX_CONTENTS
from isoproxy.errors import LocalProtocolError, RemoteProtocolError

REKEY_INTERVAL: Final = 224
LENGTH_SIZE: Final = 3
HEADER_SIZE: Final = 1
TAG_SIZE: Final = 16
OVERHEAD: Final = LENGTH_SIZE + HEADER_SIZE + TAG_SIZE
"""Bytes of a packet that are not contents."""
IGNORE: Final = 0x80
"""The bit of the header byte that marks a decoy."""

_MASKS: Final = REKEY_INTERVAL * LENGTH_SIZE
_EPOCH_STREAM: Final = bytes(_MASKS + 32)
_COUNTERS: Final = tuple(number.to_bytes(4, "little") for number in range(REKEY_INTERVAL))
_LAST: Final = REKEY_INTERVAL - 1
_LENGTH_BITS: Final = 0xFFFFFF
_WORD: Final = struct.Struct("<I")
_REKEY_NONCE: Final = b"\xff\xff\xff\xff"

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True, repr=False)
class SessionKeys:
    """What both sides derive from the shared secret; every field has 32 bytes."""

    initiator_length: bytes
    initiator_packet: bytes
    responder_length: bytes
    responder_packet: bytes
    garbage_terminators: bytes
    session_id: bytes

    @classmethod
    def derive(cls, secret: bytes, magic: bytes) -> SessionKeys:
        """HKDF-SHA256 of the 32-byte ECDH secret, salted with the network's magic."""
        extracted = hmac.digest(b"bitcoin_v2_shared_secret" + magic, secret, hashlib.sha256)
        return cls(
            *(
                hmac.digest(extracted, info + b"\x01", hashlib.sha256)
                for info in (
                    b"initiator_L",
                    b"initiator_P",
                    b"responder_L",
                    b"responder_P",
                    b"garbage_terminators",
                    b"session_id",
                )
            )
        )


class FSChaCha20:
    """Masks for the lengths of one direction."""

    __slots__ = ("_epoch", "_key", "_position", "_stream")

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._epoch = 0
        self._stream = b""
        self._position = _MASKS  # the first epoch's stream is made when it is needed

    def crypt(self, length: int) -> int:
        """Mask or unmask the next length (24 bits); moves the cipher on."""
        position = self._position
        if position == _MASKS:
            self._begin_epoch()
            position = 0
        self._position = position + LENGTH_SIZE
        word: int = _WORD.unpack_from(self._stream, position)[0]
        return length ^ (word & _LENGTH_BITS)

    def _begin_epoch(self) -> None:
        if self._stream:
            self._key = self._stream[_MASKS:]
            self._epoch += 1
        nonce = bytes(8) + self._epoch.to_bytes(8, "little")  # block counter, then nonce
        stream = Cipher(ChaCha20(self._key, nonce), mode=None).encryptor()
        self._stream = stream.update(_EPOCH_STREAM)


class FSChaCha20Poly1305:
    """Authenticated encryption of the packets of one direction.

    `aad` is authenticated with the next packet, and with that one alone.
    """

    __slots__ = ("_decrypt", "_encrypt", "_epoch", "_number", "_tail", "aad")

    _number: int
    _tail: bytes
    _encrypt: Callable[[Buffer, Buffer, Buffer | None, Buffer], int]
    _decrypt: Callable[[Buffer, Buffer, Buffer | None, Buffer], int]

    def __init__(self, key: bytes, aad: bytes = b"") -> None:
        self.aad = aad
        self._epoch = -1
        self._begin_epoch(ChaCha20Poly1305(key))

    def encrypt_into(self, plaintext: Buffer, out: Buffer) -> None:
        """Encrypt into `out` (exactly 16 bytes longer); may begin where `plaintext` does."""
        number = self._number
        self._encrypt(_COUNTERS[number] + self._tail, plaintext, self.aad, out)
        self.aad = b""
        self._number = number + 1
        if number == _LAST:
            self._rekey()

    def decrypt_into(self, ciphertext: Buffer, out: Buffer) -> None:
        """Decrypt into `out` (exactly 16 bytes shorter); may begin where `ciphertext` does.

        Raises RemoteProtocolError if the packet was not made by the other side; `out` then
        holds bytes nobody may look at.
        """
        number = self._number
        try:
            self._decrypt(_COUNTERS[number] + self._tail, ciphertext, self.aad, out)
        except InvalidTag:
            raise RemoteProtocolError("a BIP324 packet is not authentic") from None
        self.aad = b""
        self._number = number + 1
        if number == _LAST:
            self._rekey()

    def _rekey(self) -> None:
        key = bytearray(32 + TAG_SIZE)
        self._encrypt(_REKEY_NONCE + self._tail, bytes(32), b"", key)
        self._begin_epoch(ChaCha20Poly1305(key[:32]))

    def _begin_epoch(self, aead: ChaCha20Poly1305) -> None:
        self._encrypt, self._decrypt = aead.encrypt_into, aead.decrypt_into
        self._epoch += 1
        self._number = 0
        self._tail = self._epoch.to_bytes(8, "little")


class PacketSealer:
    """The sending direction: contents to packets; the first one authenticates `aad` too."""

    __slots__ = ("_lengths", "_packets")

    def __init__(self, length_key: bytes, packet_key: bytes, aad: bytes) -> None:
        self._lengths = FSChaCha20(length_key)
        self._packets = FSChaCha20Poly1305(packet_key, aad)

    def seal_onto(self, plaintext: Buffer, out: ByteQueue) -> None:
        """Queue the packet of `plaintext` (header byte and contents).

        Raises LocalProtocolError for contents beyond 2^24 - 1 bytes, which the length field
        could not hold.
        """
        size = len(plaintext) - HEADER_SIZE
        if not 0 <= size <= MAX_CONTENTS:
            raise LocalProtocolError("the contents do not fit a BIP324 packet")
        room = out.reserve(size + HEADER_SIZE + TAG_SIZE, LENGTH_SIZE)
        _WORD.pack_into(out.data, out.end, self._lengths.crypt(size))
        self._packets.encrypt_into(plaintext, room)  # also over the fourth byte of that word
        out.end += size + OVERHEAD

    def seal(self, contents: bytes, *, ignore: bool = False) -> bytes:
        """One packet as bytes; a decoy if `ignore`."""
        out = ByteQueue()
        self.seal_onto(bytes([IGNORE if ignore else 0]) + contents, out)
        return out.take()


class PacketOpener:
    """The receiving direction: packets to contents.

    `open_length` turns a packet's length field, as a number, into the size of the contents;
    call it once for each packet, it moves the cipher on.  `open_into` decrypts the rest of
    the packet to header byte and contents, 16 bytes shorter; it raises RemoteProtocolError
    if the other side did not make the packet.
    """

    __slots__ = ("_packets", "open_into", "open_length")

    def __init__(self, length_key: bytes, packet_key: bytes) -> None:
        self._packets = FSChaCha20Poly1305(packet_key)
        self.open_length: Final = FSChaCha20(length_key).crypt
        self.open_into: Final = self._packets.decrypt_into

    def authenticate(self, aad: bytes) -> None:
        """Have the next packet authenticate `aad` too (the other side's garbage)."""
        self._packets.aad = aad
