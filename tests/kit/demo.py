"""`make demo`: isoproxy on a private Tor network, and lines to try.  No internet needed.

    python -m tests.kit.demo            print the lines, each tried first; Ctrl-C ends it
    python -m tests.kit.demo --check    try every line with the real curl, then end

Theory of operation
    A private network, a web server behind its exits, another behind an onion service, and
    isoproxy as its users start it, in `system` mode on the network's client.  For each line
    the answer must be right, and Tor itself (its control port) must say that lines of one
    identity used one circuit and that no other identity used it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tests.kit.onion import publish
from tests.kit.servers import WebServer
from tests.kit.tornet import TorNetError, TorNetwork
from tests.kit.witness import Stream, Witness

_PORT: Final = 9250
_WEB_PORT: Final = 8080
_CURL_S: Final = 60
_START_S: Final = 30


class DemoError(Exception):
    """Something did not work; the text is for the person who runs the demo."""


@dataclass(frozen=True)
class Line:
    """One command to try."""

    says: str
    identity: str
    """Lines of one identity share a circuit; others never do."""
    command: list[str]

    def __str__(self) -> str:
        return shlex.join(self.command)


def lines(socks: str, web: str, onion: str, *, http: str | None = None) -> list[Line]:
    """What to try at the proxy `socks` ("host:port"); `http` if that is another one."""

    def line(says: str, identity: str, proxy: str, url: str, *options: str) -> Line:
        return Line(says, identity, ["curl", "-sS", *options, "--proxy", proxy, url])

    return [
        line("Alice", "alice", f"socks5h://alice:1@{socks}", web),
        line("Alice again: her circuit", "alice", f"socks5h://alice:1@{socks}", web),
        line("Bob: another circuit", "bob", f"socks5h://bob:1@{socks}", web),
        line("Alice's other activity", "alice 2", f"socks5h://alice:2@{socks}", web),
        line("Nobody: an identity, too", "nobody", f"socks5h://{socks}", web),
        line("SOCKS4a, user carol", "carol", f"socks4a://carol@{socks}", web),
        line("HTTP CONNECT, user dave", "dave", f"http://dave:1@{http or socks}", web, "-p"),
        line("An onion service", "alice at the onion", f"socks5h://alice:1@{socks}", onion),
    ]


def attempt(line: Line, witness: Witness) -> tuple[str, Stream]:
    """Run one line; returns its answer and the stream that tor saw for it."""
    start = witness.mark()
    try:
        done = subprocess.run(line.command, capture_output=True, text=True, timeout=_CURL_S)
    except subprocess.TimeoutExpired:
        raise DemoError(f"Nothing came within {_CURL_S} s of this line:\n  {line}") from None
    answer = done.stdout.strip()
    if done.returncode or not answer.startswith("exit="):
        raise DemoError(
            f"This line did not work (curl's exit status {done.returncode}):\n  {line}\n"
            f"  {done.stderr.strip() or answer}"
        )
    witness.settle()
    host = urlsplit(line.command[-1]).hostname
    found = [s for s in witness.streams(after=start) if s.host == host and s.succeeded]
    if len(found) != 1:
        raise DemoError(f"Tor saw {len(found)} streams instead of 1 for this line:\n  {line}")
    return answer, found[0]


def try_all(tries: list[Line], witness: Witness) -> None:
    """Run all lines, print each with its outcome; DemoError if one fails or mixes."""
    identity: dict[int, str] = {}
    for line in tries:
        answer, stream = attempt(line, witness)
        identity[stream.id] = line.identity
        print(f"# {line.says}\n{line}\n#   -> {answer}, circuit {stream.circuits[-1]}", flush=True)
    seen = [stream for stream in witness.streams() if stream.id in identity]
    for finding, what in (
        (witness.mixed(seen, lambda s: identity[s.id]), "One circuit carried two identities"),
        (witness.spread(seen, lambda s: identity[s.id]), "One identity used several circuits"),
    ):
        if finding:
            raise DemoError(f"{what}: {finding}")


@contextlib.contextmanager
def isoproxy(net: TorNetwork, port: int) -> Iterator[None]:
    """isoproxy as a process of its own, on the network's client, at 127.0.0.1:port."""
    home = net.dir / "isoproxy"
    home.mkdir(mode=0o700)
    config, log = home / "isoproxy.toml", home / "log"
    config.write_text(f'[[listener]]\naddress = "127.0.0.1:{port}"\n')
    settings = {
        "tor.mode": "system",
        "tor.socks": f"unix:{net.client.socks_path}",
        "tor.control": f"unix:{net.client.control_path}",
    }
    command = [sys.executable, "-m", "isoproxy", "run", "-c", str(config)]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    places = ("STATE_DIRECTORY", "RUNTIME_DIRECTORY", "XDG_STATE_HOME", "XDG_RUNTIME_DIR")
    environment = {**os.environ, **dict.fromkeys(places, str(home))}
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    try:
        _await_listener(process, port, log)
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_listener(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.05)
    how = "ended at once" if process.poll() is not None else f"did not listen in {_START_S} s"
    raise DemoError(f"isoproxy {how}.  It said:\n{log.read_text(errors='replace')}")


def _free_port(wanted: int) -> int:
    """The wanted port of 127.0.0.1, or another if that one is taken."""
    for port in (wanted, 0):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise DemoError("No port of 127.0.0.1 is free.")


def _run(check: bool, port: int) -> None:
    print("# Starting a private Tor network of five relays ...", flush=True)
    with contextlib.ExitStack() as stack:
        net = stack.enter_context(TorNetwork())
        print(f"# ... up in {net.startup_seconds:.1f} s; now an onion service and isoproxy.")
        web = stack.enter_context(WebServer(net.server_ip, net.exit_of, port=_WEB_PORT))
        service = stack.enter_context(publish(net.relays[1], {80: web.address}))
        witness = stack.enter_context(Witness(net.client))
        stack.enter_context(isoproxy(net, port))
        tries = lines(f"127.0.0.1:{port}", web.url(name="web.test"), f"http://{service.host}/")
        try_all(tries, witness)
        print("# All lines worked; no circuit carried two identities.", flush=True)
        if not check:
            print("# Try them in another terminal.  Ctrl-C ends this.", flush=True)
            signal.pause()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kit.demo")
    parser.add_argument("--check", action="store_true", help="try every line, then end")
    parser.add_argument("--port", type=int, default=_PORT, help="isoproxy's (default: 9250)")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _run(arguments.check, _free_port(arguments.port))
    except (DemoError, TorNetError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("# Ended.", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
