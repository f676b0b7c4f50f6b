"""The key file that `isoproxy onions trust` reads."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from isoproxy.cli import onions
from isoproxy.errors import ConfigError


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    said: list[dict[str, Any]] = []

    def ask(path: Path, request: str, **members: Any) -> dict[str, Any]:
        said.append({"request": request, **members})
        return {}

    monkeypatch.setattr(onions, "ask", ask)
    monkeypatch.setattr(onions, "admin_path", lambda options: Path("/admin"))
    return said


def trust(file: Path) -> argparse.Namespace:
    return argparse.Namespace(address="a.onion", key_file=file, listener="alice")


def test_a_private_key_file_is_sent_as_it_is(asked: list[dict[str, Any]], tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("KEY\n")
    file.chmod(0o600)
    assert onions.trust_service(trust(file)) == 0
    assert onions.distrust_service(argparse.Namespace(address="a.onion")) == 0
    assert asked == [
        {"request": "trust", "address": "a.onion", "key": "KEY\n", "listener": "alice"},
        {"request": "distrust", "address": "a.onion"},
    ]


def test_a_key_file_that_others_may_read_is_refused(
    asked: list[dict[str, Any]], tmp_path: Path
) -> None:
    file = tmp_path / "key"
    file.write_text("KEY\n")
    file.chmod(0o640)
    for wrong in (file, tmp_path / "none"):
        with pytest.raises(ConfigError, match="key file"):
            onions.trust_service(trust(wrong))
    assert asked == []
