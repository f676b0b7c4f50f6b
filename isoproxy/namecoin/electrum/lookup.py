"""One server's verified answer to what a name's value is.

Theory of operation
    With protocol 1.4.3 one request brings everything (`get_value_proof`): asked with a
    checkpoint height at which operations are deep enough for us, it stops at the first
    of those, so the answer is short however often a name was renewed.  With older
    servers the history comes first, then the transactions and branches that decide,
    all at once: two round trips.

    Which height that is follows from what this server said on this connection, never from
    our own tip: a server that could hold our headers back would else read, in every question
    of every identity of ours, that they are held back.  The answer reaches `MAX_LAG` blocks
    further down than the server's word needs, in case our tip is that much lower.

    After a reorganisation ElectrumX undoes nothing in its index of names.  What a lost block
    left in a history is the same transaction at a height where it is not any more (its
    branch is refused, and so is a whole value proof), later the transaction that has got its
    number.  Such entries are left out, however deep they are, and older ones are asked for.
    A server could as well have omitted them: `quorum` is the answer to that.  Leftovers come
    in any order, so a history is sorted by height.

    What comes back is verified operation by operation, newest first, down to the first
    that is deep enough.  Operations above our verified tip are not looked at, unless they
    are deep enough by the server's: then our headers are behind, or it lies, and what we
    could verify would be an older value.

Invariants
    `RemoteProtocolError` out of here means that the server was caught: its answer cannot
    be true of any chain that has our headers; except AnswerTooLong and Ambiguous, which the
    owner of a name can bring about.  All else (a refusal, a closed connection, a header we
    do not have yet) is no lie.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from isoproxy.errors import DialError, ErrorKind
from isoproxy.namecoin.backend import TemporaryFailure
from isoproxy.namecoin.chain.cooperative import run_cooperatively
from isoproxy.namecoin.chain.header_chain import HeaderChain
from isoproxy.namecoin.chain.name_script import NotAnUpdate, name_update, script_hash
from isoproxy.namecoin.chain.params import Checkpoint
from isoproxy.namecoin.chain.spv import (
    MAX_OPERATIONS,
    HeaderMissing,
    NameProof,
    NotInBlock,
    Operation,
    ProofVerdict,
    expires_in,
    judge,
    verify,
)
from isoproxy.namecoin.electrum import results
from isoproxy.namecoin.electrum.results import HistoryItem
from isoproxy.namecoin.electrum.session import ElectrumSession, ServerRefused, abandon

MAX_LAG: Final = 6
"""Blocks that a server may be behind our tip, or we behind its, before that matters."""


NOT_IN_BLOCK: Final = 1
"""ElectrumX's error code for a Merkle branch of a transaction that the block does not have."""


class ServerLags(DialError):
    """The server is too far behind our chain to know the newest value."""

    def __init__(self) -> None:
        super().__init__("a name server is behind the chain", kind=ErrorKind.TTL_EXPIRED)


class StillSyncing(TemporaryFailure):
    """The block that decides is not among our headers yet."""


