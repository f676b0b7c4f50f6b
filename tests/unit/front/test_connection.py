"""It can be ended in every phase, once, and leaves nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from isoproxy.errors import ErrorKind
from tests.unit.front.playbook import Playbook, opening


async def aborted_in_the_handshake() -> Playbook:
    return Playbook()


async def aborted_while_opening() -> Playbook:
    return opening(Playbook())


async def aborted_while_relaying() -> Playbook:
    book = opening(Playbook())
    book.tor_opens()
    return book


async def aborted_while_closing() -> Playbook:
    book = opening(Playbook())
    book.tor_refuses(ErrorKind.ONION_NOT_FOUND)
    return book


@pytest.mark.parametrize(
    "script",
    [
        aborted_in_the_handshake,
        aborted_while_opening,
        aborted_while_relaying,
        aborted_while_closing,
    ],
)
async def test_it_can_be_aborted_in_every_phase_once(
    script: Callable[[], Awaitable[Playbook]],
) -> None:
    book = await script()
    book.connection.abort()
    book.connection.abort()
    assert book.is_over()
