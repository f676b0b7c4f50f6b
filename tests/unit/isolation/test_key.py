"""The laws of isolation, as properties over all tuples and all listener rules."""

from __future__ import annotations

import copy
import io
import itertools
import pickle
import random
from collections.abc import Iterator
from dataclasses import fields, replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from isoproxy.errors import ErrorKind, LocalProtocolError, PolicyRefusal
from isoproxy.isolation import (
    APP,
    P2P,
    PROP351_USERNAME,
    ClientProtocol,
    CredentialForm,
    Credentials,
    Isolate,
    IsolationKey,
    IsolationTuple,
    Isolator,
    ListenerRule,
    accepts_username,
    canonical_fields,
    client_of_address,
    name_purpose,
    own_group,
    shared_group,
    upstream_credentials,
)

raw = st.binary(max_size=6)
rules = st.builds(
    ListenerRule,
    group=st.sampled_from([own_group("a"), own_group("b"), shared_group(1), shared_group(11)]),
    isolate=st.integers(0, 31).map(Isolate),
)
tuples = st.builds(
    IsolationTuple,
    client=st.sampled_from([None, client_of_address("127.0.0.1"), client_of_address("::1")]),
    protocol=st.sampled_from(ClientProtocol),
    username=st.none() | raw,
    password=st.none() | raw,
    dest_host=st.sampled_from([b"a.test", b"A.test", b"a.test.", b"b.test"]),
    dest_port=st.integers(0, 3),
)
ISOLATOR = Isolator()


def neighbours(one: IsolationTuple, other: IsolationTuple) -> Iterator[IsolationTuple]:
    """`other`, and what differs from `one` as `other` does, but in one field alone."""
    yield other
    for field in fields(IsolationTuple):
        yield replace(one, **{field.name: getattr(other, field.name)})


@given(rules, rules, tuples, tuples)
def test_keys_are_equal_exactly_when_all_selected_fields_are(
    rule: ListenerRule, another: ListenerRule, stream: IsolationTuple, unlike: IsolationTuple
) -> None:
    key = ISOLATOR.key_for(rule, stream)
    for other, other_rule in itertools.product(neighbours(stream, unlike), (rule, another)):
        same = rule == other_rule and (
            canonical_fields(rule, stream) == canonical_fields(other_rule, other)
        )
        other_key = ISOLATOR.key_for(other_rule, other)
        assert (key == other_key) == same
        assert (hash(key) == hash(other_key)) or not same
        assert (upstream_credentials(key, APP) == upstream_credentials(other_key, APP)) == same


@given(rules, tuples)
def test_equal_tuples_always_share(rule: ListenerRule, stream: IsolationTuple) -> None:
    assert ISOLATOR.key_for(rule, stream) == ISOLATOR.key_for(rule, replace(stream))


@given(raw, raw, raw, st.sampled_from([b"", b"\x00", b"\x01", b"\x01\x00\x00\x00\x01"]))
def test_framing_cannot_collide(first: bytes, second: bytes, third: bytes, mark: bytes) -> None:
    """Bytes that move from field to field, with what might stand between fields among them."""
    rule = ListenerRule(own_group("a"))
    one = IsolationTuple(None, ClientProtocol.SOCKS5, first, second + mark + third)
    moved = replace(one, username=first + mark + second, password=third)
    assume(one != moved)
    assert ISOLATOR.key_for(rule, one) != ISOLATOR.key_for(rule, moved)


def test_absent_empty_and_swapped_credentials_all_differ() -> None:
    rule = ListenerRule(own_group("a"))
    values = (None, b"", b"\x00", b"\xff", b"a")
    keys = {
        ISOLATOR.key_for(rule, IsolationTuple(None, ClientProtocol.SOCKS5, username, password))
        for username in values
        for password in values
    }
    assert len(keys) == len(values) ** 2


