"""Identities that were given another key within an epoch, by their labels.

Theory of operation
    A key has no table, so its successor is derived from it: who holds the labels of the
    keys that are over finds, from the tuple, the key that counts now.  A successor has a
    label of its own, and may be renewed in turn.

Invariants
    At most MAX_RENEWALS labels, emptied at the next epoch.  A label is six hexadecimal
    digits that mean nothing outside this process; two identities that have the same one (of
    16 million) are renewed together, which merges nothing.
"""

from __future__ import annotations

import re
from typing import Final

from isoproxy.errors import OperationError

MAX_RENEWALS: Final = 1024
LABEL_BYTES: Final = 3
_LABEL: Final = re.compile(r"[0-9a-f]{6}", re.ASCII)


class Renewals:
    """The `labels` of the keys that are over."""

    def __init__(self) -> None:
        self.labels: set[str] = set()

    def __contains__(self, label: str) -> bool:
        return label in self.labels

    def add(self, label: str) -> None:
        """The key of `label` is over.  Raises OperationError."""
        if not _LABEL.fullmatch(label):
            raise OperationError(
                "an identity is named by its label, six hexadecimal digits: see isoproxy status"
            )
        if label in self.labels:
            raise OperationError(
                "this identity has new circuits already, and another label since: see isoproxy "
                "status"
            )
        if len(self.labels) >= MAX_RENEWALS:
            raise OperationError(
                f"{MAX_RENEWALS} identities have been given new circuits one by one, and more "
                "are not kept; give all of them new ones: isoproxy newnym"
            )
        self.labels.add(label)

    def clear(self) -> None:
        """A new epoch: every key is another one."""
        self.labels.clear()

    def export_state(self) -> bytes:
        """What `import_state` takes in another process."""
        return bytes.fromhex("".join(sorted(self.labels)))

    def import_state(self, state: bytes) -> None:
        """Have the labels of another process."""
        self.labels = {
            state[start : start + LABEL_BYTES].hex() for start in range(0, len(state), LABEL_BYTES)
        }
