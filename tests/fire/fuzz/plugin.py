"""What goes over a name plugin's pipes (proposal 279), and what its environment says."""

from __future__ import annotations

import contextlib
from typing import Final

from isoproxy.errors import RemoteProtocolError
from prop279.protocol import (
    Cancel,
    Environment,
    LineSplitter,
    Resolve,
    Resolved,
    Status,
    decode_options,
    encode_options,
    parse_answer,
    parse_command,
    write_answer,
    write_command,
)
from tests.fire.fuzz.target import FuzzTarget, pieces


def _commands(data: bytes) -> None:
    whole, splitter = LineSplitter(), LineSplitter()
    lines = whole.feed(data[1:])
    assert lines == [line for part in pieces(data) for line in splitter.feed(part)]
    for line in lines:
        command = parse_command(line)
        if isinstance(command, Resolve | Cancel):
            written = write_command(command)
            assert parse_command(written.rstrip(b"\r\n")) == command


def _answers(data: bytes) -> None:
    """What is written of a failure is read as one that is written the same."""
    for line in LineSplitter().feed(data):
        answer = parse_answer(line)
        if answer is None:
            continue
        if isinstance(answer, Resolved) and answer.status == Status.SUCCESS:
            with contextlib.suppress(ValueError):  # the result is not one word
                assert parse_answer(write_answer(answer).rstrip(b"\r\n"))
            continue
        written = write_answer(answer)
        again = parse_answer(written.rstrip(b"\r\n"))
        assert again is not None
        assert write_answer(again) == written


def _options(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    found = decode_options(text)
    assert decode_options(encode_options(found)) == found
    Environment.read({"TOR_NS_PLUGIN_OPTIONS": text, "TOR_NS_PROTO_VERSION": text})


TARGETS: Final = [
    FuzzTarget(
        "prop279-commands",
        _commands,
        (),
        [b"\x05RESOLVE 1 name.bit isolation\nCANCEL 1\n", b'\xffRESOLVE 9 "a name.bit" x\n'],
    ),
    FuzzTarget(
        "prop279-answers",
        _answers,
        (),
        [b'RESOLVED 1 0 "192.0.2.1"\n', b'INIT 1 0\nRESOLVED 2 3 "no such name"\nCANCELED 4\n'],
    ),
    FuzzTarget(
        "prop279-options", _options, (RemoteProtocolError,), [b"a=b;c=d", b"a=b\\;c;d=\\\\"]
    ),
]
