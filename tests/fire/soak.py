"""Soak: thousands of flows for half an hour, a new identity every minute, and nothing grows.

    python -m tests.fire.soak --minutes 30 --flows 3000 --out docs/evidence

Theory of operation
    The private Tor network, three real ElectrumX servers behind it, an echo server and a v2
    Bitcoin node are the world; one isoproxy serves a `Crowd`.  Every minute it gets a new
    identity, and the chain a block.  The samples after the warm-up are judged: memory
    (resident, and what of it is isoproxy's own), descriptors and tasks must be flat.  At the
    end all clients leave, and what isoproxy then holds must be what it held before they came,
    but for the connections to name servers, which end a quarter of an hour after their last use.

    The samples (soak.csv) and what the run was (soak.json) stay in the folder of `--out`;
    `python -m tests.fire.plots` draws them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from isoproxy.admin.client import ask
from tests.fire.crowd import Crowd, Plan
from tests.fire.judge import growth
from tests.fire.sampling import Sampler, memory_kb, read
from tests.kit.isoproxy_process import Isoproxy, descriptors, many_descriptors, pids, system
from tests.kit.tornet import TorNetwork
from tests.network.bitcoin_ends import v2_node
from tests.network.name_world import NameWorld, name_world
from tests.network.test_endurance import Echo

NAMES: Final = 10
TOLERANCE: Final = {"rss_kb": 0.05, "anonymous_kb": 0.05, "descriptors": 0.03, "tasks": 0.05}
"""By what share of its median each curve may grow between warm-up and end."""
DIRTINESS_S: Final = 120
"""Tor's circuits reach their number, and with it what isoproxy knows of them, in some of these:
with Tor's own ten minutes not before the run is half over."""
_CALM_S: Final = 60.0


@dataclass
class World:
    """Everything beside the crowd."""

    network: TorNetwork
    names: NameWorld
    echo: Echo
    peer_port: int
    proxy: Isoproxy


@contextlib.contextmanager
def world(directory: Path) -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(TorNetwork())
        with network.client.control() as control:
            control.check(f"SETCONF MaxCircuitDirtiness={DIRTINESS_S}")
        echo = Echo(network.server_ip)
        stack.callback(echo.close)
        values = {f"d/soak-{n}": {"ip": network.server_ip} for n in range(NAMES)}
        names = stack.enter_context(name_world(network, directory / "electrumx", values))
        _, port = stack.enter_context(v2_node(network.server_ip))
        settings = [
            *system(network.client),
            *names.settings(),
            "names.allow_private_addresses=true",
            f"bitcoin.ports=[{port}]",
            "bitcoin.v1_fallback=never",
        ]
        proxy = stack.enter_context(Isoproxy(directory, settings, develop=False))
        proxy.wait_ready()
        proxy.wait_for_workers()
        proxy.wait_for("names", lambda: proxy.status()["names"]["ready"], 90)
        yield World(network, names, echo, port, proxy)


class Turnover:
    """Every minute a new identity and a block, in a thread of its own, from `start` to `stop`."""

    def __init__(self, there: World) -> None:
        self.identities = 0
        self._world = there
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="turnover", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(60):
            ask(self._world.proxy.admin, "newnym")
            self.identities += 1
            chain = self._world.names.chain
            # in turns, so that no name expires: regtest's names live for 30 blocks
            name = b"d/soak-%d" % (self.identities % NAMES)
            chain.update(name, json.dumps({"ip": self._world.network.server_ip}).encode())


def settled(proxy: Isoproxy) -> dict[str, int]:
    """What isoproxy holds without clients: the least of some looks.

    Connections to name servers that are bound to an identity, each of which takes one
    descriptor and one task, outlive it for a while; they are counted apart.
    """
    proxy.wait_for("no flows", lambda: not proxy.status()["flows"], _CALM_S)
    looks = []
    for _ in range(20):
        time.sleep(0.25)
        status = proxy.status()
        bound = status["names"]["connections"]["bound"]
        held = sum(map(descriptors, pids(status)))
        looks.append((held - bound, status["tasks"] - bound, bound))
    return {
        "descriptors": min(look[0] for look in looks),
        "tasks": min(look[1] for look in looks),
        "bound": looks[-1][2],
        "rss_kb": sum(memory_kb(pid)[0] for pid in pids(proxy.status())),
    }


