"""The log follows the configuration."""

from __future__ import annotations

import pytest

from isoproxy.config import load
from isoproxy.daemon.settings.log import configure_log
from isoproxy.observe.log import Sensitive, configure, logger


def test_level_form_and_scrubbing(capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["observe.log_level=warn", "observe.log_format=json", "observe.safe_logging=false"]
    try:
        configure_log(load(None, settings).config)
        log = logger("test")
        log.notice("quiet")
        log.warn("loud", host=Sensitive("marked.ex"))
        printed = capsys.readouterr().err
    finally:
        configure()
    assert "quiet" not in printed
    assert printed.startswith("{")
    assert "marked.ex" in printed
