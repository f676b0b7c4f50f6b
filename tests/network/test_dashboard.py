"""Promise: the dashboard shows isoproxy at work in a real browser, which asks nobody else,
has nothing to complain of, and lets no other page look.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.axe import faults
from tests.kit.chromium import Chromium
from tests.kit.dial import dial
from tests.kit.isoproxy_process import Isoproxy, system
from tests.kit.servers import EchoServer
from tests.kit.tornet import TorNetwork

PARTS = ("", "style.css", "script.js", "charts.js", "icon.svg", "status.json", "history.json")

CUT_OFF = """
document.querySelectorAll('td.number').forEach(cell => {
    if (/B$/.test(cell.textContent)) cell.textContent = '888.8 MB';
}),
document.querySelectorAll('td.relays').forEach(cell => {
    cell.textContent = '89ABCDEF → '.repeat(5);
}),
[...document.querySelectorAll('.table')].filter(one => one.scrollWidth > one.clientWidth)
    .map(one => one.innerText)
"""
"""The tables that are wider than the screen, with a day's bytes and an onion's relays in them."""


def test_a_browser_shows_a_live_flow(tmp_path: Path, tor_network: TorNetwork) -> None:
    settings = [*system(tor_network.client), 'observe.dashboard="127.0.0.1:0"']
    with (
        EchoServer(tor_network.server_ip) as echo,
        Isoproxy(tmp_path, settings) as proxy,
        Chromium(tmp_path) as chromium,
    ):
        proxy.wait_ready()
        with dial(proxy.address, "marked.test", echo.port, user=b"alice") as stream:
            stream.sendall(b"12345")
            assert stream.recv(5, 0x100) == b"12345"  # MSG_WAITALL
            (flow,) = proxy.status()["flows"]
            url = proxy.status()["dashboard"]
            page = chromium.open(url, width=390, height=844)
            page.wait_for("document.querySelector('#flows')?.innerText.includes('relaying')")
            cells = page.value("[...document.querySelectorAll('#flows td')].map(c => c.innerText)")
            assert flow["key"] in cells
            assert flow["circuits"][0] in cells
            assert "5 B" in cells
            shown = page.value("document.documentElement.outerHTML")
            assert "marked" not in shown
            assert "alice" not in shown
            assert page.value("document.querySelector('#live').className") == "good"
            assert page.value("document.documentElement.scrollWidth <= innerWidth")
            page.wait_for("document.querySelector('#throughput polyline') !== null")
            page.value("document.querySelector('#identities button').click(), 0")
            assert page.value("document.querySelector('#identity-name').innerText") == flow["key"]
            for width in (320, 360, 390, 480, 761):
                page.look(width=width, height=640)
                assert page.value(CUT_OFF) == [], width
                assert page.value("document.documentElement.scrollWidth <= innerWidth")
            assert page.complaints == []
            assert set(page.requests) == {url + part for part in PARTS}
            # what the policy forbids it does forbid: the complaints above would have told
            page.value("document.head.append(document.createElement('style')), 0")
            page.value("document.querySelector('style').textContent = 'p {color: red}', 0")
            page.wait_for("document.querySelector('style').sheet === null")
            assert any("Content Security Policy" in one for one in page.complaints)
            # another site's page may not even have it as a picture or in a frame
            other = chromium.open("data:text/html,<p>other")
            other.value(f"fetch('{url}status.json').then(() => 0, () => document.title = 'no'), 0")
            other.wait_for("document.title === 'no'")


@pytest.mark.interop
def test_axe_finds_no_fault_in_any_light(tmp_path: Path, tor_network: TorNetwork) -> None:
    settings = [*system(tor_network.client), 'observe.dashboard="127.0.0.1:0"']
    with (
        EchoServer(tor_network.server_ip) as echo,
        Isoproxy(tmp_path, settings) as proxy,
        Chromium(tmp_path) as chromium,
    ):
        proxy.wait_ready()
        with dial(proxy.address, "marked.test", echo.port, user=b"alice"):
            page = chromium.open(proxy.status()["dashboard"], width=1160, height=720)
            page.wait_for("document.querySelector('#throughput polyline') !== null")
            page.value("document.querySelector('#identities button').click(), 0")
            for width, dark in ((1160, False), (1160, True), (320, False)):
                page.look(width=width, height=720, dark=dark)
                assert faults(page) == ""
