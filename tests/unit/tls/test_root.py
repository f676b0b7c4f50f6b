"""The root's files: private, whole, never written over, and gone when they are forgotten."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from isoproxy.errors import OperationError
from isoproxy.tls.root import RootFiles
from tests.unit.tls.sites import NOW


def test_a_root_is_made_once_and_read_again(tmp_path: Path) -> None:
    files = RootFiles(tmp_path)
    root = files.create(NOW)
    assert files.load() == root
    assert files.certificate() == root.certificate_pem()
    assert {path.name for path in tmp_path.iterdir()} == {"root.pem", "root.key"}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in tmp_path.iterdir())
    with pytest.raises(OperationError, match="tls forget"):
        files.create(NOW)
    assert files.load() == root


def test_without_one_it_is_said_how_to_make_one(tmp_path: Path) -> None:
    for read in RootFiles(tmp_path).certificate, RootFiles(tmp_path).load:
        with pytest.raises(OperationError, match="isoproxy tls init"):
            read()


def test_forgotten_is_gone(tmp_path: Path) -> None:
    files = RootFiles(tmp_path)
    first = files.create(NOW)
    assert files.forget()
    assert list(tmp_path.iterdir()) == []
    assert not files.forget()
    assert files.create(NOW) != first


def test_files_that_others_may_read_or_that_do_not_belong_together_are_refused(
    tmp_path: Path,
) -> None:
    files, others = RootFiles(tmp_path / "a"), RootFiles(tmp_path / "b")
    for directory in tmp_path / "a", tmp_path / "b":
        directory.mkdir(0o700)
    files.create(NOW)
    others.create(NOW)
    key = tmp_path / "a" / "root.key"
    key.chmod(0o640)
    with pytest.raises(OperationError, match="chmod 600"):
        files.load()
    key.chmod(0o600)
    key.write_bytes((tmp_path / "b" / "root.key").read_bytes())
    with pytest.raises(OperationError, match="belong together"):
        files.load()
    key.write_text("damaged")
    with pytest.raises(OperationError, match="damaged"):
        files.load()
    key.unlink()
    key.symlink_to(tmp_path / "b" / "root.key")
    with pytest.raises(OperationError, match="cannot be read"):
        files.load()
