"""How every test runs: coroutine tests on a loop of their own, in virtual time on request."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

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


def _of_one_thread(loop: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
    """`loop`, which only this thread may give something to do.

    This is what asyncio's debug mode finds that nothing else fails for; the rest of it notes
    where every future was made, at the price of as much time again.
    """
    owner = threading.get_ident()

    def checked(schedule: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            assert threading.get_ident() == owner, "use call_soon_threadsafe from other threads"
            return schedule(*arguments, **options)

        return call

    vars(loop).update(call_soon=checked(loop.call_soon), call_at=checked(loop.call_at))
    return loop


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run `async def` tests; with the mark `virtual_clock` their timers do not wait.

    `virtual_clock(grace_s=0)` is for tests that use no descriptor at all.
    """
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    virtual = pyfuncitem.get_closest_marker("virtual_clock")
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    kind = partial(VirtualClockLoop, **virtual.kwargs) if virtual else ReactorLoop
    with asyncio.Runner(loop_factory=lambda: _of_one_thread(kind())) as runner:
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
