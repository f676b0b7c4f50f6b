"""The grammar of host names in text (RFC 1035 §2.3.1, RFC 1123 §2.1), in lower case.

Invariants
    Nothing here accepts anything but ASCII, so no spelling of another script can end up
    equal to a name after case folding.
"""

from __future__ import annotations

import re
from typing import Final

MAX_DOTTED_LENGTH: Final = 253
"""Characters of a dotted name without its last dot (RFC 1035 §2.3.4: 255 on the wire)."""

_LABEL: Final = re.compile(r"(?=.{1,63}\Z)[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?", re.ASCII)
_HOST: Final = re.compile(
    rf"(?=.{{1,{MAX_DOTTED_LENGTH}}}\Z)"
    r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?",
    re.ASCII,
)


def is_label(text: str) -> bool:
    """Whether `text` may own records below a name: lower-case, `_` allowed, 1-63 bytes."""
    return _LABEL.fullmatch(text) is not None


def is_host_name(text: str) -> bool:
    """Whether `text` (lower-case, no last dot) is a host name: no `_`, at most 253 bytes."""
    return _HOST.fullmatch(text) is not None
