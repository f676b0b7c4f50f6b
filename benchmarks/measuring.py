"""What is measured of one contender in one repetition, by running the load generator.

All keys of the results are listed in `report.COLUMNS`.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import Any, Final

from benchmarks import programs
from benchmarks.running import cpu_seconds, on_one_core, pss_kilobytes

Results = dict[str, float]

IDLE_BASE, IDLE, IDLE_MANY = 500, 2000, 4000
_EXTRA_SECONDS: Final = 60.0


class LoadError(Exception):
    """The load generator gave up; the text is its message."""


@dataclass(frozen=True)
class Load:
    """The load generator, aimed at one proxy (None: straight at the services)."""

    base_port: int
    proxy: str | None
    distinct: bool = False
    one_address: bool = False
    user: str = "bench"

    def command(self, mode: str, *milestones: int, count: int = 1, seconds: float = 1) -> list[str]:
        options = ["-n", str(count), "-s", str(seconds), "-u", self.user]
        if self.proxy is not None:
            options += ["-x", self.proxy]
        options += ["-d"] * self.distinct + ["-a"] * self.one_address
        return [str(programs.load()), *options, str(self.base_port), mode, *map(str, milestones)]

    def run(self, mode: str, *, count: int = 1, seconds: float = 1) -> dict[str, Any]:
        """One run to its end; what it printed."""
        command = self.command(mode, count=count, seconds=seconds)
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=seconds + _EXTRA_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise LoadError(f"{mode}: no end after {error.timeout} s") from error
        if done.returncode:
            raise LoadError(f"{mode}: {done.stderr.strip()}")
        result: dict[str, Any] = json.loads(done.stdout)
        return result


def measure(load: Load, direct: Load, *, server: int, proxy: int | None, seconds: float) -> Results:
    """Throughput, handshakes, round trip; with a proxy also its CPU time and idle memory.

    `server` and `proxy` are process IDs; no proxy is None.
    """
    results: Results = {}
    for connections in (1, 16):
        results |= _throughput(load, proxy, connections, seconds)
        results |= _handshakes(load, proxy, connections, seconds)
    results |= _roundtrip(load, direct)
    with on_one_core([server] if proxy is None else [server, proxy]):
        results |= {f"{key}_one_core": value for key, value in _roundtrip(load, direct).items()}
    if proxy is not None:
        results |= idle_memory(load, proxy)
    return results


def _throughput(load: Load, pid: int | None, connections: int, seconds: float) -> Results:
    before = cpu_seconds(pid) if pid else 0.0
    got = load.run("throughput", count=connections, seconds=seconds)
    results = {f"mb_{connections}": got["bytes"] / got["seconds"] / 1e6}
    if pid:
        results[f"cpu_gb_{connections}"] = (cpu_seconds(pid) - before) / (got["bytes"] / 1e9)
    return results


def _handshakes(load: Load, pid: int | None, connections: int, seconds: float) -> Results:
    before = cpu_seconds(pid) if pid else 0.0
    got = load.run("handshakes", count=connections, seconds=seconds)
    results = {f"hs_{connections}": got["handshakes"] / got["seconds"]}
    if pid:
        results[f"cpu_hs_{connections}"] = (cpu_seconds(pid) - before) / got["done"] * 1e6
    return results


def _roundtrip(load: Load, direct: Load) -> Results:
    """Direct runs before and after, so that a change of the machine's pace cancels out."""
    before = direct.run("roundtrip", count=3000)
    got = load.run("roundtrip", count=6000)
    after = direct.run("roundtrip", count=3000)
    base = (before["p50_us"] + after["p50_us"]) / 2
    return {"p50": got["p50_us"], "p99": got["p99_us"], "p50_added": got["p50_us"] - base}


def idle_memory(load: Load, pid: int) -> Results:
    """kB (1024 bytes) of PSS per idle connection that has carried one byte each way.

    idle: all growth since before the first connection, at IDLE connections;
    idle_slope: what each further one costs, from IDLE_BASE to IDLE_MANY.  Left out when the
    proxy cannot hold that many (the limit of descriptors is the shell's).
    """
    empty = pss_kilobytes(pid)
    held: dict[int, float] = {}
    command = load.command("idle", IDLE_BASE, IDLE, IDLE_MANY)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line in process.stdout:
            held[json.loads(line)["held"]] = pss_kilobytes(pid)
            process.stdin.write("\n")
            process.stdin.flush()
    results: Results = {}
    if IDLE in held:
        results["idle"] = (held[IDLE] - empty) / IDLE
    if IDLE_MANY in held:
        results["idle_slope"] = (held[IDLE_MANY] - held[IDLE_BASE]) / (IDLE_MANY - IDLE_BASE)
    return results
