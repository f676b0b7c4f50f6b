"""What a running isoproxy answers on its admin socket: data, which the command line prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from isoproxy.admin.server import Answer, Handler
from isoproxy.config import Config
from isoproxy.daemon.compose.dns_and_onions import DnsAndOnions
from isoproxy.daemon.compose.onions import PublishedService
from isoproxy.daemon.compose.streams import StreamParts
from isoproxy.daemon.compose.upstream import Upstream
from isoproxy.daemon.keeping import KeptHistory
from isoproxy.daemon.reloading import Reloaded
from isoproxy.daemon.renewal import renewal_of
from isoproxy.daemon.resolve import question_of, resolve_for
from isoproxy.daemon.status.explain import arguments_of
from isoproxy.daemon.status.explain import explain as explained
from isoproxy.daemon.status.overview import overview
from isoproxy.daemon.status.snapshot import Snapshot
from isoproxy.daemon.status.tls import tls_status
from isoproxy.errors import OperationError
from isoproxy.isolation import Isolator
from isoproxy.namecoin.resolve.resolver import Resolver
from isoproxy.tor.client_keys import read_client_key, service_of
from isoproxy.workers.supervisor import Workers


class Running(Protocol):
    """What is asked of a running isoproxy."""

    config: Config
    isolator: Isolator
    upstream: Upstream
    workers: Workers
    dns_and_onions: DnsAndOnions
    history: KeptHistory
    streams: StreamParts

    async def snapshot(self, *, circuits: bool = False) -> Snapshot: ...

    async def exposition(self) -> str: ...

    async def new_circuits(self) -> int: ...

    async def renew(self, labels: Iterable[str]) -> None: ...

    async def reload(self) -> Reloaded: ...

    def resolver(self) -> Resolver: ...

    def published(self) -> list[PublishedService]: ...


def answers(running: Running) -> dict[str, Handler]:
    """The handler of each request, by name."""

    async def status(request: Mapping[str, Any]) -> Answer:
        return overview(await running.snapshot(circuits=True))

    async def history(request: Mapping[str, Any]) -> Answer:
        return running.history.answer()

    async def newnym(request: Mapping[str, Any]) -> Answer:
        renewal = renewal_of(request, running.config, running.isolator)
        if renewal is None:
            return {"epoch": await running.new_circuits()}
        await running.renew(renewal.labels)
        flows = (await running.snapshot()).traffic.report.flows
        open_streams = sum(flow.key in renewal.labels for flow in flows)
        return {"open_streams": open_streams, "by_destination": renewal.by_destination}

    async def reload(request: Mapping[str, Any]) -> Answer:
        reloaded = await running.reload()
        return {"changed": reloaded.changed, "after_a_restart": reloaded.after_a_restart}

    async def explain(request: Mapping[str, Any]) -> Answer:
        snapshot = await running.snapshot()
        return explained(
            snapshot.config,
            running.isolator,
            **arguments_of(request),
            live_keys=[flow.key for flow in snapshot.traffic.report.flows],
        )

    async def resolve(request: Mapping[str, Any]) -> Answer:
        return await resolve_for(running.resolver(), running.isolator, question_of(request))

    async def onions(request: Mapping[str, Any]) -> Answer:
        return {
            "onion_services": [
                {
                    "name": published.plan.name,
                    "stage": published.state.stage.value,
                    "problem": published.state.problem,
                    "addresses": published.lines,
                }
                for published in running.published()
            ]
        }

    async def trust(request: Mapping[str, Any]) -> Answer:
        address, text, listener = _texts(request, "address", "key", "listener")
        if listener not in (known := [one.name for one in running.config.listener]):
            raise OperationError(f"there is no such listener; known: {', '.join(known)}")
        key, trusted = read_client_key(address, text), running.dns_and_onions.trusted
        await trusted.trust(key, listener, running.workers.reconfigure)
        return {}

    async def distrust(request: Mapping[str, Any]) -> Answer:
        (address,) = _texts(request, "address")
        trusted = running.dns_and_onions.trusted
        await trusted.distrust(service_of(address), running.workers.reconfigure)
        return {}

    async def metrics(request: Mapping[str, Any]) -> Answer:
        return {"exposition": await running.exposition()}

    async def tls(request: Mapping[str, Any]) -> Answer:
        https = (await running.snapshot()).traffic.report.counters.https
        return tls_status(running.config, running.streams.intermediates.issuer, https)

    async def tor_log(request: Mapping[str, Any]) -> Answer:
        log = running.upstream.log()
        if log is None:
            return {"lines": None, "complaint": None}
        return {"lines": log.lines, "complaint": log.complaint}

    return {
        "tor_log": tor_log,
        "tls": tls,
        "status": status,
        "history": history,
        "newnym": newnym,
        "reload": reload,
        "explain": explain,
        "metrics": metrics,
        "resolve": resolve,
        "onions": onions,
        "trust": trust,
        "distrust": distrust,
    }


def _texts(request: Mapping[str, Any], *names: str) -> list[str]:
    """These members of a request; raises OperationError."""
    values = [request.get(name) for name in names]
    texts = [value for value in values if isinstance(value, str)]
    if len(texts) < len(names):
        raise OperationError(f"expected {', '.join(names)}, as text")
    return texts
