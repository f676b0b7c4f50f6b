"""Counting by type, in both transports' bytes."""

from __future__ import annotations

from isoproxy.bitcoin.messages import BITCOIN_IDS, padded
from isoproxy.bitcoin.traffic import Traffic


def test_short_types_save_three_bytes_and_long_ones_cost_nine() -> None:
    traffic = Traffic(BITCOIN_IDS)
    ping = traffic.tally(padded("ping"))
    ping.messages, ping.payload = 10, 80
    assert (traffic.v1_bytes, traffic.v2_bytes) == (10 * 32, 10 * 29)
    verack = traffic.tally(padded("verack"))
    verack.messages = 1
    assert (traffic.v1_bytes, traffic.v2_bytes) == (320 + 24, 290 + 33)
    assert traffic.by_type() == {"ping": (10, 80), "verack": (1, 0)}


def test_the_table_does_not_grow_with_invented_types() -> None:
    traffic = Traffic(BITCOIN_IDS)
    for number in range(1000):
        row = traffic.tally(b"%d" % number + bytes(12 - len(str(number))))
        row.messages += 1
    assert traffic.by_type() == {"(other)": (1000, 0)}
    assert traffic.v2_bytes == 1000 * 33
