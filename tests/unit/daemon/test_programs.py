"""Programs of `isoproxy exec`: who serves them, as which identity, and how many there may be."""

from __future__ import annotations

import socket

import pytest

from isoproxy.config import load
from isoproxy.daemon.programs import MAX_PROGRAMS, RunningPrograms
from isoproxy.daemon.settings.front import listener_settings
from isoproxy.errors import OperationError
from isoproxy.front.transparent import Program
from isoproxy.isolation import Isolate

PROGRAM = Program(b"u0", b"label", None)
NAMES = load(None, ["names.backend=none"]).config.names


def test_a_program_is_served_by_one_process_until_its_end() -> None:
    changes: list[int] = []
    programs = RunningPrograms(2, lambda: changes.append(1))
    pairs = [list(socket.socketpair()) for _ in range(3)]
    ends = [programs.begin(PROGRAM, 1, pair) for pair in pairs]
    shares = [list(programs.plans(NAMES, index)) for index in range(2)]
    assert [len(share) for share in shares] == [2, 1]
    assert len({plan.place for share in shares for plan in share}) == 3
    plan = shares[0][0]
    assert (plan.listeners, plan.sockets, plan.program) == (1, 2, PROGRAM)
    assert list(programs.sockets_of(plan)) == pairs[0]
    for end in ends:
        end()
    assert len(changes) == 6
    assert all(sock.fileno() < 0 for pair in pairs for sock in pair)
    assert not [*programs.plans(NAMES, 0), *programs.plans(NAMES, 1)]


def test_their_session_group_is_no_listeners_and_users_and_labels_are_told_apart() -> None:
    programs = RunningPrograms(1, lambda: None)
    programs.begin(PROGRAM, 1, ())
    (plan,) = programs.plans(NAMES, 0)
    rule = plan.listener.rule.listener
    config = load(None, ['listener=[{ address = "127.0.0.1:1", name = "exec" }]']).config
    (listener,) = listener_settings(config).values()
    assert rule.group != listener.rule.listener.group
    assert rule.isolate == Isolate.CLIENT_ADDR | Isolate.SOCKS_AUTH
    assert plan.listener.name not in listener_settings(config)


def test_there_is_an_end_to_how_many_there_may_be() -> None:
    programs = RunningPrograms(2, lambda: None)
    ends = [programs.begin(PROGRAM, 1, ()) for _ in range(MAX_PROGRAMS)]
    with pytest.raises(OperationError, match="already"):
        programs.begin(PROGRAM, 1, ())
    ends[0]()
    programs.begin(PROGRAM, 1, ())


def test_every_unix_socket_of_the_configuration_is_hidden() -> None:
    config = load(
        None,
        [
            "tor.mode=system",
            "tor.socks=unix:/t/socks",
            "tor.control=unix:/t/control",
            'listener=[{ address = "unix:/l/one" }, { address = "127.0.0.1:9250" }]',
            'bitcoin.proxy=[{ address = "unix:/p/one" }]',
            "observe.admin=unix:/a/admin",
            "observe.dashboard=unix:/a/dashboard",
            "dns.address=unix:/d/dns",
        ],
    ).config
    assert set(RunningPrograms(1, lambda: None).hidden(config)) == {
        "/t/socks",
        "/t/control",
        "/l/one",
        "/p/one",
        "/a/admin",
        "/a/dashboard",
        "/d/dns",
    }
