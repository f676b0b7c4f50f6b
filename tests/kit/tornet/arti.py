"""The private network as an Arti's configuration has it.

What a person must never set (trust in everyone's files, root, addresses of this machine)
is set here, and nowhere in the product.
"""

from __future__ import annotations

import json
import re

from tests.kit.tornet.network import TorNetwork
from tests.kit.tornet.node import OR_PORT, Node

_TEST_ONLY = [
    "application.allow_running_as_root = true",
    "storage.permissions.dangerously_trust_everyone = true",
    "address_filter.allow_local_addrs = true",
    "path_rules.ipv4_subnet_family_prefix = 33",
    "path_rules.ipv6_subnet_family_prefix = 129",
    "override_net_params.hsdir_interval = 720",
]


def arti_lines(net: TorNetwork) -> list[str]:
    """Lines of arti.toml that make an Arti a client of `net`."""
    caches = ", ".join(_cache(node) for node in net.authorities)
    identities = json.dumps([_identity(node) for node in net.authorities])
    return [
        *_TEST_ONLY,
        f"tor_network.fallback_caches = [{caches}]",
        f"tor_network.authorities.v3idents = {identities}",
    ]


def _cache(node: Node) -> str:
    ed25519 = (node.dir / "fingerprint-ed25519").read_text().split()[1]
    return (
        f'{{ rsa_identity = "{node.fingerprint}", ed_identity = "{ed25519}", '
        f'orports = ["{node.ip}:{OR_PORT}"] }}'
    )


def _identity(node: Node) -> str:
    certificate = (node.dir / "keys" / "authority_certificate").read_text()
    match = re.search(r"^fingerprint ([0-9A-F]{40})$", certificate, re.MULTILINE)
    assert match is not None, "an authority's certificate names its identity"
    return match[1]
