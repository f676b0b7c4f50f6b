"""What a connection's first bytes are: bytes in, verdict out.

Theory of operation
    *v1* begins with a network's magic (4 bytes) and a message's type (12); a client of a
    known network is told by the magic alone, whatever message it begins with.  A *v2*
    initiator begins with 64 bytes that look random (BIP324, "Handshake"), and so one in
    500 million of them is taken for v1.  Where plaintext must not leave, a header of an
    unknown network is told from other protocols by its type.

    A peer that was dialled is compared with magic and `version`, 16 bytes, as BIP324 has
    responders do it: some v1 peers speak first.

    At a port for clients that know no proxy, SOCKS5 (RFC 1928), SOCKS4, 4a and HTTP
    (RFC 9110) are told from both: one first byte would not do, since one v2 stream in 256
    begins with it.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

from isoproxy.bitcoin.messages import (
    KNOWN_NETWORKS,
    KNOWN_TYPES,
    TYPE_LENGTH,
    Network,
    Networks,
    is_type,
)
from isoproxy.bitcoin.v1 import (
    HEADER_LENGTH,
    PREFIX_LENGTH,
    VERSION,
    V1Receiver,
    Version,
    VersionRewrite,
    encode,
    parse_version,
)
from isoproxy.errors import LimitExceeded, RemoteProtocolError

MAGIC_LENGTH: Final = 4
MAX_VERSION: Final = 1024
"""Bytes of a VERSION message, header included; real ones have less than 400."""
PROXY_PEEK: Final = 2 + 255
"""Bytes of a client's that tell whether it speaks to a proxy: a SOCKS5 greeting's most."""

_SOCKS5: Final = 5
_LAST_METHOD: Final = 9
_REQUEST4: Final = re.compile(
    # version 4, command, port and address, the user's name, of 4a the host's name, or as
    # much of it as is there; names have no control characters
    rb"\x04(?:[\x01\x02\xf0](?:.{0,6}|.{6}[^\x00-\x1f]*(?:\x00[^\x00-\x1f]*\x00?)?))?",
    re.DOTALL,
)
_METHODS: Final = tuple(
    method + b" "
    for method in b"CONNECT GET HEAD POST PUT DELETE OPTIONS TRACE PATCH".split()
)  # fmt: skip


class Detected(Enum):
    """What a client's first bytes are, if they are not v1 of a network that is accepted.

    FOREIGN is v1 of a network that must not be passed on as it is.
    """

    NOT_V1 = "not v1"
    FOREIGN = "foreign"
    NEED_MORE = "need more"


def detect(first: bytes, networks: Networks = KNOWN_NETWORKS) -> Network | Detected:
    """Tell whether a connection that begins with `first` speaks v1, and on which network.

    NEED_MORE while `first` could still become v1 (also for no bytes).
    """
    if len(first) < MAGIC_LENGTH:
        like = networks.closed or networks.may_begin(first) or KNOWN_NETWORKS.may_begin(first)
        return Detected.NEED_MORE if like else Detected.NOT_V1
    magic = bytes(first[:MAGIC_LENGTH])
    network = networks.get(magic)
    if network is not None:
        return network
    if KNOWN_NETWORKS.get(magic) is not None:
        return Detected.FOREIGN
    return (
        _foreign(bytes(first[MAGIC_LENGTH:PREFIX_LENGTH])) if networks.closed else Detected.NOT_V1
    )


def _foreign(field: bytes) -> Detected:
    """Judge by what stands where v1 has its type, behind a magic that nobody knows."""
    if len(field) < TYPE_LENGTH:
        like = any(known.startswith(field) for known in KNOWN_TYPES)
        return Detected.NEED_MORE if like else Detected.NOT_V1
    padded = is_type(field) and field[:1] != b"\x00" and field.endswith(b"\x00")
    return Detected.FOREIGN if padded or field in KNOWN_TYPES else Detected.NOT_V1


def begins_v1(first: bytes, network: Network) -> bool:
    """Whether a peer began with a VERSION header of `network`; never by less than all of it."""
    return bytes(first[:PREFIX_LENGTH]) == network.magic + VERSION


def is_v1_peer(first: bytes, network: Network) -> bool | None:
    """Whether a peer that came in speaks v1 of `network`; None while that is open (BIP324)."""
    prefix = network.magic + VERSION
    if not prefix.startswith(first[:PREFIX_LENGTH]):
        return False
    return True if len(first) >= PREFIX_LENGTH else None


def begins_greeting(first: bytes) -> bool:
    """Whether a SOCKS5 client may have begun with `first`: version, count, methods.

    Methods of its own (RFC 1928, section 3) a client may have, too, and then its greeting is
    told by its length alone.
    """
    if len(first) < 2:
        return first == bytes([_SOCKS5])
    version, count, *methods = first
    assigned = all(method <= _LAST_METHOD for method in methods[:count])
    return version == _SOCKS5 and count > 0 and (assigned or len(methods) == count)


def begins_http(first: bytes) -> bool:
    """Whether an HTTP client may have begun with `first`: a method and a space."""
    return bool(first) and any(
        first.startswith(method) or method.startswith(first) for method in _METHODS
    )


def begins_proxy_protocol(first: bytes) -> bool:
    """Whether a client of SOCKS5, 4, 4a or HTTP may have begun with `first`.

    As good as no v2 stream does.
    """
    return begins_greeting(first) or begins_http(first) or _REQUEST4.fullmatch(first) is not None


def read_version(first: bytes, network: Network) -> Version | None:
    """What the VERSION message that a client's `first` bytes begin with says.

    None while it is not complete.  Raises RemoteProtocolError for one that is too long or
    unreadable, and for another message.
    """
    message = _first_message(first, network)
    if message is None:
        return None
    kind, start, end = message
    if kind != VERSION:
        raise RemoteProtocolError("a client's first message is not VERSION")
    return parse_version(first[start + HEADER_LENGTH : end])


def rewrite_version(first: bytes, network: Network, rewrite: VersionRewrite) -> bytes | None:
    """`first`, with the VERSION message that it begins with rewritten.

    None while that is not complete.  Another message stays as it is.  Raises
    RemoteProtocolError for a VERSION message that is too long or unreadable.
    """
    if len(first) >= PREFIX_LENGTH and first[MAGIC_LENGTH:PREFIX_LENGTH] != VERSION:
        return first
    message = _first_message(first, network)
    if message is None:
        return None
    _, start, end = message
    payload = rewrite.apply(first[start + HEADER_LENGTH : end])
    return encode(network, VERSION, payload) + first[end:]


def _first_message(first: bytes, network: Network) -> tuple[bytes, int, int] | None:
    receiver = V1Receiver(network)
    receiver.queue.append(first)
    message = receiver.next_message()
    if receiver.corrupt or receiver.untyped:
        raise RemoteProtocolError("a client's first message is corrupt")
    if message is None and len(first) >= MAX_VERSION:
        raise LimitExceeded("a client's first message is too long")
    return message
