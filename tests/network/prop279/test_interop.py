"""ncprop279 driven by our host and our controller, our plugin driven by the real StemNS.

No package client brings either: the Go module proxy did not hand out ncprop279's module,
StemNS is on no registry.  Built or cloned from their public repositories they are named in
the environment; without them their tests are skipped.

    NCPROP279_PATH   the program (or .cache/interop/bin/ncprop279, or on PATH)
    STEMNS_PATH      StemNS's directory, with stemns.py in it
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from isoproxy.errors import ErrorKind, NamingError
from prop279.host import Limits, PluginHost
from tests.kit import onion
from tests.kit.servers import WebServer
from tests.kit.streams import serving, stemns_with
from tests.kit.tornet import Node, TorNetwork
from tests.kit.waiting import until
from tests.process.prop279.test_main import ONION, PLUGIN, VALUES
from tests.unit.namecoin.rpc.server import RpcServer, core_methods

_CACHED = Path(".cache/interop/bin/ncprop279")
OPTIONS = "__LeaveStreamsUnattached 1\n"


def ncprop279() -> str:
    found = os.environ.get("NCPROP279_PATH") or shutil.which("ncprop279")
    if found is None and _CACHED.exists():
        found = str(_CACHED)
    if found is None:
        pytest.skip(
            "ncprop279 is not installed: build it from its public repository, set NCPROP279_PATH"
        )
    return found


def stemns() -> Path:
    path = os.environ.get("STEMNS_PATH")
    if path is None:
        pytest.skip("StemNS is on no registry; clone it and set STEMNS_PATH to its directory")
    return Path(path)


def command(program: Sequence[str], server: RpcServer, directory: Path) -> list[str]:
    """The plugin with ncprop279's own kind of file, which ours reads as well."""
    settings = directory / "ncprop279.conf"
    settings.write_text(
        f"[ncprop279]\nnamecoinrpcaddress = '{server.endpoint}'\n"
        "namecoinrpcusername = 'user'\nnamecoinrpcpassword = 'pass'\n"
        "namecoinrpctimeout = 10000\n"
    )
    return [*program, f"-conf={settings}"]


async def kind_of(plugin: PluginHost, name: str) -> ErrorKind:
    with pytest.raises(NamingError) as caught:
        await plugin.resolve(name, b"1")
    return caught.value.kind


@pytest.mark.interop
async def test_our_host_drives_ncprop279(tmp_path: Path) -> None:
    program = ncprop279()
    server = RpcServer(core_methods(VALUES))
    async with server.running():
        plugin_command = command([program], server, tmp_path)
        async with PluginHost(plugin_command, limits=Limits(query_timeout=20)) as plugin:
            assert (await plugin.resolve("example.bit", b"1")).host == ONION
            assert (await plugin.resolve("plain.bit", b"1")).host == "192.0.2.8"
            # with its library's versions since 2022 an absent name is a failure to it
            absent = (ErrorKind.NAME_ABSENT, ErrorKind.NAME_UNVERIFIABLE)
            assert await kind_of(plugin, "absent.bit") in absent
            assert await kind_of(plugin, "example.com") is ErrorKind.NAME_NEVER_SENT_TO_TOR


async def page_of(node: Node, host: str) -> tuple[int | None, bytes]:
    """curl's exit code and what it got through Tor's own SocksPort."""
    curl = await asyncio.create_subprocess_exec(
        "curl", "-sS", "-m", "30", "--socks5-hostname", "{}:{}".format(*node.socks),
        f"http://{host}/",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(curl.communicate(), 60)
    return curl.returncode, out


@pytest.mark.parametrize("whose", ["ours", pytest.param("ncprop279", marks=pytest.mark.interop)])
async def test_our_controller_drives_a_plugin(
    tor_network: TorNetwork, tmp_path: Path, whose: str
) -> None:
    """curl, Tor's SocksPort, `stemns`, the plugin, JSON-RPC, and back to an onion service."""
    program = PLUGIN if whose == "ours" else [ncprop279()]
    node = await asyncio.to_thread(tor_network.add_client, OPTIONS)
    with contextlib.ExitStack() as stack:
        web = stack.enter_context(WebServer(tor_network.server_ip))
        publishing = onion.publish(tor_network.client, {80: web.address})
        service = await asyncio.to_thread(stack.enter_context, publishing)
        value = json.dumps({"map": {"_tor": {"txt": service.host}}}).encode()
        server = RpcServer(core_methods({b"d/hidden": value}))
        async with (
            server.running(),
            serving(stemns_with(command(program, server, tmp_path), tmp_path, node)),
        ):
            code, page = await page_of(node, "hidden.bit")
            assert (code, page[:5]) == (0, b"exit=")
            asked = len(server.calls)
            assert (await page_of(node, "absent.bit"))[0] != 0
            assert len(server.calls) > asked
    assert not [name for name in tor_network.dns.names() if "bit" in name.lower().split(".")]


@pytest.mark.interop
async def test_the_real_stemns_drives_our_plugin(tor_network: TorNetwork, tmp_path: Path) -> None:
    source = stemns()
    shutil.copy(source / "stemns.py", tmp_path)
    (tmp_path / "config").mkdir()
    node = await asyncio.to_thread(tor_network.add_client, OPTIONS)
    (tmp_path / "hosts").write_text("web.bit www.test\n")
    hosts = [sys.executable, "-m", "prop279", "--hosts", str(tmp_path / "hosts")]
    port, ready = node.controlport[1], tmp_path / "ready"
    (tmp_path / "config" / "test.py").write_text(
        f"def tor_control_port():\n    return {port}\n"
        f"service_to_command = {{'bit': {hosts!r}}}\n"
        f"def bootstrap_callback():\n    open({str(ready)!r}, 'w').close()\n"
        "def exit_callback():\n    pass\n"
    )
    # StemNS takes a port on 127.0.0.1 only: give it the client's own address instead
    launcher = (
        "import runpy, stem.control\n"
        f"stem.control.Controller.from_port = lambda port: "
        f"stem.control.Controller.from_socket_file({node.control_path!r})\n"
        f"runpy.run_path({str(tmp_path / 'stemns.py')!r}, run_name='__main__')\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", launcher, env={**os.environ, "PYTHONPATH": os.getcwd()}
    )
    try:
        with WebServer(tor_network.server_ip) as web:
            await until(ready.exists, 20)
            curl = await asyncio.create_subprocess_exec(
                "curl", "-sS", "-m", "30", "--socks5-hostname", "{}:{}".format(*node.socks),
                f"http://web.bit:{web.port}/", stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            out, _ = await curl.communicate()
        assert out.startswith(b"exit=")
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
