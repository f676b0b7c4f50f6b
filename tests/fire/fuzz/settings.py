"""What a person writes: TOML, `--set`, lines of a torrc, addresses, multiaddrs, servers."""

from __future__ import annotations

import contextlib
import tomllib
from typing import Final

from isoproxy.config.lines import key_lines
from isoproxy.config.sample import sample_toml
from isoproxy.config.sources import merge, read_document, read_option
from isoproxy.config.torline import parse_tor_line
from isoproxy.errors import ConfigError
from isoproxy.multiaddr import Multiaddr, parse_destination
from isoproxy.namecoin.electrum.servers import parse_server
from isoproxy.net.endpoint import Endpoint
from tests.fire.fuzz.target import FuzzTarget

_ONION: Final = b"2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid"
_TOML: Final = b"""\
tor.mode = "system"  # dotted
[[listener]]
address = "127.0.0.1:9250"
isolate = ["ClientAddr",
  "SOCKSAuth"]
[names.electrum]
servers = [ '''a:1:s''' ]
[[listener]]
socks = "unix:/run/x IsolateDestAddr"
"""


def _document(data: bytes) -> None:
    """A document is settings or a list of problems; what is wrong with it raises nothing."""
    problems: list[str] = []
    table = read_document("a.toml", data, problems)
    merge(table, read_document("b.toml", data, problems))
    assert all(problem.startswith(("a.toml", "b.toml")) for problem in problems)


def _lines(data: bytes) -> None:
    """Every key of a document that is TOML has a line: it is asked of such only."""
    document = data.decode("utf-8", "replace").replace("\r\n", "\n")
    try:
        keys = tomllib.loads(document)
    except (ValueError, RecursionError):
        return
    found = key_lines(document)
    last = document.count("\n") + 1
    assert all(1 <= line <= last for line in found.values())
    assert {(key,) for key in keys if key.isalnum()} <= found.keys()


def _option(data: bytes) -> None:
    read_option(data.decode("utf-8", "replace"), [])


def _tor_line(data: bytes) -> None:
    parse_tor_line(data.decode("utf-8", "replace"))


def _address(data: bytes) -> None:
    address = Endpoint.parse_listening(data.decode("utf-8", "replace"))
    assert Endpoint.parse_listening(str(address)) == address


def _multiaddr(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    with contextlib.suppress(ConfigError):
        parse_destination(text)
    found = Multiaddr.parse(text)
    assert Multiaddr.parse(str(found)) == found


def _server(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    server = parse_server(text)
    assert server.target.port


TARGETS: Final = [
    FuzzTarget("toml", _document, (), [_TOML, sample_toml().encode()]),
    FuzzTarget("toml-lines", _lines, (), [_TOML]),
    FuzzTarget("set-option", _option, (), [b"tor.mode=system", b'listener.isolate=["a", 1]']),
    FuzzTarget(
        "tor-line",
        _tor_line,
        (ValueError,),
        [b"127.0.0.1:9250 IsolateDestAddr SessionGroup=3", b"unix:/run/x NoIsolateClientAddr"],
    ),
    FuzzTarget("address", _address, (ConfigError,), [b"127.0.0.1:80", b"[::1]:80", b"unix:/run/x"]),
    FuzzTarget(
        "multiaddr",
        _multiaddr,
        (ConfigError,),
        [b"/dns4/a.test/tcp/80", b"/ip4/192.0.2.1/tcp/8333", b"/onion3/" + _ONION + b":80"],
    ),
    FuzzTarget(
        "name-server",
        _server,
        (ConfigError,),
        [b"a.test:50002:s:" + b"ab" * 32, _ONION + b".onion:50001:t"],
    ),
]
