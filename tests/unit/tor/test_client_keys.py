"""Keys for onion services that ask for one: read, given to Tor, given again, taken back."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from isoproxy.errors import ConfigError, OperationError
from isoproxy.net.endpoint import Endpoint
from isoproxy.tor.client_keys import ClientKeys, read_client_key, service_of
from isoproxy.tor.control.connection import Control
from tests.kit.waiting import until
from tests.unit.tor.scripted import ScriptedTor
from tests.unit.tor.test_onion import control_to

SERVICE = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid"
OTHER = "duckduckgogg42xjoc72x3sjasowoarfbgcmvfimaftt6twagswzczad"
PRIVATE = bytes(range(32))
KEY = base64.b32encode(PRIVATE).decode().rstrip("=")
ADD = f"ONION_CLIENT_AUTH_ADD {SERVICE} x25519:{base64.b64encode(PRIVATE).decode()}"
REMOVE = f"ONION_CLIENT_AUTH_REMOVE {SERVICE}"


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        f"{KEY.lower()}\n",
        f"x25519:{KEY}",
        f"descriptor:x25519:{KEY}",
        f"{SERVICE}:descriptor:x25519:{KEY}\n",
        f"{SERVICE.upper()}:descriptor:x25519:{KEY}",
    ],
)
def test_a_key_as_it_is_handed_out(text: str) -> None:
    key = read_client_key(f"www.{SERVICE.upper()}.onion.", text)
    assert (key.service, key.key) == (SERVICE, KEY)
    assert key.text == f"{SERVICE}:descriptor:x25519:{KEY}"
    assert base64.b64decode(key.blob) == PRIVATE
    assert repr(key) == "ClientKey()"


@pytest.mark.parametrize(
    ("address", "text", "told"),
    [
        (f"{SERVICE}.onion", "", "does not hold"),
        (f"{SERVICE}.onion", KEY[:-1], "does not hold"),
        (f"{SERVICE}.onion", f"{KEY}\n{KEY}", "does not hold"),
        (f"{SERVICE}.onion", f"{OTHER}:descriptor:x25519:{KEY}", "another onion service"),
        (f"{SERVICE[:-1]}a.onion", KEY, "56 letters"),
        ("example.org", KEY, "56 letters"),
        ("", KEY, "56 letters"),
    ],
)
def test_what_is_no_key_is_refused_and_not_repeated(address: str, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        read_client_key(address, text)
    assert KEY[:20] not in str(caught.value)
    assert SERVICE[:20] not in str(caught.value)


async def test_tor_is_given_keys_again_after_it_was_lost_and_forgets_them_at_the_end(
    tmp_path: Path,
) -> None:
    key = read_client_key(f"{SERVICE}.onion", KEY)
    async with ScriptedTor(tmp_path / "c") as tor, control_to(tor) as control:
        keys = ClientKeys(control, {SERVICE: key})
        await until(lambda: tor.commands.count(ADD) == 1)
        tor.hang_up()
        await until(lambda: tor.commands.count(ADD) == 2)
        await control.wait_ready()
        await keys.close()
        assert tor.commands[-1] == REMOVE


async def test_a_key_that_tor_refuses_is_not_kept(tmp_path: Path) -> None:
    key = read_client_key(f"{SERVICE}.onion", KEY)
    answers = {ADD: b"510 Command filtered\r\n"}
    async with ScriptedTor(tmp_path / "c", answers) as tor, control_to(tor) as control:
        await control.wait_ready()
        keys = ClientKeys(control, {})
        with pytest.raises(OperationError, match="refused the client key"):
            await keys.add(key)
        await keys.close()
        assert REMOVE not in tor.commands


async def test_without_a_control_port_there_is_no_way() -> None:
    keys = ClientKeys(Control(Endpoint()), {})
    with pytest.raises(OperationError, match="control port"):
        await keys.add(read_client_key(f"{SERVICE}.onion", KEY))


def test_the_service_of_an_address() -> None:
    assert service_of(f" www.{SERVICE}.onion/") == SERVICE
