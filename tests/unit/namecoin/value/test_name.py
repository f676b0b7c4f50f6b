"""Which names are Namecoin's and what they stand for (facts about d/ names, one a case)."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.errors import ConfigError, ErrorKind, IsoproxyError, NamingError, PolicyRefusal
from isoproxy.namecoin.value.name import BitName, Route, TopLevels


@pytest.mark.parametrize(
    ("text", "key", "labels", "onion_only"),
    [
        ("example.bit", b"d/example", (), False),
        ("EXAMPLE.bit.", b"d/example", (), False),
        ("www.example.bit", b"d/example", ("www",), False),
        ("a.b.example.bit", b"d/example", ("a", "b"), False),
        ("_tor.example.bit", b"d/example", ("_tor",), False),
        ("xn--bcher-kva.bit", b"d/xn--bcher-kva", (), False),
        ("1a.bit", b"d/1a", (), False),
        ("a" * 63 + ".bit", b"d/" + b"a" * 63, (), False),
        ("example.bit.onion", b"d/example", (), True),
        ("WWW.Example.BIT.Onion.", b"d/example", ("www",), True),
        (b"example.bit", b"d/example", (), False),
    ],
)
def test_names_are_normalised(
    text: str | bytes, key: bytes, labels: tuple[str, ...], onion_only: bool
) -> None:
    name = BitName.parse(text)
    assert (name.key, name.labels, name.onion_only) == (key, labels, onion_only)


@pytest.mark.parametrize(
    "text",
    [
        "bit",
        "a..bit",
        "..bit",
        ".bit",
        "-a.bit",
        "a-.bit",
        "a--b.bit",
        "x--nmc.bit",
        "a_b.bit",
        "123.bit",
        "a" * 64 + ".bit",
        "www..example.bit",
        "-www.example.bit",
        "www-.example.bit",
        "b" * 64 + ".example.bit",
        "bit.onion",
        "xn--a--b.bit",
    ],
)
def test_a_name_that_cannot_be_registered_does_not_exist(text: str) -> None:
    with pytest.raises((NamingError, PolicyRefusal)) as caught:
        BitName.parse(text)
    expected = ErrorKind.NAME_SYNTAX if text == "bit.onion" else ErrorKind.NAME_ABSENT
    assert caught.value.kind is expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "example.com",
        "example.bit.example.com",
        "exam ple.bit",
        "b\u00fccher.bit",
        "b\u00fccher.bit".encode(),
        b"\xff.bit",
        "a\n.bit",
        "a%00.bit",
        "\u0130.bit",
        "\u212aelvin.bit",
        "*.example.bit",
        ".".join(["a" * 60] * 5) + ".bit",
        "example.bit..",
        "example.\u0661.bit",
    ],
)
def test_what_is_no_host_name_under_bit_is_refused(text: str | bytes) -> None:
    with pytest.raises(PolicyRefusal) as caught:
        BitName.parse(text)
    assert caught.value.kind is ErrorKind.NAME_SYNTAX
    assert caught.value.args == (str(caught.value),)
    assert "example" not in str(caught.value)


@given(st.text(max_size=300) | st.binary(max_size=300))
def test_any_input_gives_a_name_or_one_of_our_errors(text: str | bytes) -> None:
    try:
        name = BitName.parse(text)
    except IsoproxyError:
        return
    assert BitName.parse(str(name)) == name


LABELS = st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,10}[a-z0-9_])?", fullmatch=True)
BASES = st.from_regex(r"(xn--)?[a-z]{1,9}(-[a-z0-9]{1,9}){0,2}", fullmatch=True)


@given(BASES, st.lists(LABELS, max_size=4), st.booleans(), st.booleans(), st.randoms())
def test_case_and_the_last_dot_never_matter(
    base: str, labels: list[str], onion: bool, dot: bool, rng: random.Random
) -> None:
    name = BitName(base, tuple(labels), onion)
    spelt = "".join(rng.choice((c.lower(), c.upper())) for c in str(name)) + "." * dot
    assert BitName.parse(spelt) == name
    assert BitName.parse(spelt.encode()) == name


@pytest.mark.parametrize(
    ("host", "route"),
    [
        ("example.bit", Route.NAMECOIN),
        ("EXAMPLE.BIT", Route.NAMECOIN),
        ("example.bit.", Route.NAMECOIN),
        ("bit", Route.NAMECOIN),
        ("www.example.bit.onion", Route.NAMECOIN),
        ("example.com", Route.TOR),
        ("notbit", Route.TOR),
        ("example.habit", Route.TOR),
        ("a" * 56 + ".onion", Route.TOR),
        ("onion", Route.REFUSE),
        ("ONION.", Route.REFUSE),
        ("printer.local", Route.REFUSE),
        ("Example.I2P.", Route.REFUSE),
        ("x.home.arpa", Route.REFUSE),
        ("arpa", Route.TOR),
        ("", Route.TOR),
    ],
)
def test_the_end_of_a_name_decides_who_resolves_it(host: str, route: Route) -> None:
    assert TopLevels().route(host) is route


def test_the_table_can_be_changed_but_bit_is_never_sent_to_tor() -> None:
    table = TopLevels({"lan": Route.REFUSE, "Corp.Example.": Route.REFUSE, "bit": Route.REFUSE})
    assert table.route("host.lan") is Route.REFUSE
    assert table.route("a.corp.example") is Route.REFUSE
    assert table.route("example") is Route.TOR
    assert table.route("example.bit") is Route.REFUSE
    for suffix in ("bit", ".BIT.", "bit.onion", "example.bit"):
        with pytest.raises(ConfigError, match="never be sent to Tor"):
            TopLevels({suffix: Route.TOR})
    with pytest.raises(ConfigError, match="under 'bit' only"):
        TopLevels({"com": Route.NAMECOIN})
    with pytest.raises(ConfigError, match="not the end of a name"):
        TopLevels({"a b": Route.TOR})
