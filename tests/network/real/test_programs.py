"""Promise: no program that people use shares what its page says that it does not.

And each that shares has a warning in docs/evidence/programs.md, whose rows are these.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.kit.repository import ROOT
from tests.kit.tornet import TorNetwork
from tests.network.real.table import PAGE, observe
from tests.network.real.uses import USES, Use, needs
from tests.network.real.world import World, installed, world

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def here(tor_network: TorNetwork, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tor_network, tmp_path_factory.mktemp("real")) as made:
        yield made


@pytest.mark.parametrize("use", USES, ids=lambda use: f"{use.program}, {use.port}, {use.how}")
def test_a_program_shares_what_its_page_says(here: World, use: Use) -> None:
    if missing := installed(*needs(use)):
        pytest.skip(f"there is no {missing} here")
    seen = observe(use, here)
    assert (seen.identities, seen.apart) == (use.identities, use.apart and use.identities > 0)


def test_the_table_has_these_rows() -> None:
    """Versions and circuits are of the day that it was made."""
    rows = [re.split(r" *\| *", line) for line in (ROOT / PAGE).read_text().splitlines()]
    cells = [(row[1], row[3], row[4], row[6]) for row in rows if len(row) > 6][2:]
    expected = [(use.program, str(use.port), use.how, str(use.identities)) for use in USES]
    assert cells == expected
