"""The grammar of labels and host names."""

from __future__ import annotations

from isoproxy.net.host_name import MAX_DOTTED_LENGTH, is_host_name, is_label


def test_labels_and_host_names() -> None:
    assert is_label("_tor")
    assert is_label("a-b")
    assert not any(map(is_label, ("", "A", "a.b", "-a", "a-", "*", "a" * 64, "a\n", "\u00e4")))
    assert is_host_name("a.b-c.example")
    assert is_host_name("1.2.3.4")
    assert not any(map(is_host_name, ("", "_tor.a", "a..b", "a.", "A.b", "a-.b", "a\n", "a" * 64)))
    assert not is_host_name(".".join(["a" * 49] * 6))


def test_the_longest() -> None:
    longest = ".".join(["a" * 63] * 3 + ["b" * 61])
    assert len(longest) == MAX_DOTTED_LENGTH
    assert is_host_name(longest)
    assert not is_host_name(longest + "b")
    assert is_label("a" * 63)


def test_no_other_script_is_let_in() -> None:
    assert not any(map(is_host_name, ("\u0430.example", "a\u0301.example", "\uff41", "a\u200d")))
    assert not any(map(is_label, ("\u0661", "\u017f", "\u212a")))
