"""Session IDs beside circuits: whose circuits they are, and when there are none to show."""

from __future__ import annotations

import asyncio

import pytest

from isoproxy.bitcoin.bridge import Flow
from isoproxy.bitcoin.ledger import Ledger
from isoproxy.bitcoin.messages import MAINNET
from isoproxy.daemon.bitcoin_status import (
    MESSAGE_TYPES,
    PATIENCE_S,
    circuits_of,
    collect_bitcoin,
)
from isoproxy.errors import OperationError
from isoproxy.isolation import APP, P2P, CredentialForm, IsolationKey, upstream_credentials
from isoproxy.observe.metrics import Metrics
from isoproxy.target import Target
from isoproxy.tor.control import Control, ControlState, Phase
from isoproxy.tor.control_wire import Circuit
from isoproxy.tor.endpoint import Endpoint
from tests.isoproxy.bitcoin.ends import key
from tests.isoproxy.bitcoin.peers import established, v1

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
    app = upstream_credentials(one, APP)
    for form in CredentialForm:
        control = ScriptedControl(
            [
                circuit("3", one, form),
                circuit("4", one, form),
                circuit("5", one, form, "EXTENDED"),
                Circuit("6", "BUILT", username=app.username, password=app.password),
                Circuit("7", "BUILT"),
            ]
        )
        assert await circuits_of(control, {one, two}, form) == {one: ["3", "4"], two: []}


async def test_without_a_control_port_or_behind_a_filter_none_are_shown() -> None:
    one = key()
    listed = [circuit("3", one, PROP351)]
    assert await circuits_of(ScriptedControl(listed, Phase.CONNECTING), {one}, PROP351) == {}
    assert await circuits_of(ScriptedControl(None), {one}, PROP351) == {}
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
    one = key()
    control = SlowControl([circuit("3", one, PROP351)])
    async with asyncio.timeout(PATIENCE_S + 1):
        assert await circuits_of(control, {one}, PROP351) == {one: ["3"]}


def test_metrics_count_by_known_types_alone() -> None:
    session = established()
    session.from_client(v1("ping", bytes(8)) + v1("mysterious"))
    ledger = Ledger()
    flow = Flow(key(), Target.parse("peer.example", 8333), MAINNET, session.translator)
    flow.transport = "v2"
    with ledger.entry(flow):
        pass
    metrics = Metrics((), MESSAGE_TYPES)
    collect_bitcoin(metrics, ledger.totals())
    text = metrics.exposition()
    assert 'isoproxy_p2p_messages_total{direction="up",type="ping"} 1\n' in text
    assert 'isoproxy_p2p_messages_total{direction="up",type="(other)"} 1\n' in text
    assert 'isoproxy_v2_sessions_total{outcome="v2"} 1\n' in text
    assert f'isoproxy_p2p_bytes_total{{direction="up",transport="wire"}} {flow.bytes_up}\n' in text
    assert "mysterious" not in text
    assert "peer.example" not in text
