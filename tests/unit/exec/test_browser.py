"""Profiles: where, with what in them, and for which programs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from isoproxy.errors import OperationError
from isoproxy.exec.browser import Browser, browser_of, is_firefox, place_for


def test_a_profile_of_firefox_leaves_names_to_the_system_and_searches_for_none(
    tmp_path: Path,
) -> None:
    emptied: list[str] = []
    options = Browser("/usr/bin/firefox-esr", str(tmp_path)).prepare(emptied.append)
    assert emptied == [str(tmp_path)]
    assert options == ("--new-instance", "--profile", str(tmp_path / "profile"))
    settings = (tmp_path / "profile" / "user.js").read_text().splitlines()
    assert 'user_pref("network.trr.mode", 5);' in settings
    assert 'user_pref("network.proxy.type", 0);' in settings
    assert 'user_pref("browser.fixup.domainsuffixwhitelist.bit", true);' in settings


def test_a_profile_that_is_kept_is_where_it_was_asked_for(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    options = Browser("chromium", "/nowhere", kept).prepare(_never)
    assert options[0] == f"--user-data-dir={kept}"
    assert kept.stat().st_mode & 0o777 == 0o700
    Browser("chromium", "/nowhere", kept).prepare(_never)


def _never(directory: str) -> None:
    raise AssertionError("a profile that is kept is put over nothing")


def test_the_browser_is_the_one_named_or_the_first_that_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert browser_of(["/opt/firefox/firefox", "-x"]) == "/opt/firefox/firefox"
    assert browser_of(["google-chrome"]) == "google-chrome"
    with pytest.raises(OperationError, match="relatives"):
        browser_of(["curl"])
    monkeypatch.setattr(shutil, "which", lambda name: name if name == "chromium" else None)
    assert browser_of([]) == "chromium"
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(OperationError, match="no browser"):
        browser_of([])


def test_firefox_is_told_from_others() -> None:
    assert [is_firefox(name) for name in ("/x/firefox", "firefox-esr", "/firefox/chromium")] == [
        True,
        True,
        False,
    ]


def test_a_place_is_a_directory_that_is_there(tmp_path: Path) -> None:
    assert place_for(["/no/such", str(tmp_path), "/"]) == str(tmp_path)
    with pytest.raises(OperationError, match="no directory"):
        place_for(["/no/such"])
