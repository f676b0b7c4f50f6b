"""The example dashboard and alert rules name metrics that there are, and labels that these have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import pytest

from isoproxy.errors import ErrorKind
from isoproxy.observe.metrics import Metrics
from tests.kit.repository import ROOT

EXAMPLES: Final = ROOT / "examples" / "prometheus"
BUILT_IN: Final = {"le", "quantile"}


def known() -> dict[str, set[str]]:
    """Each series by name, and its labels."""
    metrics = Metrics(["default"], ["version"])
    found: dict[str, set[str]] = {}
    lines = metrics.exposition().splitlines()
    for name in (line.split()[2] for line in lines if line.startswith("# TYPE")):
        found[name] = set()
    for family in metrics.families():
        labels = set(family.labels)
        endings = ("_bucket", "_sum", "_count") if "_seconds" in family.name else ("",)
        found.update({family.name + ending: labels for ending in endings})
    return found


def expressions() -> Iterator[str]:
    dashboard: Any = json.loads((EXAMPLES / "grafana.json").read_text())
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    yield from re.findall(r"^ +expr: (.+)$", (EXAMPLES / "alerts.yml").read_text(), re.M)


@pytest.mark.parametrize("expression", list(expressions()))
def test_an_expression_names_what_there_is(expression: str) -> None:
    series = known()
    names = re.findall(r"isoproxy_\w+", expression)
    assert names
    for name in names:
        assert name in series, f"{name} is no metric"
    labels = set(re.findall(r"by \(([\w, ]+)\)", expression)) - BUILT_IN
    labels |= set(re.findall(r"(\w+)=\"", expression))
    assert labels <= set.union(*(series[name] for name in names)) | BUILT_IN
    for kind in re.findall(r'kind="(\w+)"', expression):
        assert kind in {known_kind.value for known_kind in ErrorKind}


def test_the_legends_name_labels_of_their_expression() -> None:
    dashboard: Any = json.loads((EXAMPLES / "grafana.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                assert f"by ({label})" in target["expr"], panel["title"]
