"""From the command to the program: namespaces, sockets, rules, hand-over, and exec(2)."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from isoproxy.errors import OperationError
from isoproxy.exec import interface, mounts, namespace, nftables
from isoproxy.exec.browser import Browser
from isoproxy.exec.handover import Request, connect, give_sockets
from isoproxy.transparent.rules import namespace_rules

NOT_FOUND: Final = 127
NOT_EXECUTABLE: Final = 126
"""Exit codes, as env(1) has them."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What is to be started.

    isolation     the label of its identity; None: a fresh one
    handover      the socket of the running isoproxy
    hide          directories that the program must not see, of our own among them
    browser       how a fresh profile is made, if the program is to have one
    """

    program: Sequence[str]
    isolation: str | None
    handover: Path
    hide: Sequence[str]
    browser: Browser | None = None


def launch(what: Launch) -> NoReturn:
    """Become the program.  Raises OperationError; ProgramMissing if there is no such program."""
    with connect(what.handover) as isoproxy:  # before its socket is hidden
        namespace.enter()
        try:
            more = _set_up(what, isoproxy)
        except OSError as error:
            raise namespace.refused(error) from None
    namespace.give_up_privileges()
    become([*what.program, *more])


def _set_up(what: Launch, isoproxy: socket.socket) -> Sequence[str]:
    """Make the namespace what it is to be; what the program is to be told beside its words."""
    interface.make_everything_local()
    with contextlib.ExitStack() as ours:
        sockets, listeners = open_sockets()
        for sock in sockets:
            ours.enter_context(sock)
        nftables.load(namespace_rules(sockets[0].getsockname()[1]))
        paths = give_sockets(isoproxy, Request(what.isolation, listeners), sockets)
    mounts.hide((*mounts.RESOLVING_OR_DIALLING, *what.hide), paths)
    mounts.name_services()
    return () if what.browser is None else what.browser.prepare(mounts.empty)


def open_sockets() -> tuple[list[socket.socket], int]:
    """Listeners at one port of loopback, then sockets for DNS at port 53; how many listen.

    Raises OSError.
    """
    families = [(socket.AF_INET, "127.0.0.1")]
    if interface.has_ipv6():
        families.append((socket.AF_INET6, "::1"))
    listeners, dns, port = [], [], 0
    for family, host in families:
        listeners.append(socket.create_server((host, port), family=family, backlog=1024))
        port = listeners[0].getsockname()[1]
        dns.append(socket.socket(family, socket.SOCK_DGRAM))
        dns[-1].bind((host, 53))
    return listeners + dns, len(listeners)


def become(words: Sequence[str]) -> NoReturn:
    """Be another program from now on; as env(1) exits if there is none."""
    try:
        os.execvp(words[0], list(words))  # noqa: S606 -- no shell, on purpose
    except FileNotFoundError:
        code, why = NOT_FOUND, "there is no such program"
    except OSError as error:
        code, why = NOT_EXECUTABLE, f"it cannot be executed: {error.strerror}"
    raise ProgramMissing(f"{words[0]}: {why}", code)


class ProgramMissing(OperationError):
    """The program cannot be started; `code` is the exit code."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code
