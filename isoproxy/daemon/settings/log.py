"""The log as the configuration has it."""

from __future__ import annotations

from isoproxy.config import Config
from isoproxy.observe.log import configure


def configure_log(config: Config) -> None:
    """Set up the log as the configuration wants it."""
    observe = config.observe
    configure(level=observe.log_level, form=observe.log_format, safe=observe.safe_logging)