def test_listeners_that_isolate_by_different_fields_or_in_different_groups_never_share() -> None:
    """Not even where what they see is the same word."""
    stream = IsolationTuple(b"socks5", ClientProtocol.SOCKS5, dest_host=b"socks5")
    flags = (Isolate.CLIENT_ADDR, Isolate.CLIENT_PROTOCOL, Isolate.DEST_ADDR)
    groups = (shared_group(1), shared_group(11), own_group("1"), own_group("shared 1"))
    rules = [ListenerRule(group, flag) for group in groups for flag in flags]
    assert len({ISOLATOR.key_for(rule, stream) for rule in rules}) == len(rules)


def test_no_two_of_many_identities_have_one_key_or_the_same_credentials() -> None:
    isolator, many = Isolator(), 2000
    keys = [isolator.own_key("one") for _ in range(many)]
    assert len(set(keys)) == many
    for form in CredentialForm:
        made = [upstream_credentials(key, APP, form) for key in keys]
        assert len({(one.username, one.password) for one in made}) == many
        assert all(len(one.username + one.password) >= 64 for one in made)
    sealed = len(isolator.export_key(keys[0])) - len(keys[0].client)
    assert sealed == 16 + 32  # the seal, and a secret that nobody finds by trying


@given(rules, tuples)
def test_a_new_epoch_shares_nothing_with_the_old(
    rule: ListenerRule, stream: IsolationTuple
) -> None:
    isolator = Isolator()
    old = isolator.key_for(rule, stream)
    assert isolator.is_current(old)
    isolator.new_epoch()
    new = isolator.key_for(rule, stream)
    assert not isolator.is_current(old)
    assert isolator.is_current(new)
    assert new != old
    assert upstream_credentials(new, APP) != upstream_credentials(old, APP)
    assert new.label != old.label


def test_the_secret_of_an_epoch_does_not_follow_from_the_one_before() -> None:
    """Who learns one secret knows no key of the epochs after it."""
    one, other = Isolator(), Isolator()
    other.import_state(one.export_state())
    stream = IsolationTuple(None, ClientProtocol.SOCKS5, b"user", b"word")
    rule = ListenerRule(own_group("a"))
    assert one.key_for(rule, stream) == other.key_for(rule, stream)
    one.new_epoch()
    other.new_epoch()
    assert one.key_for(rule, stream) != other.key_for(rule, stream)


@given(rules, tuples)
def test_two_processes_share_nothing(rule: ListenerRule, stream: IsolationTuple) -> None:
    assert ISOLATOR.key_for(rule, stream) != Isolator().key_for(rule, stream)


def test_secrets_cannot_be_predicted_by_who_knows_the_seed_of_the_library() -> None:
    rule, stream = ListenerRule(own_group("a")), IsolationTuple(None, ClientProtocol.SOCKS5)
    keys = set()
    for _ in range(2):
        random.seed(7)
        isolator = Isolator()
        keys.add(isolator.key_for(rule, stream))
        isolator.new_epoch()
        keys.add(isolator.key_for(rule, stream))
    assert len(keys) == 4


def test_a_representation_shows_the_label_and_no_byte_of_the_secret() -> None:
    key = ISOLATOR.own_key("test")
    assert repr(key) == str(key) == f"<IsolationKey {key.label}>"


def test_no_representation_shows_a_credential_or_a_destination() -> None:
    stream = IsolationTuple(None, ClientProtocol.SOCKS5, b"marked", b"marked", b"marked.test")
    key = Isolator(verbatim=True).key_for(ListenerRule(own_group("a")), stream)
    for one in (stream, key, key.verbatim, Credentials(b"marked", b"marked")):
        assert "marked" not in f"{one!r} {one}"


def test_labels_tell_nothing_to_who_knows_the_key() -> None:
    """Logs of two processes cannot be joined by labels, not even with the keys at hand."""

    def isolator(label_secret: bytes) -> Isolator:
        drawn = iter([label_secret * 32, b"e" * 32])
        return Isolator(random_bytes=lambda count: next(drawn))

    rule, stream = ListenerRule(own_group("a")), IsolationTuple(None, ClientProtocol.SOCKS5, b"u")
    key, twin = (isolator(secret).key_for(rule, stream) for secret in (b"1", b"2"))
    assert key == twin
    assert key.label != twin.label


