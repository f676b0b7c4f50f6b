"""The recipes of packaging/dns and docs/dns.md with the real programs they are for."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import pytest

from isoproxy.dns.server import DnsServer
from tests.kit.ports import free_port
from tests.kit.repository import ROOT
from tests.unit.dns.kit import KEY, lines, question, rcode, serving, world
from tests.unit.dns.table import (
    ABSENT,
    FAILING,
    ON_THE_WAY,
    RECORDS,
    REDIRECTED,
    REFERRED,
    THERE_AND_BACK,
    TRANSLATING,
    TYPES,
)

RECIPES = ROOT / "packaging" / "dns"


def program(name: str) -> str:
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        pytest.skip(f"{name} is not installed (apt: unbound, bind9-dnsutils, dnsmasq-base)")
    return path


async def run(*arguments: str) -> str:
    """What a program printed, once it ended well."""
    process = await asyncio.create_subprocess_exec(
        *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(30):
        out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    return out.decode()


async def ask(port: int, message: dns.message.Message) -> dns.message.Message:
    return await dns.asyncquery.udp(message, "127.0.0.1", port=port, timeout=10)


@contextlib.asynccontextmanager
async def resolver(port: int, *arguments: str) -> AsyncIterator[int]:
    """A real resolver in the foreground, answering at `port`."""
    process = await asyncio.create_subprocess_exec(
        *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(15):
            while True:
                try:
                    probe = question("version.server.", "A")
                    await dns.asyncquery.udp(probe, "127.0.0.1", port=port, timeout=0.3)
                    break
                except (OSError, dns.exception.Timeout):
                    if process.returncode is not None:
                        assert process.stdout is not None
                        pytest.fail((await process.stdout.read()).decode())
                    await asyncio.sleep(0.05)
        yield port
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


def recipe(name: str, server: DnsServer, directory: Path) -> str:
    """A shipped drop-in with this test's port and files in it."""
    text = (RECIPES / name).read_text()
    port = str(server.endpoint.port)
    assert "5353" in text
    return text.replace("5353", port).replace("/etc/unbound/bit.anchor", f"{directory}/bit.anchor")


@contextlib.asynccontextmanager
async def unbound(server: DnsServer, directory: Path) -> AsyncIterator[int]:
    """Unbound with the shipped drop-in, validating from our trust anchor."""
    path = program("unbound")
    port = free_port()
    (directory / "bit.anchor").write_text(KEY.anchor() + "\n")
    (directory / "bit.conf").write_text(recipe("unbound-bit.conf", server, directory))
    (directory / "unbound.conf").write_text(
        f"""
server:
    interface: 127.0.0.1
    port: {port}
    username: ""
    chroot: ""
    directory: "{directory}"
    pidfile: ""
    use-syslog: no
    verbosity: 1
    num-threads: 1
    module-config: "validator iterator"
    val-clean-additional: yes
    do-ip6: no
remote-control:
    control-enable: no
include: "{directory}/bit.conf"
# There is no Internet here: everything that is not .bit is told so at once.
auth-zone:
    name: "."
    zonefile: "{directory}/root.zone"
    for-downstream: no
    for-upstream: yes
"""
    )
    (directory / "root.zone").write_text(
        ". 3600 IN SOA ns.invalid. . 1 3600 3600 3600 60\n. 3600 IN NS ns.invalid.\n"
    )
    async with resolver(port, path, "-d", "-c", str(directory / "unbound.conf")):
        yield port


def is_secure(response: dns.message.Message) -> bool:
    return bool(response.flags & dns.flags.AD)


def with_ad(name: str, rdtype: str) -> dns.message.Message:
    return question(name, rdtype, dnssec=True, payload=4096)


async def test_unbound_finds_everything_secure_and_absence_proved(tmp_path: Path) -> None:
    here = world(signed=True, clock=time.time)
    async with serving(here) as server, unbound(server, tmp_path) as port:
        for name, records in {**RECORDS, **TRANSLATING}.items():
            for rdtype in TYPES:
                if (name, rdtype) == ("bit.", "DS"):
                    continue  # the root's to answer
                response = await ask(port, with_ad(name, rdtype))
                assert rcode(response) == "NOERROR", (name, rdtype)
                assert is_secure(response), (name, rdtype)
                if rdtype == "DNSKEY" and name == "bit.":
                    continue
                expected = sorted(f"{name} {rdtype} {data}" for data in records.get(rdtype, ()))
                assert lines(response.answer) == expected
        for name in ABSENT:
            response = await ask(port, with_ad(name, "A"))
            assert is_secure(response), name
            assert response.answer == []
        for name in FAILING:
            assert rcode(await ask(port, with_ad(name, "A"))) == "SERVFAIL"


