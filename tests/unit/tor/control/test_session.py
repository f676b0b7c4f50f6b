"""Control sessions: the order of replies, listings, events."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from isoproxy.errors import OperationError
from isoproxy.tor.control import session
from isoproxy.tor.control.session import ControlSession
from isoproxy.tor.control.wire import ControlReply, command
from tests.kit.waiting import until
from tests.unit.tor.scripted_streams import ISO, StreamingTor


async def opened(tor: StreamingTor) -> ControlSession:
    return await ControlSession.open(tor.endpoint)


async def test_requests_are_answered_in_order(tmp_path: Path) -> None:
    async with StreamingTor(tmp_path / "c").listening() as tor:
        tor.listed[1] = b"1 NEW 0 a.test:80"
        connection = await opened(tor)
        lines = [command("CLOSESTREAM", str(number), "2") for number in (1, 2, 1)]
        replies = await asyncio.gather(*(connection.request(line) for line in lines))
        assert [reply.code for reply in replies] == [250, 552, 552]
        connection.close()


async def test_a_cancelled_request_leaves_the_order_as_it_is(tmp_path: Path) -> None:
    async with StreamingTor(tmp_path / "c").listening() as tor:
        connection = await opened(tor)
        first = connection.send(command("CLOSESTREAM", "1", "2"))
        second = connection.send(command("GETINFO", "version"))
        first.cancel()
        assert (await second).lines[0] == b"version=0.4.9.11"
        connection.close()


async def test_listings_end_with_the_key_and_not_with_what_looks_like_an_end(
    tmp_path: Path,
) -> None:
    async with StreamingTor(tmp_path / "c").listening() as tor:
        tor.listed = {18: b'18 NEWRESOLVE 0 a\r\n.\r\n250 OK\r\n552 Unrecognized key "x"', 19: b"z"}
        connection = await opened(tor)
        for _ in range(2):
            lines = await connection.listing("stream-status")
            assert lines[0] == b"250+stream-status="
            assert lines[-3:] == [b"z", b".", b"250 OK"]
        with pytest.raises(OperationError):
            connection.send(command("GETINFO", "version"))
        connection.close()


async def test_no_reply_is_believed_where_events_are_followed(tmp_path: Path) -> None:
    async with StreamingTor(tmp_path / "c").listening() as tor:
        connection = await opened(tor)
        lines: list[bytes] = []
        await connection.subscribe("STREAM", on_line=lines.append)
        tor.emit(
            b"650 STREAM 18 CLOSED 0 a\r\n250-version=EVIL\r\n250 OK\r\n650 STREAM 8 NEW 0 z:1"
            + ISO
        )
        await until(lambda: len(lines) == 4)
        assert lines[1] == b"250-version=EVIL"
        with pytest.raises(OperationError):
            connection.send(command("GETINFO", "version"))
        connection.close()


async def test_events_have_caught_up_when_all_older_ones_were_heard(tmp_path: Path) -> None:
    async with StreamingTor(tmp_path / "c").listening() as tor:
        connection = await opened(tor)
        with pytest.raises(OperationError):
            await connection.caught_up()
        lines: list[bytes] = []
        await connection.subscribe("STREAM", on_line=lines.append)
        for number in range(2):
            tor.unwritten.append(b"650 STREAM %d NEW 0 a\r\n552 Unrecognized key" % number)
            await connection.caught_up()
            assert lines[-2:] == [b"650 STREAM %d NEW 0 a" % number, b"552 Unrecognized key"]
        tor.silent.add(b"GETINFO")
        waiting = asyncio.create_task(connection.caught_up())
        await until(lambda: tor.asked[0][-1].startswith(b"GETINFO"))
        tor.hang_up()
        with pytest.raises(OperationError):
            await waiting


async def test_an_event_where_replies_are_expected_ends_the_connection(tmp_path: Path) -> None:
    async with StreamingTor(tmp_path / "c").listening() as tor:
        tor.replies[b"GETINFO"] = b"650 STREAM 1 NEW 0 a:1\r\n250 OK\r\n"
        connection = await opened(tor)
        with pytest.raises(OperationError):
            await connection.request(command("GETINFO", "version"))
        await connection.closed


async def test_everything_that_waits_fails_when_the_connection_ends(tmp_path: Path) -> None:
    async with StreamingTor(tmp_path / "c").listening() as tor:
        tor.silent.add(b"GETINFO")
        requests, listings = await opened(tor), await opened(tor)
        waiting = [
            asyncio.create_task(requests.request(command("GETINFO", "version"))),
            asyncio.create_task(listings.listing("stream-status")),
        ]
        await until(lambda: len(tor.log) >= 6)
        tor.hang_up()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(result, OperationError) for result in results)


async def test_a_silent_control_port_ends_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "REPLY_S", 0.05)
    async with StreamingTor(tmp_path / "c").listening() as tor:
        tor.silent.add(b"GETINFO")
        connection = await opened(tor)
        with pytest.raises(OperationError, match="did not answer"):
            await connection.request(command("GETINFO", "version"))
        await connection.closed


async def test_a_listing_without_end_ends_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "MAX_LISTING", 10_000)
    async with StreamingTor(tmp_path / "c").listening() as tor:
        tor.listed = dict.fromkeys(range(200), b"x" * 100)
        connection = await opened(tor)
        with pytest.raises(OperationError):
            await connection.listing("stream-status")


async def test_refused_events(tmp_path: Path) -> None:
    async with StreamingTor(tmp_path / "c").listening() as tor:
        tor.replies[b"SETEVENTS"] = b"552 Unrecognized event\r\n"
        connection = await opened(tor)
        with pytest.raises(OperationError, match="events"):
            await connection.subscribe("STREAM", on_line=lambda line: None)
        connection.close()


async def test_replies_nobody_asked_for_are_dropped(tmp_path: Path) -> None:
    async with StreamingTor(tmp_path / "c").listening() as tor:
        tor.replies[b"GETINFO version"] = b"250-version=1\r\n250 OK\r\n250 OK\r\n"
        connection = await opened(tor)
        assert await connection.request(command("GETINFO", "version")) == ControlReply(
            250, (b"version=1", b"OK")
        )
        await asyncio.sleep(0.01)
        assert (await connection.request(command("X"))).is_ok
        connection.close()
