"""Which settings differ: keys, never values."""

from __future__ import annotations

import pytest

from isoproxy.config import changed_keys, load


@pytest.mark.parametrize(
    ("before", "after", "keys"),
    [
        ([], [], ()),
        (["tor.mode=system"], [], ("tor.mode",)),
        (["listener.0.require_auth=true"], ["listener.0.name=x"], (
            "listener.0.name", "listener.0.require_auth")),
        (["listener.0.name=x"], ["listener.0.name=x", "listener.1.address=127.0.0.1:1"], (
            "listener",)),
        (["tor.socks=127.0.0.1:1"], ["tor.socks=127.0.0.1:2"], ("tor.socks",)),
        (["names.rpc.password=marked", "names.rpc.username=u"], ["names.rpc.username=u"], (
            "names.rpc.password",)),
    ],
)  # fmt: skip
def test_changed_keys(before: list[str], after: list[str], keys: tuple[str, ...]) -> None:
    assert changed_keys(load(None, before).config, load(None, after).config) == keys
