"""The examples of docs/api.md run as they stand, against a SocksPort in this process."""

from __future__ import annotations

import asyncio
import functools
import inspect
import re
from collections.abc import Callable

import pytest

import isoproxy
from isoproxy.socks import Request, Server
from tests.kit.repository import ROOT
from tests.kit.socks_port import SocksPort

PAGE = (ROOT / "docs" / "api.md").read_text()
EXAMPLES = re.findall(r"^```python\n(import .*?)^```", PAGE, re.MULTILINE | re.DOTALL)
UNREACHABLE = b"\x05\x04\x00\x01" + bytes(6)


async def web(
    request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: Server
) -> None:
    """A web server at `example.com`, and nothing anywhere else."""
    if request.host != b"example.com":
        writer.write(UNREACHABLE)
        return
    writer.write(server.succeed())
    said = server.leftover
    while not said.endswith(b"\r\n\r\n"):
        said += await reader.read(4096)
    writer.write(b"HTTP/1.0 200 OK\r\n\r\n")


@pytest.mark.parametrize(
    ("example", "printed", "identity"),
    [
        (EXAMPLES[0], "HTTP/1.0 200 OK\n", b"alice"),
        (EXAMPLES[1], "HTTP/1.0 200 OK\n", b"bob"),
        (EXAMPLES[2], "no way there\n", b"carol"),
    ],
    ids=["connect", "create_connection", "errors"],
)
async def test_examples(
    example: str,
    printed: str,
    identity: bytes,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with SocksPort(web) as port:
        for function in (isoproxy.connect, isoproxy.create_connection):
            there = functools.partial(function, proxy=port.endpoint)
            monkeypatch.setattr(isoproxy, function.__name__, there, raising=False)
        await asyncio.to_thread(exec, example, {})
        assert capsys.readouterr().out == printed
        assert [request.username for request in port.requests] == [identity]


def test_every_example_is_run() -> None:
    assert len(EXAMPLES) == 3


@pytest.mark.parametrize("function", [isoproxy.connect, isoproxy.create_connection])
def test_signatures(function: Callable[..., object]) -> None:
    shown = re.search(rf"def {function.__name__}\((.*?)\)\n", PAGE)
    assert shown is not None
    parameters = inspect.signature(function).parameters.values()
    written = [one.replace(annotation=inspect.Parameter.empty) for one in parameters]
    assert shown[1].replace('"', "'") == str(inspect.Signature(written))[1:-1]
