"""An Arti of our own: a managed program that is asked over its RPC port.

Theory of operation
    `ManagedArti` writes arti.toml into its directory (see `configuration`), starts
    `arti proxy` on it, and follows it by an `ArtiRpc` on the unix socket there.  Arti
    knows no owner: the kernel ends it when we end (PR_SET_PDEATHSIG, which setpriv sets
    for it), even when we are killed.

Invariants
    There is no control port: circuits are not shown, and NEWNYM of others is not
    followed.  The system's configuration of Arti is never read.

Specification: Arti 2.7; setpriv(1).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from isoproxy.errors import ConfigError
from isoproxy.net.backoff import Backoff
from isoproxy.net.endpoint import Endpoint
from isoproxy.private_file import replace_file
from isoproxy.tor.arti.configuration import arti_toml, connect_point
from isoproxy.tor.arti.output import ArtiOutput
from isoproxy.tor.arti.rpc import ArtiRpc
from isoproxy.tor.control.connection import Control
from isoproxy.tor.control.events import Bootstrap
from isoproxy.tor.managed.child import Spawn, spawn_process
from isoproxy.tor.managed.program import ManagedProgram
from isoproxy.tor.managed.torrc import socket_in

_NOT_INSTALLED: Final = (
    "arti is not installed, or not where tor.arti_binary says; install it with the feature rpc "
    '(cargo install arti --features rpc), or set tor.mode = "managed" to use C tor'
)
_NO_VERSION: Final = (
    "the program that should be arti does not tell its version; see tor.arti_binary"
)
_NO_RPC: Final = (
    "arti does not open its RPC port; it must be built with the feature rpc "
    "(cargo install arti --features rpc)"
)
_VERSION = re.compile(r"\barti (\d+\.\d+\.\d+)\b", re.IGNORECASE)


class ManagedArti(ManagedProgram):
    """Arti as a child of ours; `extra` are further lines of its configuration."""

    name = "arti"

    def __init__(
        self,
        directory: Path,
        *,
        program: str = "arti",
        extra: Sequence[str] = (),
        backoff: Backoff | None = None,
        spawn: Spawn = spawn_process,
    ) -> None:
        super().__init__(directory, program=program, backoff=backoff, spawn=spawn)
        self.control = Control(Endpoint())
        self.rpc = ArtiRpc(socket_in(self.directory, "rpc"), Backoff(0.05, 1.0))
        self.version: str | None = None
        self._extra = tuple(extra)
        self._read = self._reader()

    @property
    def socks(self) -> Endpoint:
        return self.rpc.socks

    def on_progress(self, callback: Callable[[Bootstrap], None]) -> Callable[[], None]:
        return self.rpc.on_change(lambda now: None if now is None else callback(now))

    async def stop(self) -> None:
        await self.rpc.close()
        await super().stop()

    async def _configure(self) -> None:
        text = await self._ask_version(_NOT_INSTALLED, _NO_VERSION)
        match = _VERSION.search(text)
        if match is None:
            raise ConfigError(_NO_VERSION)
        self.version = match[1]
        assert self.rpc.endpoint.path is not None
        replace_file(self.directory / "arti.toml", arti_toml(self.directory, self._extra))
        replace_file(self.directory / "connect.toml", connect_point(self.rpc.endpoint.path))

    def _begin(self) -> None:
        self._resources.callback(self.rpc.on_change(self._changed))
        self.rpc.start()

    def _arguments(self) -> Sequence[str]:
        ended_with_us = ("setpriv", "--pdeathsig", "TERM", "--")
        return [*ended_with_us, self._program, "proxy", "-c", str(self.directory / "arti.toml")]

    def _environment(self) -> dict[str, str]:
        return {**super()._environment(), "NO_COLOR": "1"}

    def _before_life(self) -> None:
        """What a dead Arti left behind must not be taken for the next one's."""
        self._read = self._reader()
        assert self.rpc.endpoint.path is not None
        Path(self.rpc.endpoint.path).unlink(missing_ok=True)

    def _reader(self) -> ArtiOutput:
        return ArtiOutput(self.log, scrubbed=any("bridges" in line for line in self._extra))

    def _output(self, data: bytes) -> None:
        self._read.feed(data)

    def _complaints(self) -> str:
        return "; ".join(self._read.problems)

    def _judge_first_end(self, problem: str) -> None:
        if self._read.is_refusal:
            raise ConfigError(f"arti refuses to start: {problem}")
        if self._was_silent:
            raise ConfigError(_NO_RPC)

    def _changed(self, bootstrap: Bootstrap | None) -> None:
        if bootstrap is not None and self._child is not None:
            self._read.settle()
            self._has_run = True
            self._running.set()
            self._bootstrapped(bootstrap)
