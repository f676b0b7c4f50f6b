"""Loading nftables rules into the network namespace that this process is in.

libnftables is what nft(8) itself is made of: it takes the language that `isoproxy transparent
rules` prints, and needs no program that is started.

Specification: libnftables(3), nft(8).
"""

from __future__ import annotations

import ctypes
from typing import Final

from isoproxy.errors import OperationError

_LIBRARY: Final = "libnftables.so.1"


def load(rules: str) -> None:
    """Load `rules`; raises OperationError."""
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        raise OperationError(
            f"{_LIBRARY} is not installed, which sends the program's connections to isoproxy; "
            "apt-get install libnftables1"
        ) from None
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
    context = ctypes.c_void_p(library.nft_ctx_new(0))
    try:
        library.nft_ctx_buffer_error(context)
        if library.nft_run_cmd_from_buffer(context, rules.encode()):
            why = (library.nft_ctx_get_error_buffer(context) or b"").decode(errors="replace")
            raise OperationError(
                "the kernel does not take the nftables rules: "
                + (why.strip().splitlines() or ["no reason given"])[0]
            )
    finally:
        library.nft_ctx_free(context)
