"""Names out of a file: the smallest name system, for one's own names and for tests.

Theory of operation
    A line holds a name and what it stands for, separated by blanks; `#` begins a comment.
    The file is read once, at the start.  Nothing is asked of anybody, so there is nothing
    that isolation could separate.

Invariants
    Every name and every target has been checked before the first query.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from isoproxy.errors import ConfigError, ErrorKind, NamingError, PolicyRefusal
from isoproxy.isolation import IsolationKey
from isoproxy.namecoin.resolve.answer import NameAnswer, Status, TargetType, Want
from isoproxy.net.target import Target


class HostsFile:
    """A resolver for a fixed table, from names in lower case to targets."""

    def __init__(self, table: Mapping[str, Target]) -> None:
        self._table = dict(table)

    @classmethod
    def read(cls, path: Path) -> HostsFile:
        """The names in the file at `path`; raises ConfigError with its line."""
        table = {}
        try:
            lines = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: the hosts file cannot be read: {error}") from None
        for number, line in enumerate(lines, 1):
            words = line.partition("#")[0].split()
            if not words:
                continue
            try:
                name, host = words
                table[Target.parse(name, 0).host] = Target.parse(host, 0)
            except (ValueError, PolicyRefusal):
                raise ConfigError(f"{path}:{number}: expected a name and a host") from None
        return cls(table)

    def parse(self, text: str) -> str:
        """The name in the form of the table; raises NamingError if it is not in the table."""
        name = text.lower().rstrip(".")
        if name not in self._table:
            raise NamingError(kind=ErrorKind.NAME_NEVER_SENT_TO_TOR)
        return name

    async def resolve(self, name: str, key: IsolationKey, want: Want = Want.STREAM) -> NameAnswer:
        """What the file says about `name` (as `parse` gives it), whatever the key."""
        return self.lookup_cached(name, key, want)

    def lookup_cached(self, name: str, key: IsolationKey, want: Want = Want.STREAM) -> NameAnswer:
        """The same, at once."""
        target = self._table[name]
        if want is Want.ADDRESS and target.is_onion:
            return NameAnswer.failure(name, NamingError(kind=ErrorKind.NAME_ABSENT))
        return NameAnswer(name, Status.OK, target.host, _type_of(target))


def _type_of(target: Target) -> TargetType:
    if target.is_ip:
        return TargetType.IP6 if ":" in target.host else TargetType.IP4
    return TargetType.ONION if target.is_onion else TargetType.ALIAS
