"""`isoproxy dial`: standard input and output through Tor, as nc does without it."""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sys
import threading
from typing import Final

from isoproxy.cli.options import Commands, add_configuration, loaded, seconds
from isoproxy.cli.secret_input import WARNING, add_isolation, isolation_id, word
from isoproxy.errors import ConfigError, OperationError
from isoproxy.isolation import Isolate
from isoproxy.multiaddr import parse_destination
from isoproxy.net.endpoint import Endpoint

TIMEOUT_S: Final = 120.0
"""As `isoproxy.connect` has it."""
_BLOCK: Final = 64 * 1024


def register(commands: Commands) -> None:
    dial = commands.add_parser(
        "dial",
        help="connect standard input and output to a host through a running isoproxy",
        description="Connects standard input and output to TARGET through a running isoproxy "
        "and ends when the far end does.  The end of the input is kept to ourselves unless "
        "--shutdown is given: Tor closes a stream whole when one side of it ends.  "
        f"{WARNING}  With - for TARGET it is a line of standard input, and the stream begins "
        "after it.",
    )
    add_configuration(dial)
    dial.add_argument("target", metavar="TARGET", help="HOST:PORT or a multiaddr, or - to read it")
    add_isolation(
        dial, "streams with the same ID may share a circuit (default: share with nothing)"
    )
    dial.add_argument(
        "--proxy",
        metavar="ADDRESS",
        help="the listener to go through; it must isolate by SOCKSAuth (default: the first in "
        "the configuration that does)",
    )
    dial.add_argument(
        "-N", "--shutdown", action="store_true", help="end the stream when the input ends"
    )
    dial.add_argument(
        "--timeout",
        type=seconds,
        default=TIMEOUT_S,
        metavar="SECONDS",
        help="seconds in which the stream must be open (default: %(default)g)",
    )
    dial.set_defaults(run=dial_target)


def dial_target(options: argparse.Namespace) -> int:
    from isoproxy.client import create_connection

    isolation = isolation_id(options)
    target = parse_destination(word(options.target, "target"))
    with create_connection(
        target, isolation=isolation, proxy=_proxy(options), timeout=options.timeout
    ) as sock:
        sock.settimeout(None)
        sender = threading.Thread(
            target=_send, args=(sock, options.shutdown), name="sender", daemon=True
        )
        sender.start()
        _receive(sock)
    return 0


def _proxy(options: argparse.Namespace) -> str:
    if options.proxy is not None:
        try:
            return str(Endpoint.parse(options.proxy))
        except ConfigError as error:
            raise ConfigError(f"--proxy: {error}") from None
    listeners = loaded(options).config.listener
    for listener in listeners:
        address = listener.address
        if Isolate.SOCKS_AUTH in listener.isolate and not address.is_unix and address.port:
            return str(address)
    raise ConfigError(
        "the configuration has no TCP listener that keeps isolation IDs apart (SOCKSAuth) to "
        "dial through; use --proxy"
    )


def _send(sock: socket.socket, shutdown: bool) -> None:
    """Standard input to the far end, until one of them ends."""
    with contextlib.suppress(OSError):  # the receiving side tells how it ended
        while sys.stdin is not None and (data := os.read(sys.stdin.fileno(), _BLOCK)):
            sock.sendall(data)
        if shutdown:
            sock.shutdown(socket.SHUT_WR)


def _receive(sock: socket.socket) -> None:
    """The far end to standard output, until its end."""
    if sys.stdout is None:
        raise OperationError("standard output is closed, so there is nowhere to write to")
    out = sys.stdout.fileno()
    try:
        while data := sock.recv(_BLOCK):
            view = memoryview(data)
            while view:
                view = view[os.write(out, view) :]
    except ConnectionResetError:
        raise OperationError("the stream was cut off before its end") from None
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OperationError(f"standard output or the stream failed: {error.strerror}") from None
