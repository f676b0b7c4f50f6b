"""Debian's Firefox with the root: what opens under it, and what is refused, by whom.

The front end, its certificates and the TLS are real; Tor and the sites are scripted ones in this
process, since what is asked here is what a browser makes of our certificates.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from isoproxy.tls.outcome import TlsOutcome
from tests.kit.firefox import PROGRAM, Firefox, FirefoxError
from tests.kit.repository import ROOT as TREE
from tests.kit.socks_port import Serve
from tests.unit.tls.shaking import name_of, with_names
from tests.unit.tls.sites import NOW, party, record
from tests.unit.tls.world import HOST, ISSUER, ONION, ROOT, OneSite, https_world, pages

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(PROGRAM is None, reason="there is no firefox-esr: apt install it"),
]

PREFERENCES = (TREE / "examples/browser/user.js").read_text()
ROOT_BASE64 = "".join(ROOT.certificate_pem().decode().splitlines()[1:-1])
SITE = party(HOST, hosts=(HOST,))
KNOWN = OneSite("192.0.2.7", record(3, 1, 1, SITE.spki))


async def browse(
    tmp_path: Path, sites: OneSite, serve: Serve, visit: Callable[[Firefox], None]
) -> set[TlsOutcome]:
    """What became of the streams of `visit`, in a Firefox that has imported the root."""
    async with https_world(sites, serve) as world:
        port = world.front.listeners["test"].settings.endpoint.port

        def run() -> None:
            with Firefox(tmp_path, PREFERENCES.replace("9251", str(port))) as firefox:
                firefox.trust(ROOT_BASE64)
                visit(firefox)

        await asyncio.to_thread(run)
        return set(world.outcomes)


def opens(url: str) -> Callable[[Firefox], None]:
    def visit(firefox: Firefox) -> None:
        firefox.open(url)
        assert firefox.value("document.body.textContent") == "hello"
        assert firefox.value("window.isSecureContext") is True
        assert firefox.identity() == "verifiedDomain"

    return visit


def refused(url: str, why: str) -> Callable[[Firefox], None]:
    def visit(firefox: Firefox) -> None:
        with pytest.raises(FirefoxError, match=why):
            firefox.open(url)

    return visit


async def test_an_onion_service_without_tls_opens_with_a_padlock(tmp_path: Path) -> None:
    visit = opens(f"https://{HOST}/")
    assert await browse(tmp_path, OneSite(ONION), pages(None), visit) == {TlsOutcome.ONION}


async def test_a_site_with_the_certificate_of_its_record_opens_with_a_padlock(
    tmp_path: Path,
) -> None:
    visit = opens(f"https://{HOST}/")
    assert await browse(tmp_path, KNOWN, pages(SITE.pem), visit) == {TlsOutcome.RECORD}


async def test_a_site_with_another_certificate_is_refused_by_us(tmp_path: Path) -> None:
    impostor = pages(party(HOST, hosts=(HOST,)).pem)
    outcomes = await browse(tmp_path, KNOWN, impostor, refused(f"https://{HOST}/", "neterror"))
    assert outcomes == {TlsOutcome.WRONG_CERTIFICATE}


@pytest.mark.parametrize("host", ["example.org", "1.1.1.1"])
async def test_under_the_root_other_names_and_addresses_are_refused_by_the_browser(
    tmp_path: Path, host: str
) -> None:
    """A thief of the intermediate's key signs for `host`, and answers in its place.

    That for a name under bit the browser would take it (here on a port that is not answered
    by us) shows that nothing else is wrong with the certificate.
    """
    thief = pages(with_names(ISSUER, [name_of(host)], NOW))
    alone = pages(with_names(ISSUER, [name_of(HOST)], NOW))
    believed = opens(f"https://{HOST}:8443/")
    (tmp_path / "believed").mkdir()
    (tmp_path / "refused").mkdir()
    assert await browse(tmp_path / "believed", KNOWN, alone, believed) == set()
    visit = refused(f"https://{host}/", "insecure certificate")
    assert await browse(tmp_path / "refused", KNOWN, thief, visit) == set()
