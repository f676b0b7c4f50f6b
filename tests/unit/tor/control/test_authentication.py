"""Authentication by stem: what is proven, what is never sent, and what a refusal says."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from pathlib import Path

import pytest

from isoproxy.errors import OperationError
from isoproxy.net.endpoint import Endpoint
from isoproxy.tor.control import authentication
from isoproxy.tor.control.authentication import connect_authenticated
from tests.kit.waiting import until
from tests.unit.tor.scripted import ScriptedTor
from tests.unit.tor.scripted_streams import StreamingTor


async def authenticated(tor: StreamingTor, password: str | None = None) -> None:
    (await connect_authenticated(tor.endpoint, password)).close()


@pytest.mark.parametrize(
    ("greeting", "problem"),
    [
        (b"HTTP/1.0 400 Bad Request\r\n\r\n", "does not authenticate"),
        (b"\x05\xff", "does not authenticate"),
        (b"250-" + b"a" * 70000 + b"\r\n", "does not authenticate"),
        (b"250-AUTH\r\n" * 1000, "does not authenticate"),
        (
            b"250-PROTOCOLINFO 1\r\n250-AUTH METHODS=HASHEDPASSWORD\r\n250 OK\r\n",
            "another password",
        ),
        (
            b"250-PROTOCOLINFO 1\r\n"
            b'250-AUTH METHODS=COOKIE,SAFECOOKIE COOKIEFILE="/nonexistent"\r\n250 OK\r\n',
            "cookie cannot be read",
        ),
    ],
)
async def test_what_does_not_let_us_in_is_said(
    tmp_path: Path, greeting: bytes, problem: str
) -> None:
    async with ScriptedTor(tmp_path / "c", {"PROTOCOLINFO 1": greeting}) as tor:
        attempt = asyncio.create_task(connect_authenticated(Endpoint.unix(str(tmp_path / "c"))))
        if greeting.startswith(b"\x05"):
            await until(lambda: tor.commands)
            tor.hang_up()
        with pytest.raises(OperationError, match=problem):
            await attempt


async def test_a_control_port_that_is_not_there(tmp_path: Path) -> None:
    for endpoint in (Endpoint.unix(str(tmp_path / "none")), Endpoint.tcp("127.0.0.1", 1)):
        with pytest.raises(OperationError, match="is Tor running"):
            await connect_authenticated(endpoint)


async def test_a_silent_control_port_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authentication, "HANDSHAKE_S", 0.05)
    async with StreamingTor(tmp_path / "c").listening() as tor:
        tor.silent.add(b"PROTOCOLINFO")
        with pytest.raises(OperationError):
            await authenticated(tor)


async def test_refused_authentication(tmp_path: Path) -> None:
    async with StreamingTor(tmp_path / "c").listening() as tor:
        tor.replies[b"AUTHENTICATE"] = b"515 Authentication failed\r\n"
        with pytest.raises(OperationError, match="does not authenticate"):
            await authenticated(tor)


async def test_stem_logs_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with StreamingTor(tmp_path / "c").listening() as tor:
        await authenticated(tor)
    assert not [record for record in caplog.records if record.name.startswith("stem")]


COOKIE = b"c" * 32


@pytest.fixture
def cookie(tmp_path: Path) -> Path:
    (tmp_path / "cookie").write_bytes(COOKIE)
    return tmp_path / "cookie"


def methods(names: bytes, cookie: Path) -> bytes:
    return b'250-AUTH METHODS=%s COOKIEFILE="%s"\r\n' % (names, bytes(cookie))


async def test_with_a_password(tmp_path: Path, cookie: Path) -> None:
    async with StreamingTor(tmp_path / "c").listening() as tor:
        tor.auth = methods(b"COOKIE,HASHEDPASSWORD", cookie)
        await authenticated(tor, 'a "b"')
        assert tor.log[-1] == b'AUTHENTICATE "a \\"b\\""'


async def test_the_cookie_itself_is_never_sent(tmp_path: Path, cookie: Path) -> None:
    async with StreamingTor(tmp_path / "c").listening() as tor:
        tor.auth = methods(b"COOKIE", cookie)
        with pytest.raises(OperationError, match="does not authenticate"):
            await authenticated(tor)
        assert len(tor.log) == 1


class _Proving(StreamingTor):
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
        await authenticated(tor)
        assert tor.log[-1].startswith(b"AUTHENTICATE ")
        assert COOKIE.hex().encode() not in b"".join(tor.log)


async def test_an_impostor_does_not_get_the_cookie(tmp_path: Path, cookie: Path) -> None:
    impostor = _Proving(tmp_path / "c")
    impostor.cookie = b"x" * 32
    async with impostor.listening() as tor:
        tor.auth = methods(b"COOKIE,SAFECOOKIE", cookie)
        with pytest.raises(OperationError, match="refused its own"):
            await authenticated(tor)
        assert not any(line.startswith(b"AUTHENTICATE") for line in tor.log)


@pytest.mark.parametrize("names", [b"HASHEDPASSWORD", b"COOKIE,SAFECOOKIE"])
async def test_what_to_do_when_authentication_is_impossible(tmp_path: Path, names: bytes) -> None:
    async with StreamingTor(tmp_path / "c").listening() as tor:
        tor.auth = methods(names, tmp_path / "missing")
        with pytest.raises(OperationError, match=r"another password|debian-tor"):
            await authenticated(tor)


async def test_a_file_that_is_no_cookie_is_not_sent(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"a private key of somebody's" * 10)
    async with StreamingTor(tmp_path / "c").listening() as tor:
        tor.auth = methods(b"COOKIE,SAFECOOKIE", tmp_path / "secret")
        with pytest.raises(OperationError, match="cookie"):
            await authenticated(tor)
        assert len(tor.log) == 1
