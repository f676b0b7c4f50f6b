"""One encoding for each choice of fields, and for no other."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given

from isoproxy.isolation import IsolationTuple, ListenerRule, canonical_fields
from isoproxy.isolation.tuples import encode
from tests.unit.isolation.test_key import rules, tuples


@given(rules, rules, tuples, tuples)
def test_encodings_are_equal_exactly_when_the_named_fields_are(
    rule: ListenerRule, another: ListenerRule, stream: IsolationTuple, other: IsolationTuple
) -> None:
    for a, b in ((stream, other), (stream, replace(stream)), (stream, replace(other))):
        same = rule == another and canonical_fields(rule, a) == canonical_fields(another, b)
        assert (encode(rule, a) == encode(another, b)) == same
    assert encode(rule, stream) == encode(rule, replace(stream))
