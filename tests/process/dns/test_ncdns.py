"""Our DNS server beside a real ncdns, over the same values, difference by difference.

Build ncdns from its public repository and name the program in NCDNS_PATH.

Every name of the test chain is asked of both for every type, and, where NCTESTSUITE_PATH
names Namecoin's own test suite, so are the names of its cases and some that they lack.  A
`Habit` is one way in which ncdns is known to differ: it turns what ncdns says into what it
would say without that habit.  What still differs then is a difference nobody has explained.
Each habit has its row in docs/namecoin-values.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import dns.asyncquery
import dns.exception
import dns.message
import dns.rrset
import pytest

from isoproxy.errors import ErrorKind, NamingError
from isoproxy.namecoin.backend import TemporaryFailure
from isoproxy.namecoin.resolve.answer import is_public
from isoproxy.namecoin.value.domain import Domain
from isoproxy.namecoin.value.name import is_registrable
from tests.kit.nctestsuite import cases
from tests.kit.ports import free_port
from tests.kit.repository import ROOT
from tests.unit.dns.kit import is_authoritative, lines, question, rcode, serving, world
from tests.unit.dns.table import (
    ABSENT,
    CHAIN,
    FAILING,
    RECORDS,
    REDIRECTED,
    REFERRED,
    TRANSLATING,
    TYPES,
)
from tests.unit.namecoin.rpc.server import Failure, RpcServer, core_methods
from tests.unit.namecoin.value.inquiry import drive

DOCUMENT: Final = ROOT / "docs" / "namecoin-values.md"
NAMES: Final = (*RECORDS, *TRANSLATING, *REDIRECTED, *REFERRED, *ABSENT, *FAILING)
SOA: Final = frozenset({"bit. SOA"})
EXPIRED: Final = Failure(-4, "name expired")
SILENCE: Final = "no answer"
"""In place of an RCODE."""
MALFORMED: Final = "a message that cannot be read"
RPC_TIMEOUT_MS: Final = 5_000
ANSWER_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True)
class Said:
    """A response; records as `owner type data`, of a SOA without the data."""

    rcode: str
    authoritative: bool
    answer: frozenset[str] = frozenset()
    authority: frozenset[str] = frozenset()
    additional: frozenset[str] = frozenset()
    name: str = "x.bit."

    @classmethod
    def of(cls, message: dns.message.Message) -> Said:
        return cls(
            rcode(message),
            is_authoritative(message),
            _records(message.answer),
            _records(message.authority),
            _records(message.additional),
            str(message.question[0].name).lower(),
        )

    @classmethod
    def silent(cls, name: str) -> Said:
        return cls(SILENCE, False, name=name)

    @property
    def is_referral(self) -> bool:
        return not self.authoritative and any(" NS " in line for line in self.authority)


def denial(code: str = "NOERROR", authority: frozenset[str] = SOA) -> Said:
    return Said(code, True, authority=authority)


def _records(section: list[dns.rrset.RRset]) -> frozenset[str]:
    found = (line.lower().split(" ", 2) for line in lines(section))
    return frozenset(
        f"{owner} {kind.upper()}" if kind == "soa" else f"{owner} {kind.upper()} {data}"
        for owner, kind, data in found
    )


def _is_hidden(line: str) -> bool:
    _, kind, data = line.split(" ", 2)
    return kind in ("A", "AAAA") and not is_public(data)


def _alias(ours: Said, theirs: Said) -> Said:
    stops = any(" CNAME " in line for line in theirs.answer) and theirs.rcode == "NOERROR"
    return ours if stops and theirs.answer <= ours.answer else theirs


def _private(ours: Said, theirs: Said) -> Said:
    hidden = {line for line in theirs.answer - ours.answer if _is_hidden(line)}
    if not hidden:
        return theirs
    kept = theirs.answer - hidden
    return replace(theirs, answer=kept, authority=theirs.authority if kept else SOA)


def _ignored(kinds: tuple[str, ...]) -> Callable[[Said, Said], Said]:
    def habit(ours: Said, theirs: Said) -> Said:
        is_silent = theirs.rcode == "NOERROR" and not theirs.answer and bool(ours.answer)
        all_theirs = all(line.split(" ")[1] in kinds for line in ours.answer)
        return ours if is_silent and all_theirs else theirs

    return habit


def _no_soa(code: str) -> Callable[[Said, Said], Said]:
    def habit(ours: Said, theirs: Said) -> Said:
        denies = theirs.rcode == code and not theirs.answer and not theirs.authority
        return replace(theirs, authority=SOA, authoritative=True) if denies else theirs

    return habit


def _not_found(ours: Said, theirs: Said) -> Said:
    fails = (ours.rcode, theirs.rcode) == ("NXDOMAIN", "SERVFAIL")
    absent = theirs.name.split(".")[-3] in ("nowhere", "expired", "young")
    return ours if fails and absent else theirs


def _labels(ours: Said, theirs: Said) -> Said:
    fails = (ours.rcode, theirs.rcode) == ("NXDOMAIN", "SERVFAIL")
    return ours if fails and not is_registrable(theirs.name.split(".")[-3]) else theirs


def _relative_mx(ours: Said, theirs: Said) -> Said:
    is_mx = bool(ours.answer) and all(" MX " in line for line in ours.answer)
    return ours if theirs.rcode == SILENCE and is_mx else theirs


def _failure(ours: Said, theirs: Said) -> Said:
    both = ours.rcode == theirs.rcode == "SERVFAIL"
    return replace(theirs, authoritative=False) if both else theirs


def _bad_digest(ours: Said, theirs: Said) -> Said:
    return ours if theirs.rcode == MALFORMED else theirs


def _meta_zone(ours: Said, theirs: Said) -> Said:
    is_empty = theirs == replace(denial(authority=frozenset()), name=theirs.name)
    is_below = theirs.name.endswith(".x--nmc.bit.")
    return ours if ours.rcode == "NXDOMAIN" and is_empty and is_below else theirs


def _glue(ours: Said, theirs: Said) -> Said:
    more = theirs.is_referral and ours.additional < theirs.additional
    return replace(theirs, additional=ours.additional) if more else theirs


def _ds(ours: Said, theirs: Said) -> Said:
    del ours
    if not theirs.is_referral:
        return theirs
    kept = frozenset(line for line in theirs.authority if " DS " not in line)
    return replace(theirs, authority=kept)


@dataclass(frozen=True)
class Habit:
    """`without` takes it from what ncdns says; `row` is its subject in the document."""

    row: str
    without: Callable[[Said, Said], Said]


HABITS: Final = (
    Habit("alias inside `.bit`", _alias),
    Habit("private and loopback addresses", _private),
    Habit("`loc`, `sshfp`, `o`", _ignored(("LOC", "SSHFP", "CAA"))),
    Habit("`mx`", _ignored(("MX",))),
    Habit("`mx` with a relative host", _relative_mx),
    Habit("a name that is absent or expired", _not_found),
    Habit("labels that cannot be registered", _labels),
    Habit("`ds` with a digest of the wrong length", _bad_digest),
    Habit("AA of a failure", _failure),
    Habit("names below `x--nmc.bit`", _meta_zone),
    Habit("glue", _glue),
    Habit("`ds` in a referral", _ds),
    Habit("NXDOMAIN", _no_soa("NXDOMAIN")),
    Habit("a name without any record", _no_soa("NOERROR")),
)


def explained(ours: Said, theirs: Said) -> tuple[list[str], Said]:
    """The rows that explain differences, and what ncdns would say without those habits."""
    rows = []
    for habit in HABITS:
        if theirs == ours:
            break
        changed = habit.without(ours, theirs)
        if changed != theirs:
            rows.append(habit.row)
        theirs = changed
    return rows, theirs


def values() -> dict[bytes, Any]:
    """The test chain as Namecoin Core tells it."""
    told: dict[bytes, Any] = {}
    for name, value in CHAIN.items():
        if isinstance(value, ErrorKind):
            value = EXPIRED
        elif isinstance(value, TemporaryFailure):
            value = Failure(-1, "not now")
        elif not isinstance(value, bytes):
            value = json.dumps(value).encode()
        told[name.encode()] = value
    return told


def ncdns() -> str:
    path = os.environ.get("NCDNS_PATH")
    if path is None:
        pytest.skip("ncdns is not installed: build it from its public repository, set NCDNS_PATH")
    return path


def nobody(directory: Path) -> dict[str, Any]:
    """How to start ncdns, which refuses to run as root; `directory` is made readable to it."""
    if os.geteuid() != 0:
        return {}
    while directory != directory.parent and directory.stat().st_mode & 0o777 == 0o700:
        directory.chmod(0o755)
        directory = directory.parent
    return {"user": "nobody", "group": "nogroup", "extra_groups": []}


@contextlib.asynccontextmanager
async def running(program: str, rpc: RpcServer, directory: Path) -> AsyncIterator[int]:
    """The port of ncdns, which asks `rpc`."""
    port = free_port()
    options = nobody(directory)
    settings = directory / "ncdns.conf"
    settings.write_text(
        f'[ncdns]\nbind = "127.0.0.1:{port}"\nselfip = "127.0.0.1"\n'
        f'namecoinrpcaddress = "{rpc.endpoint}"\n'
        'namecoinrpcusername = "user"\nnamecoinrpcpassword = "pass"\n'
        f"namecoinrpctimeout = {RPC_TIMEOUT_MS}\n"
    )
    process = await asyncio.create_subprocess_exec(
        program, f"-conf={settings}", stderr=asyncio.subprocess.DEVNULL, **options
    )
    try:
        async with asyncio.timeout(15):
            while True:
                assert process.returncode is None, "ncdns has ended"
                with contextlib.suppress(OSError, dns.exception.Timeout):
                    await ask(port, "bit.", "SOA", timeout=0.3)
                    break
                await asyncio.sleep(0.05)
        yield port
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def ask(
    port: int, name: str, rdtype: str, timeout: float = ANSWER_TIMEOUT_S
) -> dns.message.Message:
    query = question(name, rdtype, payload=4096)
    return await dns.asyncquery.udp(query, "127.0.0.1", port=port, timeout=timeout)


async def said(port: int, name: str, rdtype: str) -> Said:
    try:
        return Said.of(await ask(port, name, rdtype))
    except dns.exception.Timeout:
        return Said.silent(name)
    except dns.exception.FormError:
        return replace(Said.silent(name), rcode=MALFORMED)


@pytest.mark.interop
async def test_every_difference_from_ncdns_is_explained(tmp_path: Path) -> None:
    program = ncdns()
    rpc = RpcServer(core_methods(values()))
    async with rpc.running(), running(program, rpc, tmp_path) as theirs, serving(world()) as ours:
        assert ours.endpoint.port is not None
        unexplained = await differences(ours.endpoint.port, theirs, NAMES)
    assert not unexplained, "\n".join(unexplained)


async def differences(ours: int, theirs: int, names: Iterable[str]) -> list[str]:
    """What both ports say to all types of `names` and is not explained."""
    found = []
    for name in names:
        answers = await asyncio.gather(
            *(said(port, name, rdtype) for rdtype in TYPES for port in (ours, theirs))
        )
        for rdtype, we, they in zip(TYPES, answers[::2], answers[1::2], strict=True):
            _, without = explained(we, they)
            if we != without:
                found.append(f"{name} {rdtype}\n  ours  {we}\n  ncdns {they}")
    return found


MISSING: Final = ("zz", "www.zz", "_tcp", "_443._tcp", "*", "zz.www")
"""Labels that are asked for below each name, whether or not it has them."""


def suite() -> tuple[dict[str, bytes], list[str]]:
    """The values of all cases side by side, and the names to ask for."""
    values: dict[str, bytes] = {}
    names: list[str] = []
    for number, case in enumerate(cases()):
        own = {
            name.replace("example", f"case{number}x"): value.replace(
                b"example", b"case%dx" % number
            )
            for name, value in case.values.items()
        }
        name, *_ = own
        values |= own
        base = name.removeprefix("d/")
        names += [f"{base}.bit.", *(f"{labels}.{base}.bit." for labels in MISSING)]
        with contextlib.suppress(NamingError):
            nodes, _ = drive(Domain(base, own[name]).zone(), own)
            names += [f"{node.owner}." for node in nodes]
    return values, list(dict.fromkeys(names))


@pytest.mark.interop
@pytest.mark.timeout(900)
async def test_the_cases_of_nctestsuite_give_the_same_over_dns(tmp_path: Path) -> None:
    program = ncdns()
    chain, names = suite()
    rpc = RpcServer(core_methods({name.encode(): value for name, value in chain.items()}))
    async with (
        rpc.running(),
        running(program, rpc, tmp_path) as theirs,
        serving(world(chain)) as ours,
    ):
        assert ours.endpoint.port is not None
        unexplained = await differences(ours.endpoint.port, theirs, names)
    assert len(names) * len(TYPES) > 10_000
    assert not unexplained, "\n".join(unexplained)


def test_every_habit_has_its_row() -> None:
    subjects = {
        line.split(" | ")[0].removeprefix("| ") for line in DOCUMENT.read_text().splitlines()
    }
    assert {habit.row for habit in HABITS} <= subjects


def answer(*records: str) -> Said:
    return Said("NOERROR", True, frozenset(records))


def referral(*authority: str, additional: tuple[str, ...] = ()) -> Said:
    return Said("NOERROR", False, frozenset(), frozenset(authority), frozenset(additional))


LINK: Final = "www.x.bit. CNAME x.bit."
NS: Final = "x.bit. NS ns.x.bit."


@pytest.mark.parametrize(
    ("ours", "theirs", "rows"),
    [
        (answer("x.bit. A 192.0.2.1"), answer("x.bit. A 192.0.2.1"), []),
        (denial("NXDOMAIN"), denial("NXDOMAIN", frozenset()), ["NXDOMAIN"]),
        (denial(), denial(authority=frozenset()), ["a name without any record"]),
        (answer(LINK, "x.bit. A 192.0.2.1"), answer(LINK), ["alias inside `.bit`"]),
        (
            answer("x.bit. A 192.0.2.1"),
            answer("x.bit. A 192.0.2.1", "x.bit. A 10.0.0.1"),
            ["private and loopback addresses"],
        ),
        (denial(), answer("x.bit. A 10.0.0.1"), ["private and loopback addresses"]),
        (answer("x.bit. LOC 51 n"), denial(), ["`loc`, `sshfp`, `o`"]),
        (answer("x.bit. MX 5 m.x.bit."), denial(), ["`mx`"]),
        (answer("x.bit. MX 5 m.x.bit."), Said.silent("x.bit."), ["`mx` with a relative host"]),
        (Said("SERVFAIL", False), Said("SERVFAIL", True), ["AA of a failure"]),
        (
            replace(denial("NXDOMAIN"), name="y.x--nmc.bit."),
            replace(denial(authority=frozenset()), name="y.x--nmc.bit."),
            ["names below `x--nmc.bit`"],
        ),
        (
            replace(denial("NXDOMAIN"), name="a_b.bit."),
            Said("SERVFAIL", False, name="a_b.bit."),
            ["labels that cannot be registered"],
        ),
        (
            referral(NS),
            referral(NS, "x.bit. DS 1 13 2 00", additional=("ns.y.bit. A 192.0.2.1",)),
            ["glue", "`ds` in a referral"],
        ),
    ],
)
def test_what_is_known_is_explained(ours: Said, theirs: Said, rows: list[str]) -> None:
    assert explained(ours, theirs) == (rows, ours)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (answer("x.bit. A 192.0.2.1"), answer("x.bit. A 192.0.2.2")),
        (answer("x.bit. A 192.0.2.1"), answer("x.bit. A 192.0.2.1", "x.bit. A 192.0.2.2")),
        (answer("x.bit. A 192.0.2.1"), denial()),
        (answer("x.bit. A 10.0.0.1"), denial()),
        (denial(), denial("NXDOMAIN")),
        (denial("NXDOMAIN"), denial()),
        (Said("SERVFAIL", False), denial("NXDOMAIN")),
        (denial("NXDOMAIN"), Said("SERVFAIL", False)),
        (answer("x.bit. A 192.0.2.1"), Said("SERVFAIL", False)),
        (answer("x.bit. A 192.0.2.1"), Said.silent("x.bit.")),
        (denial(), Said.silent("x.bit.")),
        (Said("SERVFAIL", False), Said.silent("x.bit.")),
        (denial("NXDOMAIN"), denial(authority=frozenset())),
        (answer(LINK), answer("www.x.bit. CNAME y.bit.")),
        (referral(NS), referral("x.bit. NS ns.y.bit.")),
        (referral(NS), denial()),
    ],
)
def test_what_nobody_has_explained_stays(ours: Said, theirs: Said) -> None:
    assert explained(ours, theirs)[1] != ours
