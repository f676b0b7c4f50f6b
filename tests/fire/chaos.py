"""Chaos: whatever breaks, isoproxy's state is never corrupt, and it serves again.

    python -m tests.fire.chaos --minutes 5 --seed 1

Theory of operation
    While a small crowd of clients goes on, deeds are done in random order, each of them at
    least once: tor is killed, name servers are killed and lie, the name plugin is killed,
    the disk is full, the clock jumps, the configuration is bad at a reload, and isoproxy
    itself is killed at a random moment.  After each one the invariants are judged:

    * every kind of stream opens again, within two minutes, without anybody's help;
    * no byte and no address was ever wrong;
    * what is on disk is the true chain's, and isoproxy counted no defect.

    The seed decides the order and all choices; processes' timing is the machine's.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.fire.crowd import Crowd, Plan
from tests.fire.havoc_world import FAKETIME, NAMES, World, world

CROWD: Final = Plan(streams=20, names=4, peers=2, life=5.0, silence=1.0)
JUMPS_S: Final = (3600, -3600, 86400 * 400, -86400 * 400, 7, -7)
_BAD_FILES: Final = (
    b"[[listener]\n",
    b"\xff\xfe\x00 not text",
    b"observe.log_level = 'nonsense'\n",
    b"[[listener]]\naddress = 'example.com:1'\n",
    b"x = " + b"[" * 5000,
    b"a" + b".a" * 500 + b" = 1\n",
    b"# " + b"x" * (1 << 21),
    b"limits.max_connections = -1\n",
)


def kill_tor(there: World) -> None:
    there.tor.kill()
    time.sleep(there.chance.uniform(0, 5))
    there.tor.restart()


def kill_name_servers(there: World) -> None:
    """Any of them, all at times."""
    dead = there.chance.sample(there.servers, there.chance.randint(1, 3))
    for server in dead:
        server.kill()
    time.sleep(there.chance.uniform(0, 5))
    for server in dead:
        server.start()
    for server in dead:
        server.wait_ready()


def lie(there: World) -> None:
    """One server of three: names go on, and right.  Its lies are held against it."""
    there.tap.lying = True
    try:
        there.block()
        there.serves("lie, meanwhile")
    finally:
        there.tap.lying = False


def kill_plugin(there: World) -> None:
    there.plugin_serves()
    for _ in range(there.chance.randint(1, 3)):
        for pid in there.plugins():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(there.chance.uniform(0, 0.5))
    there.plugin_serves()


def fill_disk(there: World) -> None:
    """Blocks come while nothing can be stored; isoproxy is even restarted then."""
    ballast = there.state / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(512))
    try:
        for _ in range(50):
            there.block()
        there.serves("fill_disk, meanwhile")
        if there.chance.random() < 0.5:
            there.kill()
            there.start()
            there.serves("fill_disk, restarted meanwhile")
    finally:
        ballast.unlink()
    there.block()


def jump_clock(there: World) -> None:
    """What cannot be judged with a wrong clock may be refused; it comes back with the time."""
    there.set_clock(there.chance.choice(JUMPS_S))
    there.block()
    time.sleep(there.chance.uniform(2, 6))
    there.set_clock(0)


def reload_badly(there: World) -> None:
    config = there.proxy.config
    good = config.read_bytes()
    for bad in there.chance.sample(_BAD_FILES, 3):
        config.write_bytes(bad)
        os.kill(there.proxy.pid, signal.SIGHUP)
        assert there.proxy.command("reload").returncode, "a bad file was taken"
    there.serves("reload_badly, meanwhile")
    config.write_bytes(good)
    os.kill(there.proxy.pid, signal.SIGHUP)


def kill_isoproxy(there: World) -> None:
    """Several times, each at a random moment of a start, of a synchronisation, of traffic."""
    for _ in range(there.chance.randint(1, 4)):
        there.block()
        time.sleep(there.chance.choice((0.0, there.chance.uniform(0, 4))))
        there.kill()
        there.judge_state()
        there.start()


DEEDS: Final[list[Callable[[World], None]]] = [
    kill_tor,
    kill_name_servers,
    lie,
    kill_plugin,
    fill_disk,
    jump_clock,
    reload_badly,
    kill_isoproxy,
]


def skipped() -> dict[str, str]:
    """Deeds that cannot be done here, and why."""
    reasons = {}
    if os.geteuid() != 0:
        reasons["fill_disk"] = "a small disk can be mounted by root only"
    if not FAKETIME:
        reasons["jump_clock"] = "libfaketime is needed: apt-get install faketime"
    return reasons


def havoc(there: World, seconds: float, say: Callable[[str], None]) -> Counter[str]:
    """All deeds in random order, then random ones until the time is over."""
    done: Counter[str] = Counter()
    possible = [deed for deed in DEEDS if deed.__name__ not in skipped()]
    order = there.chance.sample(possible, len(possible))
    end = time.monotonic() + seconds
    while order or time.monotonic() < end:
        deed = order.pop() if order else there.chance.choice(possible)
        say(deed.__name__)
        deed(there)
        there.serves(deed.__name__)
        there.judge_state()
        done[deed.__name__] += 1
        time.sleep(there.chance.uniform(0, 2))
    return done


def run(minutes: float, seed: int, directory: Path) -> dict[str, Any]:
    """One run; raises AssertionError where an invariant broke."""
    began = time.monotonic()

    def say(deed: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {deed}", flush=True)

    with world(directory, random.Random(seed)) as there:
        there.serves("start")
        crowd = Crowd(
            there.proxy.address,
            CROWD,
            echo=("echo.test", there.echo.port),
            names=[f"chaos-{number}.bit" for number in range(NAMES)],
            peer=("peer.test", there.peer_port),
            seed=seed,
        )
        clients = threading.Thread(target=asyncio.run, args=(crowd.run(1.0),), daemon=True)
        clients.start()
        try:
            done = havoc(there, minutes * 60, say)
        finally:
            crowd.stop()
        clients.join(60)
        assert not clients.is_alive(), "clients did not come to their end"
        assert not crowd.tally.wrong, f"{crowd.tally.wrong} answers were wrong"
        return {
            "seed": seed,
            "minutes": round((time.monotonic() - began) / 60, 1),
            "deeds": done,
            "skipped": skipped(),
            "worst_recovery_s": {deed: max(times) for deed, times in there.recoveries.items()},
            "stored_headers": there.judge_state(),
            "flows": {
                "ended": crowd.tally.ended,
                "refused": crowd.tally.refused,
                "broken": crowd.tally.broken,
                "wrong": crowd.tally.wrong,
            },
        }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fire.chaos")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--out", type=Path, default=Path(".cache/fire/chaos"))
    options = parser.parse_args()
    print(f"chaos: {options.minutes} min, --seed {options.seed}", flush=True)
    for deed, reason in skipped().items():
        print(f"skipped: {deed}: {reason}")
    with tempfile.TemporaryDirectory(prefix="chaos") as name:
        report = run(options.minutes, options.seed, Path(name))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "chaos.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
