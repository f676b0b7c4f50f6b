"""Namecoin's limits on what a name operation carries, in bytes.

Namecoin Core, `src/names/common.h`: MAX_NAME_LENGTH and MAX_VALUE_LENGTH.  Blocks with
anything longer are invalid, so a longer name or value is on no chain.
"""

from __future__ import annotations

from typing import Final

MAX_NAME_BYTES: Final = 255
MAX_VALUE_BYTES: Final = 1023
