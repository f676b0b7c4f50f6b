"""`lint-imports` catches I/O in every codec and imports against the order of the rooms."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRODUCT = ("isoproxy", "prop279", "stemns_plugin")
LINT = Path(sys.executable).with_name("lint-imports")
CODECS = (
    "isoproxy/bitcoin/bip324/*.py",
    "isoproxy/bitcoin/buffer.py",
    "isoproxy/bitcoin/messages.py",
    "isoproxy/bitcoin/options.py",
    "isoproxy/bitcoin/traffic.py",
    "isoproxy/bitcoin/translator.py",
    "isoproxy/bitcoin/v1.py",
    "isoproxy/dns/answer.py",
    "isoproxy/dns/query.py",
    "isoproxy/dns/render.py",
    "isoproxy/front/judgement.py",
    "isoproxy/front/states.py",
    "isoproxy/isolation/*.py",
    "isoproxy/namecoin/chain/*.py",
    "isoproxy/namecoin/electrum/rate_limit.py",
    "isoproxy/namecoin/electrum/results.py",
    "isoproxy/namecoin/electrum/scores.py",
    "isoproxy/namecoin/electrum/wire.py",
    "isoproxy/namecoin/resolve/answer.py",
    "isoproxy/namecoin/resolve/cache.py",
    "isoproxy/namecoin/resolve/resolution.py",
    "isoproxy/namecoin/value/*.py",
    "isoproxy/net/host_name.py",
    "isoproxy/net/onion_address.py",
    "isoproxy/net/target.py",
    "isoproxy/observe/http_get.py",
    "isoproxy/sharing.py",
    "isoproxy/socks/*.py",
    "isoproxy/tls/client_hello.py",
    "isoproxy/tor/control/events.py",
    "isoproxy/tor/control/wire.py",
    "isoproxy/tor/managed/torrc.py",
    "prop279/protocol.py",
    "stemns_plugin/filter_policy.py",
    "stemns_plugin/grammar.py",
    "stemns_plugin/lookup_shares.py",
    "stemns_plugin/streams.py",
)
KEEPS_FILES = "isoproxy.namecoin.chain.store"
UPWARDS = (
    ("isoproxy.namecoin.limits", "isoproxy.namecoin.backend"),
    ("isoproxy.namecoin.backend", "isoproxy.namecoin.value"),
    ("isoproxy.namecoin.value.json", "isoproxy.namecoin.chain"),
    ("isoproxy.namecoin.chain.params", "isoproxy.namecoin.electrum"),
    ("isoproxy.namecoin.rpc.client", "isoproxy.namecoin.resolve"),
    ("isoproxy.namecoin.resolve.cache", "isoproxy.dns"),
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the product to spoil."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in PRODUCT:
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignore)
    return tmp_path


def modules(patterns: Sequence[str]) -> list[str]:
    """The dotted names of the modules that exist for each of `patterns`, packages left out."""
    found = []
    for pattern in patterns:
        paths = [path for path in ROOT.glob(pattern) if path.name != "__init__.py"]
        assert paths, f"{pattern} is not there; the codec has moved"
        found += [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    return found


def spoil(tree: Path, module: str, imported: str) -> None:
    path = tree / module.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    path.write_text(f"{path.read_text()}\nimport {imported}\n")


def broken_edges(tree: Path) -> set[tuple[str, str]]:
    """The imports that `lint-imports` complains about."""
    lint = subprocess.run([LINT, "--no-cache"], cwd=tree, capture_output=True, text=True)
    assert lint.returncode == 1, lint.stdout
    return set(re.findall(r"([\w.]+) -> ([\w.]+) \(", lint.stdout))


def test_a_socket_in_any_codec_is_found(tree: Path) -> None:
    codecs = [module for module in modules(CODECS) if module != KEEPS_FILES]
    for module in codecs:
        spoil(tree, module, "socket")
    found = {importer for importer, imported in broken_edges(tree) if imported == "socket"}
    assert found == set(codecs)


def test_imports_against_the_order_of_the_rooms_of_names_are_found(tree: Path) -> None:
    for importer, imported in UPWARDS:
        spoil(tree, importer, imported)
    assert broken_edges(tree) >= set(UPWARDS)