class NameQuestion:
    """What to ask about one name; the same for every server."""

    def __init__(
        self,
        name: bytes,
        chain: HeaderChain,
        confirmations: int,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.name = name
        self._key = script_hash(name)
        self._chain = chain
        self._confirmations = confirmations
        self._checkpoint = checkpoint

    async def ask(self, session: ElectrumSession) -> ProofVerdict:
        """The verified answer of one server; the caller sets the deadline.

        Raises RemoteProtocolError if it is wrong, ServerRefused or DialError if there is
        none, StillSyncing if it cannot be judged yet, ServerLags if it is too old to count.
        """
        with session.in_use():
            return await self._ask(session)

    async def _ask(self, session: ElectrumSession) -> ProofVerdict:
        claimed = session.claimed_height
        deep = max(0, claimed - self._confirmations + 1 - MAX_LAG)
        proofs = None
        if session.offers_value_proof:
            proofs = await self._value_proof(session, deep)
        if proofs is None:
            proofs = await self._from_history(session, deep)
        if claimed < self._chain.tip_height - MAX_LAG:
            raise ServerLags
        return await self._judge(session, proofs)

    async def _value_proof(self, session: ElectrumSession, deep: int) -> list[NameProof] | None:
        """The server's own choice of proofs; None if what a lost block left is in its way."""
        try:
            answer = await session.call("blockchain.name.get_value_proof", self._key, deep)
        except ServerRefused:
            return None
        proofs = results.value_proof(answer, self._key)
        if proofs and proofs[-1].height <= deep and not await self._is_update(proofs[-1]):
            return None
        return proofs

    async def _from_history(self, session: ElectrumSession, deep: int) -> list[NameProof]:
        """Proofs of the newest entries, down to the first update at `deep` or below."""
        entries = results.history(
            await session.call("blockchain.scripthash.get_history", self._key)
        )[:MAX_OPERATIONS]
        proofs: list[NameProof] = []
        while entries:
            count = results.count_down_to(entries, deep)
            found = await self._proofs(session, entries[:count])
            entries = entries[count:]
            proofs += found
            if found and found[-1].height <= deep and await self._is_update(found[-1]):
                break
        return proofs

    async def _proofs(
        self, session: ElectrumSession, items: Sequence[HistoryItem]
    ) -> list[NameProof]:
        """What the server proves of `items`, all asked for at once."""
        requests = []
        for item in items:
            txid = item.txid[::-1].hex()
            requests.append(session.request("blockchain.transaction.get_merkle", txid, item.height))
            requests.append(session.request("blockchain.transaction.get", txid))
        try:
            replies = await asyncio.gather(*requests, return_exceptions=True)
        finally:
            abandon(requests)
        proofs = []
        for item, branch, transaction in zip(items, replies[::2], replies[1::2], strict=True):
            if isinstance(branch, ServerRefused) and branch.code == NOT_IN_BLOCK:
                continue
            for reply in (branch, transaction):
                if isinstance(reply, BaseException):
                    raise reply
            proofs.append(results.name_proof(item.height, transaction, branch))
        return proofs

    async def _is_update(self, proof: NameProof) -> bool:
        """Whether the transaction of `proof`, proven or not, is about the name."""
        try:
            await run_cooperatively(name_update(proof.transaction, self.name))
        except NotAnUpdate:
            return False
        return True

    async def _judge(self, session: ElectrumSession, proofs: Sequence[NameProof]) -> ProofVerdict:
        chain = self._chain
        operations: list[Operation] = []
        for proof in proofs:
            if proof.height > chain.tip_height:
                self._refuse_if_behind(session, proof.height)
                continue
            if expires_in(proof.height, chain) <= 0 and proof.height not in chain:
                return judge(operations, chain, self._confirmations).or_expired()
            young = chain.tip_height - proof.height + 1 < self._confirmations
            try:
                operations.append(await self._verify(session, proof))
            except NotAnUpdate:
                continue
            except NotInBlock:
                if not young:
                    raise
            if not young:
                break
        return judge(operations, chain, self._confirmations)

    def _refuse_if_behind(self, session: ElectrumSession, height: int) -> None:
        """Raise StillSyncing if what is at `height` decides by the server's tip, not by ours."""
        tip, claimed = self._chain.tip_height, session.claimed_height
        deep = claimed - height + 1 >= self._confirmations
        if height > tip and deep and claimed - tip > MAX_LAG:
            raise StillSyncing

    async def _verify(self, session: ElectrumSession, proof: NameProof) -> Operation:
        try:
            return await run_cooperatively(verify(self._chain, self.name, proof))
        except HeaderMissing as missing:
            checkpoint = self._checkpoint
            if checkpoint is None or missing.height > checkpoint.height:
                raise StillSyncing from None
        answer = await session.call("blockchain.block.header", proof.height, checkpoint.height)
        header = results.checkpoint_proof(answer)
        below = proof.below(header)
        return await run_cooperatively(verify(self._chain, self.name, below, checkpoint))
