"""Every name of the test chain and every type, against a table made by hand."""

from __future__ import annotations

import base64

import dns.message
import dns.rdata
import pytest

from isoproxy.namecoin.resolve.answer import Policy
from tests.unit.dns.kit import (
    CLIENT,
    World,
    is_authoritative,
    lines,
    parsed,
    question,
    rcode,
    world,
)
from tests.unit.dns.table import (
    ABSENT,
    CHAIN,
    FAILING,
    ON_THE_WAY,
    ONION,
    RECORDS,
    REDIRECTED,
    REFERRED,
    SOA,
    THERE_AND_BACK,
    TRANSLATING,
    TYPES,
)

DENIAL = [f"bit. SOA {SOA}"]


@pytest.fixture
def here() -> World:
    return world()


def check_denial(response: dns.message.Message, expected: str) -> None:
    assert rcode(response) == expected
    assert is_authoritative(response)
    assert lines(response.authority) == DENIAL
    assert response.authority[0].ttl == 60  # RFC 2308: how long absence is remembered


@pytest.mark.parametrize("name", [*RECORDS, *TRANSLATING])
async def test_a_name_has_exactly_its_records(here: World, name: str) -> None:
    records = {**RECORDS, **TRANSLATING}[name]
    for rdtype in TYPES:
        response = await here.ask(name, rdtype)
        expected = sorted(f"{name} {rdtype} {data}" for data in records.get(rdtype, ()))
        assert lines(response.answer) == expected, rdtype
        assert response.additional == []
        if expected:
            assert rcode(response) == "NOERROR"
            assert is_authoritative(response)
            assert response.authority == []
        else:
            check_denial(response, "NOERROR")


@pytest.mark.parametrize("name", ABSENT)
async def test_what_does_not_exist_can_be_remembered_as_absent(here: World, name: str) -> None:
    for rdtype in TYPES:
        response = await here.ask(name, rdtype)
        assert response.answer == []
        check_denial(response, "NXDOMAIN")


@pytest.mark.parametrize("name", FAILING)
async def test_what_is_not_known_is_no_absence(here: World, name: str) -> None:
    for rdtype in TYPES:
        response = await here.ask(name, rdtype)
        assert rcode(response) == "SERVFAIL"
        assert not response.answer
        assert not response.authority


@pytest.mark.parametrize("name", REDIRECTED)
async def test_redirections_are_followed_inside_bit(here: World, name: str) -> None:
    redirection = REDIRECTED[name]
    for rdtype in TYPES:
        response = await here.ask(name, rdtype)
        links = sorted(redirection.links)
        if rdtype == "CNAME":
            own = {link for link in links if link.startswith(f"{name} ") or " DNAME " in link}
            assert lines(response.answer) == sorted(own)
            continue
        target = redirection.target
        data = RECORDS.get(target, {}).get(rdtype, [])
        assert lines(response.answer) == sorted([*links, *(f"{target} {rdtype} {d}" for d in data)])
        assert is_authoritative(response)
        if target == "nowhere.bit.":
            check_denial(response, "NXDOMAIN")
        elif target in RECORDS and not data:
            check_denial(response, "NOERROR")
        else:
            assert rcode(response) == "NOERROR"
            assert response.authority == []


@pytest.mark.parametrize("name", REFERRED)
async def test_delegations_refer_with_glue(here: World, name: str) -> None:
    referral = REFERRED[name]
    for rdtype in TYPES:
        response = await here.ask(name, rdtype)
        if rdtype == "DS" and name == referral.cut:
            continue
        assert rcode(response) == "NOERROR"
        assert not is_authoritative(response)
        assert response.answer == []
        expected = sorted(f"{referral.cut} NS {server}" for server in referral.servers)
        assert lines(response.authority) == expected
        assert lines(response.additional) == sorted(referral.glue)


async def test_the_parent_answers_for_ds_at_a_cut(here: World) -> None:
    signed = await here.ask("deleg.bit", "DS")
    assert lines(signed.answer) == [f"deleg.bit. DS {REFERRED['deleg.bit.'].ds}"]
    assert is_authoritative(signed)
    check_denial(await here.ask("sub.half.bit", "DS"), "NOERROR")


