"""Work that an order to stop calls off."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def done_unless(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do `work`; False if `stop` came first, and `work` was cancelled.  Raises what it raises."""
    working = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if working.done():
        working.result()
        return True
    working.cancel()
    await asyncio.wait([working])
    return False
