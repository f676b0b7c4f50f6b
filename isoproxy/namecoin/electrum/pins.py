"""Which certificates name servers showed at first, and for which an authority vouched.

Theory of operation
    One file in the state directory, host:port to one line of text: empty where an authority
    vouched (as Electrum leaves the file of such a server empty), else the certificate's
    SHA-256 in hexadecimal and, behind a blank, the time at which it expires.

Invariants
    The file is written whole, with mode 0600, or not at all.  One that cannot be read is as
    good as none.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509

from isoproxy.namecoin.electrum.servers import NameServer
from isoproxy.observe.log import logger
from isoproxy.private_file import replace_file

_log = logger("names")
_FILE: Final = "name-server-pins.json"
_VOUCHED_FOR: Final = ""


@dataclass(frozen=True, slots=True)
class Pin:
    """A certificate: the SHA-256 of its DER form, and when it `expires`, in s since 1970."""

    digest: bytes
    expires: float = math.inf

    @classmethod
    def of(cls, certificate: bytes) -> Pin:
        """The pin of a certificate in DER; one whose end cannot be read has none."""
        try:
            end = x509.load_der_x509_certificate(certificate).not_valid_after_utc.timestamp()
        except (ValueError, OverflowError):
            end = math.inf
        return cls(hashlib.sha256(certificate).digest(), end)

    @classmethod
    def parse(cls, text: str) -> Pin:
        """The pin that `str` of one wrote; raises ValueError."""
        digest, _, expires = text.partition(" ")
        return cls(bytes.fromhex(digest), float(expires or math.inf))

    def __str__(self) -> str:
        return f"{self.digest.hex()} {self.expires:.0f}"


class PinStore:
    """The certificates known, by host:port; `directory` None keeps them in memory."""

    def __init__(self, directory: Path | None = None) -> None:
        self._path = directory / _FILE if directory is not None else None
        self._pins: dict[str, Pin | None] = {}
        if self._path is not None and self._path.exists():
            self._pins = _read(self._path)

    def get(self, server: NameServer) -> Pin | None:
        """What `server` showed at first; None if it is not known, or an authority vouches."""
        return self._pins.get(server.label)

    def is_vouched_for(self, server: NameServer) -> bool:
        """True if an authority vouched for `server` before."""
        return server.label in self._pins and self._pins[server.label] is None

    def remember_authority(self, server: NameServer) -> None:
        """Keep that an authority vouches for `server`."""
        if not self.is_vouched_for(server):
            self._keep(server, None)

    def remember(self, server: NameServer, pin: Pin) -> None:
        """Keep `pin` for `server`, on disk atomically; the disk is not waited for.

        Where the disk takes nothing it is kept in memory.
        """
        self._keep(server, pin)

    def forget(self, server: NameServer) -> None:
        """Know nothing of `server` any more, until the next `remember` reaches the disk."""
        self._pins.pop(server.label, None)

    def _keep(self, server: NameServer, pin: Pin | None) -> None:
        self._pins[server.label] = pin
        if self._path is None:
            return
        written = {
            label: _VOUCHED_FOR if known is None else str(known)
            for label, known in self._pins.items()
        }
        try:
            text = json.dumps(written, indent=1, sort_keys=True)
            replace_file(self._path, text, durable=False)
        except OSError as error:
            _log.warn("certificate_not_stored", problem=error.strerror)


def _read(path: Path) -> dict[str, Pin | None]:
    try:
        written = json.loads(path.read_text())
        return {
            str(label): None if text == _VOUCHED_FOR else Pin.parse(text)
            for label, text in written.items()
        }
    except (OSError, ValueError, AttributeError):
        return {}
