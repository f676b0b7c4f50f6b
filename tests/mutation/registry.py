"""The claims of docs/threat-model.md, and for each the changes that would make it false.

Theory of operation
    A claim is a paragraph of the threat model that begins with `**C<number>.**` and names,
    by node id, the tests that hold it.  `mutants.toml` has, for each claim, *mutants*: a
    place in the source, what is put there instead, and the test that must then fail.  The
    run itself is `python -m tests.mutation`.

Invariants
    A mutant changes one place of one file: its `before` occurs there exactly once.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.kit.repository import ROOT

THREAT_MODEL: Final = Path("docs/threat-model.md")
EVIDENCE: Final = Path("docs/evidence/mutants.md")
MUTANTS: Final = Path(__file__).with_name("mutants.toml")

_CLAIM: Final = re.compile(r"^\*\*(C[0-9]+)\.\*\* ", re.MULTILINE)
_SECTION: Final = re.compile(r"^#", re.MULTILINE)
_NODE_ID: Final = re.compile(r"`(tests/[\w/]+\.py::\w+(?:::\w+)?)`")


@dataclass(frozen=True)
class Mutant:
    """One change to the source.

    claim   the claim it makes false, e.g. "C7"
    breaks  what goes wrong then, in a few words
    file    the source file, from the root of the repository
    before  text that occurs in it exactly once
    after   what stands there instead
    test    node id of a test function that must fail
    """

    claim: str
    breaks: str
    file: str
    before: str
    after: str
    test: str

    def applied_to(self, source: str) -> str:
        """`source` with the change made; ValueError unless its place is there once."""
        if source.count(self.before) != 1:
            raise ValueError(f"{self.file}: occurs {source.count(self.before)} times, not once")
        return source.replace(self.before, self.after)


def mutants(file: Path = MUTANTS) -> list[Mutant]:
    """All mutants, in the order of the file."""
    return [Mutant(**entry) for entry in tomllib.loads(file.read_text())["mutant"]]


def claims(text: str) -> dict[str, set[str]]:
    """Each claim of the threat model's `text`, with the node ids of its tests."""
    found: dict[str, set[str]] = {}
    starts = list(_CLAIM.finditer(text))
    for start, end in zip(starts, [*starts[1:], None], strict=True):
        claim = text[start.end() : len(text) if end is None else end.start()]
        heading = _SECTION.search(claim)
        if start[1] in found:
            raise ValueError(f"{start[1]} stands there twice")
        found[start[1]] = set(_NODE_ID.findall(claim[: heading.start() if heading else None]))
    return found


def killers_by_claim(all_mutants: Iterable[Mutant]) -> dict[str, set[str]]:
    """Each claim that has mutants, with the tests that kill them."""
    found: dict[str, set[str]] = {}
    for mutant in all_mutants:
        found.setdefault(mutant.claim, set()).add(mutant.test)
    return found


def is_defined(node_id: str, root: Path = ROOT) -> bool:
    """Whether the file of `node_id` defines its test, so that pytest would collect it."""
    file, *names = node_id.split("::")
    try:
        body: Iterable[ast.AST] = ast.parse((root / file).read_text()).body
    except FileNotFoundError:
        return False
    node: ast.AST | None = None
    for name in names:
        node = next((one for one in body if getattr(one, "name", None) == name), None)
        body = node.body if isinstance(node, ast.ClassDef) else ()
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
