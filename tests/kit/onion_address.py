"""Version-3 onion addresses of keys (rend-spec-v3 §6)."""

from __future__ import annotations

import base64
import hashlib


def onion_address(public_key: bytes) -> str:
    """The onion address of a 32-byte Ed25519 public key."""
    version = b"\x03"
    checksum = hashlib.sha3_256(b".onion checksum" + public_key + version).digest()[:2]
    return base64.b32encode(public_key + checksum + version).decode().lower() + ".onion"
