"""Which names are Namecoin's, and what a `.bit` name stands for.

Theory of operation
    `TopLevels.route` decides by the end of a host name what resolves it: Namecoin, Tor, or
    nothing.  `BitName.parse` turns `WWW.Example.bit.` into the name to look up
    (`b"d/example"`) and the labels to walk inside its value (`("www",)`).  The form
    `example.bit.onion` asks for an onion service and nothing else.

    Names are ASCII here: internationalised names arrive as A-labels (`xn--...`), because
    a resolver that converts Unicode resolves look-alikes differently from the browser.

Invariants
    A name under `bit` is never routed to Tor, whatever the table says.  A `BitName` is
    lower-case, has a registrable base name (IFA-0001, "Keys": `(xn--)?` and groups of
    letters and digits joined by single hyphens, at most 63 bytes, not digits only) and
    labels of at most 63 bytes; without its dot it has at most 253 bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final

from isoproxy.errors import ConfigError, ErrorKind, NamingError, PolicyRefusal
from isoproxy.net.host_name import MAX_DOTTED_LENGTH, is_label
from isoproxy.net.target import NEVER_SENT_TO_TOR

_CHARACTERS: Final = re.compile(r"[a-z0-9._-]+", re.ASCII)
_BASE: Final = re.compile(r"(?=.{1,63}\Z)(?:xn--)?[a-z0-9]+(?:-[a-z0-9]+)*", re.ASCII)


def is_registrable(text: str) -> bool:
    """Whether `text` (lower-case) can be registered as the label left of `bit`."""
    return _BASE.fullmatch(text) is not None and not text.isdigit()


@dataclass(frozen=True, slots=True)
class BitName:
    """A name below `.bit`.

    `base` is the registered label, `labels` those to its left as written
    (`a.b.example.bit` has `("a", "b")`).  `onion_only` is set for `example.bit.onion`.
    """

    base: str
    labels: tuple[str, ...] = ()
    onion_only: bool = False

    @classmethod
    def parse(cls, text: bytes | str) -> BitName:
        """The name that `text` spells, in any case, with or without a last dot.

        Raises:
            PolicyRefusal: NAME_SYNTAX, not a name under `bit` or no host name at all.
            NamingError: NAME_ABSENT, a name that cannot be registered.
        """
        if isinstance(text, bytes):
            text = text.decode("latin-1")
        if not text.isascii():  # some letters of others are ASCII in lower case
            raise PolicyRefusal(kind=ErrorKind.NAME_SYNTAX)
        text = text.lower().removesuffix(".")
        onion_only = text.endswith(".bit.onion")
        if onion_only:
            text = text.removesuffix(".onion")
        if len(text) > MAX_DOTTED_LENGTH or _CHARACTERS.fullmatch(text) is None:
            raise PolicyRefusal(kind=ErrorKind.NAME_SYNTAX)
        *labels, base, top = ("", *text.split("."))
        if top != "bit":
            raise PolicyRefusal(kind=ErrorKind.NAME_SYNTAX)
        del labels[:1]
        if not is_registrable(base) or not all(map(is_label, labels)):
            raise NamingError(kind=ErrorKind.NAME_ABSENT)
        return cls(base, tuple(labels), onion_only)

    @property
    def key(self) -> bytes:
        """The name in Namecoin's database."""
        return b"d/" + self.base.encode()

    @property
    def dotted(self) -> str:
        """The name in DNS form, without a last dot and without `.onion`."""
        return ".".join((*self.labels, self.base, "bit"))

    def __str__(self) -> str:
        return self.dotted + (".onion" if self.onion_only else "")


class Route(Enum):
    """Who resolves a name; the value is how the configuration writes it."""

    NAMECOIN = "namecoin"
    TOR = "tor"
    REFUSE = "refuse"


_DEFAULT_ROUTES: Final = MappingProxyType(
    {
        **dict.fromkeys(NEVER_SENT_TO_TOR, Route.REFUSE),
        "home.arpa": Route.REFUSE,
        "bit": Route.NAMECOIN,
        "bit.onion": Route.NAMECOIN,
    }
)


class TopLevels:
    """The table from the end of a name to who resolves it; the longest entry wins.

    `overrides` comes from the configuration, e.g. `{"lan": Route.REFUSE}`.
    """

    def __init__(self, overrides: Mapping[str, Route] = MappingProxyType({})) -> None:
        table = dict(_DEFAULT_ROUTES)
        for written, route in overrides.items():
            suffix = written.lower().strip(".")
            if not all(map(is_label, suffix.split("."))):
                raise ConfigError(f"{written!r} is not the end of a name; write it like 'bit'")
            bit = suffix in {"bit", "bit.onion"} or suffix.endswith(".bit")
            if bit and route is Route.TOR:
                raise ConfigError(
                    "'bit' can never be sent to Tor: an exit would only learn the name; "
                    "write 'namecoin' or 'refuse'"
                )
            if not bit and route is Route.NAMECOIN:
                raise ConfigError("Namecoin has names under 'bit' only; write 'tor' or 'refuse'")
            table[suffix] = route
        self._table: Final = table

    @property
    def never_sent_to_tor(self) -> frozenset[str]:
        """The top-level labels that are not Tor's, for those who look at nothing else."""
        return frozenset(
            suffix
            for suffix, route in self._table.items()
            if route is not Route.TOR and "." not in suffix
        )

    def without_namecoin(self) -> TopLevels:
        """The same table without a resolver for Namecoin's names: they are refused."""
        return TopLevels(
            {
                suffix: Route.REFUSE if route is Route.NAMECOIN else route
                for suffix, route in self._table.items()
            }
        )

    def route(self, host: str) -> Route:
        """Who resolves `host` (any case, last dot or not); what is not listed is Tor's."""
        suffix = host.lower().removesuffix(".")
        if suffix == "onion":
            return Route.REFUSE
        while suffix:
            route = self._table.get(suffix)
            if route is not None:
                return route
            suffix = suffix.partition(".")[2]
        return Route.TOR
