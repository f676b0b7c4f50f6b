"""Addresses that stand for names: one of each family for a name, for each client its own.

Theory of operation
    A name gets the next number, and with it an address of a private range of IPv4 and one of
    IPv6.  A client that connects to such an address means the name.  Numbers are given out in
    turn, from a random one on: an address that a program kept for too long leads nowhere, and
    not to what another name got meanwhile.

Invariants
    A client sees its own names alone, and no other client changes what it is told.
    A name keeps its address while it is used, and KEEP_S longer.  Memory is bounded: a client
    that has MAX_NAMES in use gets no more, nor does one beyond MAX_CLIENTS in use.
    Nothing here reads a clock.

Specification: tor(1), VirtualAddrNetworkIPv4; RFC 1918 §3, RFC 4193 §3.1 (the ranges).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, NamedTuple

NETWORK4: Final = IPv4Network("10.192.0.0/10")
NETWORK6: Final = IPv6Network("fd69:736f:7072::/48")  # "isopr"
MAX_NAMES: Final = 4096
MAX_CLIENTS: Final = 64
KEEP_S: Final = 600.0
"""Seconds after its last use in which an address still stands for its name."""
_FIRST: Final = 256
"""Those before it are for interfaces (`OWN4`, `OWN6`)."""
_NUMBERS: Final = NETWORK4.num_addresses - _FIRST - 1
OWN4: Final = NETWORK4[1]
OWN6: Final = NETWORK6[1]

Address = IPv4Address | IPv6Address


class VirtualPair(NamedTuple):
    """The addresses of one name."""

    ipv4: IPv4Address
    ipv6: IPv6Address


def is_virtual(address: Address) -> bool:
    """Whether it can stand for a name; it is then never dialled as it is."""
    return address in (NETWORK4 if isinstance(address, IPv4Address) else NETWORK6)


def _pair(number: int) -> VirtualPair:
    at = _FIRST + number
    return VirtualPair(NETWORK4[at], NETWORK6[at])


def _number(address: Address) -> int:
    network = NETWORK4 if isinstance(address, IPv4Address) else NETWORK6
    return int(address) - int(network.network_address) - _FIRST


class VirtualAddresses:
    """Those of one client; `start` is a random number to begin at."""

    def __init__(self, start: int) -> None:
        self._next = start % _NUMBERS
        self._numbers: Final[OrderedDict[str, tuple[int, float]]] = OrderedDict()
        """By name the number and when (s) it was used last, longest ago first."""
        self._names: Final[dict[int, str]] = {}

    def __len__(self) -> int:
        return len(self._names)

    def assign(self, name: str, now: float) -> VirtualPair | None:
        """What stands for `name` from `now` (s) on; None where too many names are in use."""
        if name in self._numbers:
            return _pair(self._use(name, now))
        if len(self._names) >= MAX_NAMES:
            oldest, (number, used) = next(iter(self._numbers.items()))
            if now - used < KEEP_S:
                return None
            del self._numbers[oldest], self._names[number]
        while self._next in self._names:
            self._next = (self._next + 1) % _NUMBERS
        number, self._next = self._next, (self._next + 1) % _NUMBERS
        self._names[number] = name
        self._numbers[name] = number, now
        return _pair(number)

    def name_at(self, address: Address, now: float) -> str | None:
        """The name that a virtual address stands for, which is used now; None: it has none."""
        name = self._names.get(_number(address))
        if name is not None:
            self._use(name, now)
        return name

    def _use(self, name: str, now: float) -> int:
        number, _ = self._numbers[name]
        self._numbers[name] = number, now
        self._numbers.move_to_end(name)
        return number


class ClientMaps:
    """The virtual addresses of each client; `random(n)` gives n random bytes."""

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self._random: Final = random
        self._maps: Final[OrderedDict[bytes, tuple[VirtualAddresses, float]]] = OrderedDict()

    def assign(self, client: bytes, name: str, now: float) -> VirtualPair | None:
        """As `VirtualAddresses.assign`, for the client with this field of the isolation tuple."""
        found = self._used(client, now)
        if found is None:
            if len(self._maps) >= MAX_CLIENTS:
                idle, (_, used) = next(iter(self._maps.items()))
                if now - used < KEEP_S:
                    return None
                del self._maps[idle]
            found = VirtualAddresses(int.from_bytes(self._random(4)))
            self._maps[client] = found, now
        return found.assign(name, now)

    def name_at(self, client: bytes, address: Address, now: float) -> str | None:
        """As `VirtualAddresses.name_at`, for that client alone."""
        found = self._used(client, now)
        return None if found is None else found.name_at(address, now)

    def _used(self, client: bytes, now: float) -> VirtualAddresses | None:
        if client not in self._maps:
            return None
        found, _ = self._maps[client]
        self._maps[client] = found, now
        self._maps.move_to_end(client)
        return found
