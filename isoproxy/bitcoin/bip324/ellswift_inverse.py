"""ElligatorSwift on public values: decoding, and encodings with chosen first bytes.

Theory of operation
    A BIP324 public key is sent as u || t, two numbers below 2^256; every pair stands for
    some x coordinate (XSwiftEC), and each x has about 2^257 pairs.  For a given u, up to
    eight t lead to a given x; XSwiftECInv finds the one of a `case`, or none.  Bytes of u
    can therefore be chosen at will, and t found afterwards: that is how the option
    `ellswift_prefix` makes a handshake begin with bytes of the user's choice.

    Drawing key, remaining bytes of u and case afresh until a t exists gives the same
    distribution as the encoding algorithm of BIP324 under the condition that u begins so.

Invariants
    Arithmetic here is neither constant-time nor meant to be: it sees public keys and
    public encodings only, never a private key.
"""

from __future__ import annotations

from typing import Final

P: Final = 2**256 - 2**32 - 977
CASES: Final = 8

_SQRT_MINUS_3: Final = 0x0A2D2BA93507F1DF233770C2A797962CC61F6D15DA14ECD47D8D27AE1CD5F852
_HALF: Final = (P + 1) // 2


def _sqrt(a: int) -> int | None:
    """A square root of a modulo P, None if a is no square."""
    root = pow(a, (P + 1) // 4, P)
    return root if root * root % P == a % P else None


def is_x(x: int) -> bool:
    """True if a point of secp256k1 has this x coordinate."""
    a = (pow(x, 3, P) + 7) % P
    return a == 0 or pow(a, (P - 1) // 2, P) == 1


def decode(encoded: bytes) -> int:
    """The x coordinate that 64 bytes stand for (XSwiftEC); every input has one."""
    assert len(encoded) == 64
    u = int.from_bytes(encoded[:32], "big") % P or 1
    t = int.from_bytes(encoded[32:], "big") % P or 1
    if (pow(u, 3, P) + t * t + 7) % P == 0:
        t = 2 * t % P
    big_x = (pow(u, 3, P) + 7 - t * t) * pow(2 * t, -1, P) % P
    big_y = (big_x + t) * pow(_SQRT_MINUS_3 * u, -1, P) % P
    ratio = big_x * pow(big_y, -1, P) % P
    for x in ((u + 4 * big_y * big_y) % P, (-ratio - u) * _HALF % P):
        if is_x(x):
            return x
    return (ratio - u) * _HALF % P


def inverse(x: int, u: int, case: int) -> int | None:
    """The t of this case (0-7) with XSwiftEC(u, t) = x, None if there is none."""
    g = (pow(u, 3, P) + 7) % P
    if case & 2 == 0:
        if is_x(-x - u):
            return None
        v = x % P
        s = -g * pow(u * u + u * v + v * v, -1, P) % P
    else:
        s = (x - u) % P
        if s == 0:
            return None
        r = _sqrt(-s * (4 * g + 3 * s * u * u) % P)
        if r is None or (case & 1 and r == 0):
            return None
        v = (-u + r * pow(s, -1, P)) * _HALF % P
    w = _sqrt(s)
    if w is None:
        return None
    sign = 1 if case & 5 in (1, 4) else -1
    c = _SQRT_MINUS_3 if case & 1 else -_SQRT_MINUS_3
    return sign * w * (u * (1 + c) * _HALF + v) % P
