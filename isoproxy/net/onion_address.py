"""Version-3 onion addresses: which texts are one.

Theory of operation
    rend-spec-v3 §6: the last label before `onion` is base32 of
    `public key (32) | checksum (2) | version (1)`, where the checksum is the start of
    SHA3-256(".onion checksum" | public key | version).  Labels further left select a
    virtual host and play no part in reaching the service.

Invariants
    What passes is lower-case, has no last dot, and Tor will take it as a well-formed v3
    address.  Version-2 addresses (16 characters) no longer exist and do not pass.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Final

from isoproxy.net.host_name import MAX_DOTTED_LENGTH, is_label

_LENGTH: Final = 56
_DECODED_LENGTH: Final = 35
_VERSION: Final = 3


def onion_host(text: str) -> str | None:
    """`text` in lower case if it is a v3 onion host name, else None."""
    if len(text) > MAX_DOTTED_LENGTH or not text.isascii():
        return None
    *subdomains, address, top = ("", *text.lower().split("."))
    if top != "onion" or len(address) != _LENGTH:
        return None
    if not all(map(is_label, subdomains[1:])):
        return None
    try:
        decoded = base64.b32decode(address.upper())
    except ValueError:
        return None
    if len(decoded) != _DECODED_LENGTH:  # base32's padding took the place of digits
        return None
    public_key, checksum, version = decoded[:32], decoded[32:34], decoded[34]
    if version != _VERSION:
        return None
    expected = hashlib.sha3_256(b".onion checksum" + public_key + bytes([version])).digest()
    return text.lower() if checksum == expected[:2] else None
