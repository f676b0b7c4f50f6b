"""`isoproxy exec` against a running isoproxy, whose Tor is a SocksPort of ours."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.kit.namespaces import skip_without_namespaces
from tests.kit.service import Outcome, Service, environment, running, system_tor
from tests.kit.socks_port import SocksPort
from tests.kit.waiting import until
from tests.kit.web_everywhere import web


@contextlib.asynccontextmanager
async def served(directory: Path, *more: str) -> AsyncIterator[tuple[Service, SocksPort]]:
    skip_without_namespaces()
    async with (
        SocksPort(web) as tor,
        running(directory, *system_tor(tor, *more), workers=2) as service,
    ):
        yield service, tor


def words(*program: str, options: tuple[str, ...] = ()) -> list[str]:
    return [sys.executable, "-m", "isoproxy", "exec", *options, "--", *program]


async def execute(service: Service, *program: str, options: tuple[str, ...] = ()) -> Outcome:
    """Run a program in a network of its own to its end."""
    process = await asyncio.create_subprocess_exec(
        *words(*program, options=options),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(service.directory),
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Outcome(process.returncode, out.decode(), err.decode())


def curl(*more: str) -> tuple[str, ...]:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    return ("curl", "-sS", "--max-time", "30", *more)


async def test_names_and_addresses_arrive_as_they_were_asked_for(tmp_path: Path) -> None:
    onion = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion"
    async with served(tmp_path) as (service, tor):
        urls = ["http://Example.ORG./", f"http://{onion}:81/", "http://93.184.216.34/"]
        urls += ["http://[2606:2800::1]:8080/"]
        got = await execute(service, *curl(*urls))
        assert (got.code, got.err) == (0, "")
        assert got.out.splitlines() == [
            "b'example.org' 80",
            f"b'{onion}' 81",
            "b'93.184.216.34' 80",
            "b'2606:2800::1' 8080",
        ]
        assert len({request.password for request in tor.requests}) == 1
        assert await service.stop() == 0


async def test_a_label_is_an_identity_and_without_one_each_start_is(tmp_path: Path) -> None:
    async with served(tmp_path) as (service, tor):
        used = []
        for options in (("--isolation", "a"), ("--isolation", "b"), ("--isolation", "a"), (), ()):
            tor.requests.clear()
            got = await execute(service, *curl("http://example.org"), options=options)
            assert got.code == 0, got.err
            (password,) = {request.password for request in tor.requests}
            used.append(password)
        assert used[0] == used[2]
        assert len(set(used)) == 4
        for login in ("a:", "a:a", ":a", ":"):  # whatever a client of SOCKS sends
            tor.requests.clear()
            proxy = f"socks5h://{login}@127.0.0.1:{service.port()}"
            process = await asyncio.create_subprocess_exec(
                *curl("--proxy", proxy, "http://example.org"), stdout=asyncio.subprocess.DEVNULL
            )
            await process.wait()
            (password,) = {request.password for request in tor.requests}
            assert password not in used
        assert await service.stop() == 0


_ATTEMPTS = """
import errno, os, socket, sys

def attempt(what, family, kind, work, protocol=0):
    try:
        with socket.socket(family, kind, protocol) as sock:
            sock.settimeout(5)
            print(what, work(sock))
    except OSError as error:
        print(what, errno.errorcode.get(error.errno, error))

