"""What a running isoproxy answers on its admin socket."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from isoproxy.admin import Answer, Handler
from isoproxy.daemon.compose.names import NO_NAMES
from isoproxy.daemon.resolve import questions_of, resolve_for
from isoproxy.daemon.status.explain import arguments_of
from isoproxy.daemon.status.explain import explain as explained
from isoproxy.daemon.status.snapshot import current_status
from isoproxy.errors import OperationError

if TYPE_CHECKING:
    from isoproxy.daemon import Daemon


def answers(daemon: Daemon) -> dict[str, Handler]:
    """The handler of each request, by name."""

    async def status(request: Mapping[str, Any]) -> Answer:
        return await current_status(daemon)

    async def newnym(request: Mapping[str, Any]) -> Answer:
        """Our epoch changes every derived credential; verbatim ones only Tor can renew."""
        if daemon.isolator.verbatim:
            await daemon.upstream.control.signal_newnym()
        daemon.new_identity()
        await daemon.workers.settled()
        return {"epoch": daemon.isolator.epoch}

    async def reload(request: Mapping[str, Any]) -> Answer:
        reloaded = await daemon.reload()
        return {"changed": reloaded.changed, "after_a_restart": reloaded.after_a_restart}

    async def explain(request: Mapping[str, Any]) -> Answer:
        others = await daemon.workers.report()
        return explained(
            daemon.config,
            daemon.isolator,
            **arguments_of(request),
            live_keys=[flow.key for flow in (*daemon.front.flows(), *others.flows)],
        )

    async def resolve(request: Mapping[str, Any]) -> Answer:
        if daemon.names is None:
            raise OperationError(NO_NAMES)
        resolver = daemon.resolver_of(None)
        return await resolve_for(resolver, daemon.isolator, **questions_of(request))

    async def onions(request: Mapping[str, Any]) -> Answer:
        return {
            "onion_services": [
                {
                    "name": published.plan.name,
                    "stage": published.state.stage.value,
                    "problem": published.state.problem,
                    "addresses": published.lines,
                }
                for published in daemon.services.onions
            ]
        }

    async def metrics(request: Mapping[str, Any]) -> Answer:
        return {"exposition": await daemon.exposition()}

    return {
        "status": status,
        "newnym": newnym,
        "reload": reload,
        "explain": explain,
        "metrics": metrics,
        "resolve": resolve,
        "onions": onions,
    }
