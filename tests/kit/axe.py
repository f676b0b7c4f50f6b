"""Axe's judgement of a page: what keeps people who see, hear or move differently out."""

from __future__ import annotations

from typing import Final

from tests.kit.chromium import Page
from tests.kit.npm import npm_package

_RUN: Final = """
axe.run(document).then((found) => { window.found = found; },
  (error) => { window.found = { error: String(error) }; }), 0
"""
_FAULTS: Final = """found.error ?? found.violations.map((fault) =>
  fault.id + ': ' + fault.nodes.map((node) => node.target.join(' ')).join(', ')).join('; ')"""


def faults(page: Page) -> str:
    """Each fault that axe finds on the page as it is, with where; "" if there is none."""
    page.value((npm_package("axe-core") / "axe.min.js").read_text() + ";0")
    page.value("window.found = undefined, 0")
    page.value(_RUN)
    page.wait_for("window.found !== undefined", 60)
    return str(page.value(_FAULTS))
