"""Control connections: authentication, order of replies, listings, events."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from pathlib import Path

import pytest

from isoproxy.errors import OperationError
from isoproxy.net.endpoint import Endpoint
from stemns_plugin import control_port
from stemns_plugin.control_port import ControlConnection
from stemns_plugin.wire import Reply, command
from tests.kit.waiting import until
from tests.unit.stemns_plugin.scripted_tor import ISO, ScriptedTor


async def opened(tor: ScriptedTor, password: str | None = None) -> ControlConnection:
    return await ControlConnection.open(tor.endpoint, password)


async def test_requests_are_answered_in_order(tmp_path: Path) -> None:
    async with ScriptedTor(tmp_path / "c").listening() as tor:
        tor.listed[1] = b"1 NEW 0 a.test:80"
        connection = await opened(tor)
        lines = [command("CLOSESTREAM", str(number), "2") for number in (1, 2, 1)]
        replies = await asyncio.gather(*(connection.request(line) for line in lines))
        assert [reply.code for reply in replies] == [250, 552, 552]
        connection.close()


async def test_a_cancelled_request_leaves_the_order_as_it_is(tmp_path: Path) -> None:
    async with ScriptedTor(tmp_path / "c").listening() as tor:
        connection = await opened(tor)
        first = connection.send(command("CLOSESTREAM", "1", "2"))
        second = connection.send(command("GETINFO", "version"))
        first.cancel()
        assert (await second).lines[0] == b"version=0.4.9.11"
        connection.close()


async def test_listings_end_with_the_key_and_not_with_what_looks_like_an_end(
    tmp_path: Path,
) -> None:
    async with ScriptedTor(tmp_path / "c").listening() as tor:
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
    async with ScriptedTor(tmp_path / "c").listening() as tor:
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
    async with ScriptedTor(tmp_path / "c").listening() as tor:
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
    async with ScriptedTor(tmp_path / "c").listening() as tor:
        tor.replies[b"GETINFO"] = b"650 STREAM 1 NEW 0 a:1\r\n250 OK\r\n"
        connection = await opened(tor)
        with pytest.raises(OperationError):
            await connection.request(command("GETINFO", "version"))
        assert connection.closed.done()


async def test_everything_that_waits_fails_when_the_connection_ends(tmp_path: Path) -> None:
    async with ScriptedTor(tmp_path / "c").listening() as tor:
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
    monkeypatch.setattr(control_port, "REPLY_S", 0.05)
    async with ScriptedTor(tmp_path / "c").listening() as tor:
        tor.silent.add(b"PROTOCOLINFO")
        with pytest.raises(OperationError):
            await opened(tor)


async def test_a_listing_without_end_ends_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_port, "MAX_LISTING", 10_000)
    async with ScriptedTor(tmp_path / "c").listening() as tor:
        tor.listed = dict.fromkeys(range(200), b"x" * 100)
        connection = await opened(tor)
        with pytest.raises(OperationError):
            await connection.listing("stream-status")


async def test_a_control_port_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OperationError, match="start Tor"):
        await ControlConnection.open(Endpoint.unix(str(tmp_path / "none")))
    with pytest.raises(OperationError, match="start Tor"):
        await ControlConnection.open(Endpoint.tcp("127.0.0.1", 1))


# -- authentication

COOKIE = b"c" * 32


@pytest.fixture
def cookie(tmp_path: Path) -> Path:
    (tmp_path / "cookie").write_bytes(COOKIE)
    return tmp_path / "cookie"


def methods(names: bytes, cookie: Path) -> bytes:
    return b'250-AUTH METHODS=%s COOKIEFILE="%s"\r\n' % (names, bytes(cookie))


async def test_with_a_password(tmp_path: Path, cookie: Path) -> None:
    async with ScriptedTor(tmp_path / "c").listening() as tor:
        tor.auth = methods(b"COOKIE,HASHEDPASSWORD", cookie)
        await opened(tor, 'a "b"')
        assert tor.log[-1] == b'AUTHENTICATE "a \\"b\\""'


async def test_the_cookie_itself_is_never_sent(tmp_path: Path, cookie: Path) -> None:
    async with ScriptedTor(tmp_path / "c").listening() as tor:
        tor.auth = methods(b"COOKIE", cookie)
        with pytest.raises(OperationError, match="wants a password"):
            await opened(tor)
        assert len(tor.log) == 1


class _Proving(ScriptedTor):
    """Knows the cookie and answers AUTHCHALLENGE."""

    cookie = COOKIE

    def _reply(self, line: bytes, writer: asyncio.StreamWriter) -> bytes:
        if line.startswith(b"AUTHCHALLENGE"):
            both = bytes.fromhex(line.split(b" ")[2].decode()) + b"s" * 32
            key = b"Tor safe cookie authentication server-to-controller hash"
            proof = hmac.new(key, self.cookie + both, hashlib.sha256).hexdigest().encode()
            nonce = (b"s" * 32).hex().encode()
            return b"250 AUTHCHALLENGE SERVERHASH=%s SERVERNONCE=%s\r\n" % (proof, nonce)
        return super()._reply(line, writer)


async def test_with_a_safe_cookie(tmp_path: Path, cookie: Path) -> None:
    async with _Proving(tmp_path / "c").listening() as tor:
        tor.auth = methods(b"COOKIE,SAFECOOKIE", cookie)
        await opened(tor)
        assert tor.log[-1].startswith(b"AUTHENTICATE ")
        assert COOKIE.hex().encode() not in b"".join(tor.log)


async def test_an_impostor_does_not_get_the_cookie(tmp_path: Path, cookie: Path) -> None:
    impostor = _Proving(tmp_path / "c")
    impostor.cookie = b"x" * 32
    async with impostor.listening() as tor:
        tor.auth = methods(b"COOKIE,SAFECOOKIE", cookie)
        with pytest.raises(OperationError, match="does not know"):
            await opened(tor)
        assert not any(line.startswith(b"AUTHENTICATE") for line in tor.log)


@pytest.mark.parametrize("names", [b"HASHEDPASSWORD", b"COOKIE,SAFECOOKIE"])
async def test_what_to_do_when_authentication_is_impossible(tmp_path: Path, names: bytes) -> None:
    async with ScriptedTor(tmp_path / "c").listening() as tor:
        tor.auth = methods(names, tmp_path / "missing")
        with pytest.raises(OperationError, match=r"control_password|debian-tor"):
            await opened(tor)


async def test_a_file_that_is_no_cookie_is_not_sent(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"a private key of somebody's" * 10)
    async with ScriptedTor(tmp_path / "c").listening() as tor:
        tor.auth = methods(b"COOKIE,SAFECOOKIE", tmp_path / "secret")
        with pytest.raises(OperationError, match="is none"):
            await opened(tor)
        assert len(tor.log) == 1


async def test_refused_authentication_and_refused_events(tmp_path: Path) -> None:
    async with ScriptedTor(tmp_path / "c").listening() as tor:
        tor.replies[b"AUTHENTICATE"] = b"515 Authentication failed\r\n"
        with pytest.raises(OperationError, match="refused"):
            await opened(tor)
        del tor.replies[b"AUTHENTICATE"]
        tor.replies[b"SETEVENTS"] = b"552 Unrecognized event\r\n"
        connection = await opened(tor)
        with pytest.raises(OperationError, match="events"):
            await connection.subscribe("STREAM", on_line=lambda line: None)
        connection.close()


async def test_replies_nobody_asked_for_are_dropped(tmp_path: Path) -> None:
    async with ScriptedTor(tmp_path / "c").listening() as tor:
        tor.replies[b"GETINFO version"] = b"250-version=1\r\n250 OK\r\n250 OK\r\n"
        connection = await opened(tor)
        assert await connection.request(command("GETINFO", "version")) == Reply(
            250, (b"version=1", b"OK")
        )
        await asyncio.sleep(0.01)
        assert (await connection.request(command("X"))).is_ok
        connection.close()
