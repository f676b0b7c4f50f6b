"""Dehydrated TLS certificates (IFA-0003): from six numbers back to an X.509 certificate.

Theory of operation
    A self-signed certificate for one host is determined by its public key, its validity
    (in units of five minutes), the signature and its algorithm, once everything else is
    fixed by rule: subject and issuer, serial number, four extensions in a fixed order.
    The value of a name carries the six; the certificate is written out again in DER
    (X.690), byte for byte, or its signature would not hold.

Invariants
    What cannot be rebuilt gives None.  The signature is not verified here: whoever uses
    the certificate compares it with the one the server shows.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from isoproxy.namecoin.value.json import Json
from isoproxy.net.host_name import is_host_name

_UNIT: Final = timedelta(minutes=5)
_EPOCH: Final = datetime(1970, 1, 1)
_LAST_SCALED: Final = (datetime(9999, 1, 1) - _EPOCH) // _UNIT

_SERIAL_LENGTH: Final = 19
_NULL: Final = b"\x05\x00"


def _tlv(tag: int, *parts: bytes) -> bytes:
    """One DER value: tag, length, contents."""
    content = b"".join(parts)
    if len(content) < 0x80:
        return bytes((tag, len(content))) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def _sequence(*parts: bytes) -> bytes:
    return _tlv(0x30, *parts)


def _oid(dotted: str) -> bytes:
    first, second, *rest = map(int, dotted.split("."))
    encoded = bytearray()
    for arc in (first * 40 + second, *rest):
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(0x80 | arc & 0x7F)
        encoded += bytes(reversed(groups))
    return _tlv(0x06, bytes(encoded))


_ALGORITHMS: Final = MappingProxyType(
    {
        4: _sequence(_oid("1.2.840.113549.1.1.11"), _NULL),  # RSA with SHA-256
        5: _sequence(_oid("1.2.840.113549.1.1.12"), _NULL),
        6: _sequence(_oid("1.2.840.113549.1.1.13"), _NULL),
        10: _sequence(_oid("1.2.840.10045.4.3.2")),  # ECDSA with SHA-256
        11: _sequence(_oid("1.2.840.10045.4.3.3")),
        12: _sequence(_oid("1.2.840.10045.4.3.4")),
        16: _sequence(_oid("1.3.101.112")),  # Ed25519
    }
)
"""The numbers are those of Go's crypto/x509, which IFA-0003 took over."""

_COMMON_NAME: Final = _oid("2.5.4.3")
_SERIAL_NUMBER: Final = _oid("2.5.4.5")
_MARK: Final = b"Namecoin TLS Certificate"

_KEY_USAGE: Final = _sequence(
    _oid("2.5.29.15"), _tlv(0x01, b"\xff"), _tlv(0x04, _tlv(0x03, b"\x07\x80"))
)
_SERVER_AUTH: Final = _sequence(_oid("2.5.29.37"), _tlv(0x04, _sequence(_oid("1.3.6.1.5.5.7.3.1"))))
_NO_AUTHORITY: Final = _sequence(_oid("2.5.29.19"), _tlv(0x01, b"\xff"), _tlv(0x04, _sequence()))
_ALTERNATIVE_NAME: Final = _oid("2.5.29.17")


def rehydrate(item: Json, host: str) -> bytes | None:
    """The DER certificate for `host` that `item`, the list of a `d8` entry, stands for."""
    match item:
        case [1, str(key), int(start), int(end), int(number), str(signature), *_]:
            pass
        case _:
            return None
    algorithm = _ALGORITHMS.get(number)
    if algorithm is None or not is_host_name(host):
        return None
    if not (0 <= start <= _LAST_SCALED and 0 <= end <= _LAST_SCALED):
        return None
    try:
        public_key = base64.b64decode(key, validate=True)
        signature_bytes = base64.b64decode(signature, validate=True)
    except ValueError:
        return None
    name = _name(host)
    serial = int.from_bytes(_serial(host, public_key, start, end), "big")
    to_be_signed = _sequence(
        _tlv(0xA0, _tlv(0x02, b"\x02")),
        _tlv(0x02, serial.to_bytes(serial.bit_length() // 8 + 1, "big")),
        algorithm,
        name,
        _sequence(_time(start), _time(end)),
        name,
        public_key,
        _tlv(0xA3, _sequence(_KEY_USAGE, _SERVER_AUTH, _NO_AUTHORITY, _alternative_name(host))),
    )
    return _sequence(to_be_signed, algorithm, _tlv(0x03, b"\x00", signature_bytes))


def _serial(host: str, public_key: bytes, start: int, end: int) -> bytes:
    parts = (host.encode(), public_key, start.to_bytes(8, "big"), end.to_bytes(8, "big"))
    digests = b"".join(hashlib.sha256(part).digest() for part in parts)
    return hashlib.sha256(digests).digest()[:_SERIAL_LENGTH]


def _name(host: str) -> bytes:
    def attribute(kind: bytes, text: bytes) -> bytes:
        return _tlv(0x31, _sequence(kind, _tlv(0x13, text)))

    return _sequence(attribute(_COMMON_NAME, host.encode()), attribute(_SERIAL_NUMBER, _MARK))


def _alternative_name(host: str) -> bytes:
    return _sequence(_ALTERNATIVE_NAME, _tlv(0x04, _sequence(_tlv(0x82, host.encode()))))


def _time(scaled: int) -> bytes:
    """UTCTime until 2049, GeneralizedTime from 2050 on (RFC 5280 §4.1.2.5)."""
    moment = _EPOCH + scaled * _UNIT
    if 1950 <= moment.year < 2050:
        return _tlv(0x17, moment.strftime("%y%m%d%H%M%SZ").encode())
    return _tlv(0x18, moment.strftime("%Y%m%d%H%M%SZ").encode())
