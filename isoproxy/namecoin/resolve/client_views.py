"""Which resolver answers which client: one for each network of clients.

Theory of operation
    On a gateway with several workstations, each workstation may run a name service of
    its own (Electrum-NMC on a Whonix-Workstation); its look-ups go there, so that no
    workstation learns from another's what is being looked up.  The longest network that
    holds the client's address decides.

Invariants
    A client that no network holds gets the default, or no resolver at all if there is
    none: never that of another network.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, Generic, TypeVar

from isoproxy.errors import NamingError
from isoproxy.namecoin.backend import TemporaryFailure

T = TypeVar("T")


class ClientViews(Generic[T]):
    """A choice by client address; `default` is for those in none of the networks."""

    def __init__(
        self, networks: Mapping[IPv4Network | IPv6Network, T], default: T | None = None
    ) -> None:
        self._networks: Final = sorted(
            networks.items(), key=lambda item: item[0].prefixlen, reverse=True
        )
        self._default: Final = default

    def choose(self, client: str | None) -> T:
        """For the client at `client`, the text of an IP address, or None on a unix socket.

        Raises:
            NamingError: nothing is set up for this client.
        """
        if client is not None:
            address = ip_address(client.partition("%")[0])
            if isinstance(address, IPv6Address):
                address = address.ipv4_mapped or address
            for network, choice in self._networks:
                if address in network:
                    return choice
        if self._default is None:
            raise NamingError(
                "No name service is set up for this client's network; add one to names.rpc.",
                kind=TemporaryFailure.default_kind,
            )
        return self._default
