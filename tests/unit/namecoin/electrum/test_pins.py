from __future__ import annotations

import datetime
import math
import os
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from isoproxy.namecoin.electrum.pins import Pin, PinStore
from isoproxy.namecoin.electrum.servers import parse_server
from tests.kit.electrumx import self_signed

SERVER = parse_server("names.example:1:s")


@pytest.mark.parametrize("content", ["", "[]", '{"a:1":"zz"}', '{"a:1":"00 x"}', "nonsense"])
def test_an_unreadable_pin_file_is_as_good_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "name-server-pins.json").write_text(content)
    pins = PinStore(tmp_path)
    assert pins.get(SERVER) is None
    assert not pins.is_vouched_for(SERVER)
    pin = Pin(b"\x01" * 32, 5.0)
    pins.remember(SERVER, pin)
    assert PinStore(tmp_path).get(SERVER) == pin
    assert (tmp_path / "name-server-pins.json").stat().st_mode & 0o777 == 0o600


def test_a_pin_is_the_digest_of_a_certificate_and_its_end(tmp_path: Path) -> None:
    certificate, _, fingerprint = self_signed(tmp_path)
    loaded = x509.load_pem_x509_certificate(certificate.read_bytes())
    pin = Pin.of(loaded.public_bytes(Encoding.DER))
    assert pin == Pin(fingerprint, loaded.not_valid_after_utc.timestamp())
    left = pin.expires - datetime.datetime.now(datetime.UTC).timestamp()
    assert 9 * 86_400 < left < 11 * 86_400
    assert Pin.parse(str(pin)) == pin


def test_what_is_no_certificate_never_expires() -> None:
    pin = Pin.of(b"nonsense")
    assert pin.expires == math.inf
    assert Pin.parse(str(pin)) == pin


def test_an_authoritys_word_and_a_certificate_take_each_others_place(tmp_path: Path) -> None:
    pins, pin = PinStore(tmp_path), Pin(b"\x02" * 32)
    pins.remember(SERVER, pin)
    pins.remember_authority(SERVER)
    assert pins.is_vouched_for(SERVER)
    assert PinStore(tmp_path).is_vouched_for(SERVER)
    assert PinStore(tmp_path).get(SERVER) is None
    pins.remember(SERVER, pin)
    assert not pins.is_vouched_for(SERVER)
    pins.forget(SERVER)
    assert pins.get(SERVER) is None
    assert not pins.is_vouched_for(SERVER)


def test_a_certificate_that_cannot_be_stored_is_remembered_all_the_same(tmp_path: Path) -> None:
    pins, pin = PinStore(tmp_path / "gone"), Pin(b"\xab" * 32)
    pins.remember(SERVER, pin)
    assert pins.get(SERVER) == pin


def test_the_file_of_pins_is_closed_to_others(tmp_path: Path) -> None:
    """It tells which name servers somebody uses."""
    before = os.umask(0)
    try:
        PinStore(tmp_path).remember(SERVER, Pin(bytes(32)))
    finally:
        os.umask(before)
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
