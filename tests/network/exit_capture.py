"""A crowd of clients through isoproxy, and what the exits handed on of it."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.kit.isoproxy_process import Isoproxy, system
from tests.kit.onion import publish
from tests.kit.openings import Opening, Received, faults, missing
from tests.kit.ports import free_port
from tests.kit.tornet import TorNetwork
from tests.kit.witness import Witness
from tests.network.exit_sinks import Crowd, Manner, Sinks

LISTED: Final = (8333, 18333, 38333, 48333, 18444, 18555, 8334, 18334, 38334)
"""The ports that Bitcoin's and Namecoin's networks use, as the defaults have them."""
PROXY: Final = 'address = "127.0.0.1:0"\nallow_private_addresses = true'
_SETTLE_S: Final = 3.0
"""From the last client's end until the last byte that Tor has of it has reached a sink."""


@dataclass
class Seen:
    """What a run showed.

    `received` is all that came to the sinks; `told` is what clients said, `whole` what must
    have come as it was; `mixed` circuits carried several tuples.
    """

    received: list[Received]
    told: list[Opening]
    whole: list[Opening]
    failed: int
    listed: tuple[int, ...]
    unknown_too: bool
    mixed: int
    from_programs: int
    outcomes: Counter[str] = field(default_factory=Counter)

    @property
    def faults(self) -> list[str]:
        return faults(self.received, self.told, listed=self.listed, unknown_too=self.unknown_too)

    @property
    def missing(self) -> list[Opening]:
        return missing(self.received, self.whole)


Programs = Callable[[Isoproxy, Sinks], AbstractContextManager[None]]
"""Programs that have reached for the sinks before the crowd comes."""


def run(
    directory: Path,
    net: TorNetwork,
    fallback: str,
    *,
    streams: int,
    seed: int | None = None,
    programs: Programs | None = None,
) -> Seen:
    """So many streams with `v1_fallback` set; with "never" some of them to an onion service."""
    chance = random.Random(seed)
    unlisted = [free_port(net.server_ip) for _ in Manner]
    manners = dict(zip((*LISTED, *unlisted), [*Manner] * 3, strict=False))
    sinks = Sinks(net.server_ip, manners, chance)
    with contextlib.ExitStack() as stack:
        hosts = ["one.test", "two.test", net.server_ip]
        if fallback == "never":
            there = {port: (net.server_ip, port) for port in manners}
            hosts.append(stack.enter_context(publish(net.relays[1], there)).host)
        settings = [*system(net.client), f"bitcoin.v1_fallback={fallback}"]
        proxy = stack.enter_context(Isoproxy(directory, settings, proxies=(PROXY,), develop=False))
        proxy.wait_ready()
        witness = stack.enter_context(Witness(net.client))
        start = witness.mark()
        addresses = [place for place in proxy.addresses if not isinstance(place, str)]
        crowd = Crowd(addresses, hosts, sinks, chance)
        beside = programs(proxy, sinks) if programs else contextlib.nullcontext()
        from_programs = asyncio.run(_come(crowd, streams, beside))
        witness.settle()
        mixed = witness.mixed(witness.streams(after=start))
        outcomes = Counter(proxy.status()["bitcoin"]["totals"]["outcomes"])
    return Seen(
        sinks.received,
        crowd.told,
        crowd.whole,
        crowd.failed,
        LISTED,
        fallback == "never",
        len(mixed),
        from_programs,
        outcomes,
    )


async def _come(crowd: Crowd, streams: int, beside: AbstractContextManager[None]) -> int:
    """All that shall happen; returns how many connections the programs had made."""
    async with crowd.sinks.listening():
        with contextlib.ExitStack() as stack:
            await asyncio.to_thread(stack.enter_context, beside)
            from_programs = len(crowd.sinks.received)
        await crowd.come(streams)
        await asyncio.sleep(_SETTLE_S)
    return from_programs
