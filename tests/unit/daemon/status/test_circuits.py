"""Whose circuits they are that Tor tells of, and when there are none to show."""

from __future__ import annotations

import asyncio

import pytest

from isoproxy.daemon.status.circuits import PATIENCE_S, circuits_of
from isoproxy.errors import OperationError
from isoproxy.isolation import APP, P2P, CredentialForm, IsolationKey, upstream_credentials
from isoproxy.net.endpoint import Endpoint
from isoproxy.tor.control.connection import Control, ControlState, Phase
from isoproxy.tor.control.wire import Circuit
from tests.unit.bitcoin.ends import key

PLAIN, PROP351 = CredentialForm.PLAIN, CredentialForm.PROP351


class ScriptedControl(Control):
    """A control connection whose Tor has `listed` circuits, or does not tell."""

    def __init__(self, listed: list[Circuit] | None, phase: Phase = Phase.READY) -> None:
        super().__init__(Endpoint.parse("none"))
        self.listed, self.phase = listed, phase

    @property
    def state(self) -> ControlState:
        return ControlState(self.phase)

    async def refresh_circuits(self) -> tuple[Circuit, ...]:
        if self.listed is None:
            raise OperationError("a filter in front of it")
        return tuple(self.listed)


def circuit(number: str, of: IsolationKey, form: CredentialForm, status: str = "BUILT") -> Circuit:
    own = upstream_credentials(of, P2P, form)
    return Circuit(number, status, username=own.username, password=own.password)


async def test_only_built_circuits_of_the_key_and_purpose_are_its_own() -> None:
    one, two = key(b"one"), key(b"two")
    for form in CredentialForm:
        app = upstream_credentials(one, APP, form)
        control = ScriptedControl(
            [
                circuit("3", one, form),
                circuit("4", one, form),
                circuit("5", one, form, "EXTENDED"),
                Circuit("6", "BUILT", username=app.username, password=app.password),
                Circuit("7", "BUILT"),
            ]
        )
        assert await circuits_of(control, {(one, P2P), (two, P2P), (one, APP)}, form) == {
            (one, P2P): ["3", "4"],
            (one, APP): ["6"],
            (two, P2P): [],
        }


async def test_without_a_control_port_or_behind_a_filter_none_are_shown() -> None:
    one = key()
    listed = [circuit("3", one, PROP351)]
    assert await circuits_of(ScriptedControl(listed, Phase.CONNECTING), {(one, P2P)}, PROP351) == {}
    assert await circuits_of(ScriptedControl(None), {(one, P2P)}, PROP351) == {}
    assert await circuits_of(ScriptedControl(None), set(), PLAIN) == {}


class SlowControl(ScriptedControl):
    """Its Tor is frozen, and has told of `listed` by events."""

    def circuits(self) -> tuple[Circuit, ...]:
        return tuple(self.listed or ())

    async def refresh_circuits(self) -> tuple[Circuit, ...]:
        await asyncio.sleep(3600)
        raise AssertionError


@pytest.mark.virtual_clock
async def test_a_slow_tor_does_not_hold_up_the_status() -> None:
    one = (key(), P2P)
    control = SlowControl([circuit("3", one[0], PROP351)])
    async with asyncio.timeout(PATIENCE_S + 1):
        assert await circuits_of(control, {one}, PROP351) == {one: ["3"]}
