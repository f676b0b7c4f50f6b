"""isoproxy: a front door to Tor for activities that must never be linked.

For programs: `connect` (asyncio) and `create_connection` (blocking) open streams through
a running isoproxy; see `isoproxy.client`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isoproxy.client import connect, create_connection

__version__ = "0.1.0"
__all__ = ["__version__", "connect", "create_connection"]


def __getattr__(name: str) -> Any:
    """Load the client when it is first used: nothing else of isoproxy needs it."""
    if name in ("connect", "create_connection"):
        from isoproxy import client

        return getattr(client, name)
    raise AttributeError(f"module 'isoproxy' has no attribute {name!r}")
