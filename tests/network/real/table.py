"""`make programs`: which circuits real programs got, as a table in docs/evidence/programs.md.

python -m tests.network.real.table [FILE]
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.kit.tornet import TorNetwork
from tests.kit.witness import Stream
from tests.network.real.uses import USES, VERSIONS, Use, needs
from tests.network.real.world import World, installed, world

PAGE: Final = "docs/evidence/programs.md"
_HEAD: Final = """\
# What each program sends

Real programs at isoproxy on a private Tor network; Tor's control port counted the circuits. Each
acted for two people, twice each, or visited two sites twice; Electrum kept up connections to seven
servers. *Apart* means that no two of them were one identity, or on one circuit. Where it says
**no** the program's page warns of it.

Ports: 9250 and 9251 are the two default listeners, 9251 with `preset = "no-credentials"`; 9254 is
one with `proxy_auth_challenge = true`. `make programs` makes this page, and `tests/network/real`
holds it to be true.

| program | version | port | used how | people or sites | identities | circuits | apart |
|---|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Seen:
    """What Tor said of one use."""

    identities: int
    circuits: int
    apart: bool


def observe(use: Use, at: World) -> Seen:
    """Do it, and ask Tor which circuits carried whose streams."""
    after = at.witness.mark()
    use.act(at)
    at.witness.settle()
    streams = [
        stream
        for stream in at.witness.streams(after=after)
        if _who(stream) in use.people and stream.succeeded
    ]
    carriers = {at.witness.carrier(stream.circuits[-1]) for stream in streams}
    whose: dict[Hashable, set[str]] = defaultdict(set)
    for stream in streams:
        whose[stream.credentials].add(_who(stream))
    shared = any(len(people) > 1 for people in whose.values())
    mixed = bool(streams) and bool(at.witness.mixed(streams, _who))
    return Seen(len(whose), len(carriers), bool(streams) and not shared and not mixed)


def _who(stream: Stream) -> str:
    return stream.host.partition(".")[0]


def row(use: Use, seen: Seen, version: str) -> str:
    """A line of the table."""
    verdict = "yes" if seen.apart else "**no**" if seen.circuits else "gives up"
    return (
        f"| {use.program} | {version} | {use.port} | {use.how} | {len(use.people)} "
        f"| {seen.identities} | {seen.circuits} | {verdict} |"
    )


def version(program: str) -> str:
    """The number of its version."""
    done = subprocess.run(
        VERSIONS[program], capture_output=True, text=True, timeout=60, check=False
    )
    found = re.search(r"\d+(?:\.\d+)+\w*", done.stdout + done.stderr)
    return found.group() if found else "unknown"


def main() -> int:
    page = Path(sys.argv[1] if len(sys.argv) > 1 else PAGE)
    lines = []
    with (
        tempfile.TemporaryDirectory(prefix="iso") as directory,
        TorNetwork() as net,
        world(net, Path(directory)) as at,
    ):
        for use in USES:
            if missing := installed(*needs(use)):
                print(f"{use.program}: there is no {missing} here", file=sys.stderr)
                return 1
            lines.append(row(use, observe(use, at), version(use.program)))
            print(lines[-1], flush=True)
    page.write_text(_HEAD + "\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
