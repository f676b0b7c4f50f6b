"""A small chain, and what a DNS server has to say about it, worked out by hand.

`RECORDS` lists every name that owns records or has names below it, with all its records:
any other type is "no data" there.  `REDIRECTED`, `REFERRED` and `FAILING` are the names
that answer every type in their own way; `ABSENT` do not exist.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any, Final

from isoproxy.errors import ErrorKind
from isoproxy.namecoin.backend import TemporaryFailure
from tests.kit.onion_address import onion_address

ONION: Final = onion_address(bytes(range(32)))


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


DIGEST: Final = bytes(range(32))

CHAIN: Final[dict[str, Any]] = {
    "d/plain": {
        "ip": ["192.0.2.1", "192.0.2.2"],
        "ip6": "2001:db8::1",
        "txt": ["one", ["two", "three"]],
        "loc": "51 30 12.748 N 0 7 39.612 W 0.00m",
        "sshfp": [[4, 2, _b64(DIGEST)]],
        "mx": [[10, "mail"]],
        "map": {
            "www": {"alias": ""},
            "mail": {"ip": "192.0.2.25"},
            "deep": {"map": {"er": {"txt": "x"}}},
            "_tcp": {
                "map": {
                    "_443": {"tls": [[3, 1, 1, _b64(DIGEST)]]},
                    "_xmpp-server": {"srv": [[0, 5, 5269, "xmpp.@"]]},
                }
            },
        },
    },
    "d/star": {"map": {"*": {"ip": "198.51.100.7"}, "no": {"txt": "not by the star"}}},
    "d/mail": {
        "map": {
            "_tcp": {"map": {"_smtp": {"srv": [[5, 0, 25, "mx1.@"], [6, 0, 26, "mx1.@"]]}}},
            "mx1": {"ip": "192.0.2.26"},
        }
    },
    "d/deleg": {
        "ip": "192.0.2.99",
        "ns": ["ns1.deleg.bit.", "ns.example.com."],
        "ds": [[12345, 13, 2, _b64(DIGEST)]],
        "map": {"ns1": {"ip": "192.0.2.53", "ip6": "2001:db8::53", "txt": "hidden"}},
    },
    "d/half": {
        "ip": "192.0.2.3",
        "map": {"sub": {"ns": "ns.example.org.", "map": {"x": {"ip": "192.0.2.4"}}}},
    },
    "d/trans": {"translate": "plain.bit.", "ip": "192.0.2.5"},
    "d/alias": {"alias": "plain.bit.", "map": {"below": {"ip": "192.0.2.6"}}},
    "d/out": {"alias": "www.example.com."},
    "d/lost": {"alias": "nowhere.bit."},
    "d/loop": {"alias": "loop2.bit."},
    "d/loop2": {"alias": "loop.bit."},
    "d/mixed": {"ip": ["10.0.0.1", "192.0.2.9"], "ip6": "::1"},
    "d/hidden": {"ip": "127.0.0.1"},
    "d/importer": {"import": "dd/shared", "ip": "192.0.2.10"},
    "dd/shared": {"ip": "192.0.2.11", "ip6": "2001:db8::11"},
    "d/onion": {"tor": ONION, "map": {"_tor": {"txt": ONION}}},
    "d/opaque": {"o": [[257, _b64(b"\x00\x05issueca.example.net")]]},
    "d/empty": {},
    "d/broken": b"{not JSON",
    "d/expired": ErrorKind.NAME_EXPIRED,
    "d/young": ErrorKind.NAME_UNCONFIRMED,
    "d/down": TemporaryFailure(),
}

TYPES: Final = (
    *("A", "AAAA", "CNAME", "DNAME", "NS", "DS", "TXT", "MX", "SRV", "TLSA", "SSHFP", "LOC"),
    *("SOA", "CAA", "DNSKEY", "PTR", "HTTPS"),
)

_FINGERPRINT: Final = DIGEST.hex()
SOA: Final = "this.x--nmc.bit. . 1 600 600 7200 60"

RECORDS: Final[dict[str, dict[str, list[str]]]] = {
    "bit.": {"SOA": [SOA], "NS": ["this.x--nmc.bit."]},
    "x--nmc.bit.": {},
    "this.x--nmc.bit.": {"A": ["127.0.0.1"]},
    "plain.bit.": {
        "A": ["192.0.2.1", "192.0.2.2"],
        "AAAA": ["2001:db8::1"],
        "TXT": ['"one"', '"two" "three"'],
        "LOC": ["51 30 12.748 N 0 7 39.612 W 0.00m"],
        "SSHFP": [f"4 2 {_FINGERPRINT}"],
        "MX": ["10 mail.plain.bit."],
    },
    "mail.plain.bit.": {"A": ["192.0.2.25"]},
    "deep.plain.bit.": {},
    "er.deep.plain.bit.": {"TXT": ['"x"']},
    "_tcp.plain.bit.": {},
    "_443._tcp.plain.bit.": {"TLSA": [f"3 1 1 {_FINGERPRINT}"]},
    "_xmpp-server._tcp.plain.bit.": {"SRV": ["0 5 5269 xmpp.plain.bit."]},
    "star.bit.": {},
    "any.star.bit.": {"A": ["198.51.100.7"]},
    "no.star.bit.": {"TXT": ['"not by the star"']},
    "mail.bit.": {"MX": ["5 mx1.mail.bit."]},
    "mx1.mail.bit.": {"A": ["192.0.2.26"]},
    "_smtp._tcp.mail.bit.": {"SRV": ["5 0 25 mx1.mail.bit.", "6 0 26 mx1.mail.bit."]},
    "half.bit.": {"A": ["192.0.2.3"]},
    "below.alias.bit.": {"A": ["192.0.2.6"]},
    "mixed.bit.": {"A": ["192.0.2.9"]},
    "hidden.bit.": {},
    "importer.bit.": {"A": ["192.0.2.10"], "AAAA": ["2001:db8::11"]},
    "onion.bit.": {},
    "_tor.onion.bit.": {"TXT": [f'"{ONION}"']},
    "opaque.bit.": {"CAA": ['0 issue "ca.example.net"']},
    "empty.bit.": {},
}

ABSENT: Final = (
    "nowhere.bit.",
    "expired.bit.",
    "young.bit.",
    "a.plain.bit.",
    "below.empty.bit.",
    "b.any.star.bit.",
    "under_score.bit.",
    "12345.bit.",
    "two--hyphens.bit.",
    "other.x--nmc.bit.",
    "\\195\\164.bit.",
    "with\\032space.plain.bit.",
)

FAILING: Final = ("broken.bit.", "down.bit.", "below.down.bit.")


@dataclass(frozen=True)
class Redirection:
    """`links` are the records of the redirection itself; `target` is where they end."""

    links: tuple[str, ...]
    target: str
    own: frozenset[str] = field(default_factory=lambda: frozenset({"CNAME"}))
    """Types that are answered with the links alone."""


REDIRECTED: Final[dict[str, Redirection]] = {
    "www.plain.bit.": Redirection(("www.plain.bit. CNAME plain.bit.",), "plain.bit."),
    "alias.bit.": Redirection(("alias.bit. CNAME plain.bit.",), "plain.bit."),
    "out.bit.": Redirection(("out.bit. CNAME www.example.com.",), "www.example.com."),
    "lost.bit.": Redirection(("lost.bit. CNAME nowhere.bit.",), "nowhere.bit."),
    "loop.bit.": Redirection(
        ("loop.bit. CNAME loop2.bit.", "loop2.bit. CNAME loop.bit."), "loop.bit."
    ),
    "mail.trans.bit.": Redirection(
        ("trans.bit. DNAME plain.bit.", "mail.trans.bit. CNAME mail.plain.bit."),
        "mail.plain.bit.",
    ),
}
"""A `translate` stands at the name itself and acts below it."""

TRANSLATING: Final = {"trans.bit.": {"DNAME": ["plain.bit."]}}


@dataclass(frozen=True)
class Referral:
    """A delegation at `cut`; `signed` where the child's key is known."""

    cut: str
    servers: tuple[str, ...]
    glue: tuple[str, ...] = ()
    ds: str | None = None


