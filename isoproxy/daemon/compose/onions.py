"""Onion services as the configuration and `isoproxy publish` have them.

Theory of operation
    A service goes to its local target, or, with `v2`, to a loopback port of ours behind
    which peers that speak BIP324 are served and the target hears v1.  (A unix socket would
    be ours alone, and a tor that runs as another user could not enter it.)
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from isoproxy.bitcoin.carry import RelayStream
from isoproxy.bitcoin.flow import ClosedBy, Flow
from isoproxy.bitcoin.inbound import InboundSettings
from isoproxy.bitcoin.messages import KNOWN_NETWORKS, Network, Networks
from isoproxy.config import OnionServiceConfig
from isoproxy.errors import ConfigError, OperationError
from isoproxy.front.pipes import PipePool
from isoproxy.front.services import FrontServices, FrontSettings
from isoproxy.front.timed_relay import relay_stream
from isoproxy.isolation import Isolator
from isoproxy.multiaddr import onion_multiaddr
from isoproxy.net.deadlines import Deadlines
from isoproxy.net.endpoint import Endpoint
from isoproxy.net.reactor import Reactor
from isoproxy.net.target import Target
from isoproxy.tor.control.connection import Control
from isoproxy.tor.dialer import Dialer, DialerSettings
from isoproxy.tor.onion import OnionPort, OnionService, OnionState

_BACKLOG: Final = 128


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """One onion service: its `ports` all lead to `target`; `v2` ends BIP324 before it.

    `network` is the name of the node's among `networks`, by default the one whose port this
    is; with `advertise_v2` the node's VERSION gets service bit 11.
    """

    name: str
    ports: Sequence[int]
    target: Endpoint
    key_file: Path | None = None
    clients: Sequence[str] = ()
    v2: bool = False
    network: str | None = None
    advertise_v2: bool = False
    networks: Networks = KNOWN_NETWORKS

    def __post_init__(self) -> None:
        if not self.target.is_local:
            raise ConfigError(
                "an onion service's target must be a loopback or private address or a unix "
                "socket, because the connection to it does not go through Tor"
            )


def service_plan(config: OnionServiceConfig, networks: Networks = KNOWN_NETWORKS) -> ServicePlan:
    """What `[[onion_service]]` asks for; raises ConfigError."""
    if config.target is None:
        raise ConfigError(f"onion_service {config.name}: target is missing, as in 127.0.0.1:80")
    return ServicePlan(
        config.name,
        config.ports,
        config.target,
        None if config.key_file is None else Path(config.key_file),
        config.client_auth,
        config.v2,
        config.network,
        config.advertise_v2,
        networks,
    )


class PublishedService:
    """An onion service.

    With `v2` peers come to `listener`, a loopback socket of ours, and are to be served
    there by `inbound`.
    """

    def __init__(self, plan: ServicePlan, control: Control) -> None:
        self.plan = plan
        self.inbound: InboundSettings | None = None
        self.listener: socket.socket | None = None
        target = plan.target
        if plan.v2:
            self.inbound = inbound_settings(plan)
            self.listener, target = _listen()
        try:
            self.service = OnionService(
                control,
                [OnionPort(port, target) for port in plan.ports],
                key_file=plan.key_file,
                clients=plan.clients,
            )
        except ConfigError:
            if self.listener is not None:
                self.listener.close()
            raise

    def start(self) -> None:
        """Publish in the background, again after every restart of Tor."""
        self.service.start()

    async def stop(self) -> None:
        """Withdraw the service and close our socket."""
        await self.service.withdraw()
        if self.listener is not None:
            self.listener.close()

    @property
    def state(self) -> OnionState:
        return self.service.state

    async def wait_published(self) -> list[str]:
        """`lines`, once Tor has the service."""
        await self.service.wait_published()
        return self.lines

    @property
    def lines(self) -> list[str]:
        """For a person: each port's address and multiaddr; none before the first publication."""
        address = self.service.address
        if address is None:
            return []
        return [f"{address}:{port} {onion_multiaddr(address, port)}" for port in self.plan.ports]


def inbound_settings(plan: ServicePlan) -> InboundSettings:
    """How the peers of the Bitcoin node at the target are served; raises ConfigError."""
    host = plan.target.host
    if host is None:
        raise ConfigError("with v2 an onion service's target must be a TCP address")
    return InboundSettings(_network(plan), Target.parse(host, plan.target.port), plan.advertise_v2)


def relay_of_its_own() -> RelayStream:
    """The relay of a process that has no front end, and opens no streams."""
    loop = asyncio.get_running_loop()

    def internal_error(handler: object, error: Exception) -> None:
        services.internal_error(handler, error)

    reactor, isolator = Reactor(loop, internal_error), Isolator()
    services = FrontServices(
        reactor,
        isolator,
        Dialer(reactor, isolator, DialerSettings(Endpoint())),
        Deadlines(loop),
        PipePool.for_this_machine(1),
        None,
        FrontSettings(),
    )

    async def relay(
        client: socket.socket, peer: socket.socket, first: bytes, flow: Flow
    ) -> ClosedBy:
        return await relay_stream(services, client, peer, first, flow.relayed)

    return relay


def _network(plan: ServicePlan) -> Network:
    """No v2 stream names its network: what the plan says, or whose port it is."""
    if plan.network is not None:
        try:
            return plan.networks.named(plan.network)
        except KeyError:
            names = ", ".join(network.name for network in plan.networks)
            raise ConfigError(f"not a known Bitcoin network; known are {names}") from None
    ports = {plan.target.port, *plan.ports}
    network = next((network for network in plan.networks if network.port in ports), None)
    if network is None:
        raise ConfigError(
            "with v2 the network must be known: name it, or use a known network's port, such "
            "as 8333, for the service or its target"
        )
    return network


def _listen() -> tuple[socket.socket, Endpoint]:
    """A listening loopback socket for Tor to come to."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.bind(("127.0.0.1", 0))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise OperationError(f"no port can be had for peers: {error.strerror}") from None
    return sock, Endpoint.tcp(*sock.getsockname())
