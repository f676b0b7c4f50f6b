"""`[[transparent]]` at a gateway with its rules in place, two workstations behind it, whose Tor is
a SocksPort of ours: all in namespaces of their own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.namespaces import skip_without_namespaces


def test_workstations_go_through_the_gateway_and_no_other_way(tmp_path: Path) -> None:
    skip_without_namespaces()
    for program in ("ip", "nft", "unshare"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed; apt-get install nftables iproute2")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.process.cli.gateway", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "one has no records of the other family []",
        "one by name b'www.example.org' 80",
        "one by onion b'2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion' 80",
        "one by address b'93.184.216.34' 80",
        "one by IPv6 b'2606:2800::1' 80",
        "two by address b'93.184.216.34' 80",
        "two at the address of one's name ''",
        "two by a name of its own b'other.example' 80",
        "a name server over tcp ECONNREFUSED",
        "udp EHOSTUNREACH",
        "an absent name NXDOMAIN",
        "identities 2",
        "of another section 1",
    ]
