"""A client that gets no stream is told, and given time to read it."""

from __future__ import annotations

from isoproxy.errors import ErrorKind
from isoproxy.front.states import State
from isoproxy.socks import encode_reply
from tests.unit.front.playbook import Playbook, opening


async def test_tors_refusal_is_told_and_lingers_until_the_client_ends() -> None:
    book = opening(Playbook())
    assert book.tor_refuses(ErrorKind.ONION_NOT_FOUND) == encode_reply(0xF0)
    assert book.state is State.CLOSING
    assert not book.client.closed
    book.says(b"said too late")
    book.leaves()
    assert book.is_over()
