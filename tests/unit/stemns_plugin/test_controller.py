"""The controller towards a scripted Tor: order of commands, replies, restarts, slow names."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from isoproxy.errors import ErrorKind, NamingError
from isoproxy.net.target import Target
from stemns_plugin.controller import OPTION, Controller, ControllerSettings, UnsafeTor
from stemns_plugin.suffix_router import SuffixRouter
from tests.kit.waiting import until
from tests.unit.stemns_plugin.test_suffix_router import Table
from tests.unit.tor.scripted_streams import ISO, StreamingTor

NAMES = {"a.bit": "dest.test", "alias.bit": "a.bit", "ip.bit": "192.0.2.7"}


class _Slow(Table):
    """As a table, but `slow.bit` takes until `release` is set, and `broken.bit` raises."""

    def __init__(self, table: dict[str, str]) -> None:
        super().__init__(table)
        self.release = asyncio.Event()
        self.cancelled = 0

    async def resolve(self, name: str, isolation: bytes) -> Target:
        if name == "slow.bit":
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        if name == "broken.bit":
            raise KeyError("a defect")
        return await super().resolve(name, isolation)


@contextlib.asynccontextmanager
async def controlled(tor: StreamingTor, table: Table) -> AsyncIterator[Controller]:
    router = SuffixRouter({"bit": table})
    controller = Controller(ControllerSettings(tor.endpoint), router.is_ours, router.find)
    task = asyncio.create_task(controller.run())
    await until(lambda: controller.is_ready or task.done())
    if task.done():
        task.result()
    try:
        yield controller
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def about(tor: StreamingTor, number: int) -> list[bytes]:
    """The commands about a stream."""
    return [line for line in tor.log if re.match(rb"[A-Z]+STREAM %d( |$)" % number, line)]


async def test_attaches_redirects_and_closes(tmp_path: Path) -> None:
    async with StreamingTor(tmp_path / "c").listening() as tor, controlled(tor, Table(NAMES)):
        tor.new(1, b"plain.test:80")
        tor.new(2, b"A.BIT.:80")
        tor.new(3, b"alias.bit:80")
        tor.new(4, b"unknown.bit:80")
        tor.new(5, b"unknown.bit:0", status=b"NEWRESOLVE")
        tor.new(6, b"ip.bit:0", status=b"NEWRESOLVE")
        await until(lambda: len(tor.attached) == 4 and len(tor.closed) == 2)
        assert tor.attached == {
            1: b"plain.test:80",
            2: b"dest.test:80",
            3: b"dest.test:80",
            6: b"192.0.2.7:0",
        }
        assert tor.closed == {4: b"2", 5: b"2"}
        assert about(tor, 2) == [b"REDIRECTSTREAM 2 dest.test", b"ATTACHSTREAM 2 0"]


async def test_three_connections_and_each_has_its_use(tmp_path: Path) -> None:
    async with StreamingTor(tmp_path / "c").listening() as tor, controlled(tor, Table(NAMES)):
        tor.new(1, b"a.bit:80")
        await until(lambda: 1 in tor.attached)
        verbs = [{line.partition(b" ")[0] for line in lines} for lines in tor.asked]
        begin = {b"PROTOCOLINFO", b"AUTHENTICATE"}
        assert sorted(map(sorted, (found - begin for found in verbs))) == [
            [b"ATTACHSTREAM", b"GETCONF", b"GETINFO", b"REDIRECTSTREAM"],
            [b"GETINFO"],
            [b"GETINFO", b"SETEVENTS"],
        ]


@pytest.mark.parametrize("reply", [b"512 no\r\n", b"551 no\r\n", b"650 what\r\n"])
async def test_an_unconfirmed_redirect_is_never_attached(tmp_path: Path, reply: bytes) -> None:
    async with StreamingTor(tmp_path / "c").listening() as tor, controlled(tor, Table(NAMES)):
        tor.replies[b"REDIRECTSTREAM"] = reply
        tor.new(1, b"a.bit:80")
        await until(lambda: any(line.startswith(b"REDIRECT") for line in tor.log))
        await asyncio.sleep(0.05)
        assert b"ATTACHSTREAM 1 0" not in tor.log
        assert tor.attached == {}


@pytest.mark.parametrize("code", [551, 552, 555])
async def test_a_stream_that_is_gone_or_attached_is_no_trouble(tmp_path: Path, code: int) -> None:
    async with StreamingTor(tmp_path / "c").listening() as tor, controlled(tor, Table(NAMES)):
        tor.replies[b"ATTACHSTREAM 1 "] = b"%d gone\r\n" % code
        tor.new(1, b"a.bit:80")
        tor.new(2, b"plain.test:80")
        await until(lambda: 2 in tor.attached and b"ATTACHSTREAM 1 0" in tor.log)
        assert not any(line.startswith(b"CLOSESTREAM") for line in tor.log)


async def test_a_refused_attachment_closes_the_stream(tmp_path: Path) -> None:
    async with StreamingTor(tmp_path / "c").listening() as tor, controlled(tor, Table(NAMES)):
        tor.replies[b"ATTACHSTREAM"] = b"510 no\r\n"
        tor.new(1, b"plain.test:80")
        await until(lambda: 1 in tor.closed)


async def test_a_slow_name_delays_nobody(tmp_path: Path) -> None:
    table = _Slow({**NAMES, "slow.bit": "late.test"})
    async with StreamingTor(tmp_path / "c").listening() as tor, controlled(tor, table):
        tor.new(1, b"slow.bit:80")
        for number in range(2, 102):
            tor.new(number, b"a.bit:80" if number % 2 else b"plain.test:80")
        await until(lambda: len(tor.attached) == 100)
        assert 1 not in tor.attached
        table.release.set()
        await until(lambda: tor.attached.get(1) == b"late.test:80")


async def test_a_client_that_goes_away_ends_the_lookup(tmp_path: Path) -> None:
    table = _Slow(NAMES)
    async with StreamingTor(tmp_path / "c").listening() as tor, controlled(tor, table):
        tor.new(1, b"slow.bit:80")
        await asyncio.sleep(0.05)
        tor.end(1)
        await until(lambda: table.cancelled == 1)
        assert about(tor, 1) == []


async def test_a_defect_of_a_service_closes_one_stream(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = _Slow(NAMES)
    async with StreamingTor(tmp_path / "c").listening() as tor, controlled(tor, table):
        tor.new(1, b"broken.bit:80")
        tor.new(2, b"a.bit:80")
        await until(lambda: 1 in tor.closed and 2 in tor.attached)
    assert "internal_error" in caplog.text
    assert "broken.bit" not in str([vars(record) for record in caplog.records])


async def test_streams_that_wait_at_the_start_are_served(tmp_path: Path) -> None:
    async with StreamingTor(tmp_path / "c").listening() as tor:
        tor.listed = {1: b"1 NEW 0 plain.test:80", 2: b"2 NEW 0 a.bit:80"}
        tor.targets = {1: b"plain.test:80", 2: b"a.bit:80"}
        async with controlled(tor, Table(NAMES)):
            await until(lambda: tor.attached == {1: b"plain.test:80", 2: b"dest.test:80"})


@pytest.mark.parametrize(
    "spoil",
    [
        lambda tor: tor.conf.update({OPTION: "0"}),
        lambda tor: setattr(tor, "version", "0.4.4.9"),
        lambda tor: setattr(tor, "version", "what"),
    ],
)
async def test_an_unsafe_tor_is_refused(
    tmp_path: Path, spoil: Callable[[StreamingTor], None]
) -> None:
    async with StreamingTor(tmp_path / "c").listening() as tor:
        spoil(tor)
        with pytest.raises(UnsafeTor, match=r"__LeaveStreamsUnattached 1|0\.4\.5\.1"):
            async with controlled(tor, Table(NAMES)):
                pass


async def test_the_option_is_set_again_after_a_reload(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with StreamingTor(tmp_path / "c").listening() as tor, controlled(tor, Table(NAMES)):
        tor.conf[OPTION] = "0"
        tor.emit(b"650 SIGNAL RELOAD")
        await until(lambda: "streams_were_not_left_to_us" in caplog.text)
        assert tor.conf[OPTION] == "1"


async def test_a_reload_before_events_are_heard_is_made_up_for(tmp_path: Path) -> None:
    class Reloading(StreamingTor):
        def _reply(self, line: bytes, writer: asyncio.StreamWriter) -> bytes:
            if line.startswith(b"SETEVENTS"):
                self.conf[OPTION] = "0"
            return super()._reply(line, writer)

    async with Reloading(tmp_path / "c").listening() as tor, controlled(tor, Table(NAMES)):
        await until(lambda: tor.conf[OPTION] == "1")


async def test_survives_a_restart_of_tor_and_forgets(tmp_path: Path) -> None:
    table = Table(NAMES)
    async with (
        StreamingTor(tmp_path / "c").listening() as tor,
        controlled(tor, table) as controller,
    ):
        tor.new(1, b"a.bit:80")
        await until(lambda: 1 in tor.attached)
        tor.hang_up()
        tor.listed.clear()
        await until(lambda: not controller.is_ready)
        await until(lambda: controller.is_ready)
        tor.new(1, b"a.bit:80")
        await until(lambda: len(table.asked) == 2)
        one, two = (isolation for _, isolation in table.asked)
        assert one.partition(b"-")[0] != two.partition(b"-")[0]


async def test_waits_for_a_tor_that_comes_later(tmp_path: Path) -> None:
    tor = StreamingTor(tmp_path / "c")
    router = SuffixRouter({"bit": Table(NAMES)})
    controller = Controller(ControllerSettings(tor.endpoint), router.is_ours, router.find)
    task = asyncio.create_task(controller.run())
    await asyncio.sleep(0.05)
    async with tor.listening():
        await until(lambda: controller.is_ready)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_forged_lines_and_replies_change_nothing(tmp_path: Path) -> None:
    table = _Slow({**NAMES, "slow.bit": "late.test"})
    async with StreamingTor(tmp_path / "c").listening() as tor, controlled(tor, table):
        tor.new(1, b"slow.bit:80")
        await asyncio.sleep(0.02)
        tor.emit(
            b"650 STREAM 7 CLOSED 0 a\r\n250 OK\r\n250+stream-status=\r\n.\r\n552 no\r\n"
            b"650 STREAM 1 CONTROLLER_WAIT 0 evil.test:80" + ISO + b"\r\n"
            b"650 STREAM 1 CLOSED 0 slow.bit:80 REASON=DONE" + ISO
        )
        tor.new(2, b"a.bit:80")
        await until(lambda: 2 in tor.attached)
        assert about(tor, 1) == []
        table.release.set()
        await until(lambda: tor.attached.get(1) == b"late.test:80")


async def test_virtual_addresses_are_looked_through(tmp_path: Path) -> None:
    async with StreamingTor(tmp_path / "c").listening() as tor:
        tor.conf["AutomapHostsOnResolve"] = "1"
        tor.mappings = [b"10.206.129.52 a.bit NEVER"]
        async with controlled(tor, Table(NAMES)):
            tor.new(1, b"10.206.129.52:80")
            await until(lambda: tor.attached.get(1) == b"dest.test:80")


async def test_virtual_addresses_are_looked_through_after_a_reload_too(tmp_path: Path) -> None:
    async with StreamingTor(tmp_path / "c").listening() as tor, controlled(tor, Table(NAMES)):
        tor.mappings = [b"10.206.129.52 a.bit NEVER"]
        tor.conf["AutomapHostsOnResolve"] = "1"
        tor.emit(b"650-CONF_CHANGED\r\n650-AutomapHostsOnResolve=1\r\n650 OK")
        async with asyncio.timeout(30):
            while b"dest.test:80" not in tor.attached.values():
                tor.new(len(tor.targets) + 1, b"10.206.129.52:80")
                await asyncio.sleep(0.01)


async def test_under_load_one_listing_serves_many_streams(tmp_path: Path) -> None:
    async with StreamingTor(tmp_path / "c").listening() as tor, controlled(tor, Table(NAMES)):
        for number in range(1, 1001):
            tor.new(number, b"plain.test:80")
        await until(lambda: len(tor.attached) == 1000)
        assert sum(line == b"GETINFO stream-status" for line in tor.log) < 100


async def test_nothing_of_a_stream_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(Table):
        async def resolve(self, name: str, isolation: bytes) -> Target:
            if name == "secret.bit":
                raise NamingError(kind=ErrorKind.NAME_ABSENT)
            raise KeyError("a defect")

    async with StreamingTor(tmp_path / "c").listening() as tor, controlled(tor, Failing()):
        tor.new(1, b"secret.bit:80")
        tor.new(2, b"secret-defect.bit:80")
        await until(lambda: {1, 2} <= set(tor.closed))
    assert "internal_error" in caplog.text
    assert "secret" not in str([vars(record) for record in caplog.records])
