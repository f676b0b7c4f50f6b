"""The README's first lines say what a newcomer will see."""

from __future__ import annotations

from isoproxy.config import Config
from isoproxy.daemon.settings.front import describe_listener
from tests.kit.repository import ROOT

README = (ROOT / "README.md").read_text()


def test_the_lines_that_run_prints_stand_at_the_top() -> None:
    top = README.partition("\n## ")[0]
    for listener in Config().listener:
        assert describe_listener(str(listener.address), listener.isolate) + "\n" in top


def test_what_an_empty_machine_needs_comes_before_the_first_command() -> None:
    first = README.partition("```sh\n")[2].partition("```")[0]
    install, _, rest = first.partition("\n")
    assert set(install.split("install ")[1].split()) == {"git", "make", "python3-venv"}
    assert rest.index("git clone") < rest.index("make run")
