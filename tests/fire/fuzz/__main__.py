"""`python -m tests.fire.fuzz`: fuzzing guided by coverage; see the package's text.

What is found lands in .cache/fire/fuzz/: the corpus of each target, and inputs that broke
one, to be given to it again by `--input FILE`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Final

_PLACE: Final = Path(".cache/fire/fuzz")
_PACKAGES: Final = ["isoproxy", "prop279", "stemns_plugin"]
_EXTRA_S: Final = 120.0


def _fuzz(name: str, seconds: int) -> None:
    """Fuzz one target; libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=_PACKAGES):
        from tests.fire.fuzz.registry import TARGETS

    target = TARGETS[name]
    corpus = _PLACE / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed{number}").write_bytes(seed)
    options = [f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=2048", "-max_len=16384"]
    options += [f"-artifact_prefix={_PLACE}/{name}-", "-print_final_stats=1", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], lambda data: target.run(data) and None)
    atheris.Fuzz()


def _child(name: str, seconds: int) -> bool:
    """Fuzz one target in a process of its own, and say what came of it."""
    command = [sys.executable, "-m", "tests.fire.fuzz", name, "--seconds", str(seconds)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=seconds + _EXTRA_S
        )
    except subprocess.TimeoutExpired:
        print(f"{name:20} {'?':>10} inputs  FAILED: it did not end in time", flush=True)
        return False
    stats = dict(
        line.removeprefix("stat::").split(":", 1)
        for line in done.stderr.splitlines()
        if line.startswith("stat::")
    )
    ran = stats.get("number_of_executed_units", "?").strip()
    print(f"{name:20} {ran:>10} inputs  {'FAILED' if done.returncode else 'ok'}", flush=True)
    if done.returncode:
        print(done.stdout[-3000:], done.stderr[-3000:], sep="\n", flush=True)
    return not done.returncode


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fire.fuzz")
    parser.add_argument("target", nargs="?", help="without one: list them")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("-s", "--seconds", type=int, default=60)
    parser.add_argument("--input", type=Path, help="feed this file once, without a fuzzer")
    options = parser.parse_args()
    if options.target and not options.input:
        _fuzz(options.target, options.seconds)
    from tests.fire.fuzz.registry import TARGETS

    if options.input:
        print("well-formed" if TARGETS[options.target].run(options.input.read_bytes()) else "not")
        return 0
    if not options.all:
        print("\n".join(TARGETS))
        return 0
    outcomes = [_child(name, options.seconds) for name in TARGETS]
    return 0 if all(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