def test_secrets_touch_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []

    def noting(file: object, *mode: object) -> io.BytesIO:
        opened.append(file)
        return io.BytesIO()

    monkeypatch.setattr("builtins.open", noting)
    monkeypatch.setattr("os.open", noting)
    isolator = Isolator()
    isolator.new_epoch()
    key = isolator.own_key("one")
    assert len(key.label) == 6
    assert upstream_credentials(key, APP).username == PROP351_USERNAME
    assert opened == []


@given(st.binary(min_size=4, max_size=40), st.binary(min_size=4, max_size=40))
def test_a_key_reveals_nothing_of_its_tuple(username: bytes, password: bytes) -> None:
    stream = IsolationTuple(
        client_of_address("192.0.2.99"),
        ClientProtocol.SOCKS5,
        b"M-" + username,
        b"P-" + password,
        b"secret.test",
        80,
    )
    rule = ListenerRule(own_group("a"), Isolate(31))
    key = ISOLATOR.key_for(rule, stream)
    credentials = upstream_credentials(key, APP)
    shown = repr(key).encode() + repr(stream).encode() + repr(credentials).encode()
    shown += key.label.encode() + credentials.username + credentials.password
    for secret in (b"M-" + username, b"P-" + password, b"secret.test", b"192.0.2.99"):
        assert secret not in shown


@given(tuples)
def test_purposes_and_forms_never_share_credentials(stream: IsolationTuple) -> None:
    key = ISOLATOR.key_for(ListenerRule(own_group("a")), stream)
    purposes = [APP, P2P, name_purpose("one"), name_purpose("two")]
    derived = {
        upstream_credentials(key, purpose, form).password
        for purpose in purposes
        for form in CredentialForm
    }
    assert len(derived) == len(purposes) * len(CredentialForm)


def test_the_two_credential_forms() -> None:
    key = ISOLATOR.own_key("test")
    modern = upstream_credentials(key, APP)
    assert modern.username == PROP351_USERNAME
    assert len(bytes.fromhex(modern.password.decode())) == 32
    plain = upstream_credentials(key, APP, CredentialForm.PLAIN)
    assert plain.username + plain.password == modern.password
    assert len(plain.username) == len(plain.password) == 32


def test_only_an_isolator_builds_keys_and_they_stay_in_memory() -> None:
    key = ISOLATOR.own_key("test")
    with pytest.raises(TypeError):
        IsolationKey(object(), b"s" * 32, 0, b"label")
    with pytest.raises(TypeError):
        pickle.dumps(key)
    with pytest.raises(TypeError):
        copy.deepcopy(key)


def test_own_keys_are_never_the_same() -> None:
    assert len({ISOLATOR.own_key("pool") for _ in range(100)}) == 100


def test_without_a_group_there_is_no_key() -> None:
    with pytest.raises(LocalProtocolError):
        ISOLATOR.key_for(ListenerRule(b""), IsolationTuple(None, ClientProtocol.SOCKS5))


def test_followers_hear_of_each_epoch() -> None:
    isolator = Isolator()
    heard: list[int] = []
    isolator.on_new_epoch(lambda: heard.append(isolator.epoch))
    isolator.new_epoch()
    isolator.new_epoch()
    assert heard == [1, 2]


@pytest.mark.parametrize(
    ("username", "accepted"),
    [
        (b"<torS0X>0", True),
        (b"alice", True),
        (b"", True),
        (b"<tors0x>0", True),
        (b"<torS1X>0", True),
        (b" <torS0X>0", True),
        (b"<torS0X", True),
        (b"<torS0X>", False),
        (b"<torS0X>1", False),
        (b"<torS0X>00", False),
        (b"<torS0X>0abc", False),
        (b"<torS0X>\x00", False),
    ],
)
def test_reserved_user_names_are_judged_as_tor_judges_them(username: bytes, accepted: bool) -> None:
    assert accepts_username(username) is accepted


