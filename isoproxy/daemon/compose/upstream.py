"""Tor as the configuration has it: a child of ours, or one that runs elsewhere.

Both look the same from here: a SocksPort to dial through, a control connection that may
be absent, and one line about how it stands.
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
        self._managed: ManagedTor | None = None
        if config.mode == "managed":
            self._managed = ManagedTor(
                directory,
                program=config.binary,
                extra_torrc=config.extra_torrc,
                egress=egress_of(config),
            )
            self.socks = self._managed.socks
            self.control = self._managed.control
        else:
            self.socks = config.socks
            self.control = Control(config.control, password=config.control_password)

    async def start(self) -> None:
        """Start a tor of our own, or begin to connect to the other's control port.

        Raises ConfigError if tor is missing or refuses its configuration.
        """
        if self._managed is not None:
            await self._managed.start()
        else:
            self.control.start()

    async def stop(self) -> None:
        if self._managed is not None:
            await self._managed.stop()
        else:
            await self.control.close()

    def on_progress(self, callback: Callable[[Bootstrap], None]) -> None:
        """Tell `callback` of each step of Tor's start, where the control port tells us."""
        self.control.on_bootstrap(callback)

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call `callback` when Tor, or its control port, comes or goes."""
        self.control.on_state(lambda _: callback())
        if self._managed is not None:
            self._managed.on_state(lambda _: callback())

    async def answers(self) -> bool:
        """Whether Tor's SocksPort takes isolated streams now (a managed one: has started)."""
        if self._managed is not None and self._managed.state.stage is not Stage.READY:
            return False
        return await probe_socks(self.socks)

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
            self.control.version,
            phase.value,
            phase is Phase.READY,
            self.control.bootstrap,
            self.advice,
        )

    @property
    def advice(self) -> str | None:
        """What to do about the start of a tor of our own that does not get on."""
        return None if self._managed is None else self._managed.advice

    def log(self) -> TorLog | None:
        """What a tor of our own has said; None for one that runs elsewhere."""
        return None if self._managed is None else self._managed.log

    def describe(self) -> str:
        """How Tor stands, for a person."""
        if self._managed is not None:
            return str(self._managed.state)
        if self.control.endpoint.is_none:
            return "without control port"
        if self.control.state.phase is Phase.READY:
            bootstrap = self.control.bootstrap
            if bootstrap is not None and bootstrap.percent < 100:
                return f"bootstrapping {bootstrap.percent}%"
            return "ready"
        return f"control port {self.control.state}"


def egress_of(config: TorConfig) -> Egress:
    """How a tor of our own reaches its network."""
    return Egress(
        read_bridges(config.bridges),
        read_transports(config.transports),
        config.firewall_ports,
        None if config.proxy is None else read_proxy(config.proxy),
    )


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
