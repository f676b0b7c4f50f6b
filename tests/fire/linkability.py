"""Linkability: what one user did must not show in what a name server sees of another.

    python -m tests.fire.linkability --trials 60 --seed 1

Theory of operation
    isoproxy runs on the private Tor network with two real ElectrumX servers, each behind a
    tap that is the server's own view.  In each trial user A looks a name up, then user B
    looks up a name; in every other trial the same name, else another one.  All users are
    new, and so are the names of each trial.

    content  B's look-up shows the servers the same requests in both cases, over connections
             that nobody else has used.  Exact equality.
    timing   The latencies of B's look-up in both cases could come from one distribution: a
             permutation test on the difference of medians, p >= ALPHA.
    refills  Connections that are opened ahead do not follow the first use of another one:
             what passes from a look-up to the next of them is compared with what passes
             from moments at random, by the same test.  (A connection that the look-up itself
             had to wait for tells nothing but that look-up.)

    The positive controls are mutants (`mutant`): a cache that all share must be found by
    content and by timing, a shared connection by content, a prompt refill by refills.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import statistics
import sys
import tempfile
import time
from bisect import bisect
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.fire.judge import same
from tests.fire.taps import Asked, Connection, RecordingTap
from tests.kit.dial import receive_exactly
from tests.kit.electrumx import ElectrumXServers
from tests.kit.isoproxy_process import Isoproxy, system
from tests.kit.namecoin.chain import RegtestChain
from tests.kit.namecoin.daemon import NamecoinDaemon
from tests.kit.tornet import TorNetwork

ALPHA: Final = 0.001
"""A difference that chance makes once in a thousand runs counts as found."""
_CONFIRMATIONS: Final = 6
_SPACING_S: Final = (0.5, 3.0)


@dataclass
class Trace:
    """What the trials gave; `same_name` and `other_name` are latencies of B, in s."""

    same_name: list[float] = field(default_factory=list)
    other_name: list[float] = field(default_factory=list)
    contents: dict[bool, Counter[str]] = field(
        default_factory=lambda: {True: Counter(), False: Counter()}
    )
    reused: int = 0
    """Connections that carried look-ups of two users."""
    after_lookups: list[float] = field(default_factory=list)
    after_moments: list[float] = field(default_factory=list)

    def verdict(self) -> dict[str, Any]:
        """All statistics; `found` names the ways in which users are linkable."""
        report: dict[str, Any] = {
            "trials": len(self.same_name) + len(self.other_name),
            "median_ms": {
                "B after A asked the same name": _ms(self.same_name),
                "B after A asked another name": _ms(self.other_name),
            },
            "timing_p": round(same(self.same_name, self.other_name), 4),
            "requests_of_B": {
                "same name": dict(self.contents[True]),
                "other name": dict(self.contents[False]),
            },
            "connections_of_two_users": self.reused,
            "refill_median_s": {
                "after a look-up": round(statistics.median(self.after_lookups), 2),
                "after a moment at random": round(statistics.median(self.after_moments), 2),
            },
            "refill_p": round(same(self.after_lookups, self.after_moments), 4),
        }
        found = []
        if set(self.contents[True]) != set(self.contents[False]) or self.reused:
            found.append("content")
        if report["timing_p"] < ALPHA:
            found.append("timing")
        if report["refill_p"] < ALPHA:
            found.append("refills")
        samples = {
            "same_name_s": self.same_name,
            "other_name_s": self.other_name,
            "after_lookups_s": self.after_lookups,
            "after_moments_s": self.after_moments,
        }
        rounded = {name: [round(x, 3) for x in values] for name, values in samples.items()}
        return report | {"found": found, "samples": rounded}


def _ms(seconds: Sequence[float]) -> float:
    return round(statistics.median(seconds) * 1000, 1)


@dataclass
class Stage:
    """What stays from one isoproxy to the next."""

    network: TorNetwork
    taps: list[RecordingTap]

    @contextlib.contextmanager
    def isoproxy(self, directory: Path, mutation: str | None) -> Iterator[Isoproxy]:
        wrapper = [sys.executable, "-m", "tests.fire.mutant", mutation] if mutation else []
        servers = [f"{tap.host}:{tap.port}:t" for tap in self.taps]
        settings = [
            *system(self.network.client),
            "names.backend=electrum",
            "names.electrum.network=regtest",
            "names.electrum.servers=" + json.dumps(servers),
            "names.electrum.allow_plain=true",
            f"names.electrum.confirmations={_CONFIRMATIONS}",
            "names.electrum.circuits_per_minute=6000",
            "names.electrum.pool_size=64",
            "names.electrum.max_connections=512",
        ]
        with Isoproxy(directory, settings, wrapper=wrapper, develop=False) as proxy:
            proxy.wait_ready()
            proxy.wait_for("names", lambda: proxy.status()["names"]["ready"], 90)
            yield proxy

    def opened_ahead(self, lookups: list[tuple[float, float]]) -> list[list[float]]:
        """When connections were opened that no look-up waited for, by server."""

        def was_waited_for(connection: Connection) -> bool:
            used = next((asked.at for asked in connection.requests if asked.is_about_a_name), None)
            return used is not None and any(
                begin <= connection.opened and used <= end for begin, end in lookups
            )

        return [
            sorted(one.opened for one in tap.seen if not was_waited_for(one)) for tap in self.taps
        ]

    def asked_between(self, begin: float, end: float) -> list[list[tuple[int, Asked]]]:
        """Requests about names in that time, by server, each with its connection's number."""
        return [
            [
                (number, asked)
                for number, connection in enumerate(list(tap.seen))
                for asked in list(connection.requests)
                if begin <= asked.at <= end and asked.is_about_a_name
            ]
            for tap in self.taps
        ]


