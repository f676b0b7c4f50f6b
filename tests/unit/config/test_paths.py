"""Directories by convention."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from isoproxy.config import paths
from isoproxy.config.paths import (
    configuration_directories,
    private_directory,
    runtime_directory,
    state_directory,
)
from isoproxy.errors import OperationError
from tests.kit import service


def test_systemd_comes_before_the_session_before_the_home() -> None:
    home = {"HOME": "/home/a"}
    session = {**home, "XDG_STATE_HOME": "/s", "XDG_RUNTIME_DIR": "/r"}
    service = {**session, "STATE_DIRECTORY": "/var/lib/isoproxy:/x", "RUNTIME_DIRECTORY": "/run/i"}
    assert state_directory(home) == Path("/home/a/.local/state/isoproxy")
    assert state_directory(session) == Path("/s/isoproxy")
    assert state_directory(service) == Path("/var/lib/isoproxy")
    assert runtime_directory(home) == Path("/home/a/.local/state/isoproxy")
    assert runtime_directory(session) == Path("/r/isoproxy")
    assert runtime_directory(service) == Path("/run/i")
    assert state_directory({**home, "XDG_STATE_HOME": "relative"}).is_absolute()


def test_a_configuration_directory_that_is_given_is_the_only_one() -> None:
    given = {"CONFIGURATION_DIRECTORY": "/etc/another:/x"}
    assert configuration_directories(given) == (Path("/etc/another"),)
    system = (Path("/etc/isoproxy"), Path("/usr/local/etc/isoproxy.d"))
    assert configuration_directories({}) == system


def test_tests_read_nothing_of_an_isoproxy_that_is_installed_here(tmp_path: Path) -> None:
    """Twenty failed with the package installed: its configuration was theirs."""
    for environment in (os.environ, service.environment(tmp_path)):
        for directory in configuration_directories(environment):
            assert not directory.exists()
            assert not directory.is_relative_to("/etc")
            assert not directory.is_relative_to("/usr")


@pytest.mark.parametrize("environment", [{}, {"HOME": ""}, {"HOME": "here"}])
def test_without_a_home_nothing_is_made(environment: dict[str, str]) -> None:
    """Root could make the directory that stands for none."""
    for place in (state_directory(environment), runtime_directory(environment)):
        with pytest.raises(OperationError, match="HOME"):
            private_directory(place)
        assert not Path("/nonexistent").exists()


def test_directories_are_private(tmp_path: Path) -> None:
    made = private_directory(tmp_path / "a" / "b")
    assert made.stat().st_mode & 0o777 == 0o700
    assert made.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o722, 0o1777])
def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "state"
    path.mkdir()
    path.chmod(mode)
    with pytest.raises(OperationError, match="chmod 700"):
        private_directory(path)
    path.chmod(0o755)
    assert private_directory(path) == path


def test_a_directory_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    with pytest.raises(OperationError, match="belongs to another user"):
        private_directory(tmp_path)


def test_a_directory_that_cannot_be_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "state"):
        with pytest.raises(OperationError, match="STATE_DIRECTORY"):
            private_directory(path)


def test_it_is_started_by_its_unit_where_the_package_installed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "_UNIT_DIRECTORIES", (tmp_path,))
    assert paths.start_command() == "isoproxy run"
    (tmp_path / "isoproxy.service").touch()
    assert paths.start_command() == "systemctl start isoproxy"