class TestVerbatim:
    """`tor.credentials = "verbatim"`: the application's own pair where Tor can tell it."""

    rule = ListenerRule(own_group("a"), Isolate.SOCKS_AUTH)

    def credentials(self, username: bytes | None, password: bytes | None) -> tuple[bytes, bytes]:
        stream = IsolationTuple(None, ClientProtocol.SOCKS5, username, password)
        pair = upstream_credentials(Isolator(verbatim=True).key_for(self.rule, stream), APP)
        return pair.username, pair.password

    def test_a_complete_pair_passes_as_it_is(self) -> None:
        assert self.credentials(b"example.com:0", b"\xff\x00") == (b"example.com:0", b"\xff\x00")

    @pytest.mark.parametrize(
        ("username", "password"),
        [(None, None), (b"", b""), (b"", b"x"), (b"x", None), (b"x" * 256, b"")],
    )
    def test_what_tor_would_merge_is_derived(
        self, username: bytes | None, password: bytes | None
    ) -> None:
        assert self.credentials(username, password)[0] == PROP351_USERNAME

    def test_look_ups_are_always_derived(self) -> None:
        isolator = Isolator(verbatim=True)
        key = isolator.key_for(
            self.rule, IsolationTuple(None, ClientProtocol.SOCKS5, b"user", b"word")
        )
        assert upstream_credentials(key, name_purpose("s")).username == PROP351_USERNAME


def test_a_key_crosses_to_another_process_of_the_same_epoch_and_to_no_other() -> None:
    ours, theirs = Isolator(verbatim=True), Isolator()
    theirs.import_state(ours.export_state())
    stream = IsolationTuple(None, ClientProtocol.SOCKS5, b"user", b"password")
    key = ours.key_for(ListenerRule(own_group("a")), stream)
    there = theirs.import_key(ours.export_key(key))
    assert (there, there.label, there.verbatim) == (key, key.label, None)
    assert there.derive(b"x") == key.derive(b"x")
    assert theirs.is_current(there)

    exported = ours.export_key(key)
    for false in (b"", exported[:-1], bytes(32), bytes(48), exported[:32] + bytes(16)):
        with pytest.raises(PolicyRefusal) as refusal:
            theirs.import_key(false)
        assert refusal.value.kind is ErrorKind.STALE_KEY
    ours.new_epoch()
    with pytest.raises(PolicyRefusal):
        ours.export_key(key)
    with pytest.raises(PolicyRefusal):
        ours.import_key(exported)


def test_nobody_but_an_isolator_opens_a_key() -> None:
    with pytest.raises(TypeError):
        Isolator().own_key("a").secret_for(object())


def test_a_key_tells_whose_budget_it_draws_on_in_every_process_and_nothing_else() -> None:
    ours, theirs = Isolator(), Isolator()
    theirs.import_state(ours.export_state())
    rule = ListenerRule(b"group", Isolate.SOCKS_AUTH)
    keys = [
        ours.key_for(rule, IsolationTuple(client_of_address(host), ClientProtocol.SOCKS5))
        for host in ("192.0.2.1", "192.0.2.2")
    ]
    assert keys[0] == keys[1]
    there = [theirs.import_key(ours.export_key(key)) for key in keys]
    assert [key.client for key in there] == [key.client for key in keys]
    assert keys[0].client != keys[1].client
    forged = ours.export_key(keys[0])[:-1] + b"x"
    with pytest.raises(PolicyRefusal):
        theirs.import_key(forged)


@given(rules, st.lists(tuples, min_size=1, max_size=5), st.integers(1, 3))
def test_a_renewal_changes_the_key_of_one_identity_and_of_no_other(
    rule: ListenerRule, streams: list[IsolationTuple], times: int
) -> None:
    isolator = Isolator()
    before = [isolator.key_for(rule, stream) for stream in streams]
    old = [before[0]]
    for _ in range(times):
        isolator.renew(old[-1].label)
        old.append(isolator.key_for(rule, streams[0]))
    assert len({upstream_credentials(key, APP).password for key in old}) == times + 1
    assert [isolator.is_current(key) for key in old] == [False] * times + [True]
    for stream, key in zip(streams, before, strict=True):
        if key == before[0]:
            assert isolator.key_for(rule, stream) == old[-1]
        else:
            assert isolator.is_current(key)
            assert isolator.key_for(rule, stream) == key
    assert old[-1].client == old[0].client


