"""What the bytes of an answer look like: case, size, EDNS."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import dns.flags
import dns.message
import dns.name
import pytest
from dns.edns import OptionType

from isoproxy.dns.query import HEADER_LENGTH, ISOLATION_OPTION, MAX_MESSAGE
from tests.unit.dns.kit import CLIENT, lines, parsed, question, rcode, world
from tests.unit.dns.table import DIGEST


async def test_the_letters_case_comes_back_in_question_and_owner() -> None:
    here = world(signed=True)
    for name in ("mAiL.PLAIN.biT.", "NoWhere.Bit.", "xX.dEleg.bit.", "wwW.plain.bit."):
        for dnssec in (False, True):
            response = await here.ask(name, "A", dnssec=dnssec)
            assert response.question[0].name.to_text() == name
            if response.answer:
                assert response.answer[0].name.to_text() == name


@pytest.mark.parametrize("isolation", [None, b"", b"tab 1", bytes(range(255))])
async def test_the_isolation_option_comes_back_only_if_it_was_sent(isolation: bytes | None) -> None:
    here = world()
    for name, rdtype in (("plain.bit", "A"), ("nowhere.bit", "A"), ("x.", "A"), ("down.bit", "A")):
        response = await here.ask(name, rdtype, isolation=isolation)
        sent = [] if isolation is None else [(ISOLATION_OPTION, isolation)]
        ids = [one for one in response.options if one.otype != OptionType.EDE]
        assert [(option.otype, option.to_wire()) for option in ids] == sent


async def test_our_own_opt_and_none_without_the_clients() -> None:
    here = world()
    response = await here.ask("plain.bit", "A", payload=4096)
    assert (response.edns, response.payload) == (0, 1232)
    assert (await here.ask("plain.bit", "A", edns=False)).edns == -1


@pytest.mark.parametrize(
    ("rdtype", "value"),
    [
        ("A", {"ip": "192.0.2.1"}),
        ("AAAA", {"ip6": "2001:db8::1"}),
        ("TXT", {"txt": "x" * 400}),
        ("TLSA", {"tls": [[3, 0, 0, "qqqq"]]}),
    ],
)
async def test_what_is_written_by_hand_is_what_dnspython_writes(rdtype: str, value: Any) -> None:
    here = world({"d/x": {"map": {"www": value}}})
    query = parsed(question("wWw.x.bit", rdtype))
    key = here.responder.key_for(CLIENT, query)
    wire, _ = await here.responder.respond(query, CLIENT, key, MAX_MESSAGE)
    (rrset,) = dns.message.from_wire(wire).answer
    output = BytesIO()
    output.write(bytes(len(wire)))
    compress = {dns.name.from_text("wWw.x.bit"): HEADER_LENGTH}
    rrset.to_wire(output, compress)
    assert output.getvalue()[len(wire) :] in wire


async def test_flags() -> None:
    message = question("plain.bit", "A")
    message.flags |= dns.flags.CD | dns.flags.AD
    here = world()
    query = parsed(message)
    key = here.responder.key_for(b"u0", query)
    wire, may_be_kept = await here.responder.respond(query, CLIENT, key, 1232)
    response = dns.message.from_wire(wire)
    expected = dns.flags.QR | dns.flags.AA | dns.flags.RD | dns.flags.CD
    assert response.flags == expected
    assert may_be_kept


async def test_unknown_edns_versions() -> None:
    message = question("plain.bit", "A")
    message.use_edns(1)
    query = parsed(message)
    refused = world().responder.refusal(query)
    assert refused is not None
    response = dns.message.from_wire(refused)
    assert rcode(response) == "BADVERS"
    assert response.edns == 0


async def test_what_does_not_fit_says_so_and_holds_nothing() -> None:
    texts = [f"{number:03}" + "x" * 240 for number in range(4)]
    here = world({"d/big": {"txt": texts}})
    short = await here.ask("big.bit", "TXT", limit=512)
    assert short.flags & dns.flags.TC
    assert short.answer == []
    assert short.edns == 0
    whole = await here.ask("big.bit", "TXT")
    assert not whole.flags & dns.flags.TC
    assert len(lines(whole.answer)) == 4


async def test_truncation_at_every_size() -> None:
    here = world({"d/a": {"ip": [f"192.0.2.{n}" for n in range(1, 40)], "ds": [DIGEST.hex()]}},
                 signed=True)  # fmt: skip
    sizes = [len((await here.ask("a.bit", "A", dnssec=True)).to_wire())]
    for limit in range(40, 900, 7):
        response = await here.ask("a.bit", "A", dnssec=True, limit=limit)
        assert bool(response.flags & dns.flags.TC) is (not response.answer)
        assert not response.answer or limit >= sizes[0] - 40
