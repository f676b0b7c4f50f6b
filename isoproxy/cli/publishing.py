"""What `isoproxy publish` does once its options are read."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from dataclasses import replace
from pathlib import Path

from isoproxy.admin.client import NotRunning, ask
from isoproxy.bitcoin.flows import FlowRegistry
from isoproxy.bitcoin.inbound import Inbound
from isoproxy.cli.options import loaded
from isoproxy.config import Config, admin_address, state_directory
from isoproxy.daemon.compose.onions import PublishedService, ServicePlan, relay_of_its_own
from isoproxy.daemon.settings.bitcoin import networks
from isoproxy.doctor.environment import environment_of
from isoproxy.errors import ConfigError, OperationError
from isoproxy.net.endpoint import Endpoint
from isoproxy.tor.control.connection import Control, ControlState, Phase
from isoproxy.tor.managed.torrc import socket_in
from isoproxy.tor.onion import OnionStage, OnionState
from isoproxy.workers.bitcoin import log_end


def publish_service(options: argparse.Namespace) -> int:
    plan = _plan(options)
    config = loaded(options).config
    plan = replace(plan, networks=networks(config.bitcoin))
    asyncio.run(_publish(plan, _control(config)))
    return 0


def _plan(options: argparse.Namespace) -> ServicePlan:
    if not options.v2 and (options.network is not None or options.advertise_v2):
        raise ConfigError("--network and --advertise-v2 say how to speak BIP324: add --v2")
    target = Endpoint.parse(options.target)
    if target.is_none:
        raise ConfigError("expected the address of a local service, as in 127.0.0.1:80")
    ports = options.port or ([target.port] if target.port else [])
    if not ports:
        raise ConfigError("a unix socket has no port of its own: give the service one with --port")
    return ServicePlan(
        "publish",
        ports,
        target,
        options.key_file,
        options.client,
        options.v2,
        options.network,
        options.advertise_v2,
    )


async def _publish(plan: ServicePlan, control: Control) -> None:
    """Publish until SIGINT or SIGTERM."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    published = PublishedService(plan, control)
    published.service.on_state(_tell)
    _tell_of(control)
    control.start()
    serving = _serve(published)
    try:
        published.start()
        printing = asyncio.create_task(_print(published))
        await stop.wait()
        printing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await printing
        await published.stop()
    finally:
        if serving is not None:
            serving.cancel()
            await asyncio.wait([serving])
        await control.close()


def _serve(published: PublishedService) -> asyncio.Task[None] | None:
    """Serve the peers that come in, with `--v2`."""
    if published.inbound is None or published.listener is None:
        return None
    inbound = Inbound(published.inbound, relay_of_its_own(), FlowRegistry(log_end))
    return asyncio.create_task(inbound.serve(published.listener), name="inbound peers")


async def _print(published: PublishedService) -> None:
    for line in await published.wait_published():
        print(line, flush=True)


def _tell(state: OnionState) -> None:
    """Say what changed to the person who waits."""
    if state.stage is OnionStage.REFUSED:
        print(f"isoproxy: {state.problem}", file=sys.stderr, flush=True)
    elif state.stage is OnionStage.WAITING:
        print("isoproxy: waiting for tor", file=sys.stderr, flush=True)
    elif state.stage is OnionStage.UPLOADING:
        print("isoproxy: uploading the descriptor", file=sys.stderr, flush=True)
    elif state.stage is OnionStage.PUBLISHED:
        doubt = "" if state.problem is None else f"; {state.problem}"
        print(f"isoproxy: published{doubt}", file=sys.stderr, flush=True)


def _tell_of(control: Control) -> None:
    """Say what keeps us from Tor's control port, once each time that it changes."""
    told: str | None = None

    def tell(state: ControlState) -> None:
        nonlocal told
        if state.problem is not None and state.problem != told:
            print(f"isoproxy: Tor's control port: {state.problem}", file=sys.stderr, flush=True)
        if state.problem is not None or state.phase is Phase.READY:
            told = state.problem

    control.on_state(tell)


def _control(config: Config) -> Control:
    """The control port of the configuration's Tor; in managed mode a running isoproxy's own."""
    if config.tor.mode == "managed":
        return Control(socket_in(_state_of_running(config).absolute() / "tor", "control"))
    if config.tor.mode == "arti":
        raise OperationError(
            "onion services are published over a control port, and Arti has none; "
            'set tor.mode = "managed" or "system"'
        )
    return Control(config.tor.control, password=config.tor.control_password)


def _state_of_running(config: Config) -> Path:
    """Where the isoproxy that runs keeps its state, or else where this user's one will."""
    try:
        status = ask(admin_address(config), "status")
    except NotRunning as error:
        print(f"isoproxy: {error}; its tor is waited for", file=sys.stderr, flush=True)
        return state_directory()
    with contextlib.suppress(OSError):
        return state_directory(environment_of(int(status["pid"])))
    return state_directory()
