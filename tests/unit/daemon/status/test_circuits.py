"""Whose circuits they are that Tor tells of."""

from __future__ import annotations

from isoproxy.daemon.status.circuits import circuits_of, relays_of
from isoproxy.isolation import APP, P2P, CredentialForm, IsolationKey, upstream_credentials
from isoproxy.tor.control.events import Circuit, Hop
from tests.unit.bitcoin.ends import key


def circuit(number: str, of: IsolationKey, form: CredentialForm, status: str = "BUILT") -> Circuit:
    own = upstream_credentials(of, P2P, form)
    return Circuit(number, status, username=own.username, password=own.password)


def test_only_built_circuits_of_the_key_and_purpose_are_its_own() -> None:
    one, two = key(b"one"), key(b"two")
    for form in CredentialForm:
        app = upstream_credentials(one, APP, form)
        circuits = [
            circuit("3", one, form),
            circuit("4", one, form),
            circuit("5", one, form, "EXTENDED"),
            Circuit("6", "BUILT", username=app.username, password=app.password),
            Circuit("7", "BUILT"),
        ]
        assert circuits_of(circuits, {(one, P2P), (two, P2P), (one, APP)}, form) == {
            (one, P2P): ["3", "4"],
            (one, APP): ["6"],
            (two, P2P): [],
        }


def test_a_stream_of_another_process_is_found_by_what_it_said_to_tor() -> None:
    one, form = key(), CredentialForm.PROP351
    said = upstream_credentials(one, P2P, form)
    assert circuits_of([circuit("3", one, form)], [said], form) == {said: ["3"]}


def test_relays_are_told_of_the_circuits_that_are_shown_but_never_the_first() -> None:
    hops = tuple(Hop(digit * 40, "nick") for digit in "ABC")
    circuits = [Circuit("3", "BUILT", hops), Circuit("4", "BUILT", hops), Circuit("5", "LAUNCHED")]
    assert relays_of(circuits, {"3", "5"}) == {"3": ["guard", "B" * 8, "C" * 8]}