def soak(there: World, plan: Plan, seconds: float, seed: int, samples: Path) -> dict[str, Any]:
    """The run; returns what it was."""
    proxy = there.proxy
    before = settled(proxy)
    crowd = Crowd(
        proxy.address,
        plan,
        echo=("echo.test", there.echo.port),
        names=[f"soak-{n}.bit" for n in range(NAMES)],
        peer=("peer.test", there.peer_port),
        seed=seed,
    )
    sampler, turnover = Sampler(proxy, there.network.client, samples), Turnover(there)
    clients = threading.Thread(
        target=asyncio.run, args=(crowd.run(min(120.0, seconds / 8)),), daemon=True
    )
    for part in (sampler, turnover, clients):
        part.start()
    try:
        proxy.wait_for("the end", _after(seconds), seconds + 60)
    finally:
        sampler.stop()
        turnover.stop()
        crowd.stop()
    clients.join(_CALM_S)
    assert not clients.is_alive(), "clients did not come to their end"
    counters = proxy.status()["counters"]
    return {
        "seed": seed,
        "minutes": round(seconds / 60, 1),
        "plan": dataclasses.asdict(plan),
        "new_identities": turnover.identities,
        "cores": os.cpu_count(),
        "late_answers": sampler.late,
        "before": before,
        "after": settled(proxy),
        "ended": dict(crowd.tally.ended),
        "refused": dict(crowd.tally.refused),
        "broken": dict(crowd.tally.broken),
        "wrong_answers": crowd.tally.wrong,
        "defects": counters["defects"],
        "refusals_by_kind": counters["refusals"],
    }


def _after(seconds: float) -> Any:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def judge(report: dict[str, Any], samples: Path) -> list[str]:
    """What is wrong with the run; adds the figures to the report."""
    columns = read(samples)
    seconds = report["minutes"] * 60
    settled_after = max(seconds / 5, _LIVES * report["plan"]["life"], _NAME_CONNECTION_S)
    warm = min(settled_after, seconds / 2)
    report["warm_up_s"] = warm
    later = [n for n, seconds in enumerate(columns["seconds"]) if seconds >= warm]
    times = [columns["seconds"][n] for n in later]
    faults = []
    report["growth"] = {}
    for name, tolerance in TOLERANCE.items():
        found = growth(times, [columns[name][n] for n in later])
        report["growth"][name] = {
            "drift": round(found.drift, 4),
            "ratio": round(found.ratio, 4),
            "tolerance": tolerance,
        }
        if not found.flat(tolerance):
            faults.append(f"{name} grows: {found}")
    for name in ("flows", "load", "circuits"):
        values = [columns[name][n] for n in later]
        report[name] = {"median": statistics.median(values), "most": max(values)}
    span = columns["seconds"][later[-1]] - columns["seconds"][later[0]]
    report["flows_per_s"] = round(
        (columns["opened"][later[-1]] - columns["opened"][later[0]]) / span, 1
    )
    report["cpu_share"] = round(
        (columns["cpu_seconds"][later[-1]] - columns["cpu_seconds"][later[0]]) / span, 3
    )
    before, after = report["before"], report["after"]
    faults += [f"{n}: {after[n]} after, {before[n]} before" for n in _left(before, after)]
    faults += [f"{n}: {report[n]}" for n in ("wrong_answers", "defects") if report[n]]
    if report["flows"]["median"] < 0.9 * sum(report["plan"][k] for k in _SEATS):
        faults.append(f"too few flows: {report['flows']}")
    for kind in ("socks", "name", "peer"):
        if not report["ended"].get(kind):
            faults.append(f"no flow of kind {kind} came to its end")
    return faults


_SEATS: Final = ("streams", "names", "peers")
_LIVES: Final = 4
"""Mean lives of a flow until the crowd is of all ages, and of all the identities that these imply:
by then all but one seat in fifty have changed hands."""
_NAME_CONNECTION_S: Final = 900
"""What a connection to a name server lives after its identity: none ends before, all begin."""
_SLACK: Final = {"descriptors": 40, "tasks": 40}
"""What the light client's pool may hold more or less: connections come and go."""


def _left(before: dict[str, int], after: dict[str, int]) -> list[str]:
    return [name for name, slack in _SLACK.items() if after[name] > before[name] + slack]


def run(minutes: float, flows: int, seed: int, out: Path) -> list[str]:
    """One soak; writes soak.csv and soak.json into `out`, returns what was wrong."""
    out.mkdir(parents=True, exist_ok=True)
    samples = out / "soak.csv"
    with many_descriptors(4 * flows + 1000), tempfile.TemporaryDirectory(prefix="soak") as name:
        try:
            with world(Path(name)) as there:
                report = soak(there, Plan.of(flows), minutes * 60, seed, samples)
        finally:
            shutil.copy(Path(name) / "log", out / "isoproxy.log")
    faults = judge(report, samples)
    report["faults"] = faults
    (out / "soak.json").write_text(json.dumps(report, indent=1) + "\n")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fire.soak")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--flows", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--out", type=Path, default=Path(".cache/fire/soak"))
    options = parser.parse_args()
    print(f"soak: {options.minutes} min, {options.flows} flows, --seed {options.seed}", flush=True)
    faults = run(options.minutes, options.flows, options.seed, options.out)
    print((options.out / "soak.json").read_text())
    print("\n".join(faults) if faults else "soak: nothing grew", flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
