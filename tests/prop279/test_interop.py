"""ncprop279 driven by our host, our plugin driven by the real StemNS: where they are there.

Neither can be installed with a package client: ncprop279's module is not on the Go module
proxy, StemNS is on no registry.  Paths come from the environment:

    NCPROP279_PATH   the program (or .cache/interop/bin/ncprop279, or on PATH)
    STEMNS_PATH      StemNS's directory, with stemns.py in it
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
from pathlib import Path

import pytest

from isoproxy.errors import ErrorKind, NamingError
from prop279.host import Limits, PluginHost
from tests.isoproxy.names.rpc_server import RpcServer, core_methods
from tests.kit.servers import WebServer
from tests.kit.tornet import TorNetwork
from tests.prop279.test_main import ONION, VALUES

_CACHED = Path(".cache/interop/bin/ncprop279")
OPTIONS = "__LeaveStreamsUnattached 1\n"


def ncprop279() -> str:
    found = os.environ.get("NCPROP279_PATH") or shutil.which("ncprop279")
    if found is None and _CACHED.exists():
        found = str(_CACHED)
    if found is None:
        pytest.skip(
            "ncprop279 is not there; build it from its source (its Go module is not on the "
            "module proxy) and set NCPROP279_PATH"
        )
    return found


def stemns() -> Path:
    path = os.environ.get("STEMNS_PATH")
    if path is None:
        pytest.skip("StemNS is on no registry; clone it and set STEMNS_PATH to its directory")
    return Path(path)


@pytest.mark.interop
async def test_our_host_drives_ncprop279(tmp_path: Path) -> None:
    program = ncprop279()
    server = RpcServer(core_methods(VALUES))
    async with server.running():
        (tmp_path / "ncprop279.conf").write_text(
            f"[ncprop279]\nnamecoinrpcaddress = '{server.endpoint}'\n"
            "namecoinrpcusername = 'user'\nnamecoinrpcpassword = 'pass'\n"
        )
        command = [program, f"-conf={tmp_path / 'ncprop279.conf'}"]
        async with PluginHost(command, limits=Limits(query_timeout=20)) as plugin:
            assert (await plugin.resolve("example.bit", b"1")).host == ONION
            assert (await plugin.resolve("plain.bit", b"1")).host == "192.0.2.8"
            with pytest.raises(NamingError) as caught:
                await plugin.resolve("absent.bit", b"1")
            assert caught.value.kind is ErrorKind.NAME_ABSENT


@pytest.mark.interop
async def test_the_real_stemns_drives_our_plugin(tor_network: TorNetwork, tmp_path: Path) -> None:
    source = stemns()
    shutil.copy(source / "stemns.py", tmp_path)
    (tmp_path / "config").mkdir()
    node = await asyncio.to_thread(tor_network.add_client, OPTIONS)
    (tmp_path / "hosts").write_text("web.bit www.test\n")
    command = [sys.executable, "-m", "prop279", "--hosts", str(tmp_path / "hosts")]
    port = node.controlport[1]
    (tmp_path / "config" / "test.py").write_text(
        f"def tor_control_port():\n    return {port}\n"
        f"_service_to_command = {{'bit': {command!r}}}\n"
        "def _bootstrap_callback():\n    pass\ndef _exit_callback():\n    pass\n"
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
            await asyncio.sleep(2)
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
