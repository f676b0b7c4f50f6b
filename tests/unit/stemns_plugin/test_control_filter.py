"""The control filter between two workstations: the four threats, and what must work."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from isoproxy.net.endpoint import Endpoint
from stemns_plugin.control_filter import (
    MAX_CLIENTS_OF_ONE,
    ControlFilter,
    ControlFilterSettings,
)
from stemns_plugin.controller import ControllerSettings
from stemns_plugin.grammar import StreamEvent, parse_stream_event
from stemns_plugin.streams import LookUp
from tests.kit.waiting import until
from tests.unit.tor.scripted_streams import ISO, StreamingTor

ONE, TWO = "127.0.0.2", "127.0.0.3"


class _Workstation:
    """A control client at an address; `lines` is all it was told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.lines: list[bytes] = []
        self._writer = writer
        self._task = asyncio.create_task(self._read(reader))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                self.lines.append(line.rstrip(b"\r\n"))

    async def ask(self, line: bytes) -> bytes:
        """The last line of the reply."""
        before = len(self.lines)
        self._writer.write(line + b"\r\n")

        def replied() -> bool:
            return any(re.match(rb"(?!650)\d{3} ", one) for one in self.lines[before:])

        await until(replied)
        return next(one for one in self.lines[before:] if re.match(rb"(?!650)\d{3} ", one))

    def events(self) -> list[StreamEvent]:
        parsed = [parse_stream_event(line) for line in self.lines if line.startswith(b"650")]
        assert None not in parsed
        return [event for event in parsed if event is not None]

    def offered(self) -> list[int]:
        """The numbers of the streams that were offered."""
        return [event.id for event in self.events() if event.status == b"NEW"]

    async def close(self) -> None:
        self._writer.close()
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


class _Gateway:
    """A scripted Tor, the control filter, and what connects to it."""

    def __init__(self, tor: StreamingTor, filter_: ControlFilter, port: int) -> None:
        self.tor = tor
        self.filter = filter_
        self._port = port
        self._stations: list[_Workstation] = []

    async def workstation(self, address: str, *, follow: bool = True) -> _Workstation:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self._port, local_addr=(address, 0)
        )
        station = _Workstation(reader, writer)
        self._stations.append(station)
        if follow:
            assert await station.ask(b"SETEVENTS STREAM") == b"250 OK"
        return station

    async def close(self) -> None:
        for station in self._stations:
            await station.close()


