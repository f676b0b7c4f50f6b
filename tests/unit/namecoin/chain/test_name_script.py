from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.errors import RemoteProtocolError
from isoproxy.namecoin.chain.name_script import (
    NAME_TX_VERSION,
    NameOp,
    parse_name_script,
    push,
    script_hash,
)
from tests.kit.namecoin.at_once import name_update, parse_transaction
from tests.kit.namecoin.chain import RegtestChain, name_script, recorded_answers
from tests.kit.namecoin.mainnet import mainnet_transactions
from tests.kit.namecoin.mining import ADDRESS_SCRIPT, serialise

NAME, VALUE = b"d/example", b'{"ip":"192.0.2.1"}'
SPENT = bytes(range(36))


def transaction(*scripts: bytes, version: int = NAME_TX_VERSION) -> bytes:
    return serialise(version, [(SPENT, b"sig")], [(1, script) for script in scripts])


UPDATE = name_script(3, NAME, VALUE) + ADDRESS_SCRIPT
FIRST = name_script(2, NAME, b"r" * 20, VALUE) + ADDRESS_SCRIPT
NEW = name_script(1, b"h" * 20) + ADDRESS_SCRIPT


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"d/example", "92f51fe51fa9c53ea842325c9c63a9b8592b3f64c7477b6e538a64d80cd8c0ac"),
        (b"d/bitcoin", "bdd490728e7f1cbea1836919db5e932cce651a82f5a13aa18a5267c979c95d3c"),
        (b"d/namecoin", "281fde067fa5f35ad7d1e7f39dca8e9e3c77900891eed00f7fdf5c71ca1473f6"),
        (b"d/wikileaks", "8e67ba57c6cf09a3940731df99b76302b0c8334d6839523dfe82471efe572c14"),
        (b"id/satoshi", "8c2e522719c6623af71764e63198ffb92bcd0c05621fae9e12a72f304d6d7ee9"),
        (b"d/live1", "dca35694f171f7e2aa6963c12d092c8dfd2c85edfefb4c0e0a8292bf03ef636d"),
        (b"d/" + b"a" * 63, "8804e37ef80385160953f2cdf62dc59088cc9b911674e3a6283b70482b4248c6"),
        (b"d/" + b"a" * 73, "a2537bb3889cbe2d6ac45d8f322b6c9855fa4fe5dcf74efc7b1147b9fa08592f"),
        (b"d/" + b"a" * 74, "675d6b7a5d6efce9a86a3d13563d71444e9019e1f19d0ecce89c3bf267b0044c"),
        (b"a" * 255, "3f73437ebb6e21811b37d0845854a7d42bd8c2ae9f491c479ef0284abcf06f86"),
    ],
)
def test_script_hashes(name: bytes, expected: str) -> None:
    assert script_hash(name) == expected


@given(st.binary(max_size=255), st.binary(max_size=1023), st.sampled_from([2, 3]))
def test_operations_come_back(name: bytes, value: bytes, op: int) -> None:
    arguments = (name, value) if op == 3 else (name, b"r" * 20, value)
    script = parse_name_script(name_script(op, *arguments) + ADDRESS_SCRIPT)
    assert script is not None
    assert (script.op.value, script.name, script.value) == (0x50 + op, name, value)


def test_an_empty_value_is_a_push_of_nothing() -> None:
    script = parse_name_script(b"\x53" + push(NAME) + b"\x00\x6d\x75" + ADDRESS_SCRIPT)
    assert script is not None
    assert script.value == b""


def test_pushes_in_longer_forms_are_read() -> None:
    script = b"\x53\x4d\x09\x00" + NAME + b"\x4e\x01\x00\x00\x00v\x6d\x75"
    read = parse_name_script(script)
    assert read is not None
    assert (read.name, read.value) == (NAME, b"v")


@pytest.mark.parametrize(
    "script",
    [
        b"",
        ADDRESS_SCRIPT,
        b"\x53",
        b"\x53" + push(NAME),
        b"\x53" + push(NAME) + b"\x6d\x75",
        b"\x53" + push(NAME) * 3 + b"\x6d\x75",
        b"\x52" + push(NAME) * 2 + b"\x6d\x6d",
        b"\x51\x6d",
        b"\x53" + push(NAME) + b"\x51\x6d\x75",
        b"\x53\x09short",
        b"\x53\x4d\x09",
        b"\x54" + push(NAME) * 2 + b"\x6d\x75",
    ],
)
def test_what_is_no_name_operation(script: bytes) -> None:
    assert parse_name_script(script) is None


@given(st.binary(max_size=80))
def test_any_script_is_read_without_complaint(script: bytes) -> None:
    parse_name_script(script)
    parse_name_script(b"\x53" + script)


@pytest.mark.parametrize(("script", "op"), [(UPDATE, NameOp.UPDATE), (FIRST, NameOp.FIRSTUPDATE)])
def test_an_update_is_found(script: bytes, op: NameOp) -> None:
    raw = transaction(ADDRESS_SCRIPT, script)
    update = name_update(raw, NAME)
    assert (update.op, update.value, update.output) == (op, VALUE, 1)
    assert update.txid == parse_transaction(raw).txid
    assert update.spends == (SPENT,)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (transaction(UPDATE, version=2), "no update"),
        (transaction(ADDRESS_SCRIPT), "no update"),
        (transaction(UPDATE, UPDATE), "more than one"),
        (transaction(UPDATE, NEW), "more than one"),
        (transaction(NEW), "no update"),
        (transaction(name_script(3, b"d/Example", VALUE)), "no update"),
        (transaction(name_script(3, NAME + b"\x00", VALUE)), "no update"),
        (transaction(name_script(3, NAME, bytes(1024))), "longer"),
        (transaction(UPDATE) + b"\x00", "behind"),
        (bytes(64), "Merkle node"),
    ],
)
def test_what_proves_nothing_about_the_name_is_refused(raw: bytes, says: str) -> None:
    with pytest.raises(RemoteProtocolError, match=says):
        name_update(raw, NAME)


def test_a_name_longer_than_the_chain_allows_is_refused() -> None:
    name = b"d/" + b"a" * 254
    with pytest.raises(RemoteProtocolError, match="longer"):
        name_update(transaction(name_script(3, name, VALUE)), name)


def test_every_recorded_name_is_read_as_namecoin_core_reads_it() -> None:
    transactions = RegtestChain.recorded().transactions
    for name, said in recorded_answers().items():
        if "txid" in said:
            update = name_update(transactions[str(said["txid"])], name.encode())
            assert update.value == str(said["value"]).encode()
            assert update.output == said["vout"]


@pytest.mark.parametrize(
    ("start", "name", "value"),
    [
        ("0373", b"dd/domob", b'{"ip":"176.31.184.255","map":{"*":{"ip":"176.31.184.255",'),
        ("5e34", b"d/heretostay", b"{}"),
        ("cfc5", b"d/heretostay", b'{"ip":"185.234.217.36","map":{"*":{"ip":"185.234.217.36"}}}'),
        ("0c68", b"d/heretostay", None),  # a registration's first step, which hides the name
    ],
)
def test_updates_on_the_main_chain(start: str, name: bytes, value: bytes | None) -> None:
    ((txid, raw),) = (item for item in mainnet_transactions().items() if item[0].startswith(start))
    assert parse_transaction(raw).txid[::-1].hex() == txid
    if value is None:
        with pytest.raises(RemoteProtocolError):
            name_update(raw, name)
        return
    assert name_update(raw, name).value.startswith(value)
    with pytest.raises(RemoteProtocolError):
        name_update(raw, b"d/another")
