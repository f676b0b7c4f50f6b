"""Fixtures that tests share: short directories, one private Tor network for the session."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.repository import ROOT
from tests.kit.tornet import TorNetError, TorNetwork

_log = logging.getLogger(__name__)
_STARTED = pytest.StashKey[TorNetwork]()


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose sockets' paths fit: pytest's own are too long for some test names."""
    with tempfile.TemporaryDirectory(prefix="iso") as directory:
        yield Path(directory)


@pytest.fixture(scope="session")
def tor_network(pytestconfig: pytest.Config) -> Iterator[TorNetwork]:
    """One authority, four exits, one client; started at first use, ended with the session.

    A test that kills its client, configures it or counts its circuits starts one of its
    own with `tor_network.temporary_client()`.
    """
    network = TorNetwork()
    try:
        network.start()
    except TorNetError as error:
        pytest.fail(f"The private Tor network did not start.  {error}", pytrace=False)
    pytestconfig.stash[_STARTED] = network
    _log.info("private Tor network up in %.1f s", network.startup_seconds)
    yield network
    network.stop()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever asks for the network is marked `network`, and in that tier."""
    for item in items:
        if isinstance(item, pytest.Function) and "tor_network" in item.fixturenames:
            item.add_marker(pytest.mark.network)
            if not item.path.is_relative_to(ROOT / "tests" / "network"):
                raise pytest.UsageError(f"for tests/network: {item.nodeid}")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say what the network cost."""
    network = config.stash.get(_STARTED, None)
    if network is not None:
        terminalreporter.write_line(f"private Tor network: up in {network.startup_seconds:.1f} s")
