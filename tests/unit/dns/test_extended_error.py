from __future__ import annotations

import dns.edns
import dns.message
import pytest

from isoproxy.dns.extended_error import extended_error
from isoproxy.dns.query import SERVFAIL, bare_response
from isoproxy.errors import ErrorKind, NamingError
from isoproxy.namecoin.backend import TemporaryFailure
from tests.unit.dns.kit import parsed, question, world

WHY = "Block headers are still being fetched, 4 of 9; try again in a moment."


def told(message: dns.message.Message) -> dns.edns.EDEOption | None:
    options = [one for one in message.options if isinstance(one, dns.edns.EDEOption)]
    return options[0] if options else None


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (ErrorKind.NAME_SYNCHRONISING, dns.edns.EDECode.NOT_READY),
        (ErrorKind.NAME_BACKEND_DOWN, dns.edns.EDECode.NO_REACHABLE_AUTHORITY),
        (ErrorKind.NAME_NO_QUORUM, dns.edns.EDECode.NO_REACHABLE_AUTHORITY),
        (ErrorKind.TOR_UNREACHABLE, dns.edns.EDECode.NETWORK_ERROR),
        (ErrorKind.NAME_INVALID_VALUE, dns.edns.EDECode.INVALID_DATA),
        (ErrorKind.NOT_ALLOWED, dns.edns.EDECode.PROHIBITED),
        (ErrorKind.NAME_WRONG_CLOCK, dns.edns.EDECode.OTHER),
    ],
)
def test_each_kind_has_its_code_and_its_own_sentence(
    kind: ErrorKind, code: dns.edns.EDECode
) -> None:
    error = extended_error(NamingError("Why it is so.", kind=kind))
    assert (error.code, error.text) == (code, "Why it is so.")


async def test_a_failure_says_why_in_the_answer() -> None:
    values = {"d/x": TemporaryFailure(WHY, kind=ErrorKind.NAME_SYNCHRONISING)}
    message = await world(values).ask("x.bit", "A")
    option = told(message)
    assert option is not None
    assert (option.code, option.text) == (dns.edns.EDECode.NOT_READY, WHY)
    plain = await world(values).ask("x.bit", "A", edns=False)
    assert plain.options == ()
    assert plain.rcode() == message.rcode() == SERVFAIL


@pytest.mark.parametrize("isolation", [None, b"id"])
def test_the_sentence_goes_where_it_does_not_fit_and_then_the_code(isolation: bytes | None) -> None:
    query = parsed(question("x.bit", "A", isolation=isolation))
    error = extended_error(NamingError(WHY, kind=ErrorKind.NAME_BACKEND_DOWN))
    bare = bare_response(query, SERVFAIL)
    for room, expected in ((6 + len(WHY), WHY), (5 + len(WHY), None), (6, None)):
        wire = bare_response(query, SERVFAIL, error=error, limit=len(bare) + room)
        assert len(wire) <= len(bare) + room
        option = told(dns.message.from_wire(wire))
        assert option is not None
        assert option.code == dns.edns.EDECode.NO_REACHABLE_AUTHORITY
        assert option.text == expected
    assert bare_response(query, SERVFAIL, error=error, limit=len(bare) + 5) == bare