async def test_any_is_answered_with_as_little_as_possible(here: World) -> None:
    response = await here.ask("plain.bit", "ANY")
    assert lines(response.answer) == ['plain.bit. HINFO "RFC8482" ""']
    assert lines((await here.ask("alias.bit", "ANY")).answer) == ["alias.bit. CNAME plain.bit."]
    check_denial(await here.ask("nowhere.bit", "ANY"), "NXDOMAIN")


@pytest.mark.parametrize(
    ("name", "rdtype"),
    [
        ("example.com.", "A"),
        (".", "NS"),
        ("bit.example.", "A"),
        ("bit.", "AXFR"),
        ("plain.bit.", "IXFR"),
        ("plain.bit.", "RRSIG"),
        ("plain.bit.", "TYPE129"),
    ],
)
async def test_refused(here: World, name: str, rdtype: str) -> None:
    response = await here.ask(name, rdtype)
    assert rcode(response) == "REFUSED"
    assert here.backend.asked == []


async def test_a_name_made_too_long_by_translation_is_said_to_be() -> None:
    target = ".".join(["a" * 60] * 3) + ".bit."
    here = world({"d/t": {"translate": target}})
    response = await here.ask(".".join(["b" * 60] * 2) + ".t.bit", "A")
    assert rcode(response) == "YXDOMAIN"
    assert lines(response.answer) == [f"t.bit. DNAME {target}"]


async def test_policy_shows_private_addresses_or_none_at_all() -> None:
    hidden = world()
    assert lines((await hidden.ask("mixed.bit", "A")).answer) == ["mixed.bit. A 192.0.2.9"]
    check_denial(await hidden.ask("mixed.bit", "AAAA"), "NOERROR")
    shown = await world(policy=Policy(allow_private_addresses=True)).ask("mixed.bit", "A")
    assert lines(shown.answer) == ["mixed.bit. A 10.0.0.1", "mixed.bit. A 192.0.2.9"]
    only_onion = world(policy=Policy(only_onion=True))
    check_denial(await only_onion.ask("plain.bit", "A"), "NOERROR")
    referral = await only_onion.ask("deleg.bit", "A")
    assert referral.additional == []


@pytest.mark.parametrize("hint", ["ipv4hint=192.0.2.9,10.0.0.1", "ipv6hint=fe80::1"])
@pytest.mark.parametrize("rdtype", ["HTTPS", "SVCB"])
async def test_policy_holds_for_the_hints_of_service_bindings(rdtype: str, hint: str) -> None:
    """Browsers connect to them as to A and AAAA records."""

    def raw(text: str) -> list[object]:
        rdata = dns.rdata.from_text("IN", rdtype, text)
        return [int(rdata.rdtype), base64.b64encode(rdata.to_digestable()).decode()]

    fine = "1 . ipv4hint=192.0.2.9 ipv6hint=2001:db8::9"
    values = {"d/t": {"o": [raw(f"2 . {hint}"), raw(fine), raw("3 . port=8443")]}}

    async def shown(policy: Policy) -> list[str]:
        answer = (await world(values, policy=policy).ask("t.bit", rdtype)).answer
        return [line.split()[2] for line in lines(answer)]

    assert await shown(Policy()) == ["1", "3"]
    assert await shown(Policy(allow_private_addresses=True)) == ["1", "2", "3"]
    assert await shown(Policy(only_onion=True)) == ["3"]


@pytest.mark.parametrize(
    "outside", [f"{ONION}.", f"web.{ONION}.", "printer.local.", "a.i2p.", "x.home.arpa."]
)
@pytest.mark.parametrize("item", ["alias", "translate", "ns"])
async def test_nobody_is_sent_on_to_what_is_not_of_the_dns(outside: str, item: str) -> None:
    """A resolver would ask the whole world for the onion service that is being visited."""
    here = world({"d/a": {item: outside}, "d/b": {"alias": "x.a.bit."}}, signed=True)
    for name in ("a.bit", "x.a.bit", "b.bit"):
        for rdtype in (*TYPES, "ANY", "NSEC"):
            for dnssec in (False, True):
                response = await here.ask(name, rdtype, dnssec=dnssec)
                assert outside not in str(response).lower()
                assert rcode(response) in ("NOERROR", "NXDOMAIN")
        assert rcode(await here.ask("a.bit", "A")) == "NOERROR"
    partly = world({"d/a": {"ns": [outside, "ns.example.com."]}})
    assert lines((await partly.ask("a.bit", "A")).authority) == ["a.bit. NS ns.example.com."]


