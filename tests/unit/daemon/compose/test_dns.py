"""The DNS server as the configuration has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from isoproxy.config import load
from isoproxy.daemon.compose.dns import dns_policy, dns_server
from isoproxy.dns.sign import ZoneKey
from isoproxy.errors import ConfigError
from tests.unit.dns.kit import world


def test_the_server_that_the_configuration_has(tmp_path: Path) -> None:
    here = world()
    assert dns_server(load(None, []).config, lambda _: here.resolver, here.isolator) is None
    key = tmp_path / "dns.key"
    settings = ["dns.address=127.0.0.1:0", f"dns.key_file={key}"]
    config = load(None, settings).config
    with pytest.raises(ConfigError, match="keygen"):
        dns_server(config, lambda _: here.resolver, here.isolator)
    ZoneKey.generate().store(key)
    assert dns_server(config, lambda _: here.resolver, here.isolator) is not None


def test_what_is_shown_of_a_name() -> None:
    strict = load(None, ["names.only_onion=true", "names.allow_private_addresses=true"]).config
    assert (dns_policy(strict).only_onion, dns_policy(strict).allow_private_addresses) == (1, 1)
    usual = dns_policy(load(None, []).config)
    assert (usual.only_onion, usual.allow_private_addresses) == (False, False)