@given(rules, tuples, tuples)
def test_a_renewal_is_the_same_in_every_process_of_ours(
    rule: ListenerRule, stream: IsolationTuple, other: IsolationTuple
) -> None:
    here, there = Isolator(), Isolator()
    there.import_state(here.export_state())
    old = there.key_for(rule, stream)
    exported = there.export_key(old)
    here.renew(old.label)
    with pytest.raises(PolicyRefusal):  # that process has not heard of it yet
        here.import_key(exported)
    there.import_state(here.export_state())
    assert not there.is_current(old)
    with pytest.raises(PolicyRefusal):
        there.export_key(old)
    for one in (stream, other):
        assert here.key_for(rule, one) == there.key_for(rule, one)
    new = there.key_for(rule, stream)
    assert new != old
    assert here.import_key(there.export_key(new)) == new


def test_a_renewal_is_told_to_its_followers_and_no_new_epoch_is() -> None:
    told: list[str] = []
    main, process = Isolator(), Isolator()
    process.import_state(main.export_state())
    for isolator in (main, process):
        isolator.on_new_epoch(lambda: told.append("epoch"))
        leave = isolator.on_renewal(lambda: told.append("renewal"))
    main.renew("abcdef")
    process.import_state(main.export_state())
    assert told == ["renewal", "renewal"]
    main.new_epoch()
    process.import_state(main.export_state())
    assert told == ["renewal", "renewal", "epoch", "epoch"]
    leave()
    process.renew("abcdef")  # which the new epoch has forgotten
    assert told[4:] == []


def test_after_a_new_epoch_the_renewals_of_the_old_one_are_gone() -> None:
    isolator, rule = Isolator(), ListenerRule(own_group("a"))
    key = isolator.key_for(rule, IsolationTuple(None, ClientProtocol.SOCKS5, b"a"))
    isolator.renew(key.label)
    length = len(isolator.export_state())
    isolator.new_epoch()
    assert len(isolator.export_state()) < length
    for torn in (1, 2, 4):
        with pytest.raises(LocalProtocolError):
            isolator.import_state(isolator.export_state() + bytes(torn))


def test_another_process_follows_a_new_epoch() -> None:
    """Its keys of the old one are over, and its followers are told so, as ours are."""
    here, there, rule = Isolator(), Isolator(), ListenerRule(own_group("a"))
    there.import_state(here.export_state())
    stream = IsolationTuple(None, ClientProtocol.SOCKS5, b"a")
    old, told = there.key_for(rule, stream), []
    there.on_new_epoch(lambda: told.append(there.epoch))
    here.new_epoch()
    there.import_state(here.export_state())
    assert not there.is_current(old)
    assert told == [here.epoch]
    assert there.is_current(there.key_for(rule, stream))
    assert there.key_for(rule, stream) == here.key_for(rule, stream)


def test_of_two_identities_one_is_renewed_in_both_processes() -> None:
    here, there, rule = Isolator(), Isolator(), ListenerRule(own_group("a"))
    there.import_state(here.export_state())
    alice, bob = (IsolationTuple(None, ClientProtocol.SOCKS5, user) for user in (b"a", b"b"))
    old, stays = here.key_for(rule, alice), here.key_for(rule, bob)
    here.renew(old.label)
    there.import_state(here.export_state())
    for isolator in (here, there):
        new = isolator.key_for(rule, alice)
        assert new != old
        assert upstream_credentials(new, APP) != upstream_credentials(old, APP)
        assert (isolator.is_current(old), isolator.is_current(new)) == (False, True)
        assert isolator.key_for(rule, bob) == stays
        assert isolator.is_current(stays)
    assert here.key_for(rule, alice) == there.key_for(rule, alice)
