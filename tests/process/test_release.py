"""`make release`: of a tag alone, the same bytes each time, and a checksum file that is signed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.repository import ROOT

VERSION = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.M)


class Clone:
    """A clone of this repository, with what is not committed yet, and a key that signs."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "clone"
        self._environment = {
            **os.environ,
            "GNUPGHOME": str(directory / "gpg"),
            "PYTHON": sys.executable,
            "KEY": "release@isoproxy.invalid",
        }
        (directory / "gpg").mkdir(mode=0o700)
        self.run("git", "clone", "-q", str(ROOT), str(self.root), at=directory)
        shutil.copy(ROOT / "packaging" / "release", self.root / "packaging" / "release")
        self.run("git", "add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "As it is")

    def git(self, *words: str) -> None:
        self.run("git", "-c", "user.name=t", "-c", "user.email=t@example.test", *words)

    def run(self, *words: str, at: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words,
            cwd=at or self.root,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def release(self) -> subprocess.CompletedProcess[str]:
        return self.run("packaging/release")


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Clone]:
    if shutil.which("gpg") is None:
        pytest.skip("there is no gpg: apt install it")
    made = Clone(tmp_path)
    yield made
    made.run("gpgconf", "--kill", "all")


def test_a_tag_becomes_archives_and_a_signed_checksum_file(clone: Clone) -> None:
    assert VERSION is not None
    identity = "release@isoproxy.invalid"
    made = clone.run("gpg", "--batch", "--passphrase", "", "--quick-gen-key", identity)
    assert made.returncode == 0, made.stderr
    clone.git("tag", f"v{VERSION[1]}")
    done = clone.release()
    assert done.returncode == 0, done.stderr
    there = {file.name for file in (clone.root / "dist" / "release").iterdir()}
    name = f"isoproxy-{VERSION[1]}"
    wheel = f"{name}-py3-none-any.whl"
    assert there == {wheel, f"{name}.tar.gz", "SHA256SUMS", "SHA256SUMS.asc"}
    at = clone.root / "dist" / "release"
    assert clone.run("sha256sum", "-c", "SHA256SUMS", at=at).returncode == 0
    assert clone.run("gpg", "--verify", "SHA256SUMS.asc", at=at).returncode == 0


def test_what_is_no_release_is_refused(clone: Clone) -> None:
    for tag, reason in ((None, "has no tag"), ("v99.0.0", "another version than v99.0.0")):
        if tag is not None:
            clone.git("tag", tag)
        done = clone.release()
        assert (done.returncode, reason in done.stderr) == (1, True), done.stderr
    (clone.root / "README.md").write_text("changed")
    assert "no commit has" in clone.release().stderr
