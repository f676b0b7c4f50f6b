"""Files that show a password to every user of the machine are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from isoproxy.config import load

SECRETS = (
    '[tor]\ncontrol_password = "marked"\n',
    '[names.rpc]\nusername = "u"\npassword = "marked"\n',
    '[names]\nbackend = "namecoin-core"\n[names.rpc]\n'
    'clients = { "10.0.0.1/32" = "user:marked@10.0.0.1:8336" }\n',
)
NO_SECRETS = (
    '[tor]\nsocks = "127.0.0.1:9050"\n',
    '[names]\nbackend = "namecoin-core"\n[names.rpc]\n'
    'clients = { "10.0.0.1/32" = "10.0.0.1:8336" }\n',
    '[names.electrum]\nservers = ["a.onion:1:t", "b.onion:1:t"]\n',
)


@pytest.mark.parametrize("text", SECRETS)
def test_a_password_that_every_user_can_read_is_warned_of(tmp_path: Path, text: str) -> None:
    file = tmp_path / "isoproxy.toml"
    file.write_text(text)
    file.chmod(0o644)
    warnings = load(file).warnings
    assert len(warnings) == 1
    assert f"chmod o-rwx {file}" in warnings[0]
    assert "marked" not in warnings[0]
    for mode in (0o640, 0o600):
        file.chmod(mode)
        assert load(file).warnings == ()


def test_each_file_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    main, drop_in = tmp_path / "isoproxy.toml", tmp_path / "conf.d" / "10.toml"
    main.write_text(NO_SECRETS[0])
    drop_in.write_text(SECRETS[0])
    for file in (main, drop_in):
        file.chmod(0o644)
    (warning,) = load(main).warnings
    assert str(drop_in) in warning


@pytest.mark.parametrize("text", NO_SECRETS)
def test_other_files_may_be_read(tmp_path: Path, text: str) -> None:
    file = tmp_path / "isoproxy.toml"
    file.write_text(text)
    file.chmod(0o644)
    assert load(file).warnings == ()


def test_what_an_option_says_is_in_no_file() -> None:
    assert load(Path("/dev/null"), ["tor.control_password=marked"]).warnings == ()
