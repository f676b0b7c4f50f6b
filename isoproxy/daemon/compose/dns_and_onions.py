"""What isoproxy serves beside its listeners: DNS for bit, onion services; keys to visit others'."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final, TextIO

from isoproxy.config import Config, state_directory
from isoproxy.daemon.announce import announce
from isoproxy.daemon.compose.dns import dns_policy, dns_server
from isoproxy.daemon.compose.onions import PublishedService, service_plan
from isoproxy.daemon.settings.bitcoin import networks
from isoproxy.daemon.trusted import TrustedServices
from isoproxy.isolation import Isolator
from isoproxy.namecoin.resolve.resolver import Resolver
from isoproxy.observe.log import goes_to_the_journal, logger
from isoproxy.tor.control.connection import Control
from isoproxy.tor.onion import OnionStage, OnionState

_log = logger("daemon")


class DnsAndOnions:
    """The DNS server and the onion services of `config`; raises ConfigError.

    `resolver_of` gives a client's resolver; `out` gets a line for each service, which does
    not say where it is if the line ends up in the journal.
    """

    def __init__(
        self,
        config: Config,
        isolator: Isolator,
        control: Control,
        resolver_of: Callable[[bytes | None], Resolver],
        out: TextIO,
    ) -> None:
        self._out: Final = out
        self._discreet: Final = config.observe.safe_logging and goes_to_the_journal(out)
        self.dns: Final = dns_server(config, resolver_of, isolator)
        self.onions: Final = [
            PublishedService(service_plan(service, networks(config.bitcoin)), control)
            for service in config.onion_service
        ]
        self.inbound: Final = {
            each.plan.name: each.inbound for each in self.onions if each.inbound is not None
        }
        """How peers of Bitcoin nodes that come in are served, by the service's name."""
        self.sockets: Final = {
            each.plan.name: each.listener for each in self.onions if each.listener is not None
        }
        """Where they come in."""
        self.trusted: Final = TrustedServices(control, state_directory() / "onion_clients")
        """Services that ask for a client key."""
        self._announcing: Final[set[asyncio.Task[None]]] = set()

    async def start(self) -> None:
        """Listen, and publish as soon as Tor allows; raises OperationError."""
        if self.dns is not None:
            await self.dns.open()
            announce(f"listening dns {self.dns.endpoint}", self._out)
            _log.notice("listening", listener="dns", address=str(self.dns.endpoint))
        for published in self.onions:
            published.service.on_state(partial(_tell, published.plan.name))
            published.start()
            self._announcing.add(asyncio.create_task(self._announce(published)))

    def follow(self, config: Config) -> None:
        """Answer as `config` has it, once its names are resolved; all else waits for a restart."""
        if self.dns is not None:
            self.dns.responder.follow(dns_policy(config))

    async def close(self) -> None:
        """Withdraw and stop everything."""
        for task in self._announcing:
            task.cancel()
        await asyncio.gather(*self._announcing, return_exceptions=True)
        await self.trusted.close()
        for published in self.onions:
            await published.stop()
        if self.dns is not None:
            await self.dns.close()

    async def _announce(self, published: PublishedService) -> None:
        """Say where an onion service is once Tor has taken it."""
        lines = await published.wait_published()
        if self._discreet:
            lines = ["(its address is not for the journal; it is shown by: isoproxy onions)"]
        for line in lines:
            announce(f"published {published.plan.name} {line}", self._out)


def _tell(name: str, state: OnionState) -> None:
    """Say in the log how the service called `name` stands now."""
    if state.stage is OnionStage.REFUSED:
        _log.warn("onion_service_refused", service=name, problem=state.problem)
    else:
        _log.notice("onion_service", service=name, stage=state.stage)
