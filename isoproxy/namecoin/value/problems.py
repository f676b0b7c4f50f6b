"""What of a value has no effect, and why, for its owner.

Specification: IFA-0001 ("Item Suppression Rules", "Error Handling").

Invariants
    Labels and items are quoted in ASCII and cut; values are not quoted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from dns.rdatatype import RdataType
from dns.rdtypes.ANY.TXT import TXT

from isoproxy.namecoin.value.json import Json
from isoproxy.namecoin.value.records import ITEMS, Records
from isoproxy.net.host_name import is_label
from isoproxy.net.onion_address import onion_host

_QUOTED: Final = 40
"""Characters of a label or an item that are shown."""


def quoted(text: str) -> str:
    """`text` as an owner sees it on a terminal, whatever is in it."""
    shown = json.dumps(text)
    return shown if len(shown) <= _QUOTED else shown[: _QUOTED - 1] + '..."'


def item_problems(items: Iterable[str]) -> Iterator[str]:
    """Why items that no specification has are left out."""
    for item in items:
        if item in ITEMS:
            continue
        if item.lower() in ITEMS:
            yield f"{quoted(item)}: items are written in lower case"
        elif item.startswith("_"):
            yield f"{quoted(item)}: no such item; a label belongs into map"
        else:
            yield f"{quoted(item)}: no such item"


def map_problems(maps: Iterable[Mapping[str, Json]]) -> Iterator[str]:
    """The entries of merged maps that no name reaches."""
    for label, entry in (pair for below in maps for pair in below.items()):
        if label not in ("", "*") and not is_label(label):
            yield (
                f"map: no name reaches {quoted(label)}; a label is lower-case letters, digits, "
                "'-' and '_', and levels are maps in maps"
            )
        elif not (entry is None or isinstance(entry, dict | str)):
            yield f"map: what stands at {quoted(label)} is no object"


def onion_problems(records: Records) -> Iterator[str]:
    """The TXT records at a `_tor` that are no onion services."""
    for number, rdata in enumerate(records.rdatas.get(RdataType.TXT, ()), 1):
        if isinstance(rdata, TXT) and onion_host(rdata.strings[0].decode("latin-1")) is None:
            yield f"txt: entry {number} is not the address of a version-3 onion service"


def hidden_problems(said: Records, kept: Records, cut: str | None) -> Iterator[str]:
    """What is hidden of what is `said`: by what stands at `cut`, or beside it."""
    cause = "the item beside it that comes first" if cut is None else f"what stands at {cut}"
    hidden = sorted(kind.name for kind in said.rdatas.keys() - kept.rdatas.keys())
    if hidden:
        yield f"{', '.join(hidden)}: hidden by {cause}"
