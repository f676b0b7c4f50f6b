"""The main process's part in HTTPS for `.bit`: intermediates, from the root on disk.

Theory of operation
    Stream processes read what clients send, so they are not given the root's key, but an
    intermediate under it that ends in days.  The root is read for that alone, and its key
    is not kept.  When half of an intermediate's life is over all processes are given the
    next one.

Invariants
    Without a root on disk nothing that wants one starts; a reload that wants one changes
    nothing.  Where the root is gone later, the intermediate goes on until its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from isoproxy.config import Config, private_directory
from isoproxy.errors import OperationError
from isoproxy.observe.log import logger
from isoproxy.tls.certificates import INTERMEDIATE_LIFE, Issuer
from isoproxy.tls.root import RootFiles

WATCH_S: Final = 3600.0

_log: Final = logger("tls")


def root_files(state: Path) -> RootFiles:
    """The root in the state directory; raises OperationError if that is not ours alone."""
    return RootFiles(private_directory(private_directory(state) / "tls"))


class Intermediates:
    """The intermediate of now, under the root in the directory `state`.

    `issuer` is None where no listener answers TLS; `clock` is that of the calendar (UTC).
    """

    def __init__(
        self, state: Path, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self.issuer: Issuer | None = None
        self._state: Final = state
        self._clock: Final = clock

    def prepare(self, config: Config) -> Issuer | None:
        """A fresh one, if `config` wants one; raises OperationError if there is no root."""
        return self._fresh() if config.tls.enabled else None

    async def renew(self, changed: Callable[[], None]) -> None:
        """Replace it in time, and say so, until cancelled."""
        while True:
            await asyncio.sleep(WATCH_S)
            if self.renew_if_due():
                changed()

    def renew_if_due(self) -> bool:
        """Whether it was replaced."""
        if self.issuer is None or self.issuer.ends - self._clock() > INTERMEDIATE_LIFE / 2:
            return False
        try:
            self.issuer = self._fresh()
        except OperationError as error:
            _log.warn("root_not_read", problem=str(error))
            return False
        return True

    def _fresh(self) -> Issuer:
        now = self._clock().replace(microsecond=0)
        root = root_files(self._state).load()
        if root.ends <= now:
            raise OperationError(
                "the root for HTTPS has ended; make another: isoproxy tls forget, isoproxy tls init"
            )
        return root.intermediate(now)
