"""Isolation of DNS look-ups: one key for each client and ID, nothing shared between."""

from __future__ import annotations

import asyncio

import dns.edns
import dns.message

from isoproxy.isolation import client_of_address
from isoproxy.namecoin.resolve.answer import Policy
from tests.unit.dns.kit import CLIENT, lines, parsed, question, rcode, world

OTHER = client_of_address("127.0.0.2")


async def test_two_ids_are_two_look_ups_under_two_keys() -> None:
    here = world()
    for isolation in (b"tab 1", b"tab 2", b"tab 1", b"tab 2"):
        await here.ask("plain.bit", "A", isolation=isolation)
    assert here.backend.names() == ["d/plain", "d/plain"]
    first, second = (key for _, key in here.backend.asked)
    assert first != second


async def test_without_an_id_two_clients_are_two_look_ups() -> None:
    here = world()
    for client in (CLIENT, OTHER, CLIENT, OTHER):
        await here.ask("plain.bit", "A", client=client)
    assert len(here.backend.asked) == 2
    assert len({key for _, key in here.backend.asked}) == 2


async def test_no_id_an_empty_one_and_others_clients_ids_are_all_different() -> None:
    here = world()
    keys = {
        here.responder.key_for(client, parsed(question("a.bit", "A", isolation=isolation)))
        for client in (CLIENT, OTHER)
        for isolation in (None, b"", b"\0", b"\0\0", b"tab", b"TAB")
    }
    assert len(keys) == 12


async def test_absence_learned_under_one_id_is_unknown_under_another() -> None:
    here = world()
    for isolation in (b"1", b"2", b"1", b"2"):
        assert rcode(await here.ask("nowhere.bit", "A", isolation=isolation)) == "NXDOMAIN"
    assert here.backend.names() == ["d/nowhere", "d/nowhere"]


async def test_a_whole_chain_and_its_imports_are_fetched_under_the_one_key() -> None:
    here = world()
    await here.ask("www.plain.bit", "A", isolation=b"x")
    await here.ask("mail.trans.bit", "A", isolation=b"x")
    await here.ask("importer.bit", "A", isolation=b"x")
    assert len({key for _, key in here.backend.asked}) == 1
    assert sorted(here.backend.names()) == ["d/importer", "d/plain", "d/trans", "dd/shared"]


async def test_kept_answers_belong_to_their_key_and_end_with_the_epoch() -> None:
    here = world()
    packet = question("plain.bit", "A", isolation=b"1").to_wire()
    query = parsed(packet)
    key = here.responder.key_for(CLIENT, query)
    response, may_be_kept = await here.responder.respond(query, CLIENT, key, 1232)
    assert may_be_kept
    here.responder.keep(packet, response, key, 1232)
    again = b"\xab\xcd" + packet[2:]
    kept = here.responder.kept(again, key, 1232)
    assert kept == b"\xab\xcd" + response[2:]
    other = here.responder.key_for(OTHER, query)
    assert here.responder.kept(packet, other, 1232) is None
    assert here.responder.kept(packet, key, 512) is None
    assert here.responder.kept(packet[:-1] + b"2", key, 1232) is None
    here.isolator.new_epoch()
    assert here.responder.kept(packet, key, 1232) is None
    here.responder.keep(packet, response, key, 1232)
    assert here.responder.kept(packet, key, 1232) is None


async def test_what_was_under_way_when_the_policy_changed_is_not_kept() -> None:
    here = world()
    query = parsed(question("importer.bit", "A"))
    key = here.responder.key_for(CLIENT, query)

    def follow() -> None:
        if "dd/shared" in here.backend.names():
            here.responder.follow(Policy(only_onion=True))

    here.backend.after = follow
    response, may_be_kept = await here.responder.respond(query, CLIENT, key, 1232)
    assert lines(dns.message.from_wire(response).answer) == ["importer.bit. A 192.0.2.10"]
    assert not may_be_kept


async def test_the_answer_to_a_very_long_query_is_not_kept() -> None:
    """Kept by the thousand, with the padding that a client may send, they fill the memory."""
    here = world()
    for padding, kept in ((400, True), (500, False)):
        option = dns.edns.GenericOption(dns.edns.OptionType.PADDING, bytes(padding))
        message = question("plain.bit", "A")
        message.use_edns(0, options=[option])
        packet = message.to_wire()
        key = here.responder.key_for(CLIENT, parsed(packet))
        here.responder.keep(packet, packet, key, 1232)
        assert (here.responder.kept(packet, key, 1232) is not None) is kept


async def test_kept_answers_end() -> None:
    moments = [0.0]
    here = world()
    here.responder._clock = lambda: moments[0]  # type: ignore[misc]  # a clock for this test
    packet = question("plain.bit", "A").to_wire()
    key = here.responder.key_for(CLIENT, parsed(packet))
    here.responder.keep(packet, packet, key, 1232)
    moments[0] = 29.9
    assert here.responder.kept(packet, key, 1232) is not None
    moments[0] = 30.0
    assert here.responder.kept(packet, key, 1232) is None


async def test_failures_are_not_kept() -> None:
    here = world()
    query = parsed(question("down.bit", "A"))
    key = here.responder.key_for(CLIENT, query)
    for _ in range(2):
        _, may_be_kept = await here.responder.respond(query, CLIENT, key, 1232)
        assert not may_be_kept
    assert here.backend.names() == ["d/down", "d/down"]


async def test_the_same_question_twice_at_once_is_one_look_up() -> None:
    here = world(delay=0.05)
    one, two = await asyncio.gather(
        here.ask("plain.bit", "A", isolation=b"1"), here.ask("plain.bit", "AAAA", isolation=b"1")
    )
    assert here.backend.names() == ["d/plain"]
    assert lines(one.answer)
    assert lines(two.answer)


async def test_nothing_outside_of_bit_reaches_the_backend() -> None:
    here = world()
    for name in ("example.com", "bit.com", "plain.bit.example", "x--nmc.bit", "bit", "1.bit"):
        await here.ask(name, "A")
    assert here.backend.asked == []


async def test_one_budget_for_a_whole_chain() -> None:
    values = {f"d/a{n}": {"import": f"dd/b{n}", "alias": f"a{n + 1}.bit."} for n in range(12)}
    values |= {f"dd/b{n}": {"import": f"dd/c{n}"} for n in range(12)}
    values |= {f"dd/c{n}": {} for n in range(12)}
    here = world(values)
    response = await here.ask("a0.bit", "A")
    assert rcode(response) == "NOERROR"
    assert len(here.backend.asked) <= 16


async def test_a_renewal_ends_the_kept_answers_of_one_key() -> None:
    here = world()
    packet = question("plain.bit", "A").to_wire()
    query = parsed(packet)
    old, other = (here.responder.key_for(client, query) for client in (CLIENT, OTHER))
    for key in (old, other):
        here.responder.keep(packet, packet, key, 1232)
    here.isolator.renew(old.label)
    assert here.responder.kept(packet, old, 1232) is None
    assert here.responder.kept(packet, other, 1232) == packet
    here.responder.keep(packet, packet, old, 1232)
    assert here.responder.kept(packet, here.responder.key_for(CLIENT, query), 1232) is None
