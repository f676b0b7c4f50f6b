"""All fuzz targets, by name."""

from __future__ import annotations

from typing import Final

from tests.fire.fuzz import (
    bitcoin,
    control,
    dns_door,
    doors,
    plugin,
    servers,
    settings,
    tls,
    values,
)
from tests.fire.fuzz.target import FuzzTarget

_FAMILIES: Final = (doors, control, plugin, servers, values, dns_door, bitcoin, settings, tls)

TARGETS: Final[dict[str, FuzzTarget]] = {
    target.name: target for family in _FAMILIES for target in family.TARGETS
}
