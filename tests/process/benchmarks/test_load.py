"""The load generator and the far end, compiled and run against each other for a moment."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.measuring import Load, LoadError
from benchmarks.running import FarEnd, cpu_seconds, far_end, free_address, pss_kilobytes

pytestmark = pytest.mark.skipif(
    shutil.which("cc") is None, reason="the load generator is C and no C compiler is installed"
)


@pytest.fixture(scope="module")
def end(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarEnd]:
    with far_end(Path(tmp_path_factory.mktemp("far"))) as running:
        yield running


@pytest.fixture(params=["direct", "tcp", "unix"])
def load(request: pytest.FixtureRequest, end: FarEnd) -> Load:
    proxy = {"direct": None, "tcp": end.socks, "unix": end.socks_unix}[request.param]
    return Load(end.base_port, proxy, distinct=True)


@pytest.mark.parametrize("mode", ["throughput", "upload"])
def test_throughput_moves_bytes_for_as_long_as_asked(load: Load, mode: str) -> None:
    got = load.run(mode, count=2, seconds=0.1)
    assert got["bytes"] > 0
    assert 0.1 <= got["seconds"] < 2


def test_handshakes_are_complete(load: Load) -> None:
    got = load.run("handshakes", count=4, seconds=0.1)
    assert 0 < got["handshakes"] <= got["done"] <= got["handshakes"] + 4


@pytest.mark.parametrize("mode", ["roundtrip", "setup"])
def test_latencies_are_ordered(load: Load, mode: str) -> None:
    got = load.run(mode, count=50)
    assert got["count"] == 50
    assert 0 < got["p50_us"] <= got["p99_us"]


def test_a_proxy_that_is_not_there_is_an_error(end: FarEnd) -> None:
    host, port = free_address()
    with pytest.raises(LoadError, match="connect"):
        Load(end.base_port, f"{host}:{port}").run("setup")


def test_a_service_instead_of_a_proxy_is_an_error(end: FarEnd) -> None:
    with pytest.raises(LoadError, match="greeting"):
        Load(end.base_port, f"127.0.1.1:{end.base_port + 1}").run("setup")


def test_cpu_time_and_memory_of_the_far_end_are_seen(end: FarEnd) -> None:
    before = cpu_seconds(end.pid)
    began = time.monotonic()
    Load(end.base_port, None).run("throughput", count=1, seconds=0.2)
    assert 0 < cpu_seconds(end.pid) - before <= time.monotonic() - began + 0.02
    assert pss_kilobytes(end.pid) > 0
