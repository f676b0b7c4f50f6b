"""The phases around TLS: what is counted, who is let go of, and what a reload takes away."""

from __future__ import annotations

import asyncio

import pytest

from isoproxy.errors import ErrorKind
from isoproxy.tls.outcome import TlsOutcome
from tests.kit.socks_port import silent
from tests.kit.waiting import until
from tests.unit.front.test_frontend import OK
from tests.unit.tls.hellos import real_hello
from tests.unit.tls.sites import party, record
from tests.unit.tls.world import HOST, OneSite, Refused, echoing, https_world, request

SITE = party(HOST, hosts=(HOST,))
KNOWN = OneSite("192.0.2.7", record(3, 1, 1, SITE.spki))


async def test_what_passes_is_counted_without_the_cost_of_tls() -> None:
    async with https_world(KNOWN, echoing(SITE)) as world:
        await world.talk()
        counters = world.front.counters
        await until(lambda: counters.bytes_up == counters.bytes_down == 5)
        assert counters.opened == 1
        assert sum(counters.dials.counts) == 1
        assert counters.https == {TlsOutcome.RECORD: 1}


async def test_early_data_waits_for_the_handshake_and_is_not_sent_to_the_site() -> None:
    """A ClientHello that comes with the request would tell the site of the client's own TLS."""
    async with https_world(OneSite("192.0.2.7"), echoing(None)) as world:
        endpoint = world.front.listeners["test"].settings.endpoint
        reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
        writer.write(request(HOST) + real_hello(HOST))
        answer = await asyncio.wait_for(reader.read(), 20)
        writer.transport.abort()
        assert answer[: len(OK)] == OK
        assert answer[len(OK) :][:1] == b"\x15"
        assert world.dials == []


async def test_a_client_that_leaves_takes_its_dial_with_it() -> None:
    async with https_world(KNOWN, silent) as world:
        endpoint = world.front.listeners["test"].settings.endpoint
        _, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
        writer.write(request(HOST))
        await until(lambda: world.front.dialer.pending == 1)
        writer.transport.abort()
        await until(lambda: len(world.front.connections) == 0)
        assert world.front.dialer.pending == 0


async def test_a_stream_is_ended_with_its_front_end_and_says_where_it_is() -> None:
    async with https_world(KNOWN, echoing(SITE)) as world:
        _, writer = await world.streams()
        (connection,) = world.front.connections
        await until(lambda: connection.view(0).stage == "relaying")
        connection.abort()
        await until(lambda: len(world.front.connections) == 0)
        writer.transport.abort()


async def test_where_nothing_signs_any_more_streams_are_refused() -> None:
    async with https_world(KNOWN, echoing(SITE)) as world:
        world.terminator.issuer = None
        with pytest.raises(Refused):
            await world.streams()
        assert world.front.counters.refusals == {ErrorKind.NOT_ALLOWED: 1}
        assert world.dials == []
