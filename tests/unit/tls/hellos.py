"""ClientHellos: of Python's own library, and written by hand."""

from __future__ import annotations

import ssl
from collections.abc import Sequence


def real_hello(name: str | None, protocols: Sequence[str] = ()) -> bytes:
    """The first flight of a real client, which wants `name`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(list(protocols))
    outgoing = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a client that waits for no server")


def vector(size: int, content: bytes) -> bytes:
    """`content` with its length in `size` bytes before it."""
    return len(content).to_bytes(size) + content


def extension(kind: int, content: bytes) -> bytes:
    """One extension."""
    return kind.to_bytes(2) + vector(2, content)


def server_name(host: bytes, kind: int = 0) -> bytes:
    """The extension server_name."""
    return extension(0, vector(2, bytes([kind]) + vector(2, host)))


def message(*extensions: bytes) -> bytes:
    """A ClientHello's handshake message."""
    body = b"\x03\x03" + bytes(32) + vector(1, b"") + vector(2, b"\x13\x01") + vector(1, b"\x00")
    return b"\x01" + vector(3, body + vector(2, b"".join(extensions)))


def records(content: bytes, size: int = 1 << 14) -> bytes:
    """`content` in handshake records of at most `size` bytes."""
    parts = [content[at : at + size] for at in range(0, len(content), size)]
    return b"".join(b"\x16\x03\x01" + vector(2, part) for part in parts)
