"""The services of a front end, for tests of its parts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from isoproxy.front.pipes import PipePool
from isoproxy.front.services import Bitcoin, FrontServices, FrontSettings
from isoproxy.isolation import Isolator
from isoproxy.net.deadlines import Deadlines
from isoproxy.net.endpoint import Endpoint
from isoproxy.net.reactor import Handler, Reactor
from isoproxy.tor.dialer import Dialer, DialerSettings


@contextlib.contextmanager
def front_services(
    settings: FrontSettings | None = None,
    *,
    socks: Endpoint | None = None,
    bitcoin: Bitcoin | None = None,
    pipes: PipePool | None = None,
    tick_s: float = 1.0,
) -> Iterator[FrontServices]:
    """Services over a SocksPort; without one every dial fails.  A defect fails the test."""

    def defect(handler: Handler, error: Exception) -> None:
        raise error

    loop = asyncio.get_running_loop()
    reactor, isolator = Reactor(loop, defect), Isolator()
    dialer = Dialer(reactor, isolator, DialerSettings(socks or Endpoint(), timeout_s=5))
    services = FrontServices(
        reactor,
        isolator,
        dialer,
        Deadlines(loop, tick_s),
        pipes if pipes is not None else PipePool(1 << 16, 2),
        bitcoin,
        settings or FrontSettings(),
    )
    try:
        yield services
    finally:
        dialer.close()
        services.deadlines.close()
        services.pipes.close()
        reactor.close()
