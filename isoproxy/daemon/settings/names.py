"""From the configuration to what names are resolved with; nothing is decided here."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from isoproxy.config import ElectrumConfig, NamesConfig, private_directory
from isoproxy.errors import ConfigError
from isoproxy.namecoin.chain.params import NETWORKS, REGTEST, Anchor, Checkpoint, hash_from_hex
from isoproxy.namecoin.electrum.backend import ElectrumSettings
from isoproxy.namecoin.electrum.header_range import SyncSettings
from isoproxy.namecoin.electrum.pool import PoolSettings
from isoproxy.namecoin.electrum.servers import SHIPPED, parse_servers
from isoproxy.namecoin.resolve.answer import Policy

_MAX_TIP_AGE_S: Final = 86_400.0


def answer_policy(config: NamesConfig) -> Policy:
    """Which answers are allowed."""
    return Policy(
        only_onion=config.only_onion,
        allow_clearnet_alias=config.allow_clearnet_alias,
        allow_private_addresses=config.allow_private_addresses,
    )


def names_directory(state: Path) -> Path:
    """Where headers, certificates and anchors are kept, below the `state` directory."""
    return private_directory(private_directory(state) / "names")


def electrum_settings(config: ElectrumConfig, timeout_s: float) -> ElectrumSettings:
    """The light client's settings, for look-ups of `timeout_s` s; raises ConfigError.

    Half of the time may pass in waiting for headers, so that a look-up that gets none has
    time to say so.
    """
    servers = parse_servers(config.servers, allow_plain=config.allow_plain) or SHIPPED
    network = NETWORKS[config.network]
    if servers is SHIPPED and config.network != "mainnet":
        raise ConfigError(
            "names.electrum.servers must be set: the list in the package is for mainnet only"
        )
    anchor = checkpoint = None
    if config.anchor_height is not None and config.anchor_hash is not None:
        anchor = Anchor(config.anchor_height, hash_from_hex(config.anchor_hash))
    if config.checkpoint_height is not None and config.checkpoint_root is not None:
        checkpoint = Checkpoint(config.checkpoint_height, hash_from_hex(config.checkpoint_root))
    return ElectrumSettings(
        network=network,
        servers=servers,
        quorum=config.quorum,
        confirmations=config.confirmations,
        anchor=anchor,
        checkpoint=checkpoint,
        ready_wait=timeout_s / 2,
        deadline=timeout_s * 0.75,
        max_tip_age=None if network is REGTEST else _MAX_TIP_AGE_S,
        sync=SyncSettings(sampled=config.proof == "sampled"),
        pool=PoolSettings(
            reserve=config.pool_size,
            asked=config.quorum,
            max_own=config.max_connections,
            opens_per_minute=config.circuits_per_minute,
        ),
    )
