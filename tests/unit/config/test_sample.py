"""The sample says what the configuration it is made from says."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from isoproxy.config import Config, load, sample_toml
from isoproxy.config.sample import toml_value
from isoproxy.isolation import Isolate


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["listener.0.preset=no-credentials"],
        ["listener.0.proxy_auth_challenge=true", "tor.mode=system"],
        ["listener=[]", "dns.address=127.0.0.1:5353"],
    ],
)
def test_a_sample_is_read_as_what_it_was_made_from(tmp_path: Path, settings: list[str]) -> None:
    config = load(Path("/dev/null"), settings).config
    file = tmp_path / "isoproxy.toml"
    file.write_text(sample_toml(config))
    if settings[:1] != ["listener=[]"]:  # no table says that there is no listener
        assert load(file).config == config
    assert tomllib.loads(sample_toml(config)) is not None


def test_the_sample_of_nothing_is_that_of_the_defaults() -> None:
    assert sample_toml() == sample_toml(Config())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (0, "0"),
        (1.5, "1.5"),
        (("a", "b"), '["a", "b"]'),
        ({}, "{}"),
        ({"a": 1}, '{ "a" = 1 }'),
        (Isolate.DEST_ADDR, '["DestAddr"]'),
        ('say "x"', '"say \\"x\\""'),
    ],
)
def test_values_are_written_as_toml(value: object, text: str) -> None:
    assert toml_value(value) == text
    assert tomllib.loads(f"x = {text}")
