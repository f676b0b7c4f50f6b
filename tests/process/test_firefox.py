"""Debian's Firefox with `examples/browser/user.js`, the preferences of its how-to page."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.kit.firefox import PROGRAM, Firefox
from tests.kit.repository import ROOT
from tests.kit.socks_port import SocksPort
from tests.kit.waiting import until
from tests.unit.front.test_frontend import Table, front_end

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="there is no firefox-esr: apt install it")

PREFERENCES = (ROOT / "examples/browser/user.js").read_text()


async def test_a_bit_name_that_is_typed_reaches_isoproxy_as_a_name(tmp_path: Path) -> None:
    """Without the preferences it goes to a search engine, who learns the name."""
    names = Table({"name.bit": "192.0.2.5"})
    async with SocksPort() as port, front_end(port, names=names) as front:
        preferences = PREFERENCES.replace(
            "9251", str(front.listeners["test"].settings.endpoint.port)
        )

        def browse() -> None:
            with Firefox(tmp_path, preferences) as firefox:
                firefox.type_address("name.bit")
                asyncio.run_coroutine_threadsafe(until(lambda: names.asked), loop).result(60)

        loop = asyncio.get_running_loop()
        await asyncio.to_thread(browse)
    assert {host for host, _ in names.asked} == {"name.bit"}
    assert b"name.bit" not in {request.host for request in port.requests}
