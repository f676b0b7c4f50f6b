"""`make mutants`: shows each claim of the threat model failing once.

python -m tests.mutation                    all mutants; writes docs/evidence/mutants.md
python -m tests.mutation --only C7          those of one claim; writes nothing
python -m tests.mutation --jobs 1           one after the other
"""

from __future__ import annotations

import argparse
import platform
import queue
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Final

from tests.kit.repository import ROOT
from tests.mutation.registry import EVIDENCE, Mutant, mutants
from tests.mutation.run import Copy, Outcome

_HEAD: Final = """\
# Each claim of the threat model, broken once

Made by `make mutants`. Each line is one change to a copy of the source that makes a claim of
[the threat model](../threat-model.md) false; the test beside it passes on the source as it is
and failed with an assertion on the changed one. The changes themselves are in
`tests/mutation/mutants.toml`.
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation")
    parser.add_argument("--only", metavar="CLAIM", action="append", help="e.g. C7; may be repeated")
    parser.add_argument("--jobs", type=int, default=2, help="mutants tried at once (default: 2)")
    options = parser.parse_args()
    chosen = [one for one in mutants() if not options.only or one.claim in options.only]
    if not chosen:
        parser.error("no such claim has mutants")
    began = time.monotonic()
    with ExitStack() as stack:
        copies = [stack.enter_context(Copy()) for _ in range(options.jobs)]
        tests = list(dict.fromkeys(mutant.test for mutant in chosen))
        print(f"{len(tests)} tests on the unchanged source ...", flush=True)
        failed = copies[0].failures(tests)
        for test, ending in failed.items():
            print(f"does not pass on the unchanged source ({ending}): {test}")
        if failed:
            return 1
        outcomes = try_all(chosen, copies)
    survivors = [outcome for outcome in outcomes if not outcome.killed]
    seconds = time.monotonic() - began
    print(f"{len(outcomes) - len(survivors)} of {len(outcomes)} killed in {seconds:.0f} s")
    if not options.only and not survivors:
        file = ROOT / EVIDENCE
        file.parent.mkdir(exist_ok=True)
        file.write_text(report(outcomes, seconds))
        print(f"wrote {EVIDENCE}")
    return 1 if survivors else 0


def try_all(chosen: Sequence[Mutant], copies: Sequence[Copy]) -> list[Outcome]:
    """The outcome of each mutant, in order; says each one as soon as it is there."""
    free: queue.SimpleQueue[Copy] = queue.SimpleQueue()
    for copy in copies:
        free.put(copy)

    def try_out(mutant: Mutant) -> Outcome:
        copy = free.get()
        try:
            outcome = copy.try_out(mutant)
        finally:
            free.put(copy)
        word = "killed" if outcome.killed else f"NOT KILLED ({outcome.ending})"
        print(f"{mutant.claim:4} {word}: {mutant.breaks}  [{mutant.test}]", flush=True)
        return outcome

    with ThreadPoolExecutor(len(copies)) as workers:
        return list(workers.map(try_out, chosen))


def report(outcomes: Sequence[Outcome], seconds: float) -> str:
    """The evidence as a page."""
    claims = len({outcome.mutant.claim for outcome in outcomes})
    lines = [
        _HEAD,
        f"{len(outcomes)} mutants of {claims} claims, all killed, in {seconds:.0f} s "
        f"(Python {platform.python_version()}).",
        "",
        "| claim | what is broken | where | the test that fails |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {one.claim} | {one.breaks} | `{one.file}` | `{one.test}` |"
        for one in (outcome.mutant for outcome in outcomes)
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
