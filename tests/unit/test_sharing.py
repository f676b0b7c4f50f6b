"""The sharing table against a naive model that keeps every member of every group."""

from __future__ import annotations

import dataclasses
import itertools

from hypothesis import example, given
from hypothesis import strategies as st

from isoproxy.sharing import FIELD_NAMES, SharingTable, StreamFields, mask_of
from tests.kit.sharing_rule import may_share

DEFAULT = mask_of(["SOCKS_USERNAME", "SOCKS_PASSWORD", "CLIENTADDR", "SESSION_GROUP", "NYM_EPOCH"])
DESTADDR = mask_of(["DESTADDR"])


def stream(
    client: bytes | None = b"127.0.0.1",
    user: bytes | None = None,
    host: bytes = b"a.bit",
    port: int = 80,
    group: int = -6,
    epoch: int = 0,
) -> StreamFields:
    return StreamFields(client, user, None, b"SOCKS5", host, port, group, epoch)


@dataclasses.dataclass
class _ModelGroup:
    identity: int
    members: list[tuple[StreamFields, int]]


class _Model:
    """Theory of operation, first paragraph, taken literally."""

    def __init__(self) -> None:
        self.groups: list[_ModelGroup] = []
        self.epoch = -1
        self.numbers = itertools.count()

    def assign(self, new: StreamFields, fields: int) -> int:
        if new.nym_epoch < self.epoch:
            return next(self.numbers)
        if new.nym_epoch > self.epoch:
            self.epoch, self.groups = new.nym_epoch, []
        for group in self.groups:
            if all(may_share(new, fields, old, old_fields) for old, old_fields in group.members):
                group.members.append((new, fields))
                return group.identity
        self.groups.append(_ModelGroup(next(self.numbers), [(new, fields)]))
        return self.groups[-1].identity


_streams = st.tuples(
    st.builds(
        StreamFields,
        st.sampled_from([None, b"1", b"2"]),
        st.sampled_from([None, b"", b"u"]),
        st.sampled_from([None, b"p"]),
        st.sampled_from([b"SOCKS5", b"DNS"]),
        st.sampled_from([b"a", b"b"]),
        st.sampled_from([1, 2]),
        st.sampled_from([1, 1, 1, -2]),
        st.sampled_from([0, 0, 0, 0, 0, 1, 2]),
    ),
    st.sampled_from([0, DEFAULT, DESTADDR, DEFAULT | DESTADDR]) | st.integers(0, 255),
)


@given(st.lists(_streams, max_size=60))
@example([(stream(), DEFAULT), (stream(host=b"b.bit"), DEFAULT), (stream(), DEFAULT | DESTADDR)])
@example([(stream(), DEFAULT), (stream(), DEFAULT | DESTADDR), (stream(host=b"b.bit"), DEFAULT)])
def test_decides_as_a_model_that_keeps_all_members(streams: list[tuple[StreamFields, int]]) -> None:
    table, model = SharingTable(), _Model()
    for one, fields in streams:
        assert int(table.assign(one, fields).rpartition(b"-")[2]) == model.assign(one, fields) + 1


@given(st.lists(_streams, max_size=60), st.integers(1, 5))
def test_a_full_table_only_splits(streams: list[tuple[StreamFields, int]], capacity: int) -> None:
    table = SharingTable(capacity=capacity)
    groups: dict[bytes, list[tuple[StreamFields, int]]] = {}
    for one, fields in streams:
        members = groups.setdefault(table.assign(one, fields), [])
        assert all(may_share(one, fields, other, others) for other, others in members)
        members.append((one, fields))
        assert len(table) <= capacity


def test_a_group_is_bound_by_all_of_its_members_and_not_by_the_first() -> None:
    table = SharingTable()
    assert table.assign(stream(host=b"a"), DEFAULT) == table.assign(stream(host=b"b"), DEFAULT)
    isolating = table.assign(stream(host=b"a"), DEFAULT | DESTADDR)
    assert isolating != table.assign(stream(host=b"a"), DEFAULT)
    table = SharingTable()
    first = table.assign(stream(host=b"a"), DEFAULT)
    assert table.assign(stream(host=b"a"), DEFAULT | DESTADDR) == first
    assert table.assign(stream(host=b"b"), DEFAULT) != first


def test_whoever_isolates_first_stays_apart() -> None:
    table = SharingTable()
    apart = table.assign(stream(host=b"a"), DEFAULT | DESTADDR)
    assert table.assign(stream(host=b"b"), DEFAULT) != apart
    assert table.assign(stream(host=b"a"), DEFAULT) == apart


def test_client_address_user_and_session_group_separate_by_default() -> None:
    table = SharingTable()
    ids = {
        table.assign(one, DEFAULT)
        for one in (stream(), stream(client=b"127.0.0.2"), stream(user=b"u"), stream(group=-7))
    }
    assert len(ids) == 4


def test_session_group_and_epoch_count_even_where_tor_does_not_list_them() -> None:
    table = SharingTable()
    assert table.assign(stream(group=1), 0) != table.assign(stream(group=2), 0)
    assert not may_share(stream(epoch=1), 0, stream(epoch=2), 0)


def test_a_new_epoch_forgets_and_a_straggler_is_alone() -> None:
    table = SharingTable()
    old = table.assign(stream(epoch=1), DEFAULT)
    new = table.assign(stream(epoch=2), DEFAULT)
    assert new != old
    assert len(table) == 1
    stragglers = {table.assign(stream(epoch=1), DEFAULT) for _ in range(3)}
    assert len(stragglers) == 3
    assert not stragglers & {old, new}
    assert table.assign(stream(epoch=2), DEFAULT) == new


def test_after_forgetting_epochs_may_begin_again_and_ids_do_not() -> None:
    table = SharingTable()
    before = table.assign(stream(epoch=5), DEFAULT)
    table.forget()
    after = table.assign(stream(epoch=0), DEFAULT)
    assert after != before
    assert table.assign(stream(epoch=0), DEFAULT) == after


def test_ids_of_two_runs_have_nothing_in_common() -> None:
    one, two = (SharingTable().assign(stream(), DEFAULT) for _ in range(2))
    prefixes = {identity.partition(b"-")[0] for identity in (one, two)}
    assert len(prefixes) == 2
    assert all(len(prefix) == 32 for prefix in prefixes)


def test_the_least_recently_used_group_is_forgotten_first() -> None:
    table = SharingTable(capacity=2)
    kept = table.assign(stream(user=b"kept"), DEFAULT)
    table.assign(stream(user=b"lost"), DEFAULT)
    table.assign(stream(user=b"kept"), DEFAULT)
    table.assign(stream(user=b"third"), DEFAULT)
    assert table.assign(stream(user=b"kept"), DEFAULT) == kept


def test_an_empty_table_holds_no_index() -> None:
    table = SharingTable(capacity=1)
    for number in range(100):
        table.assign(stream(group=number), DEFAULT)
    assert len(table) == 1
    assert len(table._index) == 1


def test_every_field_of_tor_has_its_place() -> None:
    assert mask_of(FIELD_NAMES) == 255
    assert len(StreamFields._fields) == len(FIELD_NAMES)
