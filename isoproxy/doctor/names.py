"""Whether `.bit` names can be resolved: the light client's state, or the programs asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

from isoproxy.config import NamesConfig
from isoproxy.config.paths import start_command
from isoproxy.daemon.compose.names import rpc_backends
from isoproxy.doctor.finding import Finding, Verdict, failed, ok, unproven, warning
from isoproxy.errors import ConfigError, NamingError
from isoproxy.namecoin.rpc.backend import RpcBackend
from isoproxy.namecoin.rpc.electrum_nmc import ElectrumNmcBackend

_CHECK: Final = "names"
_PROBE_S: Final = 10.0


async def examine_names(
    config: NamesConfig, status: dict[str, Any] | None
) -> AsyncIterator[Finding]:
    """Findings on names; `status` is what a running isoproxy tells of them, if one runs."""
    if status is not None and status["backend"] != config.backend:
        yield warning(
            _CHECK,
            f"isoproxy runs with names.backend = {status['backend']}, not {config.backend}",
            "give isoproxy and the doctor the same settings",
        )
    elif config.backend == "none":
        yield ok(_CHECK, "refused, as names.backend has it")
    elif config.backend == "electrum":
        yield light_client(status)
        for refused in (status or {}).get("certificates", ()):
            yield _certificate(refused)
    else:
        async for finding in _programs(config):
            yield finding


def light_client(status: dict[str, Any] | None) -> Finding:
    """How far the light client has come."""
    if status is None:
        return unproven(_CHECK, "the light client runs in isoproxy alone", start_command())
    up, known = status["servers"]["up"], status["servers"]["known"]
    if status["problem"] is not None:
        return failed(_CHECK, *_told(status["problem"]))
    if up < status["quorum"]:
        return failed(
            _CHECK,
            f"{up} of {known} name servers answer, and {status['quorum']} must agree",
            "mend Tor if it is down; else name other servers in names.electrum.servers",
        )
    wait = "wait; 'isoproxy status --watch' shows how far it is"
    if not status["ready"]:
        return warning(_CHECK, f"block headers: {status['tip']} of {status['target']}", wait)
    if not status["complete"]:
        return warning(
            _CHECK,
            f"renewed since block {status['base']} are ready, older ones not yet",
            wait,
        )
    return ok(_CHECK, f"synchronised to block {status['tip']}; {up} of {known} servers answer")


def _certificate(refused: dict[str, Any]) -> Finding:
    """A server whose certificate is refused, and how to have the new one believed."""
    shown = f", SHA-256 {refused['shown']}" if refused["shown"] else ""
    return warning(
        f"certificate of {refused['server']}",
        f"it is {refused['problem']}{shown}: somebody may be in between, or it was renewed",
        "ask its operator for the fingerprint, and give it in names.electrum.servers as "
        "host:port:s:SHA256; or leave this server out",
    )


async def _programs(config: NamesConfig) -> AsyncIterator[Finding]:
    """Each program is asked, without a look-up, whether it can be used."""
    try:
        default, own = rpc_backends(config)
    except ConfigError as error:
        yield failed(_CHECK, *_told(str(error)))
        return
    finding = await _program(_CHECK, default)
    if own and finding.verdict in (Verdict.FAILED, Verdict.WARNING):
        # Clients with a program of their own do not need this one.
        finding = warning(_CHECK, f"for other clients: {finding.found}", finding.advice)
    yield finding
    for network, backend in own.items():
        yield await _program(f"names of {network}", backend)


async def _program(check: str, backend: RpcBackend) -> Finding:
    try:
        async with asyncio.timeout(_PROBE_S):
            await backend.check()
    except TimeoutError:
        return failed(check, "the program asked does not answer", "start it anew")
    except NamingError as error:
        return failed(check, *_told(str(error)))
    finally:
        await backend.close()
    if not backend.isolates:
        return warning(
            check,
            "the program asked does not keep look-ups apart",
            "use another backend, and set names.rpc.allow_unisolated to false",
        )
    if isinstance(backend, ElectrumNmcBackend):
        return unproven(
            check,
            "Electrum-NMC answers, and its settings keep look-ups apart; whether it runs by them "
            "it does not tell",
            "start it anew after each change of its settings, and without TOR_TRANSPROXY",
        )
    return ok(
        check, "what answers says it is a full node, its chain complete: it needs to ask nobody"
    )


def _told(text: str) -> tuple[str, str]:
    """What is wrong, and the one thing to do."""
    found, _, advice = text.rstrip(".").partition("; ")
    return found, advice or "look into its log"
