"""The live proof: an independent client (PySocks) opens streams, Tor says on which circuits.

The only importer of PySocks.  Streams A, A again, and B are opened one after the other
and held; Tor's list of streams before and after each tells which circuit it got.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import sys
import threading
from collections.abc import Callable

import socks

from isoproxy.config.paths import start_command
from isoproxy.doctor import tor as tor_checks
from isoproxy.doctor.finding import Finding, failed, ok, unproven
from isoproxy.errors import OperationError
from isoproxy.net.endpoint import Endpoint, family_of
from isoproxy.net.target import Target
from isoproxy.tor.control.connection import Control

CHECK = "streams through isoproxy"
TIMEOUT_S = 60.0
NEED_CONTROL = "set tor.control, or use managed Tor"


class LookupWatch:
    """Counts look-ups of names in this process, from creation on."""

    def __init__(self) -> None:
        self.names = 0
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if event in ("socket.getaddrinfo", "socket.gethostbyname"):
            host = str(arguments[0] or "127.0.0.1")
            try:
                socket.inet_pton(family_of(host), host)
            except OSError:
                self.names += 1


async def prove(
    listener: Endpoint,
    target: Target,
    control: Control | None,
    *,
    advice: str = NEED_CONTROL,
    timeout_s: float = TIMEOUT_S,
) -> tuple[list[Finding], bool]:
    """Open the streams and judge them; the second value says whether they opened at all.

    `advice` says what to do where circuits cannot be seen.
    """
    watch, hidden = LookupWatch(), control is not None and not await _shows_streams(control)
    control = None if hidden else control
    with contextlib.ExitStack() as held:
        try:
            circuits = await _circuits(listener, target, control, held, timeout_s)
        except (OSError, socks.ProxyError) as error:
            return [_refused(error, target)], False
    findings = [ok(CHECK, f"three were opened at {listener}")]
    if hidden:
        findings.append(
            unproven(
                "circuits of separate identities",
                "a filter in front of Tor hides its circuits",
                "run the doctor on Tor's machine",
            )
        )
    elif control is None:
        findings.append(
            unproven(
                "circuits of separate identities",
                "Tor's circuits cannot be seen without its ControlPort",
                advice,
            )
        )
    else:
        findings += tor_checks.expected_sharing(circuits)
    findings.append(_lookups(watch))
    return findings, True


async def _shows_streams(control: Control) -> bool:
    """Whether Tor tells which stream is on which circuit: a filter in front of it may not."""
    try:
        await tor_checks.streams(control)
    except OperationError:
        return False
    return True


async def _circuits(
    listener: Endpoint,
    target: Target,
    control: Control | None,
    held: contextlib.ExitStack,
    timeout_s: float,
) -> list[str | None]:
    """The circuits of tuple A, of A again, and of B; the sockets are left to `held`."""
    ours = secrets.token_hex(8)
    circuits: list[str | None] = []
    for tag in ("a", "a", "b"):
        before = {} if control is None else await tor_checks.streams(control)
        sock = await _apart(_connect, listener, target, f"doctor-{ours}", tag, timeout_s)
        held.callback(sock.close)
        after = {} if control is None else await tor_checks.streams(control)
        circuits.append(_new_circuit(before, after, target))
    return circuits


async def _apart(connect: Callable[..., socket.socket], *arguments: object) -> socket.socket:
    """`connect` in a thread that the end of the program does not wait for, as Ctrl-C is."""
    loop = asyncio.get_running_loop()
    connected: asyncio.Future[socket.socket] = loop.create_future()

    def tell(sock: socket.socket | None, error: Exception | None) -> None:
        if connected.done():
            if sock is not None:
                sock.close()
        elif sock is not None:
            connected.set_result(sock)
        elif error is not None:
            connected.set_exception(error)

    def work() -> None:
        sock, failure = None, None
        try:
            sock = connect(*arguments)
        except Exception as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(tell, sock, failure)

    threading.Thread(target=work, name="doctor", daemon=True).start()
    return await connected


def _connect(
    listener: Endpoint, target: Target, username: str, password: str, timeout_s: float
) -> socket.socket:
    """Blocking: a stream through isoproxy, its name resolved at the far end."""
    sock: socket.socket = socks.create_connection(
        (target.host, target.port),
        timeout=timeout_s,
        proxy_type=socks.SOCKS5,
        proxy_addr=listener.host,
        proxy_port=listener.port,
        proxy_rdns=True,
        proxy_username=username,
        proxy_password=password,
    )
    return sock


def _new_circuit(
    before: dict[bytes, tuple[str, bytes]], after: dict[bytes, tuple[str, bytes]], target: Target
) -> str | None:
    """The circuit of the one stream that is new; None if that cannot be told."""
    port = b":%d" % target.port
    fresh = [
        circuit
        for number, (circuit, text) in after.items()
        if number not in before and text.endswith(port)
    ]
    return fresh[0] if len(fresh) == 1 else None


def _refused(error: Exception, target: Target) -> Finding:
    reason = getattr(error, "socket_err", None) or error
    if isinstance(reason, ConnectionRefusedError):
        return failed(CHECK, "isoproxy does not accept connections", start_command())
    return failed(
        CHECK,
        f"a stream to port {target.port} was not opened: {reason}",
        "see 'isoproxy status' for Tor's state; --target HOST:PORT names another target",
    )


def _lookups(watch: LookupWatch) -> Finding:
    if watch.names:
        return failed("names in the client", "it asked the local resolver", "use socks5h:// URLs")
    return ok("names in the client", "PySocks sent the name to isoproxy, unresolved")
