"""Connections that the descriptors of a process can carry, with a reserve for the rest."""

from __future__ import annotations

import resource

import pytest

from isoproxy.config import Loaded, load
from isoproxy.daemon.settings.descriptors import PER_CLIENT, RESERVE, fit, raise_limit, reserved


def loaded(*settings: str) -> Loaded:
    return load(None, ["names.backend=none", *settings])


def test_limits_that_fit_stay() -> None:
    found = loaded("limits.max_connections=100", "limits.max_connections_per_client=50")
    assert fit(found, RESERVE + 100 * PER_CLIENT, 1) is found


def test_limits_that_do_not_fit_are_lowered_and_told() -> None:
    found = loaded("limits.max_connections=8192", "limits.max_connections_per_client=4096")
    fitted = fit(found, 1024, 1)
    limits = fitted.config.limits
    assert limits.max_connections == (1024 - RESERVE) // PER_CLIENT
    assert limits.max_connections_per_client == limits.max_connections
    (warning,) = fitted.warnings
    assert f"at most {limits.max_connections} are served; raise LimitNOFILE" in warning
    assert fit(found, 1024, 2).config.limits.max_connections == 2 * limits.max_connections


def test_what_else_is_configured_has_a_reserve() -> None:
    plain = reserved(loaded().config)
    assert plain == RESERVE
    assert reserved(loaded("dns.address=127.0.0.1:5353").config) > plain
    proxy = loaded("bitcoin.proxy.0.max_connections=7").config
    assert reserved(proxy) == plain + 7 * PER_CLIENT
    assert reserved(load(None, []).config) >= plain + 128


def test_fewer_descriptors_than_the_reserve_serve_one_client() -> None:
    assert fit(loaded(), 64, 1).config.limits.max_connections == 1


@pytest.mark.parametrize(
    ("limits", "raised", "expected"),
    [
        ((1024, 4096), [(4096, 4096)], 4096),
        ((4096, 4096), [], 4096),
        ((1024, resource.RLIM_INFINITY), [(resource.RLIM_INFINITY,) * 2], 1 << 20),
    ],
)
def test_the_soft_limit_is_raised_to_the_hard_one(
    limits: tuple[int, int],
    raised: list[tuple[int, int]],
    expected: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, values: asked.append(values))
    assert raise_limit() == expected
    assert asked == raised


def test_a_limit_that_may_not_be_raised_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int, values: tuple[int, int]) -> None:
        raise ValueError("not allowed")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert raise_limit() == 1024
