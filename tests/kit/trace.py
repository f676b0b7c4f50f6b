"""What a program asks of the network and of the resolver's files, as strace sees it.

    with Trace(directory) as trace: start a program under `trace.wrapper` ...
    trace.calls()                  # every call, with the program that made it

Theory of operation
    strace writes a file per thread.  A thread runs the program of the thread that made it,
    until it executes another; so each call is known to be of isoproxy or of the tor that it
    started, and only the former are judged.

Limits
    A call that was interrupted by the end of the process has no result and is judged by
    what it asked for.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

RESOLVER_FILES: Final = frozenset(
    "/etc/" + name
    for name in ("resolv.conf", "hosts", "nsswitch.conf", "host.conf", "gai.conf", "services")
)
_TRACED: Final = "network,open,openat,openat2,execve,clone,clone3,fork,vfork"
_CALL: Final = re.compile(r"(\w+)\((.*)\)\s+= (-?\d+|\?)")
_INTERNET: Final = re.compile(
    r"sa_family=AF_INET6?, sin6?_port=htons\((\d+)\).*?"
    r"(?:inet_addr\(|inet_pton\(AF_INET6, )\"([^\"]+)\""
)
_UNIX: Final = re.compile(r"sa_family=AF_UNIX, sun_path=(@?)\"([^\"]*)\"")
_SOCKET: Final = re.compile(r"(AF_\w+), (SOCK_\w+)")
_PATH: Final = re.compile(r"\"([^\"]*)\"")
_MAKES_THREAD: Final = frozenset({"clone", "clone3", "fork", "vfork"})
_OPENS: Final = frozenset({"open", "openat", "openat2"})


@dataclass(frozen=True)
class Call:
    """One call of a system function; `result` is None where it never returned."""

    program: str
    name: str
    arguments: str
    result: int | None

    @property
    def address(self) -> str:
        """The address it names: "127.0.0.1:9050", "unix:/path", or nothing."""
        internet = _INTERNET.search(self.arguments)
        if internet:
            return f"{internet[2]}:{internet[1]}"
        unix = _UNIX.search(self.arguments)
        return f"unix:{unix[1]}{unix[2]}" if unix else ""

    def __str__(self) -> str:
        return f"{self.program}: {self.name}({self.arguments}) = {self.result}"


class Trace:
    """The traces of one program, below `directory`."""

    def __init__(self, directory: Path):
        assert shutil.which("strace"), "strace is not installed: apt-get install strace"
        directory.mkdir()
        self._directory = directory
        # -D: the traced program is the child that the test started, not strace
        self.wrapper = ["strace", "-D", "-q", "-ff", "-s", "4096", "-e", f"trace={_TRACED}"]
        self.wrapper += ["-e", "signal=none", "-o", str(directory / "call"), "--"]

    def calls(self) -> list[Call]:
        """All calls; waits until strace has written the last."""
        self._settle()
        lines = {
            int(file.suffix[1:]): file.read_text(errors="replace").splitlines()
            for file in self._directory.iterdir()
        }
        program: dict[int, str] = {}
        found: list[Call] = []
        todo = [pid for pid in lines if pid not in self._made(lines)]
        while todo:
            pid = todo.pop()
            for call in _parsed(lines.get(pid, []), program.get(pid, "")):
                found.append(call)
                if call.name in _MAKES_THREAD and (call.result or -1) > 0:
                    assert call.result is not None
                    program[call.result] = call.program
                    todo.append(call.result)
        return found

    def _made(self, lines: dict[int, list[str]]) -> set[int]:
        calls = (call for of_one in lines.values() for call in _parsed(of_one, ""))
        return {call.result or 0 for call in calls if call.name in _MAKES_THREAD}

    def _settle(self) -> None:
        def size() -> int:
            return sum(file.stat().st_size for file in self._directory.iterdir())

        before = -1
        while before != (now := size()):
            before = now
            time.sleep(0.2)


def _parsed(lines: Iterable[str], program: str) -> Iterator[Call]:
    for line in lines:
        match = _CALL.match(line)
        if match is None:
            name, _, arguments = line.partition("(")
            if re.fullmatch(r"\w+", name):  # never returned
                yield Call(program, name, arguments, None)
            continue
        name, arguments = match[1], match[2]
        result = None if match[3] == "?" else int(match[3])
        if name == "execve" and result == 0:
            path = _PATH.search(arguments)
            assert path is not None
            program = Path(path[1]).name
        yield Call(program, name, arguments, result)


def leaks(calls: Iterable[Call], *, connects: Iterable[str], binds: Iterable[str]) -> list[Call]:
    """The calls that go beyond these addresses, or towards the system's resolver."""
    allowed = {"connect": frozenset(connects), "bind": frozenset(binds)}
    return [call for call in calls if _leaks(call, allowed)]


def _leaks(call: Call, allowed: dict[str, frozenset[str]]) -> bool:
    if call.name == "socket":
        kind = _SOCKET.match(call.arguments)
        return kind is None or not (kind[1] == "AF_UNIX" or kind[2] == "SOCK_STREAM")
    if call.name in allowed:
        return call.address not in allowed[call.name]
    if call.name.startswith("send"):  # a connected socket's names no address
        return bool(call.address)
    if call.name in _OPENS:
        path = _PATH.search(call.arguments)
        return path is not None and path[1] in RESOLVER_FILES
    return False
