"""The intermediate of the stream processes: from the root on disk, and replaced in time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from isoproxy.config import load
from isoproxy.daemon.compose import tls as module
from isoproxy.daemon.compose.tls import Intermediates, root_files
from isoproxy.errors import OperationError
from isoproxy.tls.certificates import INTERMEDIATE_LIFE, ROOT_LIFE

NOW = datetime(2026, 12, 1, tzinfo=UTC)
ON, OFF = load(None, ["tls.enabled=true"]).config, load(None).config


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def made(state: Path) -> tuple[Intermediates, Clock]:
    clock = Clock()
    intermediates = Intermediates(state, clock)
    intermediates.issuer = intermediates.prepare(ON)
    return intermediates, clock


def test_what_stream_processes_are_given_is_not_the_root(tmp_path: Path) -> None:
    root = root_files(tmp_path / "state").create(NOW)
    intermediates, _ = made(tmp_path / "state")
    issuer = intermediates.issuer
    assert issuer is not None
    assert root.key not in (issuer.key, issuer.certificate)
    assert issuer.certificate != root.certificate
    assert issuer.ends == NOW + INTERMEDIATE_LIFE


def test_without_a_root_it_does_not_begin_and_where_it_is_off_none_is_wanted(
    tmp_path: Path,
) -> None:
    intermediates = Intermediates(tmp_path / "state")
    assert intermediates.prepare(OFF) is None
    assert not (tmp_path / "state").exists()
    with pytest.raises(OperationError, match="isoproxy tls init"):
        intermediates.prepare(ON)


def test_it_is_replaced_when_half_of_its_life_is_over(tmp_path: Path) -> None:
    root_files(tmp_path / "state").create(NOW)
    intermediates, clock = made(tmp_path / "state")
    first = intermediates.issuer
    assert not intermediates.renew_if_due()
    clock.now += INTERMEDIATE_LIFE / 2
    assert intermediates.renew_if_due()
    assert intermediates.issuer != first
    assert not intermediates.renew_if_due()


def test_where_the_root_is_gone_it_goes_on_until_its_end(tmp_path: Path) -> None:
    root_files(tmp_path / "state").create(NOW)
    intermediates, clock = made(tmp_path / "state")
    first = intermediates.issuer
    root_files(tmp_path / "state").forget()
    clock.now += INTERMEDIATE_LIFE
    assert not intermediates.renew_if_due()
    assert intermediates.issuer is first


def test_a_root_that_has_ended_signs_nothing(tmp_path: Path) -> None:
    root_files(tmp_path / "state").create(NOW - ROOT_LIFE)
    with pytest.raises(OperationError, match="has ended"):
        made(tmp_path / "state")


@pytest.mark.virtual_clock
async def test_who_needs_it_is_told(tmp_path: Path) -> None:
    root_files(tmp_path / "state").create(NOW)
    intermediates, clock = made(tmp_path / "state")
    told = asyncio.Event()
    renewing = asyncio.create_task(intermediates.renew(told.set))
    await asyncio.sleep(module.WATCH_S * 2)
    assert not told.is_set()
    clock.now += timedelta(days=10)
    await asyncio.wait_for(told.wait(), module.WATCH_S * 2)
    renewing.cancel()
    await asyncio.gather(renewing, return_exceptions=True)