@pytest.mark.parametrize("priority", [0, 1])
@pytest.mark.parametrize("rdtype", ["HTTPS", "SVCB"])
async def test_no_service_binding_leads_out_of_the_dns(rdtype: str, priority: int) -> None:
    """In AliasMode (0) as in ServiceMode (RFC 9460 §2.4)."""

    def raw(target: str) -> list[object]:
        rdata = dns.rdata.from_text("IN", rdtype, f"{priority} {target}")
        return [int(rdata.rdtype), base64.b64encode(rdata.to_digestable()).decode()]

    values = {"d/t": {"o": [raw(f"{ONION}."), raw("a.i2p."), raw("."), raw("example.net.")]}}
    answer = (await world(values).ask("t.bit", rdtype)).answer
    assert sorted(line.split()[3] for line in lines(answer)) == [".", "example.net."]


@pytest.mark.parametrize("wrong", ["9Y5W7a9gPuC/TQlBBv9e7Q==", ""])
async def test_a_digest_of_the_wrong_length_is_told_to_no_validator(wrong: str) -> None:
    right = [12345, 8, 2, "Dq/dL53lEyByJK+5s/MeVGye8SBsBtRv3glSUjcIz28="]
    values = {
        "d/one": {"ns": "ns.example.net.", "ds": [[54321, 8, 1, wrong], right]},
        "d/none": {"ns": "ns.example.net.", "ds": [[54321, 8, 1, wrong]]},
    }
    here = world(values, signed=True)
    (line,) = lines((await here.ask("one.bit", "DS", dnssec=True)).answer)[:1]
    assert line.startswith("one.bit. DS 12345 8 2 ")
    assert "54321" not in str(await here.ask("one.bit", "A", dnssec=True))
    referral = await here.ask("none.bit", "A", dnssec=True)
    assert {rrset.rdtype.name for rrset in referral.authority} == {"NS", "NSEC", "RRSIG"}


async def test_a_chain_of_aliases_ends() -> None:
    values = {f"d/a{n}": {"alias": f"a{n + 1}.bit."} for n in range(30)}
    response = await world(values).ask("a0.bit", "A")
    assert rcode(response) == "NOERROR"
    assert len(response.answer) == 9


async def test_a_translation_that_would_be_passed_twice_ends_the_answer() -> None:
    here = world(THERE_AND_BACK)
    query = parsed(question("x.there.bit", "A"))
    key = here.responder.key_for(CLIENT, query)
    wire, _ = await here.responder.respond(query, CLIENT, key, 1232)
    response = dns.message.from_wire(wire, one_rr_per_rrset=True)
    assert lines(response.answer) == sorted(ON_THE_WAY[:3])


async def test_an_alias_into_a_delegation_is_left_to_the_client() -> None:
    values = {"d/a": {"alias": "deleg.bit."}, "d/deleg": CHAIN["d/deleg"]}
    response = await world(values).ask("a.bit", "A")
    assert lines(response.answer) == ["a.bit. CNAME deleg.bit."]
    assert response.authority == []


async def test_an_alias_whose_target_is_not_known_now_is_still_an_answer() -> None:
    values = {"d/a": {"alias": "down.bit."}, "d/down": CHAIN["d/down"]}
    response = await world(values).ask("a.bit", "A")
    assert rcode(response) == "NOERROR"
    assert lines(response.answer) == ["a.bit. CNAME down.bit."]


async def test_mail_is_derived_only_where_nothing_hides_it() -> None:
    service = {"_tcp": {"map": {"_smtp": {"srv": [[5, 0, 25, "mx1.@"]]}}}}
    assert lines((await world({"d/m": {"map": service}}).ask("m.bit", "MX")).answer) == [
        "m.bit. MX 5 mx1.m.bit."
    ]
    own = {"mx": [[1, "own.@"]], "map": service}
    assert lines((await world({"d/m": own}).ask("m.bit", "MX")).answer) == [
        "m.bit. MX 1 own.m.bit."
    ]
    delegated = {"ns": "ns.example.com.", "map": service}
    assert (await world({"d/m": delegated}).ask("m.bit", "MX")).answer == []