port, abstract = int(sys.argv[1]), sys.argv[2]
V4, V6, TCP, UDP = socket.AF_INET, socket.AF_INET6, socket.SOCK_STREAM, socket.SOCK_DGRAM
attempt("udp", V4, UDP, lambda s: s.sendto(b"x", ("9.9.9.9", 443)))
attempt("udp6", V6, UDP, lambda s: s.sendto(b"x", ("2620:fe::fe", 443)))
attempt("mdns", V4, UDP, lambda s: s.sendto(b"x", ("224.0.0.251", 5353)))
attempt("raw", V4, socket.SOCK_RAW, lambda s: s.sendto(b"x", ("9.9.9.9", 0)), 255)
attempt("ping", V4, UDP, lambda s: s.sendto(b"x", ("9.9.9.9", 0)), socket.IPPROTO_ICMP)
attempt("packet", socket.AF_PACKET, socket.SOCK_RAW, lambda s: s.bind(("lo", 0)))
attempt("dns over tcp", V4, TCP, lambda s: s.connect(("9.9.9.9", 53)))
attempt("dns over tls", V6, TCP, lambda s: s.connect(("2620:fe::fe", 853)))
attempt("loopback of the host", V4, TCP, lambda s: s.connect(("127.0.0.1", port)))
attempt("loopback of the host", V6, TCP, lambda s: s.connect(("::1", port)))
attempt("abstract", socket.AF_UNIX, TCP, lambda s: s.connect("\\0" + abstract))
print("interfaces", [name for _, name in socket.if_nameindex()])
print("other processes", os.path.exists("/proc/1/root/"))
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
print("routes", libc.setns(os.open("/proc/self/ns/net", 0), 0))
print("mounts", libc.umount2(b"/etc/nsswitch.conf", 0))
"""


async def test_nothing_else_leads_out(tmp_path: Path) -> None:
    abstract = f"isoproxy-test-{tmp_path.name}"
    async with served(tmp_path) as (service, tor):
        with socket.create_server(("127.0.0.1", 0)) as host, socket.socket(socket.AF_UNIX) as unix:
            unix.bind(f"\0{abstract}")
            unix.listen()
            port = str(host.getsockname()[1])
            got = await execute(service, sys.executable, "-c", _ATTEMPTS, port, abstract)
        assert got.err == ""
        assert got.out.splitlines() == [
            "udp EPERM",
            "udp6 EPERM",
            "mdns EPERM",
            "raw EPERM",
            "ping EACCES",
            "packet EPERM",
            "dns over tcp ECONNREFUSED",
            "dns over tls ECONNREFUSED",
            "loopback of the host ECONNREFUSED",
            "loopback of the host ECONNREFUSED",
            "abstract ECONNREFUSED",
            "interfaces ['lo']",
            "other processes False",
            "routes -1",
            "mounts -1",
        ]
        assert tor.requests == []
        assert await service.stop() == 0


_OWN_RESOLVER = r"""
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(void) {
    static const unsigned char query[] = "\1\1\1\0\0\1\0\0\0\0\0\0\7example\3org\0\0\1\0\1";
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons(53)};
    unsigned char answer[512];
    inet_pton(AF_INET, "8.8.8.8", &there.sin_addr);
    int udp = socket(AF_INET, SOCK_DGRAM, 0), tcp = socket(AF_INET, SOCK_STREAM, 0);
    sendto(udp, query, sizeof query - 1, 0, (void *)&there, sizeof there);
    long size = recv(udp, answer, sizeof answer, 0);
    memcpy(&there.sin_addr, answer + size - 4, 4);
    there.sin_port = htons(80);
    if (connect(tcp, (void *)&there, sizeof there)) return 1;
    write(tcp, "GET / HTTP/1.0\r\n\r\n", 18);
    while ((size = read(tcp, answer, sizeof answer)) > 0) fwrite(answer, size, 1, stdout);
    return 0;
}
"""


async def test_a_static_program_with_a_resolver_of_its_own(tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    program = tmp_path / "program"
    source = tmp_path / "program.c"
    source.write_text(_OWN_RESOLVER)
    compiler = await asyncio.create_subprocess_exec("gcc", "-static", source, "-o", program)
    if await compiler.wait():
        pytest.skip("nothing can be linked statically here")
    async with served(tmp_path) as (service, _):
        got = await execute(service, str(program))
        assert (got.code, got.out.splitlines()[-1:]) == (0, ["b'example.org' 80"])
        assert await service.stop() == 0


def descriptors(pids: list[int]) -> list[int]:
    return [len(os.listdir(f"/proc/{pid}/fd")) for pid in pids]


async def test_it_is_the_program_and_nothing_is_left_behind(tmp_path: Path) -> None:
    async with served(tmp_path, "observe.log_level=info") as (service, _):
        status = json.loads((await service.ask("status", "--json")).out)
        pids = [status["pid"], *(worker["pid"] for worker in status["workers"])]
        before = descriptors(pids)
        assert (await execute(service, "sh", "-c", "exit 7")).code == 7
        missing = await execute(service, "/no/such/program")
        assert (missing.code, missing.err) == (
            127,
            "isoproxy: /no/such/program: there is no such program\n",
        )
        assert (await execute(service, "/dev/null")).code == 126
        await service.logged("event=program_ended programs=0")
        await until(lambda: service.text().count("event=program_ended") == 3)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
            ours, theirs = pty.openpty()
            process = await asyncio.create_subprocess_exec(
                *words("sh", "-c", "test -t 0 && echo begun && exec sleep 600"),
                stdin=theirs,
                stdout=asyncio.subprocess.PIPE,
                env=environment(service.directory),
            )
            os.close(theirs)
            assert process.stdout is not None
            async with asyncio.timeout(60):
                assert await process.stdout.readline() == b"begun\n"
                assert sum(descriptors(pids)) > sum(before)
                process.send_signal(number)
                assert await process.wait() == -number
            os.close(ours)
        await until(lambda: service.text().count("event=program_ended") == 6)
        await until(lambda: sum(descriptors(pids)) <= sum(before))
        assert await service.stop() == 0


async def test_a_browser_has_a_profile_that_is_gone_with_it(tmp_path: Path) -> None:
    firefox = tmp_path / "firefox"
    firefox.write_text('#!/bin/sh\necho "$@"\ncat "$3/user.js" && echo x >"$3/history"\n')
    firefox.chmod(0o755)
    async with served(tmp_path) as (service, _):
        for _ in range(2):
            got = await execute(service, str(firefox), options=("--browser",))
            assert got.code == 0, got.err
            profile = got.out.split()[2]
            assert 'user_pref("browser.fixup.domainsuffixwhitelist.bit", true);' in got.out
            assert Path(profile).parent == tmp_path / "run"
            assert (tmp_path / "run").stat().st_nlink == 2  # there is no directory in it
        kept = tmp_path / "kept"
        await execute(service, str(firefox), options=("--browser", "--profile", str(kept)))
        assert (kept / "history").exists()
        refused = await execute(service, "sh", options=("--browser",))
        assert (refused.code, "--browser is for Firefox" in refused.err) == (1, True)
        assert await service.stop() == 0


async def test_what_is_wrong_is_said_before_the_program_begins(tmp_path: Path) -> None:
    skip_without_namespaces()
    nobody = Service(tmp_path, None)  # type: ignore[arg-type]
    got = await execute(nobody, "echo", "begun")
    assert (got.code, got.out) == (1, "")
    assert "no isoproxy listens at" in got.err
    assert (await execute(nobody)).code == 2
    assert (await execute(nobody, "true", options=("--profile", "x"))).code == 2
