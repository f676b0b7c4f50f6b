"""How every test runs: coroutine tests on a loop in debug mode, virtual time on request."""

from __future__ import annotations

import asyncio
import asyncio.constants
import inspect
import os
from collections.abc import Generator
from functools import partial

import pytest
from hypothesis import HealthCheck, settings

from isoproxy.net.reactor import ReactorLoop
from tests.kit.clock import VirtualClockLoop

pytest_plugins = ["tests.kit.fixtures"]

settings.register_profile(
    "isoproxy", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=100
)
settings.load_profile("isoproxy")

# An isoproxy that is installed on this machine, and its configuration, are not ours.
os.environ["CONFIGURATION_DIRECTORY"] = "/nonexistent/isoproxy"

# Of debug mode we want its checks; where each future and handle was made costs a fifth of
# the time of all unit tests.
vars(asyncio.constants)["DEBUG_STACK_DEPTH"] = 1


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run `async def` tests; with the mark `virtual_clock` their timers do not wait.

    `virtual_clock(grace_s=0)` is for tests that use no descriptor at all.
    """
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    virtual = pyfuncitem.get_closest_marker("virtual_clock")
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    factory = partial(VirtualClockLoop, **virtual.kwargs) if virtual else ReactorLoop
    with asyncio.Runner(debug=True, loop_factory=factory) as runner:
        runner.run(pyfuncitem.obj(**arguments))
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test logged may be no UTF-8, which pytest-xdist cannot send to its master."""
    report = yield
    report.sections = [
        (title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections
    ]
    return report