@contextlib.contextmanager
def stage(network: TorNetwork, directory: Path, names: int) -> Iterator[Stage]:
    """Two servers and the taps before them, and so many names."""
    chain = RegtestChain.recorded()
    values = {b"d/link-%d" % n: b'{"ip":"192.0.2.%d"}' % (n % 256) for n in range(names)}
    chain.update_all(values)
    chain.mine_empty(_CONFIRMATIONS)
    host = network.server_ip
    with NamecoinDaemon(chain) as daemon, contextlib.ExitStack() as stack:
        servers = stack.enter_context(ElectrumXServers(directory, daemon.url, 2, host))
        taps = [RecordingTap(host, (host, server.tcp_port)) for server in servers]
        for tap in taps:
            stack.enter_context(tap)
        yield Stage(network, taps)


def resolve(proxy: Isoproxy, user: str, name: int) -> float:
    """Have `user` resolve a name; the seconds that it took."""
    import socket

    from isoproxy.socks.wire import encode_address

    request = b"\x05\xf0\x00" + encode_address(b"link-%d.bit" % name, 0)
    with socket.create_connection(proxy.address, timeout=90) as client:
        began = time.monotonic()
        login = b"\x05\x01\x02\x01" + bytes([len(user)]) + user.encode() + b"\x01x"
        client.sendall(login + request)
        answer = receive_exactly(client, 4 + 10)
        took = time.monotonic() - began
    assert answer[5] == 0, f"SOCKS reply {answer[5]:#x}"
    assert answer[8:12] == bytes((192, 0, 2, name % 256)), answer
    return took


def run(there: Stage, proxy: Isoproxy, trials: int, chance: random.Random) -> Trace:
    """All trials with one isoproxy."""
    trace = Trace()
    lookups: list[tuple[float, float]] = []
    began = time.monotonic()
    used: set[tuple[int, int]] = set()
    for trial in range(trials):
        one, other = 2 * trial, 2 * trial + 1
        is_same = bool(trial % 2)
        time.sleep(chance.uniform(*_SPACING_S))
        begin = time.monotonic()
        resolve(proxy, f"A {trial}", one)
        lookups.append((begin, time.monotonic()))
        used.update(_connections(there, begin))
        time.sleep(chance.uniform(*_SPACING_S))
        begin = time.monotonic()
        took = resolve(proxy, f"B {trial}", one if is_same else other)
        lookups.append((begin, time.monotonic()))
        (trace.same_name if is_same else trace.other_name).append(took)
        seen = there.asked_between(begin, time.monotonic())
        content = [[asked.method for _, asked in of_server] for of_server in seen]
        trace.contents[is_same][json.dumps(content)] += 1
        of_b = _connections(there, begin)
        trace.reused += len(used & of_b)
        used |= of_b
    _refills(trace, there, lookups, chance, began)
    return trace


def _connections(there: Stage, since: float) -> set[tuple[int, int]]:
    seen = there.asked_between(since, time.monotonic())
    return {(at, number) for at, of_server in enumerate(seen) for number, _ in of_server}


def _refills(
    trace: Trace,
    there: Stage,
    lookups: list[tuple[float, float]],
    chance: random.Random,
    began: float,
) -> None:
    """From look-ups, and from as many moments at random, to the next new connection."""
    uses = [begin for begin, _ in lookups]
    moments = [chance.uniform(began, uses[-1]) for _ in lookups]
    for opened in there.opened_ahead(lookups):
        for times, found in ((uses, trace.after_lookups), (moments, trace.after_moments)):
            for moment in times:
                following = bisect(opened, moment)
                if following < len(opened):
                    found.append(opened[following] - moment)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fire.linkability")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--out", type=Path, default=Path(".cache/fire/linkability"))
    options = parser.parse_args()
    print(f"linkability: {options.trials} trials, --seed {options.seed}", flush=True)
    reports: dict[str, Any] = {"seed": options.seed, "alpha": ALPHA}
    wanted: dict[str | None, set[str]] = {
        None: set(),
        "shared-cache": {"content", "timing"},
        "shared-connection": {"content"},
        "prompt-refill": {"refills"},
    }
    right = True
    with TorNetwork() as network, tempfile.TemporaryDirectory(prefix="link") as name:
        for mutation, expected in wanted.items():
            directory = Path(name) / (mutation or "unchanged")
            directory.mkdir()
            with (
                stage(network, directory / "electrumx", 2 * options.trials) as there,
                there.isoproxy(directory, mutation) as proxy,
            ):
                trace = run(there, proxy, options.trials, random.Random(options.seed))
            report = trace.verdict()
            reports[mutation or "unchanged"] = report
            found = set(report["found"])
            right &= expected <= found if mutation else not found
            print(f"{mutation or 'unchanged'}: found {sorted(found)}", flush=True)
            print(json.dumps({k: v for k, v in report.items() if k != "samples"}), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    reports["right"] = right
    (options.out / "linkability.json").write_text(json.dumps(reports) + "\n")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
