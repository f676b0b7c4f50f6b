"""Tor as the configuration has it: C tor or Arti, a child of ours or one that runs elsewhere.

All look the same from here: a SocksPort to dial through, a control connection that may
be absent, and one line about how it stands.  The SocksPort of an Arti moves when it
starts anew, and leads nowhere while it does not answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from isoproxy.config import TorConfig
from isoproxy.daemon.status.snapshot import TorView
from isoproxy.errors import OperationError
from isoproxy.net.endpoint import Endpoint
from isoproxy.tor.arti.process import ManagedArti
from isoproxy.tor.arti.rpc import ArtiRpc
from isoproxy.tor.control.connection import Control, Phase
from isoproxy.tor.control.events import Bootstrap, Circuit
from isoproxy.tor.managed.bridges import read_bridges, read_transports
from isoproxy.tor.managed.egress import Egress, read_proxy
from isoproxy.tor.managed.log import TorLog
from isoproxy.tor.managed.process import ManagedTor
from isoproxy.tor.managed.program import Stage

PROBE_S: Final = 5.0
CIRCUITS_S: Final = 0.5
"""Seconds that a status waits for Tor's list of circuits."""
_GREETING: Final = b"\x05\x01\x02"
_ACCEPTED: Final = b"\x05\x02"


class Upstream:
    """The Tor that all streams go through; `directory` is where a tor of our own lives."""

    def __init__(self, config: TorConfig, directory: Path) -> None:
        self.mode = config.mode
        self._managed = _managed(config, directory)
        self._arti: ArtiRpc | None = None
        self._socks = config.socks
        if isinstance(self._managed, ManagedArti):
            self._arti = self._managed.rpc
        elif config.mode == "arti" and config.arti_rpc is not None:
            self._arti = ArtiRpc(config.arti_rpc)
        if self._managed is not None:
            self.control = self._managed.control
        elif self._arti is not None:
            self.control = Control(Endpoint())
        else:
            self.control = Control(config.control, password=config.control_password)

    @property
    def socks(self) -> Endpoint:
        """Where streams are dialled; nowhere while that is not known."""
        if self._managed is not None:
            return self._managed.socks
        return self._socks if self._arti is None else self._arti.socks

    async def start(self) -> None:
        """Start a tor of our own, or begin to connect to the other's control port.

        Raises ConfigError if tor is missing or refuses its configuration.
        """
        if self._managed is not None:
            await self._managed.start()
        elif self._arti is not None:
            self._arti.start()
        else:
            self.control.start()

    async def stop(self) -> None:
        if self._managed is not None:
            await self._managed.stop()
        elif self._arti is not None:
            await self._arti.close()
        else:
            await self.control.close()

    def on_progress(self, callback: Callable[[Bootstrap], None]) -> None:
        """Tell `callback` of each step of Tor's start, where Tor tells us."""
        if self._arti is not None:
            self._arti.on_change(lambda now: None if now is None else callback(now))
        self.control.on_bootstrap(callback)

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call `callback` when Tor, its control port or its SocksPort comes, goes or moves."""
        self.control.on_state(lambda _: callback())
        if self._arti is not None:
            self._arti.on_change(lambda _: callback())
        if self._managed is not None:
            self._managed.on_state(lambda _: callback())

    async def answers(self) -> bool:
        """Whether Tor's SocksPort takes isolated streams now (a managed one: has started)."""
        if self._managed is not None and self._managed.state.stage is not Stage.READY:
            return False
        socks = self.socks
        return not socks.is_none and await probe_socks(socks)

    async def circuits(self) -> tuple[Circuit, ...]:
        """Tor's circuits, as far as it tells of them.

        None without a control port, or where a filter in front of it does not tell.  Of a
        Tor that is slow (thousands of circuits, a frozen process) what its events have told.
        """
        if self.control.state.phase is not Phase.READY:
            return ()
        try:
            async with asyncio.timeout(CIRCUITS_S):
                return await self.control.refresh_circuits()
        except TimeoutError:
            return self.control.circuits()
        except OperationError:
            return ()

    def view(self, *, answers: bool) -> TorView:
        """How Tor stands now; `answers` is what its SocksPort did last time."""
        phase = self.control.state.phase
        return TorView(
            self.mode,
            self.describe(),
            answers,
            self._managed.version
            if isinstance(self._managed, ManagedArti)
            else self.control.version,
            phase.value,
            phase is Phase.READY,
            self.control.bootstrap if self._arti is None else self._arti.bootstrap,
            self.advice,
            self.control.signals,
        )

    @property
    def advice(self) -> str | None:
        """What to do about the start of a tor of our own that does not get on."""
        return self._managed.advice if isinstance(self._managed, ManagedTor) else None

    def log(self) -> TorLog | None:
        """What a tor of our own has said; None for one that runs elsewhere."""
        return None if self._managed is None else self._managed.log

    def describe(self) -> str:
        """How Tor stands, for a person."""
        if self._managed is not None:
            return str(self._managed.state)
        if self._arti is not None:
            return _progress(self._arti.bootstrap) or "its RPC port does not answer"
        if self.control.endpoint.is_none:
            return "without control port"
        if self.control.state.phase is Phase.READY:
            return _progress(self.control.bootstrap) or "ready"
        return f"control port {self.control.state}"


def egress_of(config: TorConfig) -> Egress:
    """How a tor of our own reaches its network."""
    return Egress(
        read_bridges(config.bridges),
        read_transports(config.transports),
        config.firewall_ports,
        None if config.proxy is None else read_proxy(config.proxy),
    )


def _managed(config: TorConfig, directory: Path) -> ManagedTor | ManagedArti | None:
    if config.mode == "managed":
        return ManagedTor(
            directory,
            program=config.binary,
            extra_torrc=config.extra_torrc,
            egress=egress_of(config),
        )
    if config.mode == "arti" and config.arti_rpc is None:
        return ManagedArti(
            directory.with_name("arti"), program=config.arti_binary, extra=config.extra_arti
        )
    return None


def _progress(bootstrap: Bootstrap | None) -> str | None:
    if bootstrap is None:
        return None
    return "ready" if bootstrap.percent == 100 else f"bootstrapping {bootstrap.percent}%"


async def probe_socks(endpoint: Endpoint) -> bool:
    """Whether a SOCKS5 server with user/password listens there; makes no circuit."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
        async with asyncio.timeout(PROBE_S):
            if endpoint.path is not None:
                reader, writer = await asyncio.open_unix_connection(endpoint.path)
            else:
                assert endpoint.host is not None, "a SocksPort is somewhere"
                reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
            try:
                writer.write(_GREETING)
                return await reader.readexactly(2) == _ACCEPTED
            finally:
                writer.close()
    return False
