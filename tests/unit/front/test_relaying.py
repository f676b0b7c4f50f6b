"""An open stream ends with both sides, and is shown and counted."""

from __future__ import annotations

from isoproxy.front.states import State
from isoproxy.isolation import APP
from isoproxy.net.target import Target
from isoproxy.socks import Command
from tests.unit.front.playbook import OK, Playbook, opening


async def test_a_stream_from_the_greeting_to_both_ends() -> None:
    book = opening(Playbook())
    assert (book.dial.target, book.dial.command) == (Target("a.test", 80), Command.CONNECT)
    assert book.dial.purpose is APP
    assert book.tor_opens(leftover=b"hello") == OK + b"hello"
    assert book.state is State.RELAYING
    book.says(b"up")
    book.tor_says(b"down")
    assert (book.dial.sock.take(), book.client.take()) == (b"up", b"down")
    view = book.connection.view(0)
    assert (view.stage, view.bytes_up, view.bytes_down) == ("relaying", 2, 9)
    book.leaves()
    assert book.dial.sock.shut
    book.tor_says(b"last", ending=True)
    assert book.client.take() == b"last"
    assert book.dial.sock.closed
    assert book.is_over()
    counters = book.services.counters
    assert (counters.opened, counters.bytes_up, counters.bytes_down) == (1, 2, 13)


async def test_a_stream_that_moves_nothing_for_the_idle_timeout_is_ended() -> None:
    book = opening(Playbook())
    book.tor_opens()
    book.time_passes()
    assert book.state is State.RELAYING, "it was opened meanwhile"
    book.time_passes()
    assert book.is_over()
