"""A slow second opinion on BIP324, written from the BIP and RFC 8439, sharing no code.

Everything here is textbook arithmetic on Python's integers.  Run as a program it prints
the vectors of tests/data/bip324:

    python -m tests.unit.bitcoin.reference packets > tests/data/bip324/packets.csv
    python -m tests.unit.bitcoin.reference keys > tests/data/bip324/keys.csv
"""

from __future__ import annotations

import csv
import hashlib
import hmac
import sys
from dataclasses import dataclass

P = 2**256 - 2**32 - 977
N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
G = (
    0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
    0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8,
)
Point = tuple[int, int] | None


def add(a: Point, b: Point) -> Point:
    if a is None or b is None:
        return a or b
    if a[0] == b[0]:
        if (a[1] + b[1]) % P == 0:
            return None
        slope = 3 * a[0] * a[0] * pow(2 * a[1], -1, P)
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, P)
    x = (slope * slope - a[0] - b[0]) % P
    return x, (slope * (a[0] - x) - a[1]) % P


def multiply(k: int, point: Point) -> Point:
    result: Point = None
    while k:
        if k & 1:
            result = add(result, point)
        point = add(point, point)
        k >>= 1
    return result


def root(a: int) -> int | None:
    candidate = pow(a, (P + 1) // 4, P)
    return candidate if candidate * candidate % P == a % P else None


SQRT_MINUS_3 = root(-3)
assert SQRT_MINUS_3 is not None


def lift(x: int) -> Point:
    y = root(x**3 + 7)
    return None if y is None else (x % P, y)


def ellswift_x(encoded: bytes) -> int:
    """XSwiftEC as the BIP defines it: the first of three candidates on the curve."""
    u, t = (int.from_bytes(half, "big") % P for half in (encoded[:32], encoded[32:]))
    u, t = u or 1, t or 1
    if (u**3 + t**2 + 7) % P == 0:
        t = 2 * t
    assert SQRT_MINUS_3 is not None
    x_ = (u**3 + 7 - t**2) * pow(2 * t, -1, P)
    y_ = (x_ + t) * pow(SQRT_MINUS_3 * u, -1, P)
    half = pow(2, -1, P)
    quotient = x_ * pow(y_, -1, P)
    for x in (u + 4 * y_**2, (-quotient - u) * half, (quotient - u) * half):
        if lift(x % P) is not None:
            return x % P
    raise ArithmeticError("every encoding has an x")


def tagged(tag: bytes, data: bytes) -> bytes:
    digest = hashlib.sha256(tag).digest()
    return hashlib.sha256(digest + digest + data).digest()


def shared_secret(private: int, ours: bytes, theirs: bytes, *, initiator: bool) -> bytes:
    point = multiply(private, lift(ellswift_x(theirs)))
    assert point is not None
    both = ours + theirs if initiator else theirs + ours
    return tagged(b"bip324_ellswift_xonly_ecdh", both + point[0].to_bytes(32, "big"))


def hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    extracted = hmac.new(salt, secret, hashlib.sha256).digest()
    return hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()


def _rotate(value: int, bits: int) -> int:
    return (value << bits | value >> (32 - bits)) & 0xFFFFFFFF


def _quarter(s: list[int], a: int, b: int, c: int, d: int) -> None:
    for x, y, z, bits in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        s[x] = (s[x] + s[y]) & 0xFFFFFFFF
        s[z] = _rotate(s[z] ^ s[x], bits)


def chacha20_block(key: bytes, nonce: bytes, counter: int) -> bytes:
    """RFC 8439 section 2.3."""
    words = b"expand 32-byte k" + key + counter.to_bytes(4, "little") + nonce
    start = [int.from_bytes(words[i : i + 4], "little") for i in range(0, 64, 4)]
    s = list(start)
    for _ in range(10):
        for column in range(4):
            _quarter(s, column, column + 4, column + 8, column + 12)
        for i in range(4):
            _quarter(s, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return b"".join(
        ((a + b) & 0xFFFFFFFF).to_bytes(4, "little") for a, b in zip(s, start, strict=True)
    )


def chacha20(key: bytes, nonce: bytes, data: bytes, counter: int) -> bytes:
    out = bytearray()
    for at in range(0, len(data), 64):
        stream = chacha20_block(key, nonce, counter + at // 64)
        out += bytes(a ^ b for a, b in zip(data[at : at + 64], stream, strict=False))
    return bytes(out)


def poly1305(key: bytes, message: bytes) -> bytes:
    """RFC 8439 section 2.5."""
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    total = 0
    for at in range(0, len(message), 16):
        total = (total + int.from_bytes(message[at : at + 16] + b"\x01", "little")) * r
        total %= 2**130 - 5
    return ((total + int.from_bytes(key[16:], "little")) % 2**128).to_bytes(16, "little")


def aead(key: bytes, nonce: bytes, aad: bytes, data: bytes) -> bytes:
    """RFC 8439 section 2.8, encryption."""
    ciphertext = chacha20(key, nonce, data, 1)
    padded = b"".join(part + bytes(-len(part) % 16) for part in (aad, ciphertext))
    lengths = len(aad).to_bytes(8, "little") + len(data).to_bytes(8, "little")
    return ciphertext + poly1305(chacha20_block(key, nonce, 0)[:32], padded + lengths)


class Sender:
    """One direction's packets, by the letter of the BIP's pseudocode."""

    def __init__(self, length_key: bytes, packet_key: bytes) -> None:
        self.length_key, self.packet_key = length_key, packet_key
        self.count = 0
        self.stream = b""
        self.block = 0

    def _stream(self, size: int) -> bytes:
        nonce = bytes(4) + (self.count // 224).to_bytes(8, "little")
        while len(self.stream) < size:
            self.stream += chacha20_block(self.length_key, nonce, self.block)
            self.block += 1
        out, self.stream = self.stream[:size], self.stream[size:]
        return out

    def packet(self, contents: bytes, aad: bytes = b"", *, ignore: bool = False) -> bytes:
        mask = self._stream(3)
        length = bytes(
            a ^ b for a, b in zip(len(contents).to_bytes(3, "little"), mask, strict=True)
        )
        epoch = (self.count // 224).to_bytes(8, "little")
        nonce = (self.count % 224).to_bytes(4, "little") + epoch
        header = b"\x80" if ignore else b"\x00"
        sealed = aead(self.packet_key, nonce, aad, header + contents)
        if self.count % 224 == 223:
            self.length_key = self._stream(32)
            self.packet_key = aead(self.packet_key, b"\xff" * 4 + epoch, b"", bytes(32))[:32]
            self.stream, self.block = b"", 0
        self.count += 1
        return length + sealed


@dataclass(frozen=True)
class Session:
    """What one side has after the key exchange."""

    secret: bytes
    send_terminator: bytes
    recv_terminator: bytes
    session_id: bytes
    sender: Sender
    receiver: Sender


def session(private: int, ours: bytes, theirs: bytes, *, initiator: bool, magic: bytes) -> Session:
    secret = shared_secret(private, ours, theirs, initiator=initiator)
    salt = b"bitcoin_v2_shared_secret" + magic
    keys = {
        name: hkdf(secret, salt, name.encode())
        for name in [
            "initiator_L",
            "initiator_P",
            "responder_L",
            "responder_P",
            "garbage_terminators",
            "session_id",
        ]
    }
    terminators = [keys["garbage_terminators"][:16], keys["garbage_terminators"][16:]]
    one = Sender(keys["initiator_L"], keys["initiator_P"])
    two = Sender(keys["responder_L"], keys["responder_P"])
    if not initiator:
        one, two = two, one
        terminators.reverse()
    send, receive = terminators
    return Session(secret, send, receive, keys["session_id"], one, two)


def seeded(*words: object) -> bytes:
    """64 bytes that depend on `words` alone."""
    return hashlib.sha512(repr(words).encode()).digest()


CASES = (
    # packet index, size of the contents, size of the authenticated garbage, decoy
    (0, 0, 0, False),
    (0, 1, 4094, False),
    (0, 300, 17, True),
    (1, 33, 0, False),
    (222, 5, 0, True),
    (223, 64, 0, False),
    (224, 64, 0, False),
    (225, 1000, 0, False),
    (447, 2, 0, False),
    (448, 20_000, 0, False),
    (999, 17, 33, True),
)


def packet_rows() -> list[dict[str, str]]:
    rows = []
    for number, (index, size, garbage, ignore) in enumerate(CASES):
        for initiator in (True, False):
            private = int.from_bytes(seeded("private", number, initiator)[:32], "big") % N
            ours, theirs = seeded("ours", number, initiator), seeded("theirs", number, initiator)
            contents = (seeded("contents", number) * (size // 64 + 1))[:size]
            aad = (seeded("garbage", number) * (garbage // 64 + 1))[:garbage]
            magic = bytes.fromhex("f9beb4fe" if number % 2 else "f9beb4d9")
            state = session(private, ours, theirs, initiator=initiator, magic=magic)
            for _ in range(index):
                state.sender.packet(b"")
            packet = state.sender.packet(contents, aad, ignore=ignore)
            rows.append(
                {
                    "magic": magic.hex(),
                    "private": f"{private:064x}",
                    "ours": ours.hex(),
                    "theirs": theirs.hex(),
                    "initiator": str(int(initiator)),
                    "index": str(index),
                    "contents": contents.hex(),
                    "aad": aad.hex(),
                    "ignore": str(int(ignore)),
                    "secret": state.secret.hex(),
                    "send_terminator": state.send_terminator.hex(),
                    "recv_terminator": state.recv_terminator.hex(),
                    "session_id": state.session_id.hex(),
                    "packet_sha256": hashlib.sha256(packet).hexdigest(),
                    "packet_start": packet[:64].hex(),
                }
            )
    return rows


def key_rows() -> list[dict[str, str]]:
    encodings = [seeded("encoding", number) for number in range(32)]
    edges = [0, 1, 2, P - 1, P, P + 1, 2**256 - 1]
    encodings += [u.to_bytes(32, "big") + t.to_bytes(32, "big") for u in edges for t in edges]
    return [{"encoded": data.hex(), "x": f"{ellswift_x(data):064x}"} for data in encodings]


def main() -> None:
    rows = {"packets": packet_rows, "keys": key_rows}[sys.argv[1]]()
    writer = csv.DictWriter(sys.stdout, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


if __name__ == "__main__":
    main()
