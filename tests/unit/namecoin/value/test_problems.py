from __future__ import annotations

import pytest

from isoproxy.namecoin.value.problems import item_problems, map_problems, quoted


@pytest.mark.parametrize("text", ["", "www", "\x1b[2J\r\n", "é" * 400, '"' * 90])
def test_what_is_quoted_is_short_and_harmless_on_a_terminal(text: str) -> None:
    shown = quoted(text)
    assert len(shown) <= 45
    assert shown.isascii()
    assert shown.isprintable()


def test_items_that_somebody_described_are_no_problem() -> None:
    known = ("ip", "ip6", "dns", "ns", "tor", "i2p", "info", "email", "nostr", "o", "tls")
    assert list(item_problems(known)) == []
    assert len(list(item_problems(("Tor", "_tor", "A")))) == 3


def test_labels_that_are_reached_are_no_problem() -> None:
    assert list(map_problems([{"": {}, "*": "1.2.3.4", "a-b": {}, "_x": None}, {"www": {}}])) == []
    assert len(list(map_problems([{"-a": {}}, {"b": []}]))) == 2
