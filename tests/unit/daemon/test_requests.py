"""Each request of the admin socket and its answer."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from isoproxy.config import load
from isoproxy.daemon.compose.onions import PublishedService
from isoproxy.daemon.compose.tls import Intermediates
from isoproxy.daemon.keeping import KeptHistory
from isoproxy.daemon.reloading import Reloaded
from isoproxy.daemon.requests import answers
from isoproxy.daemon.status.snapshot import Snapshot
from isoproxy.errors import NamingError, OperationError
from isoproxy.isolation import Isolator
from isoproxy.namecoin.resolve.resolver import Resolver
from isoproxy.observe.metrics import Metrics
from isoproxy.tor.client_keys import ClientKey
from tests.unit.daemon.status.kit import snapshot
from tests.unit.namecoin.kit import CountingBackend
from tests.unit.tor.test_client_keys import KEY, SERVICE

REQUESTS = {
    *("status", "history", "newnym", "reload", "explain", "metrics", "resolve", "onions"),
    "tor_log",
    "trust",
    "distrust",
    "tls",
}


class Running:
    """A daemon that has nothing but its answers."""

    def __init__(self) -> None:
        self.config = load(None).config
        self.isolator = Isolator()
        self.names = Resolver(CountingBackend({"d/example": {"ip": "192.0.2.1"}}), self.isolator)
        self.has_names = True
        self.log: Any = None
        self.done: list[str] = []
        self.renewed: list[str] = []
        self.history = KeptHistory(self.snapshot, self.isolator, Metrics())
        self.upstream: Any = SimpleNamespace(log=lambda: self.log)
        self.workers: Any = SimpleNamespace(reconfigure=lambda: None)
        self.trusted: list[tuple[str, str]] = []
        self.streams: Any = SimpleNamespace(intermediates=Intermediates(Path("/nonexistent")))
        self.dns_and_onions: Any = SimpleNamespace(trusted=self)

    async def trust(self, key: ClientKey, listener: str, tell: object) -> None:
        self.trusted.append((key.service, listener))

    async def distrust(self, service: str, tell: object) -> None:
        self.trusted.remove((service, "default"))

    async def snapshot(self, *, circuits: bool = False) -> Snapshot:
        self.done.append("snapshot")
        return snapshot(epoch=int(circuits))

    async def exposition(self) -> str:
        return "metrics 1\n"

    async def new_circuits(self) -> int:
        self.done.append("new circuits")
        return 12

    async def renew(self, labels: Iterable[str]) -> None:
        self.done.append("renewal")
        self.renewed = list(labels)

    async def reload(self) -> Reloaded:
        return Reloaded(("tor.mode",), ("tor.mode",))

    def resolver(self) -> Resolver:
        if not self.has_names:
            raise NamingError("there are none")
        return self.names

    def published(self) -> list[PublishedService]:
        state = SimpleNamespace(stage=SimpleNamespace(value="published"), problem=None)
        plan = SimpleNamespace(name="web")
        service: Any = SimpleNamespace(plan=plan, state=state, lines=["a.onion:80 /onion3/a:80"])
        return [service]


async def told(running: Running, what: str, **request: object) -> Any:
    """The answer as it goes over the socket."""
    return json.loads(json.dumps(await answers(running)[what](request)))


async def test_the_last_hour_is_what_was_kept() -> None:
    running = Running()
    assert await told(running, "history") == running.history.answer()


async def test_a_new_identity_waits_for_no_report() -> None:
    """A stream process that is slow to tell of its flows holds nobody's renewal up."""
    running = Running()
    await told(running, "newnym")
    assert running.done == ["new circuits"]
    await told(running, "newnym", label="abcdef")
    assert running.done == ["new circuits", "renewal", "snapshot"]


async def test_every_request_has_an_answer_in_json() -> None:
    running = Running()
    assert set(answers(running)) == REQUESTS
    assert (await told(running, "status"))["pid"] == 7
    assert await told(running, "newnym") == {"epoch": 12}
    assert running.renewed == []
    one = await told(running, "newnym", label="abcdef")
    assert one == {"open_streams": 0, "by_destination": []}
    assert running.renewed == ["abcdef"]
    assert await told(running, "reload") == {
        "changed": ["tor.mode"],
        "after_a_restart": ["tor.mode"],
    }
    assert await told(running, "metrics") == {"exposition": "metrics 1\n"}
    assert (await told(running, "onions"))["onion_services"] == [
        {
            "name": "web",
            "stage": "published",
            "problem": None,
            "addresses": ["a.onion:80 /onion3/a:80"],
        }
    ]
    await running.names.close()


async def test_a_name_is_resolved_under_the_key_of_its_isolation_id() -> None:
    running = Running()
    answer = await told(running, "resolve", name="example.bit", isolation="one", zone=False)
    assert answer["resolution"]["target"] == "192.0.2.1"
    running.has_names = False
    with pytest.raises(NamingError):
        await told(running, "resolve", name="example.bit", isolation=None, zone=False)
    await running.names.close()


async def test_what_explain_is_asked_wrongly_is_said() -> None:
    with pytest.raises(OperationError):
        await told(
            Running(), "explain", listener="none", username=None, password=None, target="a:1"
        )


async def test_the_log_of_a_tor_of_our_own_and_of_none() -> None:
    running = Running()
    assert await told(running, "tor_log") == {"lines": None, "complaint": None}
    running.log = SimpleNamespace(lines=["one"], complaint="slow")
    assert await told(running, "tor_log") == {"lines": ["one"], "complaint": "slow"}


async def test_a_client_key_is_for_a_listener_that_exists() -> None:
    running = Running()
    words = {"address": f"{SERVICE}.onion", "key": KEY, "listener": "default"}
    assert await told(running, "trust", **words) == {}
    assert running.trusted == [(SERVICE, "default")]
    with pytest.raises(OperationError, match="known: default"):
        await told(running, "trust", **words | {"listener": "other"})
    with pytest.raises(OperationError, match="as text"):
        await told(running, "trust", **words | {"key": 7})
    assert await told(running, "distrust", address=words["address"]) == {}
    assert running.trusted == []
