"""What isoproxy does in steps, done at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

from isoproxy.errors import RemoteProtocolError
from isoproxy.namecoin.chain import auxpow, name_script, spv, transaction
from isoproxy.namecoin.chain.auxpow import MinedHeader
from isoproxy.namecoin.chain.cooperative import Cooperative, finish
from isoproxy.namecoin.chain.header_chain import Branch

P = ParamSpec("P")
T = TypeVar("T")


def at_once(work: Callable[P, Cooperative[T]]) -> Callable[P, T]:
    """`work` as a function that returns its result."""

    def finished(*args: P.args, **kwargs: P.kwargs) -> T:
        return finish(work(*args, **kwargs))

    return finished


append: Final = at_once(Branch.append)
check_proof_of_work: Final = at_once(auxpow.check_proof_of_work)
name_update: Final = at_once(name_script.name_update)
parse_transaction: Final = at_once(transaction.parse_transaction)
read_header: Final = at_once(auxpow.read_header)
read_transaction: Final = at_once(transaction.read_transaction)
verify: Final = at_once(spv.verify)


def parse_header(raw: bytes) -> MinedHeader:
    """The header that `raw` is, with nothing behind it."""
    mined, end = read_header(raw)
    if end != len(raw):
        raise RemoteProtocolError("a block header has bytes behind its end")
    return mined
