"""What stands for what: each client's own, one name to an address, and bounded."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from isoproxy.transparent import virtual_addresses
from isoproxy.transparent.virtual_addresses import (
    KEEP_S,
    MAX_CLIENTS,
    MAX_NAMES,
    NETWORK4,
    NETWORK6,
    OWN4,
    OWN6,
    ClientMaps,
    VirtualAddresses,
    VirtualPair,
    is_virtual,
)


def assigned(addresses: VirtualAddresses, name: str, now: float = 0.0) -> VirtualPair:
    pair = addresses.assign(name, now)
    assert pair is not None
    return pair


@given(st.lists(st.sampled_from("abcdefgh"), max_size=50), st.integers(0, 2**32 - 1))
def test_a_name_keeps_its_addresses_and_no_two_names_share_one(
    names: list[str], start: int
) -> None:
    addresses = VirtualAddresses(start)
    pairs = {name: assigned(addresses, name) for name in names}
    assert [assigned(addresses, name) for name in names] == [pairs[name] for name in names]
    assert len({address for pair in pairs.values() for address in pair}) == 2 * len(pairs)
    for name, pair in pairs.items():
        assert pair.ipv4 in NETWORK4
        assert pair.ipv6 in NETWORK6
        assert {addresses.name_at(address, 0.0) for address in pair} == {name}
        assert not {OWN4, OWN6} & set(pair)


def test_what_was_given_to_no_name_stands_for_nothing() -> None:
    addresses = VirtualAddresses(0)
    pair = assigned(addresses, "a")
    for text in ("10.192.0.0", "10.255.255.255", "fd69:736f:7072::", "fd69:736f:7072:ffff::1"):
        assert is_virtual(ip_address(text))
        assert addresses.name_at(ip_address(text), 0.0) is None
    assert addresses.name_at(pair.ipv4 + 1, 0.0) is None
    assert not any(map(is_virtual, map(ip_address, ("10.191.255.255", "11.0.0.0", "fd69::1"))))


def test_every_number_that_there_is_can_be_had() -> None:
    last = NETWORK4.num_addresses - 256 - 2
    addresses = VirtualAddresses(last)
    assert assigned(addresses, "last").ipv4 == NETWORK4[-2]
    assert assigned(addresses, "first").ipv4 == NETWORK4[256]


def test_a_name_in_use_is_never_forgotten_and_one_that_is_not_makes_room() -> None:
    addresses = VirtualAddresses(7)
    first = assigned(addresses, "first")
    for number in range(MAX_NAMES - 1):
        assigned(addresses, f"name{number}")
    assert addresses.assign("more", KEEP_S - 1) is None
    assert addresses.name_at(first.ipv6, KEEP_S - 1) == "first"
    second = assigned(addresses, "more", KEEP_S)
    assert len(addresses) == MAX_NAMES
    assert addresses.name_at(first.ipv4, KEEP_S) == "first"
    assert second.ipv4 not in {first.ipv4, NETWORK4[256 + 7 + 1]}


def test_an_address_that_was_forgotten_is_not_given_to_the_next_name() -> None:
    addresses = VirtualAddresses(0)
    old = [assigned(addresses, f"old{number}") for number in range(MAX_NAMES)]
    new = [assigned(addresses, f"new{number}", KEEP_S) for number in range(MAX_NAMES)]
    assert not {pair.ipv4 for pair in old} & {pair.ipv4 for pair in new}
    assert addresses.name_at(old[0].ipv4, KEEP_S) is None


def maps() -> ClientMaps:
    """All clients begin at the same number."""
    return ClientMaps(bytes)


def test_a_client_reads_nothing_of_anothers() -> None:
    two = maps()
    mine = two.assign(b"4mine", "secret.example", 0.0)
    assert mine is not None
    assert two.name_at(b"4other", mine.ipv4, 0.0) is None
    assert two.assign(b"4other", "other.example", 0.0) == mine
    assert two.name_at(b"4other", mine.ipv4, 0.0) == "other.example"
    assert two.name_at(b"4mine", mine.ipv4, 0.0) == "secret.example"


def test_clients_in_use_are_bounded_and_none_ends_anothers() -> None:
    many = maps()
    for number in range(MAX_CLIENTS):
        assert many.assign(b"%d" % number, "name", 0.0) is not None
    assert many.assign(b"more", "name", KEEP_S - 1) is None
    pair = many.assign(b"0", "name", KEEP_S - 1)
    assert pair is not None
    assert many.assign(b"more", "name", KEEP_S) is not None
    assert many.name_at(b"0", pair.ipv4, KEEP_S) == "name"
    assert many.name_at(b"1", pair.ipv4, KEEP_S) is None


class Model(RuleBasedStateMachine):
    """Against a dictionary, with room for few names."""

    def __init__(self) -> None:
        super().__init__()
        self._before = virtual_addresses.MAX_NAMES
        virtual_addresses.MAX_NAMES = 4  # type: ignore[misc]
        self.addresses = VirtualAddresses(5)
        self.used: dict[str, tuple[VirtualPair, float]] = {}
        self.now = 0.0

    def teardown(self) -> None:
        virtual_addresses.MAX_NAMES = self._before  # type: ignore[misc]

    @rule(seconds=st.floats(0, KEEP_S))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(name=st.sampled_from("abcdefghij"))
    def ask(self, name: str) -> None:
        pair = self.addresses.assign(name, self.now)
        if pair is None:
            fresh = [used for _, used in self.used.values() if self.now - used < KEEP_S]
            assert len(fresh) >= 4
            return
        if name in self.used and self.now - self.used[name][1] < KEEP_S:
            assert pair == self.used[name][0]
        self.used[name] = pair, self.now

    @invariant()
    def what_is_in_use_is_known(self) -> None:
        assert len(self.addresses) <= 4
        for name, (pair, used) in self.used.items():
            if self.now - used < KEEP_S:
                assert self.addresses._names.get(int(pair.ipv4) - int(NETWORK4[0]) - 256) == name


TestModel = Model.TestCase
