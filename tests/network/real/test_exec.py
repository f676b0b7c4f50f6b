"""Promise: programs need no setting at all in `isoproxy exec`, and labels share no circuit.

Real programs on the private network; the web server and Tor's control port are the witnesses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest

from tests.kit.namespaces import skip_without_namespaces
from tests.kit.tornet import TorNetwork
from tests.network.real.world import World, installed, world

pytestmark = pytest.mark.interop

LABELS: Final = 20
_GO: Final = """\
package main
import ("fmt"; "io"; "net/http"; "os")
func main() {
    page, err := http.Get(os.Args[1])
    if err != nil { panic(err) }
    text, _ := io.ReadAll(page.Body)
    fmt.Print(string(text))
}
"""
_JAVA: Final = """\
class Plain { public static void main(String[] words) throws Exception {
new java.net.URL(words[0]).openStream().transferTo(System.out); } }
"""


@pytest.fixture(scope="module")
def here(tor_network: TorNetwork, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    skip_without_namespaces()
    with world(tor_network, tmp_path_factory.mktemp("exec")) as made:
        yield made


def _git(here: World) -> str:
    to = here.folder("clone") / "it"
    url = here.web.url("/files/repository/.git", name="git.test")
    here.proxy.execute("git", "clone", "-q", url, str(to))
    return "exit=" if (to / "README").exists() else ""


def _ssh(here: World) -> str:
    config = here.directory / "exec_ssh_config"
    config.write_text("Host *\n" + here.ssh_lines)
    return here.proxy.execute("ssh", "-F", str(config), "ssh.test", "echo exit=none")


def _wget(here: World) -> str:
    certificate = f"--ca-certificate={here.certificate}"
    return here.proxy.execute("wget", "-qO-", certificate, here.page("alice", secure=True))


def _go(here: World) -> str:
    """A static program with a resolver of its own."""
    source, made = here.directory / "plain.go", here.directory / "plain"
    source.write_text(_GO)
    words = ["go", "build", "-o", str(made), str(source)]
    here.run(*words, seconds=600, CGO_ENABLED="0", GO111MODULE="off")
    return here.proxy.execute(str(made), here.page("go"))


def _java(here: World) -> str:
    source = here.directory / "Plain.java"
    source.write_text(_JAVA)
    return here.proxy.execute("java", str(source), here.page("java"))


def _firefox(here: World) -> str:
    picture = str(here.directory / "page.png")
    words = ("firefox-esr", "--headless", "--screenshot", picture, here.page("firefox"))
    here.proxy.execute(*words, browser=True, MOZ_ASSUME_USER_NS="0")  # root has no sandbox there
    return "exit=" if (here.directory / "page.png").exists() else ""


def _chromium(here: World) -> str:
    words = ("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom")
    return here.proxy.execute(*words, here.page("chromium"), browser=True)


PROGRAMS: Final[dict[str, Callable[[World], str]]] = {
    "git": _git,
    "ssh": _ssh,
    "wget": _wget,
    "go": _go,
    "java": _java,
    "firefox-esr": _firefox,
    "chromium": _chromium,
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_needs_no_setting(here: World, name: str) -> None:
    if missing := installed(name):
        pytest.skip(f"there is no {missing} here")
    before = len(here.web.requests)
    assert "exit=" in PROGRAMS[name](here)
    assert {relay for relay, _, _ in here.web.requests[before:]}.isdisjoint({"none"})


def test_an_onion_service_is_a_name_like_any_other(here: World) -> None:
    assert "exit=" in here.proxy.execute("curl", "-sS", here.hidden_page("alice"))


def test_so_many_labels_at_once_have_so_many_sets_of_circuits(here: World) -> None:
    """Each twice, of which the second waits for the first."""
    before = here.witness.mark()

    def visit(number: int) -> None:
        for _ in range(2):
            url = here.page(f"label{number}")
            assert "exit=" in here.proxy.execute("curl", "-sS", url, isolation=f"label {number}")

    with ThreadPoolExecutor(LABELS) as pool:
        list(pool.map(visit, range(LABELS)))
    here.witness.settle()
    streams = [s for s in here.witness.streams(after=before) if s.host.startswith("label")]
    assert len({stream.host for stream in streams}) == LABELS
    here.witness.assert_isolated(streams, lambda stream: stream.host)
    here.witness.assert_shared(streams, lambda stream: stream.host)
