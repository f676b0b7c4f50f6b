"""Up to the request: in time, in any protocol, answered in one write."""

from __future__ import annotations

import pytest

from isoproxy.front.states import State
from tests.unit.front.playbook import GREETING, Playbook


@pytest.mark.parametrize("said", [b"", b"\x05"])
async def test_a_handshake_ends_with_the_client_or_its_time(said: bytes) -> None:
    leaves, stays = Playbook(), Playbook()
    for book in (leaves, stays):
        if said:
            book.says(said)
    leaves.leaves()
    assert leaves.is_over()
    assert stays.time_passes() == (b"\x05\xff" if said else b"")
    assert stays.state is State.CLOSING
    stays.time_passes()
    assert stays.is_over()


async def test_a_broken_protocol_and_a_refusal_are_answered_in_one_write() -> None:
    book = Playbook()
    assert book.says(b"\x16\x03") == bytes.fromhex("15030100020228")
    assert book.state is State.CLOSING
    book = Playbook()
    assert book.says(GREETING + b"\x05\x01\x00\x03\x03a b\x00\x50")[:2] == b"\x05\x00"
    assert book.state is State.CLOSING
