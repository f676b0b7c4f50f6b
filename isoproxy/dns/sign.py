"""Signatures and denials made as answers go out (DNSSEC, live signing).

Theory of operation
    One ECDSA P-256 key signs everything (algorithm 13; a key that is both KSK and ZSK).
    Whoever is to believe the zone gets the key as a trust anchor, since no root signs
    `bit`.  Absence is proved the compact way (RFC 9824): the name asked for is given an
    NSEC record whose types are those it has, and whose next name is the very next one
    possible; a name that does not exist has the type NXNAME.  So nothing can be walked,
    and no proof says anything about another name.

Invariants
    Signatures hold for a day from the beginning of the hour they are made in, and began
    to hold an hour before: what they tell about the time of a query is its hour.  A key
    file is made complete, with mode 0600, or not at all, and never over another file.

Specification: RFC 4034, RFC 4035 §3.1, RFC 6605 (ECDSA), RFC 9824.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import dns.dnssec
import dns.name
import dns.rrset
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from dns.dnssectypes import Algorithm, DSDigest
from dns.rdataclass import IN
from dns.rdatatype import RdataType
from dns.rdtypes.ANY.DNSKEY import DNSKEY
from dns.rdtypes.ANY.NSEC import NSEC
from dns.rdtypes.dnskeybase import Flag
from dns.rdtypes.util import Bitmap

from isoproxy.dns.answer import NEGATIVE_TTL, ORIGIN, Denial
from isoproxy.dns.query import NXNAME
from isoproxy.errors import ConfigError, OperationError

_HOUR_S: Final = 3600
_LIFETIME_S: Final = 24 * _HOUR_S
_NXNAME: Final = RdataType.make(NXNAME)
_MAX_FILE: Final = 4096


class ZoneKey:
    """The private key of the zone, and its public half as a record."""

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        self._private: Final = private
        self.dnskey: Final[DNSKEY] = dns.dnssec.make_dnskey(
            private.public_key(),
            Algorithm.ECDSAP256SHA256,
            flags=Flag.ZONE | Flag.SEP,
        )

    @classmethod
    def generate(cls) -> ZoneKey:
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def load(cls, path: Path) -> ZoneKey:
        """The key in a file that `store` made; raises ConfigError."""
        try:
            # a pipe must not hold us up before it is seen to be one
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except PermissionError:
            raise ConfigError(
                "the DNSSEC key file cannot be read by the user who runs isoproxy; chown it"
            ) from None
        except OSError as error:
            raise ConfigError(
                f"the DNSSEC key file: {error.strerror}; make one with: isoproxy dns keygen FILE"
            ) from None
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or stat.S_IMODE(status.st_mode) & 0o077:
                raise ConfigError(
                    "the DNSSEC key file must be a file that only its owner may read; chmod 600 it"
                )
            content = file.read(_MAX_FILE)
        with contextlib.suppress(ValueError, TypeError, UnsupportedAlgorithm):
            private = serialization.load_pem_private_key(content, password=None)
            if isinstance(private, ec.EllipticCurvePrivateKey) and isinstance(
                private.curve, ec.SECP256R1
            ):
                return cls(private)
        raise ConfigError(
            "the DNSSEC key file does not hold an ECDSA P-256 key in PEM form; "
            "make one with: isoproxy dns keygen FILE"
        )

    def store(self, path: Path) -> None:
        """Make the key file; raises OperationError if there is one, or it cannot be made."""
        pem = self._private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        try:
            descriptor, fresh = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(pem)
                    file.flush()
                    os.fsync(file.fileno())
                os.link(fresh, path)
            finally:
                os.unlink(fresh)
        except FileExistsError:
            raise OperationError(
                "the key file exists already; resolvers trust the key in it, so move it away "
                "first if you want another"
            ) from None
        except OSError as error:
            raise OperationError(f"the key file cannot be made: {error.strerror}") from None

    def anchor(self) -> str:
        """The trust anchor as lines of a zone file: the key, and its digest."""
        digest = dns.dnssec.make_ds(ORIGIN, self.dnskey, DSDigest.SHA256)
        return f"{ORIGIN} IN DNSKEY {self.dnskey.to_text()}\n{ORIGIN} IN DS {digest.to_text()}"

    def sign(self, rrset: dns.rrset.RRset, inception: int, expiration: int) -> dns.rrset.RRset:
        """The RRSIG for `rrset`, valid between two times in seconds since 1970."""
        signature = dns.dnssec.sign(
            rrset,
            self._private,
            ORIGIN,
            self.dnskey,
            inception=inception,
            expiration=expiration,
        )
        return dns.rrset.from_rdata(rrset.name, rrset.ttl, signature)


class Signer:
    """Signs with `key` at the time that `clock` gives, in seconds since 1970."""

    def __init__(self, key: ZoneKey, clock: Callable[[], float]) -> None:
        self._key: Final = key
        self._clock: Final = clock
        # What is loaded for the first signature is loaded now, before anybody waits.
        self.signature(dns.rrset.from_rdata(ORIGIN, NEGATIVE_TTL, key.dnskey))

    def signature(self, rrset: dns.rrset.RRset) -> dns.rrset.RRset:
        """The RRSIG that goes with `rrset`."""
        hour = int(self._clock()) // _HOUR_S * _HOUR_S
        return self._key.sign(rrset, hour - _HOUR_S, hour + _LIFETIME_S)


def nsec(denial: Denial) -> dns.rrset.RRset:
    """The compact proof of `denial` (RFC 9824 §3)."""
    absent = () if denial.exists else (_NXNAME,)
    types = Bitmap.from_rdtypes([*denial.types, RdataType.NSEC, RdataType.RRSIG, *absent])
    # In lower case: what follows "Z" byte by byte comes before "z" in the zone's order.
    following = denial.owner.canonicalize().successor(ORIGIN, prefix_ok=True)
    record = NSEC(IN, RdataType.NSEC, following, types.windows)
    return dns.rrset.from_rdata(denial.owner, NEGATIVE_TTL, record)