async def test_unbound_follows_redirections_and_refuses_a_wrong_key(tmp_path: Path) -> None:
    here = world(signed=True, clock=time.time)
    async with serving(here) as server, unbound(server, tmp_path) as port:
        for name in ("www.plain.bit.", "alias.bit.", "mail.trans.bit."):
            response = await ask(port, with_ad(name, "A"))
            assert rcode(response) == "NOERROR"
            assert is_secure(response)
            expected = [*REDIRECTED[name].links]
            target = REDIRECTED[name].target
            expected += [f"{target} A {data}" for data in RECORDS[target]["A"]]
            assert lines(response.answer) == sorted(expected)
        for name in REFERRED:
            if name == REFERRED[name].cut:
                assert is_secure(await ask(port, with_ad(name, "DS")))
    wrong = world(signed=True, clock=lambda: 1_000_000_000.0)  # signatures of 2001
    async with serving(wrong) as server, unbound(server, tmp_path) as port:
        assert rcode(await ask(port, with_ad("plain.bit", "A"))) == "SERVFAIL"
    async with serving(world()) as server, unbound(server, tmp_path) as port:
        assert rcode(await ask(port, with_ad("plain.bit", "A"))) == "SERVFAIL"


async def test_unbound_goes_twice_through_one_translation(tmp_path: Path) -> None:
    here = world(THERE_AND_BACK, signed=True, clock=time.time)
    async with serving(here) as server, unbound(server, tmp_path) as port:
        query = with_ad("x.there.bit.", "A")
        query.flags |= dns.flags.CD  # its validator takes the second pass for a forgery
        response = await ask(port, query)
        assert rcode(response) == "NOERROR"
        assert lines(response.answer) == sorted(ON_THE_WAY)


async def test_delv_validates(tmp_path: Path) -> None:
    delv = program("delv")
    anchor = tmp_path / "bit.keys"
    key = KEY.anchor().splitlines()[0].partition(" DNSKEY ")[2].split(" ", 3)
    anchor.write_text(
        f'trust-anchors {{ bit. static-key {" ".join(key[:3])} "{key[3].replace(" ", "")}"; }};\n'
    )
    here = world(signed=True, clock=time.time)
    async with serving(here) as server:
        base = (delv, "@127.0.0.1", "-p", str(server.endpoint.port), "-a", str(anchor), "+root=bit")
        assert "; fully validated" in await run(*base, "plain.bit", "A")
        assert "192.0.2.1" in await run(*base, "www.plain.bit", "A")
        absent = await run(*base, "nowhere.bit", "A")
        assert "fully validated" in absent
        assert "negative response" in absent
        assert "fully validated" in await run(*base, "plain.bit", "SRV")
        assert "fully validated" in await run(*base, "alias.bit", "NSEC")


async def test_dig_with_an_isolation_id(tmp_path: Path) -> None:
    dig = program("dig")
    here = world()
    async with serving(here) as server:
        base = (dig, "@127.0.0.1", "-p", str(server.endpoint.port))
        plain = await run(*base, "+short", "plain.bit", "A")
        assert sorted(plain.split()) == ["192.0.2.1", "192.0.2.2"]
        for isolation in ("7461622031", "7461622032"):  # "tab 1", "tab 2"
            out = await run(*base, f"+ednsopt=65312:{isolation}", "plain.bit", "A")
            assert (
                "OPT=65312: "
                + " ".join(isolation[at : at + 2] for at in range(0, len(isolation), 2))
                in out
            )
        assert len({key for _, key in here.backend.asked}) == 3
        assert "OPT=65312" not in await run(*base, "plain.bit", "A")
        assert "status: NXDOMAIN" in await run(*base, "nowhere.bit", "A")
        assert "status: REFUSED" in await run(*base, "version.bind", "TXT", "CH")
        whole = await run(*base, "+tcp", "+short", "plain.bit", "TXT")
        assert sorted(whole.splitlines()) == ['"one"', '"two" "three"']


async def test_dnsmasq(tmp_path: Path) -> None:
    path = program("dnsmasq")
    port = free_port()
    async with serving(world()) as server:
        configuration = tmp_path / "dnsmasq.conf"
        configuration.write_text(
            f"port={port}\nlisten-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\n"
            "pid-file=\nuser=\n" + recipe("dnsmasq-bit.conf", server, tmp_path)
        )
        async with resolver(port, path, "-k", "-C", str(configuration)):
            for name in ("plain.bit.", "mail.plain.bit."):
                response = await ask(port, question(name, "A"))
                expected = [f"{name} A {data}" for data in RECORDS[name]["A"]]
                assert lines(response.answer) == expected
            chased = await ask(port, question("www.plain.bit.", "A"))
            assert "plain.bit. A 192.0.2.1" in lines(chased.answer)
            assert rcode(await ask(port, question("nowhere.bit", "A"))) == "NXDOMAIN"
