"""The laws of the house that no linter knows: circles, sizes, a test file for each module,
the specification that a codec cites, and the field's words.

(Which room may import which is in the contracts of `pyproject.toml`.)
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

from tests.kit.repository import ROOT

PACKAGES: Final = ("isoproxy", "prop279", "stemns_plugin")
MAX_LINES: Final = 400
MAX_SHARE: Final = 0.20
"""Of the product's lines, in one room."""
SUB_ROOMS: Final = frozenset(
    {"isoproxy/namecoin", "isoproxy/tor", "isoproxy/bitcoin", "isoproxy/daemon"}
)
"""Folders whose folders are rooms themselves."""
WITHOUT_A_TEST_FILE: Final = frozenset({"__init__.py", "__main__.py"})
SPECIFICATION: Final = re.compile(
    r"Specification: |RFC [0-9]+|BIP[0-9]+|IFA-[0-9]+|control-spec|rend-spec|proposal [0-9]+"
    r"|Electrum protocol|[a-z]+\([1-8]\)",
    re.IGNORECASE,
)
OF_NO_PROTOCOL: Final = frozenset(
    f"isoproxy.{name}"
    for name in (
        "bitcoin.buffer",
        "bitcoin.converter",
        "bitcoin.flow",
        "bitcoin.flows",
        "bitcoin.known_peers",
        "front.states",
        "isolation.client",
        "isolation.key",
        "isolation.renewals",
        "namecoin.chain.anchor",
        "namecoin.chain.cooperative",
        "namecoin.electrum.rate_limit",
        "namecoin.electrum.scores",
        "namecoin.resolve.answer",
        "namecoin.resolve.cache",
    )
) | {"stemns_plugin.lookup_shares"}
"""Modules without I/O that follow no document of others."""
OLD_WORDS: Final = re.compile(
    r"(?<![a-z])(ByClientNetwork|Entrance|Farewell|Wish|await_room|defect_ended\w*"
    r"|favourite|hand_over|Ledger|in_turns|is_suspect|pass_on|patience|scarcity|stranger|torside"
    r"|worker_talks_nonsense)s?(?![a-z])",
    re.IGNORECASE,
)
"""What the glossary's words have replaced: one word for one thing."""


def modules() -> list[Path]:
    """Every file of the product, from the root of the repository."""
    return sorted(
        file.relative_to(ROOT) for package in PACKAGES for file in (ROOT / package).rglob("*.py")
    )


def lines(file: Path) -> int:
    return len((ROOT / file).read_text().splitlines())


def dotted(file: Path) -> str:
    parts = file.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imports() -> dict[str, set[str]]:
    """For each module those of the product that it imports, anywhere in it, types included."""
    files = {dotted(file): file for file in modules()}
    return {
        name: set(_imported(ast.parse((ROOT / file).read_text()), files)) - {name}
        for name, file in files.items()
    }


def _imported(tree: ast.Module, known: Mapping[str, Path]) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name in known]
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, "imports are absolute"
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [name if name in known else node.module for name in whole]
    return [name for name in found if name in known]


def circles(graph: Mapping[str, set[str]]) -> set[frozenset[str]]:
    """The strongly connected parts of more than one node (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: set[frozenset[str]] = set()

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            part = frozenset(stack[at:])
            del stack[at:]
            if len(part) > 1:
                found.add(part)

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def room(file: Path) -> str:
    """The folder of DESIGN that `file` is in; single files at the top are one room."""
    folder = str(Path(*file.parts[:2])) if len(file.parts) > 2 else file.parts[0]
    if folder in SUB_ROOMS and len(file.parts) > 3:
        return str(Path(*file.parts[:3]))
    return folder


def test_no_circle_of_files() -> None:
    assert circles(imports()) == set()


def test_circles_are_seen() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": set[str]()}
    assert circles(graph) == {frozenset("abc")}
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == set()


def test_imports_for_types_count() -> None:
    tree = ast.parse("if TYPE_CHECKING:\n    from isoproxy.a import B\nimport isoproxy.c\n")
    known = {"isoproxy.a": Path("a"), "isoproxy.c": Path("c")}
    assert set(_imported(tree, known)) == {"isoproxy.a", "isoproxy.c"}


def test_no_module_is_too_long() -> None:
    long = {str(file) for file in modules() if lines(file) > MAX_LINES}
    assert long == set()


def test_every_module_has_a_test_file_of_its_own() -> None:
    missing = set()
    for file in modules():
        if file.name in WITHOUT_A_TEST_FILE:
            continue
        inner = file.relative_to("isoproxy") if file.parts[0] == "isoproxy" else file
        tests = [
            ROOT / "tests" / tier / inner.parent / f"test_{inner.name}"
            for tier in ("unit", "process", "network")
        ]
        if not any(test.is_file() for test in tests):
            missing.add(str(file))
    assert missing == set()


def test_no_room_is_a_hall() -> None:
    sizes: Counter[str] = Counter()
    for file in modules():
        sizes[room(file)] += lines(file)
    halls = {name for name, size in sizes.items() if size > MAX_SHARE * sizes.total()}
    assert halls == set()


def codecs() -> set[str]:
    """The modules that the contracts of pyproject.toml keep from I/O; packages by their modules."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    named = [
        name
        for contract in contracts["contracts"]
        if contract["type"] == "forbidden"
        for name in contract["source_modules"]
    ]
    return {
        dotted(file)
        for file in modules()
        if any(f"{dotted(file)}.".startswith(f"{name}.") for name in named)
    }


def test_every_codec_cites_its_specification() -> None:
    known, silent = codecs(), set()
    for file in modules():
        if dotted(file) in known - OF_NO_PROTOCOL:
            text = ast.get_docstring(ast.parse((ROOT / file).read_text())) or ""
            if not SPECIFICATION.search(text):
                silent.add(str(file))
    assert silent == set()
    assert known >= OF_NO_PROTOCOL


def test_one_word_for_one_thing() -> None:
    """In the product, its tests and its documentation."""
    here = Path(__file__)
    texts = [
        file
        for folder in (*PACKAGES, "tests", "benchmarks", "docs", "examples", "packaging", "manual")
        for kind in ("*.py", "*.md", "*.toml")
        for file in (ROOT / folder).rglob(kind)
        if file != here and not {"evidence", ".cache"} & set(file.parts)
    ]
    found = {
        f"{file.relative_to(ROOT)}: {word[0]}"
        for file in texts
        for word in OLD_WORDS.finditer(file.read_text())
    }
    assert found == set()
    assert OLD_WORDS.search("test_who_hand_overs_what")
    assert not OLD_WORDS.search("wishing")


def test_every_target_of_make_is_explained() -> None:
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", "")
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    targets = {name for name in phony[1].split() if not name.startswith("packages-")}
    explained = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
    assert targets == explained
