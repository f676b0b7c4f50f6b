"""The real Namecoin Core as a source of names: its answers, and what is said when it has none.

NAMECOIND_PATH     its program, `namecoind`; no wallet is needed
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from isoproxy.errors import ErrorKind
from isoproxy.namecoin.backend import Absent, Evidence, Found, TemporaryFailure
from isoproxy.namecoin.rpc.client import JsonRpcClient, Login, cookie_login, fixed_login
from isoproxy.namecoin.rpc.namecoin_core import NamecoinCoreBackend
from isoproxy.net.endpoint import Endpoint
from tests.kit.namecoin.chain import RegtestChain, recorded_answers
from tests.kit.namecoin.core import OF_ANY_AGE, PASSWORD, NamecoinCore, namecoind
from tests.unit.namecoin.rpc.kit import A

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]
OURS = fixed_login("user", PASSWORD)
BEGIN_S = 60.0


@contextlib.asynccontextmanager
async def backend(core: NamecoinCore, login: Login = OURS) -> AsyncIterator[NamecoinCoreBackend]:
    client = JsonRpcClient(Endpoint.tcp("127.0.0.1", core.rpc_port), login)
    names = NamecoinCoreBackend(client)
    try:
        yield names
    finally:
        await names.close()


async def refusal(names: NamecoinCoreBackend) -> TemporaryFailure:
    """Why it gives no answer, which is what it shows as its problem."""
    with pytest.raises(TemporaryFailure) as caught:
        await names.lookup(b"d/plain4", A)
    assert names.problem == str(caught.value)
    return caught.value


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of a node that has the recorded chain, and has ended."""
    namecoind()
    directory = tmp_path_factory.mktemp("recorded")
    with NamecoinCore(directory, OF_ANY_AGE) as core:
        core.submit([block.raw for block in RegtestChain.recorded().blocks[1:]])
    return directory


async def test_every_recorded_name_gives_what_was_recorded(recorded: Path) -> None:
    with NamecoinCore(recorded, OF_ANY_AGE) as core:
        async with backend(core) as names:
            for name, said in recorded_answers().items():
                answer = await names.lookup(name.encode(), A)
                if "txid" not in said:
                    assert answer == Absent(ErrorKind.NAME_ABSENT)
                elif said["expired"]:
                    assert answer == Absent(ErrorKind.NAME_EXPIRED)
                else:
                    assert isinstance(answer, Found)
                    assert answer.evidence is Evidence.FULL_NODE
                    given = (answer.value.decode(), answer.height, answer.txid, answer.expires_in)
                    fields = ("value", "height", "txid", "expires_in")
                    assert given == tuple(said[field] for field in fields)


async def test_the_cookie_of_each_start_is_read(recorded: Path) -> None:
    core = NamecoinCore(recorded, OF_ANY_AGE, cookie=True)
    async with backend(core, cookie_login(core.cookie)) as names:
        assert "cookie file of names.rpc cannot be read" in str(await refusal(names))
        with core:
            assert isinstance(await names.lookup(b"d/plain4", A), Found)
            assert names.problem is None
            first = core.cookie.read_text()
        gone = await refusal(names)
        assert gone.kind is ErrorKind.NAME_BACKEND_DOWN
        assert "does not answer" in str(gone)
        with core:
            assert core.cookie.read_text() != first
            assert isinstance(await names.lookup(b"d/plain4", A), Found)
            assert names.problem is None


async def test_what_it_refuses_is_told_apart(recorded: Path) -> None:
    with NamecoinCore(recorded, OF_ANY_AGE, "-rpcwhitelist=user:name_show,getblockcount") as core:
        async with backend(core, fixed_login("user", "another")) as names:
            wrong = await refusal(names)
        async with backend(core) as names:
            not_listed = await refusal(names)
    assert wrong.kind is not_listed.kind is ErrorKind.NAME_BACKEND_REFUSED
    assert "refuses our credentials" in str(wrong)
    assert "add both to its -rpcwhitelist" in str(not_listed)


async def test_while_it_downloads_blocks_it_has_no_answer(recorded: Path) -> None:
    """By what `getblockchaininfo` says at first, and by the error -10 of `name_show` later."""
    core = NamecoinCore(recorded)
    async with backend(core) as names:
        with core:
            at_first = await refusal(names)
        with NamecoinCore(recorded, OF_ANY_AGE) as complete:
            core.rpc_port, port = complete.rpc_port, core.rpc_port
            async with backend(complete) as knowing:
                assert isinstance(await knowing.lookup(b"d/plain4", A), Found)
                complete.stop()
                with core:
                    later = await refusal(knowing)
            core.rpc_port = port
    for failure in (at_first, later):
        assert failure.kind is ErrorKind.NAME_SYNCHRONISING
        assert "does not have the whole chain yet" in str(failure)


async def test_while_it_warms_up_it_has_no_answer(recorded: Path) -> None:
    """Its error is -28 from when it listens until its blocks are checked."""
    core = NamecoinCore(recorded, OF_ANY_AGE, "-checkblocks=0", "-checklevel=4")
    kinds: list[ErrorKind | None] = []
    async with backend(core) as names:
        for _ in range(10):
            core.begin()
            try:
                async with asyncio.timeout(BEGIN_S):
                    while not isinstance(await answer_or_none(names, kinds), Found):
                        pass
            finally:
                core.stop()
            if ErrorKind.NAME_SYNCHRONISING in kinds:
                break
    assert set(kinds) == {ErrorKind.NAME_BACKEND_DOWN, ErrorKind.NAME_SYNCHRONISING}


async def answer_or_none(
    names: NamecoinCoreBackend, kinds: list[ErrorKind | None]
) -> Found | Absent | None:
    try:
        return await names.lookup(b"d/plain4", A)
    except TemporaryFailure as failure:
        kinds.append(failure.kind)
        await asyncio.sleep(0)
        return None


async def test_what_a_reorganisation_takes_away_is_gone(tmp_path: Path) -> None:
    with NamecoinCore(tmp_path) as core:
        core.register("d/moving", b"first")
        registered = core.tip
        core.update("d/moving", b"second")
        async with backend(core) as names:
            for expected in (b"second", b"first"):
                answer = await names.lookup(b"d/moving", A)
                assert isinstance(answer, Found)
                assert answer.value == expected
                core.rewind(core.tip - 1)
            assert core.tip == registered - 1
            assert await names.lookup(b"d/moving", A) == Absent(ErrorKind.NAME_ABSENT)
