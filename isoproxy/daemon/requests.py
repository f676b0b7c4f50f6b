"""What a running isoproxy answers on its admin socket: data, which the command line prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from isoproxy.admin.server import Answer, Handler
from isoproxy.daemon.compose.onions import PublishedService
from isoproxy.daemon.compose.upstream import Upstream
from isoproxy.daemon.keeping import KeptHistory
from isoproxy.daemon.reloading import Reloaded
from isoproxy.daemon.renewal import renewal_of
from isoproxy.daemon.resolve import question_of, resolve_for
from isoproxy.daemon.status.explain import arguments_of
from isoproxy.daemon.status.explain import explain as explained
from isoproxy.daemon.status.overview import overview
from isoproxy.daemon.status.snapshot import Snapshot
from isoproxy.isolation import Isolator
from isoproxy.namecoin.resolve.resolver import Resolver


class Running(Protocol):
    """What is asked of a running isoproxy."""

    isolator: Isolator
    upstream: Upstream
    history: KeptHistory

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
        snapshot = await running.snapshot()
        renewal = renewal_of(request, snapshot.config, running.isolator)
        if renewal is None:
            return {"epoch": await running.new_circuits()}
        open_streams = sum(flow.key in renewal.labels for flow in snapshot.traffic.report.flows)
        await running.renew(renewal.labels)
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

    async def metrics(request: Mapping[str, Any]) -> Answer:
        return {"exposition": await running.exposition()}

    async def tor_log(request: Mapping[str, Any]) -> Answer:
        log = running.upstream.log()
        if log is None:
            return {"lines": None, "complaint": None}
        return {"lines": log.lines, "complaint": log.complaint}

    return {
        "tor_log": tor_log,
        "status": status,
        "history": history,
        "newnym": newnym,
        "reload": reload,
        "explain": explain,
        "metrics": metrics,
        "resolve": resolve,
        "onions": onions,
    }
