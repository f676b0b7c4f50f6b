"""What is open by default, and the preset for programs that send no credentials."""

from __future__ import annotations

from pathlib import Path

import pytest

from isoproxy.config import Config, load, sample_toml
from isoproxy.config.schema import NO_CREDENTIALS, PRESETS
from isoproxy.errors import ConfigError
from isoproxy.isolation import DEFAULT_ISOLATION, Isolate

STRICT = Isolate.CLIENT_ADDR | Isolate.SOCKS_AUTH | Isolate.DEST_ADDR | Isolate.DEST_PORT


def test_by_default_programs_without_credentials_have_a_port_of_their_own() -> None:
    first, second = Config().listener
    assert (str(first.address), first.isolate) == ("127.0.0.1:9250", DEFAULT_ISOLATION)
    assert (str(second.address), second.isolate) == ("127.0.0.1:9251", STRICT)
    assert (second.name, second.preset) == (NO_CREDENTIALS, NO_CREDENTIALS)
    assert load(Path("/dev/null")).config == Config()


def test_listeners_that_are_named_are_all_there_are(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("[[listener]]\naddress = '127.0.0.1:1'\n")
    assert [str(one.address) for one in load(file).config.listener] == ["127.0.0.1:1"]


def test_no_preset_is_looser_than_the_default() -> None:
    assert all(DEFAULT_ISOLATION & ~flags == Isolate(0) for flags in PRESETS.values())


def test_a_preset_sets_the_flags() -> None:
    (listener,) = load(None, ["listener.0.preset=no-credentials"]).config.listener
    assert listener.isolate == STRICT


def test_a_preset_may_be_made_stricter_and_not_looser() -> None:
    preset = "listener.0.preset=no-credentials"
    flags = '["ClientAddr", "SOCKSAuth", "DestAddr", "DestPort", "ClientProtocol"]'
    (listener,) = load(None, [preset, f"listener.0.isolate={flags}"]).config.listener
    assert listener.isolate == STRICT | Isolate.CLIENT_PROTOCOL
    with pytest.raises(ConfigError, match="looser than the preset"):
        load(None, [preset, 'listener.0.isolate=["DestAddr"]'])
    with pytest.raises(ConfigError, match='expected one of "no-credentials"'):
        load(None, ["listener.0.preset=strict"])


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("log_format", ("text", "json")),
        ("log_level", ("debug", "info", "notice", "warn", "err")),
        ("mode", ("managed", "system", "arti")),
        ("network", ("mainnet", "testnet", "regtest")),
        ("v1_fallback", ("never", "onion-only", "always")),
        ("v2", ("on", "off")),
        ("garbage", ("random", "none")),
    ],
)
def test_the_sample_tells_the_words_of_every_choice(key: str, words: tuple[str, ...]) -> None:
    blocks = [block for block in sample_toml().split("\n\n") if f"\n#{key} = " in block]
    assert blocks
    for word in words:
        assert any(f'"{word}"' in block.rpartition("\n")[0] for block in blocks), word
