"""The root on disk: made, read, and forgotten.

Invariants
    Its key is in a file of mode 0600, in a directory that is this user's alone, and is read
    only to sign an intermediate.  A root is never written over another.
"""

from __future__ import annotations

import os
import stat
from datetime import datetime
from pathlib import Path
from typing import Final

from isoproxy.errors import OperationError
from isoproxy.private_file import replace_file
from isoproxy.tls.certificates import Issuer

_CERTIFICATE: Final = "root.pem"
_KEY: Final = "root.key"
_MAX_FILE: Final = 8192
_MISSING: Final = "there is no root for HTTPS yet; make one with: isoproxy tls init"


class RootFiles:
    """The root in `directory`, a private one."""

    def __init__(self, directory: Path) -> None:
        self.certificate_path: Final = directory / _CERTIFICATE
        """What is imported into browsers, in PEM; `isoproxy exec --browser` takes it from here."""
        self._key_path: Final = directory / _KEY

    def certificate(self) -> bytes:
        """The root's certificate in PEM; raises OperationError if there is none."""
        return _read(self.certificate_path)

    def create(self, now: datetime) -> Issuer:
        """Make a root; raises OperationError if there is one, or it cannot be written."""
        if self.certificate_path.exists():
            raise OperationError(
                "there is a root already, and browsers may believe it; before you make another: "
                "isoproxy tls forget"
            )
        root = Issuer.root(now)
        try:
            replace_file(self._key_path, root.key_pem().decode())
            replace_file(self.certificate_path, root.certificate_pem().decode())
        except OSError as error:
            raise OperationError(f"the root cannot be written: {error.strerror}") from None
        return root

    def load(self) -> Issuer:
        """The root with its key; raises OperationError."""
        certificate, key = self.certificate(), _read(self._key_path)
        try:
            return Issuer.from_pem(certificate, key)
        except ValueError:
            raise OperationError(
                "the files of the root for HTTPS do not belong together, or are damaged; make "
                "another: isoproxy tls forget, isoproxy tls init"
            ) from None

    def forget(self) -> bool:
        """Remove it, the key first; whether there was one.  Raises OperationError."""
        there = [path for path in (self._key_path, self.certificate_path) if path.exists()]
        try:
            for path in there:
                path.unlink()
        except OSError as error:
            raise OperationError(f"the root cannot be removed: {error.strerror}") from None
        return bool(there)


def _read(path: Path) -> bytes:
    """A small file that no other user may write or, if it is a key, read."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_MAX_FILE)
    except FileNotFoundError:
        raise OperationError(_MISSING) from None
    except OSError as error:
        raise OperationError(f"the root for HTTPS cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(mode) or mode & 0o077:
        raise OperationError("other users may use the root for HTTPS; chmod 600 its files")
    return content
