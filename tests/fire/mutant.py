"""Runs isoproxy with a law broken on purpose: the positive controls of the linkability run.

    python -m tests.fire.mutant shared-cache python -m isoproxy run ...

The words behind the mutation's name are the command that it stands in for.
"""

from __future__ import annotations

import random
import runpy
import sys
from collections.abc import Callable
from typing import Any, Final

from isoproxy.namecoin.electrum.pool import ServerPool
from isoproxy.namecoin.resolve.cache import KeyedCache


def _shared_cache() -> None:
    """What was learned under one key is found under all."""
    get, put = KeyedCache.get, KeyedCache.put
    everybody: Any = object()
    KeyedCache.get = lambda self, key, *rest: get(self, everybody, *rest)  # type: ignore[method-assign]
    KeyedCache.put = lambda self, key, *rest: put(self, everybody, *rest)  # type: ignore[method-assign]


def _shared_connection() -> None:
    """All look-ups at a server go over the connection of whoever asked first."""
    session = ServerPool.session
    first: dict[str, Any] = {}

    async def shared(self: ServerPool, key: Any, server: Any) -> Any:
        owner = first.setdefault(server.label, key)
        return await session(self, owner if self._isolator.is_current(owner) else key, server)

    ServerPool.session = shared  # type: ignore[method-assign]


def _prompt_refill() -> None:
    """A connection that was taken is replaced at once."""
    random.expovariate = lambda rate: 0.0  # type: ignore[assignment]


MUTATIONS: Final[dict[str, Callable[[], None]]] = {
    "shared-cache": _shared_cache,
    "shared-connection": _shared_connection,
    "prompt-refill": _prompt_refill,
}


def main() -> None:
    name, _, _, module, *words = sys.argv[1:]
    MUTATIONS[name]()
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
