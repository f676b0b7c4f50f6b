"""Bitcoin's compact sizes, as a writer of transactions has them."""

from __future__ import annotations


def write_compact_size(value: int) -> bytes:
    """The shortest serialisation of `value`, 0 <= value < 2**32."""
    if value < 0xFD:
        return bytes([value])
    if value < 0x10000:
        return b"\xfd" + value.to_bytes(2, "little")
    return b"\xfe" + value.to_bytes(4, "little")
