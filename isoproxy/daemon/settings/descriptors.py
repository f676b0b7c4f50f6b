"""Limits that fit the file descriptors there are.

Theory of operation
    A process may have so many descriptors open (RLIMIT_NOFILE), and the soft limit is often
    far below the hard one: select(2), which we do not use, cannot have more than 1024.  Each
    client takes two, its own and one to Tor.  What else is open has a reserve that clients
    cannot use up: the admin socket, the dashboard, the control port, name servers, pipes.
"""

from __future__ import annotations

import resource
from dataclasses import replace
from typing import Final

from isoproxy.config import Config, Loaded

PER_CLIENT: Final = 2
RESERVE: Final = 224
"""Descriptors for 32 pipes, 32 clients each of the admin socket and the dashboard, listeners,
the control port, other processes, files, and dials under way."""
_DNS: Final = 160
_UNLIMITED: Final = 1 << 20


def raise_limit() -> int:
    """Raise the soft limit to the hard one; returns how many descriptors there may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):  # more than the system has for a process
            hard = soft
    return _UNLIMITED if hard == resource.RLIM_INFINITY else hard


def reserved(config: Config) -> int:
    """Descriptors of a process that are not for clients of listeners."""
    names = config.names.electrum
    servers = names.max_connections + names.pool_size if config.names.backend == "electrum" else 0
    dns = _DNS if config.dns.address is not None else 0
    proxies = sum(proxy.max_connections for proxy in config.bitcoin.proxy)
    return RESERVE + servers + dns + PER_CLIENT * proxies


def fit(loaded: Loaded, descriptors: int, processes: int) -> Loaded:
    """`loaded` with no more connections than `processes` with `descriptors` each can carry.

    A warning says so where that is less than the configuration has.
    """
    config, limits = loaded.config, loaded.config.limits
    most = max(1, (descriptors - reserved(config)) // PER_CLIENT * processes)
    if limits.max_connections <= most:
        return loaded
    fitting = replace(
        limits,
        max_connections=most,
        max_connections_per_client=min(most, limits.max_connections_per_client),
    )
    warning = (
        f"limits.max_connections: {limits.max_connections} connections need more file descriptors "
        f"than the {descriptors} that a process may have; at most {most} are served; raise "
        "LimitNOFILE, or ulimit -n"
    )
    return replace(
        loaded, config=replace(config, limits=fitting), warnings=(*loaded.warnings, warning)
    )