@contextlib.asynccontextmanager
async def gateway(
    path: Path, *, username: bytes | None = None, suffixes: tuple[str, ...] = ()
) -> AsyncIterator[_Gateway]:
    with contextlib.closing(__import__("socket").socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    async with StreamingTor(path / "c").listening() as tor:
        tor.version = "0.4.8.10 (git-x)"
        tor.conf["AutomapHostsOnResolve"] = "1"
        tor.mappings = [b"10.192.0.7 mapped.bit NEVER"]
        pattern = None if username is None else re.compile(username)
        settings = ControlFilterSettings(
            ControllerSettings(tor.endpoint), (Endpoint.tcp("127.0.0.1", port),), suffixes, pattern
        )
        filter_ = ControlFilter(settings)
        task = asyncio.create_task(filter_.run())
        await until(lambda: filter_.is_ready or task.done())
        place = _Gateway(tor, filter_, port)
        try:
            yield place
        finally:
            await place.close()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def test_a_workstation_brings_names_to_its_own_streams(tmp_path: Path) -> None:
    async with gateway(tmp_path) as place:
        one = await place.workstation(ONE)
        place.tor.new(5, b"a.bit:80", source=ONE.encode())
        await until(lambda: len(one.events()) == 2)
        assert [(e.status, e.host) for e in one.events()] == [
            (b"NEW", b"a.bit"),
            (b"CONTROLLER_WAIT", b"a.bit"),
        ]
        (number,) = one.offered()
        assert await one.ask(b"REDIRECTSTREAM %d dest.test" % number) == b"250 OK"
        assert place.tor.attached == {}
        assert await one.ask(b"ATTACHSTREAM %d 0" % number) == b"250 OK"
        await until(lambda: place.tor.attached == {5: b"dest.test:80"})


async def test_other_streams_pass_without_anybody_and_unseen(tmp_path: Path) -> None:
    async with gateway(tmp_path) as place:
        one = await place.workstation(ONE)
        for number, source in ((5, ONE), (6, TWO), (7, "127.0.0.9")):
            place.tor.new(number, b"plain.test:80", source=source.encode())
        await until(lambda: len(place.tor.attached) == 3)
        assert one.events() == []


async def test_threat_redirecting_the_streams_of_another_workstation(tmp_path: Path) -> None:
    async with gateway(tmp_path) as place:
        one, two = await place.workstation(ONE), await place.workstation(TWO)
        place.tor.new(5, b"a.bit:80", source=TWO.encode())
        place.tor.new(6, b"bank.test:443", source=TWO.encode())
        await until(lambda: len(two.events()) == 2)
        (offered,) = two.offered()
        for number in (5, 6, offered):
            for line in (b"REDIRECTSTREAM %d evil.test", b"ATTACHSTREAM %d 0", b"CLOSESTREAM %d 1"):
                assert (await one.ask(line % number)).startswith(b"552 ")
        assert await two.ask(b"REDIRECTSTREAM %d good.test" % offered) == b"250 OK"
        assert await two.ask(b"ATTACHSTREAM %d 0" % offered) == b"250 OK"
        await until(lambda: place.tor.attached == {6: b"bank.test:443", 5: b"good.test:80"})
        assert place.tor.closed == {}


async def test_threat_redirecting_what_is_not_under_a_suffix(tmp_path: Path) -> None:
    async with gateway(tmp_path) as place:
        one = await place.workstation(ONE)
        place.tor.new(5, b"bank.test:443", source=ONE.encode())
        assert (await one.ask(b"REDIRECTSTREAM 5 evil.test")).startswith(b"552 ")
        await until(lambda: place.tor.attached == {5: b"bank.test:443"})
        assert not any(line.startswith(b"REDIRECT") for line in place.tor.log)


async def test_threat_choosing_circuits(tmp_path: Path) -> None:
    async with gateway(tmp_path) as place:
        one = await place.workstation(ONE)
        place.tor.new(5, b"a.bit:80", source=ONE.encode())
        await until(lambda: len(one.events()) == 2)
        (number,) = one.offered()
        await one.ask(b"REDIRECTSTREAM %d dest.test" % number)
        for line in (b"ATTACHSTREAM %d 12", b"ATTACHSTREAM %d 0 HOP=1"):
            assert not (await one.ask(line % number)).startswith(b"250")
        assert not (await one.ask(b"EXTENDCIRCUIT 0 a,b")).startswith(b"250")
        assert place.tor.attached == {}


async def test_threat_watching_who_goes_where(tmp_path: Path) -> None:
    async with gateway(tmp_path) as place:
        one, two = await place.workstation(ONE), await place.workstation(TWO)
        place.tor.new(5, b"secret.bit:80", source=TWO.encode())
        place.tor.new(6, b"secret.test:80", source=TWO.encode())
        await until(lambda: len(two.events()) == 2)
        await one.ask(b"GETINFO stream-status")
        for event in (b"CIRC", b"CIRC_MINOR", b"ADDRMAP", b"STREAM_BW", b"ORCONN", b"INFO"):
            assert (await one.ask(b"SETEVENTS STREAM " + event)).startswith(b"552")
        assert (await one.ask(b"GETINFO circuit-status")).startswith(b"552")
        assert b"secret" not in b"".join(one.lines)
        assert not {5, 6} & set(two.offered())  # Tor's numbers tell how many others there are


@pytest.mark.parametrize("follow", [False, True])
async def test_without_a_controller_names_are_closed_and_never_attached(
    tmp_path: Path, follow: bool
) -> None:
    async with gateway(tmp_path) as place:
        one = await place.workstation(ONE, follow=follow)
        if follow:
            place.tor.new(5, b"a.bit:80", source=ONE.encode())
            await until(lambda: len(one.events()) == 2)
            await one.close()
        else:
            place.tor.new(5, b"a.bit:80", source=ONE.encode())
        await until(lambda: 5 in place.tor.closed)
        assert place.tor.attached == {}


async def test_a_stream_of_uncertain_origin_is_offered_to_nobody(tmp_path: Path) -> None:
    async with gateway(tmp_path) as place:
        one, two = await place.workstation(ONE), await place.workstation(TWO)
        line = b"650 STREAM 5 NEW 0 a.bit:80 SOURCE_ADDR=%s:5 PURPOSE=USER" % ONE.encode()
        tail = (
            b" CLIENT_PROTOCOL=SOCKS5 NYM_EPOCH=0 SESSION_GROUP=-6"
            b" ISO_FIELDS=SOCKS_USERNAME,SOCKS_PASSWORD,CLIENTADDR,SESSION_GROUP,NYM_EPOCH"
        )
        place.tor.emit(line + tail)  # forged by workstation one
        place.tor.new(5, b"a.bit:80", source=TWO.encode())
        await until(lambda: 5 in place.tor.closed)
        assert one.events() == two.events() == []


async def test_a_stream_is_not_offered_to_who_announced_it_before_tor_did(tmp_path: Path) -> None:
    """Tor lists a stream before it writes the event that tells where it came from."""
    async with gateway(tmp_path) as place:
        one, two = await place.workstation(ONE), await place.workstation(TWO)
        place.tor.new(5, b"a.bit:80", source=ONE.encode())
        place.tor.unwritten.append(
            b"650 STREAM 5 NEW 0 a.bit:80 SOURCE_ADDR=%s:5 PURPOSE=USER" % TWO.encode() + ISO
        )
        await until(lambda: 5 in place.tor.closed)
        assert one.events() == two.events() == []


async def test_streams_of_other_users_are_closed_without_being_offered(tmp_path: Path) -> None:
    async with gateway(tmp_path, username=b"namecoin:.*") as place:
        one = await place.workstation(ONE)
        place.tor.new(5, b"a.bit:80", source=ONE.encode())
        await until(lambda: 5 in place.tor.closed)
        assert one.events() == []


async def test_a_redirect_to_a_name_of_ours_or_inside_is_refused(tmp_path: Path) -> None:
    async with gateway(tmp_path) as place:
        one = await place.workstation(ONE)
        for number in (5, 6, 7):
            place.tor.new(number, b"a.bit:80", source=ONE.encode())
        await until(lambda: len(one.events()) == 6)
        targets = (b"b.bit", b"127.0.0.1", b"B.BIT.")
        for number, target in zip(one.offered(), targets, strict=True):
            await one.ask(b"REDIRECTSTREAM %d %s" % (number, target))
            await one.ask(b"ATTACHSTREAM %d 0" % number)
        await until(lambda: set(place.tor.closed) == {5, 6, 7})
        assert place.tor.attached == {}


async def test_closing_and_the_end_of_a_stream(tmp_path: Path) -> None:
    async with gateway(tmp_path) as place:
        one = await place.workstation(ONE)
        place.tor.new(5, b"a.bit:80", source=ONE.encode())
        place.tor.new(6, b"b.bit:80", source=ONE.encode())
        await until(lambda: len(one.events()) == 4)
        first, second = one.offered()
        await one.ask(b"CLOSESTREAM %d 2" % first)
        await until(lambda: 5 in place.tor.closed)
        place.tor.end(6)
        await until(lambda: one.events()[-1].status == b"CLOSED")
        assert one.events()[-1].id == second
        assert await one.ask(b"ATTACHSTREAM %d 0" % second) == b"250 OK"
        assert place.tor.attached == {}


async def test_commands_about_an_ended_offer_are_answered_to_whom_it_was_made(
    tmp_path: Path,
) -> None:
    async with gateway(tmp_path) as place:
        one, two = await place.workstation(ONE), await place.workstation(TWO)
        place.tor.new(5, b"a.bit:80", source=ONE.encode())
        await until(lambda: len(one.events()) == 2)
        (number,) = one.offered()
        place.tor.end(5)
        await until(lambda: one.events()[-1].status == b"CLOSED")
        later = await place.workstation(ONE)
        commands = (b"CLOSESTREAM %d 2 ", b"ATTACHSTREAM %d 0", b"REDIRECTSTREAM %d evil.test")
        for line in commands:
            assert await one.ask(line % number) == b"250 OK"
            for other in (two, later):
                assert (await other.ask(line % number)).startswith(b"552 ")
        assert not any(re.match(rb"(CLOSE|ATTACH|REDIRECT)STREAM", line) for line in place.tor.log)


async def test_however_many_lookups_are_cancelled_each_is_answered_as_long_as_the_connection_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway(tmp_path) as place:
        one = await place.workstation(ONE)
        place.tor.new(5, b"a.bit:80", source=ONE.encode())
        await until(lambda: one.offered())
        numbers = one.offered()
        place.tor.end(5)
        await until(lambda: one.events()[-1].status == b"CLOSED")
        for _ in range(42):
            one.lines.clear()
            asked = [asyncio.create_task(place.filter._broker.find(a_lookup())) for _ in range(100)]
            await asyncio.sleep(0)
            for task in asked:
                task.cancel()
            await until(lambda: len(one.lines) == 300)
            numbers += one.offered()
        assert len(set(numbers)) == 4201
        loop = asyncio.get_running_loop()
        now = loop.time
        with monkeypatch.context() as patch:
            patch.setattr(loop, "time", lambda: now() + 3600)
            assert await one.ask(b"CLOSESTREAM %d 2" % numbers[0]) == b"250 OK"


def a_lookup() -> LookUp:
    event = parse_stream_event(
        b"650 STREAM 9 NEW 0 b.bit:80 SOURCE_ADDR=%s:1 PURPOSE=USER" % ONE.encode() + ISO
    )
    assert event is not None
    return LookUp(9, "b.bit", b"1", False, event)


async def test_a_client_that_did_not_listen_knows_nothing_of_what_was_offered_meanwhile(
    tmp_path: Path,
) -> None:
    async with gateway(tmp_path) as place:
        one, other = await place.workstation(ONE), await place.workstation(ONE)
        for stream, follows in ((1, True), (2, False), (3, True)):
            await other.ask(b"SETEVENTS STREAM" if follows else b"SETEVENTS")
            place.tor.new(stream, b"a.bit:80", source=ONE.encode())
            await until(lambda: len(one.events()) == 3 * stream - 1)  # noqa: B023  asked at once
            place.tor.end(stream)
            await until(lambda: len(one.events()) == 3 * stream)  # noqa: B023  asked at once
        missed = one.offered()[1]
        assert missed not in other.offered()
        assert (await other.ask(b"CLOSESTREAM %d 2" % missed)).startswith(b"552 ")
        assert await other.ask(b"CLOSESTREAM %d 2" % one.offered()[2]) == b"250 OK"


async def test_lines_may_end_as_they_may_for_tor(tmp_path: Path) -> None:
    async with gateway(tmp_path) as place:
        one = await place.workstation(ONE)
        assert (await one.ask(b"GETINFO nothing\nSETEVENTS STREAM")).startswith(b"552 ")
        await until(lambda: one.lines[-1] == b"250 OK")


async def test_version_and_bootstrap_are_those_of_tor(tmp_path: Path) -> None:
    async with gateway(tmp_path) as place:
        one = await place.workstation(ONE, follow=False)
        assert await one.ask(b"SETEVENTS STREAM STATUS_CLIENT") == b"250 OK"
        await one.ask(b"GETINFO version")
        assert b"250-version=0.4.8.10 (git-x)" in one.lines
        assert await one.ask(b"getconf automaphostsonresolve") == b"250 AutomapHostsOnResolve=1"
        assert await one.ask(b"GETINFO address-mappings/all") == b"250 OK"
        assert b"mapped.bit" not in b"".join(one.lines)
        place.tor.bootstrap = (
            b'WARN BOOTSTRAP PROGRESS=14 TAG=handshake SUMMARY="Shaking" WARNING="No route"'
            b' HOSTID="AB" HOSTADDR="192.0.2.1:443"'
        )
        place.tor.emit(b"650 STATUS_CLIENT WARN BOOTSTRAP PROGRESS=99 TAG=forged SUMMARY=x")
        shown = b'NOTICE BOOTSTRAP PROGRESS=14 TAG=handshake SUMMARY="Shaking"'
        await until(lambda: b"650 STATUS_CLIENT " + shown in one.lines)
        await one.ask(b"GETINFO status/bootstrap-phase")
        assert b"250-status/bootstrap-phase=" + shown in one.lines
        assert b"192.0.2.1" not in b"".join(one.lines)


async def test_a_virtual_address_is_offered_as_the_name_it_stands_for(tmp_path: Path) -> None:
    async with gateway(tmp_path) as place:
        one = await place.workstation(ONE)
        place.tor.new(5, b"10.192.0.7:80", source=ONE.encode())
        await until(lambda: len(one.events()) == 2)
        assert {event.host for event in one.events()} == {b"mapped.bit"}


async def test_other_suffixes_may_be_served(tmp_path: Path) -> None:
    async with gateway(tmp_path, suffixes=("pet.onion",)) as place:
        one = await place.workstation(ONE)
        place.tor.new(5, b"a.pet.onion:80", source=ONE.encode())
        await until(lambda: len(one.events()) == 2)


async def test_a_client_that_floods_is_cut_off_and_others_are_not(tmp_path: Path) -> None:
    async with gateway(tmp_path) as place:
        one = await place.workstation(ONE)
        one._writer.write(b"A" * 100_000)
        await until(one._task.done)
        two = await place.workstation(TWO)
        assert await two.ask(b"GETINFO version") == b"250 OK"


async def test_a_flood_of_commands_delays_no_other_workstation(tmp_path: Path) -> None:
    async with gateway(tmp_path) as place:
        one, two = await place.workstation(ONE), await place.workstation(TWO)
        one._writer.write(b"\r\n" * 20_000)
        await until(lambda: b"510 Command filtered" in one.lines)
        assert await two.ask(b"GETCONF __LeaveStreamsUnattached")
        assert len(one.lines) < 10_000


async def test_one_workstation_cannot_take_all_connections(tmp_path: Path) -> None:
    async with gateway(tmp_path) as place:
        for _ in range(MAX_CLIENTS_OF_ONE):
            await place.workstation(ONE)
        one_more = await place.workstation(ONE, follow=False)
        await asyncio.wait_for(one_more._task, 10)  # hung up
        await place.workstation(TWO)