_DELEGATED: Final = Referral(
    "deleg.bit.",
    ("ns1.deleg.bit.", "ns.example.com."),
    ("ns1.deleg.bit. A 192.0.2.53", "ns1.deleg.bit. AAAA 2001:db8::53"),
    f"12345 13 2 {_FINGERPRINT}",
)
_HALF: Final = Referral("sub.half.bit.", ("ns.example.org.",))

REFERRED: Final[dict[str, Referral]] = {
    "deleg.bit.": _DELEGATED,
    "ns1.deleg.bit.": _DELEGATED,
    "www.deleg.bit.": _DELEGATED,
    "sub.half.bit.": _HALF,
    "x.sub.half.bit.": _HALF,
}

THERE_AND_BACK: Final[dict[str, Any]] = {
    "d/there": {"translate": "back.bit."},
    "d/back": {"map": {"x": {"alias": "y.there.bit."}, "y": {"ip": "192.0.2.77"}}},
}
"""The way from `x.there.bit` leads twice through one `translate`; ON_THE_WAY is all of it."""

ON_THE_WAY: Final = (
    "there.bit. DNAME back.bit.",
    "x.there.bit. CNAME x.back.bit.",
    "x.back.bit. CNAME y.there.bit.",
    "y.there.bit. CNAME y.back.bit.",
    "y.back.bit. A 192.0.2.77",
)
