"""A name server's own view: who connected when, and what was asked over each connection."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
import time
from dataclasses import dataclass, field
from typing import Final

from tests.kit.servers import Server
from tests.network.name_world import copy_lines

ABOUT_NAMES: Final = ("get_value_proof", "get_history", "transaction.get", "get_merkle")


@dataclass(frozen=True)
class Asked:
    """One request; `subject` is its first parameter."""

    at: float
    method: str
    subject: str

    @property
    def is_about_a_name(self) -> bool:
        return any(word in self.method for word in ABOUT_NAMES)


@dataclass
class Connection:
    """One client's connection; times are of `time.monotonic`."""

    opened: float
    requests: list[Asked] = field(default_factory=list)


class RecordingTap(Server):
    """Stands before a name server, passes everything on, and remembers it."""

    def __init__(self, host: str, server: tuple[str, int]) -> None:
        self.server = server
        self.seen: list[Connection] = []
        super().__init__(host, _Recorded)


class _Recorded(socketserver.BaseRequestHandler):
    server: RecordingTap

    def handle(self) -> None:
        connection = Connection(time.monotonic())
        self.server.seen.append(connection)

        def note(line: bytes) -> None:
            request = json.loads(line)
            subject = str((request["params"] or [""])[0])
            connection.requests.append(Asked(time.monotonic(), request["method"], subject))

        with socket.create_connection(self.server.server, 10) as upstream:
            upstream.settimeout(None)
            back = threading.Thread(target=copy_lines, args=(upstream, self.request), daemon=True)
            back.start()
            copy_lines(self.request, upstream, note)
            back.join(10)
