"""A pytest plugin that writes down how each test ended, for `python -m tests.mutation`.

    pytest -p tests.mutation.verdict --verdict FILE ...

FILE gets one JSON object: node id without parameters -> list of endings.  An ending is
"passed", "skipped", "assertion" (the test said that something is not as it has to be) or
the name of another exception's type, which tells nothing about a claim.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

_ENDINGS = pytest.StashKey[dict[str, list[str]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--verdict", metavar="FILE", required=True)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_ENDINGS] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call" or not report.passed:
        node_id = item.nodeid.partition("[")[0]
        ended = ending(report.outcome, call.excinfo.value if call.excinfo else None)
        if report.when != "call" and ended == "assertion":
            ended = f"{report.when} failed"
        item.config.stash[_ENDINGS].setdefault(node_id, []).append(ended)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    file = Path(str(session.config.getoption("--verdict")))
    file.write_text(json.dumps(session.config.stash[_ENDINGS]))


def ending(outcome: str, error: BaseException | None) -> str:
    """How a test ended whose report says `outcome`, with the exception it raised, if any."""
    if error is None or outcome == "skipped":
        return outcome
    kinds = {_kind(leaf) for leaf in _leaves(error)}
    return kinds.pop() if len(kinds) == 1 else "several errors"


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _kind(error: BaseException) -> str:
    if isinstance(error, pytest.fail.Exception):
        # pytest-timeout fails tests too, and says so
        return "timeout" if "Timeout" in str(error) else "assertion"
    return "assertion" if isinstance(error, AssertionError) else type(error).__name__
