"""Each program as its page says to use it, and as its page warns not to.

A `Use` acts for `people` over a port.  Where it keeps them apart there are as many identities
as people; where a page warns they are one; where the program gives up there is none.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from tests.kit.chromium import Chromium
from tests.kit.firefox import Firefox
from tests.kit.npm import npm_package
from tests.kit.repository import ROOT
from tests.kit.witness import Stream
from tests.network.docs.pages import HOWTO, fenced
from tests.network.real.electrum import Electrum
from tests.network.real.world import PEOPLE, SERVERS, World

Act = Callable[[World], None]
Visit = Callable[[World, str], str]
_VISITS: Final = 2
"""Of each person, so that one person's are seen to share."""
_FOUND_S: Final = 120.0
_BUILD_S: Final = 600.0
"""For Go, which compiles its library at the first time."""

VERSIONS: Final = {
    "Chromium": ("chromium", "--version"),
    "curl": ("curl", "--version"),
    "Electrum": ("electrum", "--offline", "version"),
    "Firefox ESR": ("firefox-esr", "--version"),
    "git": ("git", "--version"),
    "Go": ("go", "version"),
    "Java": ("java", "-version"),
    "Node": ("node", "--version"),
    "ssh": ("ssh", "-V"),
    "torsocks, wget": ("wget", "--version"),
    "wget": ("wget", "--version"),
}
"""What is asked of each program to name its version; its first word has to be installed."""


@dataclass(frozen=True)
class Use:
    """One row of the table."""

    program: str
    port: int
    how: str
    act: Act
    identities: int = len(PEOPLE)
    people: tuple[str, ...] = PEOPLE
    page: str = ""

    @property
    def apart(self) -> bool:
        """Whether nobody is to share with another."""
        return self.identities >= len(self.people)


def _each(visit: Visit) -> Act:
    """Each person by a process of their own, which has to get the page."""

    def act(world: World) -> None:
        for who in PEOPLE * _VISITS:
            assert "exit=" in visit(world, who)

    return act


def _refused(visit: Visit) -> Act:
    """The program gives up."""

    def act(world: World) -> None:
        for who in PEOPLE:
            try:
                visit(world, who)
            except subprocess.CalledProcessError:
                continue
            raise AssertionError("the program was served")

    return act


def _curl(port: int, *options: str) -> Visit:
    """curl; in `options` WHO is the user, and AT the proxy."""

    def visit(world: World, who: str) -> str:
        words = [word.replace("WHO", who).replace("AT", world.at(port)) for word in options]
        return world.run("curl", "-sS", "-q", *words, world.page(who))

    return visit


def _curl_environment(world: World, who: str) -> str:
    return world.run(
        "curl", "-sS", "-q", world.page(who), ALL_PROXY=f"socks5h://{who}:1@{world.at(9250)}"
    )


def _git(world: World, who: str) -> str:
    to = world.folder("clone")
    url = world.web.url("/files/repository/.git", name=f"{who}.test")
    at = f"http.proxy=socks5h://git:{who}@{world.at(9250)}"
    world.run("git", "-c", at, "clone", "-q", url, str(to / "it"), GIT_CONFIG_NOSYSTEM="1")
    return "exit=" if (to / "it" / "README").exists() else ""


def _ssh(isolation: str) -> Visit:
    """The line of docs/howto/ssh.md; with `isolation` for who asks."""

    def visit(world: World, who: str) -> str:
        config = world.directory / "ssh_config"
        config.write_text("Host *\n" + world.ssh_lines)
        dial = f"{world.isoproxy_command()} dial {isolation.replace('WHO', who)} %h:%p"
        option = f"ProxyCommand={dial}"
        return world.run("ssh", "-F", str(config), "-o", option, f"{who}.test", "echo exit=none")

    return visit


def _wget(world: World, who: str) -> str:
    proxy = f"http://{who}:1@{world.at(9250)}"
    certificate = f"--ca-certificate={world.certificate}"
    return world.run("wget", "-qO-", certificate, world.page(who, secure=True), https_proxy=proxy)


def _torsocks(world: World, who: str) -> str:
    host, port = world.at(9250).split(":")
    words = ("torsocks", "-a", host, "-P", port, "-u", who, "-p", "1", "wget", "-qO-")
    return world.run(*words, world.hidden_page(who))


def _go(world: World, who: str) -> str:
    program = world.directory / "fetch"
    if not program.exists():
        source = str(world.example("go"))
        cache = {"GOCACHE": str(ROOT / ".cache" / "go"), "GO111MODULE": "off"}
        world.run("go", "build", "-o", str(program), source, seconds=_BUILD_S, **cache)
    return world.run(str(program), who, "1", world.page(who))


def _java_socks(world: World, who: str) -> str:
    return world.run("java", str(world.example("java")), who, "1", world.page(who))


def _java_without_authenticator(world: World, who: str) -> str:
    host, port = world.at(9250).split(":")
    (world.directory / "Plain.java").write_text(
        "class Plain { public static void main(String[] words) throws Exception {\n"
        "new java.net.URL(words[0]).openStream().transferTo(System.out); } }\n"
    )
    options = (f"-DsocksProxyHost={host}", f"-DsocksProxyPort={port}")
    return world.run("java", *options, str(world.directory / "Plain.java"), world.page(who))


def _java_http(port: int) -> Visit:
    def visit(world: World, who: str) -> str:
        (text,) = fenced(HOWTO / "programming.md", "java")
        folder = world.folder("java")
        file = folder / "Fetch.java"
        file.write_text(world.here(text.replace("Type.SOCKS", "Type.HTTP"), port))
        store = folder / "trust"
        world.run(
            *("keytool", "-importcert", "-noprompt", "-alias", "test", "-storepass", "changeit"),
            *("-file", str(world.certificate), "-keystore", str(store)),
        )
        return world.run(
            *("java", "-Djdk.http.auth.tunneling.disabledSchemes="),
            *(f"-Djavax.net.ssl.trustStore={store}", "-Djavax.net.ssl.trustStorePassword=changeit"),
            str(file),
            *(who, "1", world.page(who, secure=True)),
        )

    return visit


def _node(world: World, who: str) -> str:
    program = str(world.example("js"))
    page = world.page(who, secure=True)
    trust = str(world.certificate)
    return world.run("node", program, who, "1", page, NODE_EXTRA_CA_CERTS=trust)


_AGENT: Final = """\
const { SocksProxyAgent } = require(process.argv[2]);
const agent = new SocksProxyAgent(process.argv[3]);
require('http').get(process.argv[4], { agent }, (page) => page.pipe(process.stdout));
"""


def _node_agent(world: World, who: str) -> str:
    package = str(npm_package("socks-proxy-agent"))
    proxy = f"socks5h://{who}:1@{world.at(9250)}"
    return world.run("node", "-e", _AGENT, "--", "-", package, proxy, world.page(who))


def _firefox(port: int) -> Act:
    """One Firefox, two sites."""

    def act(world: World) -> None:
        preferences = world.here((ROOT / "examples/browser/user.js").read_text(), port)
        with Firefox(world.folder("firefox"), preferences) as firefox:
            for who in PEOPLE * _VISITS:
                firefox.open(world.page(who))

    return act


def _chromium(port: int) -> Act:
    """One Chromium as its page starts it, two sites."""

    def act(world: World) -> None:
        (line,) = fenced(HOWTO / "chromium.md", "sh")
        flags = shlex.split(world.here(line, port).replace("\\\n", " "))[2:]
        with Chromium(world.folder("chromium"), flags) as chromium:
            tab = chromium.open("about:blank")
            for who in PEOPLE * _VISITS:
                tab.load(world.page(who))

    return act


def _chromium_http(world: World) -> None:
    """A Chromium for each user name, which is typed when the port asks for it."""
    proxy = f"--proxy-server=http://{world.at(9254)}"
    for who in PEOPLE:
        flags = (proxy, "--ignore-certificate-errors")
        with Chromium(world.folder("chromium"), flags) as chromium:
            tab = chromium.open("about:blank")
            tab.log_in(who, "1")
            for _ in range(_VISITS):
                tab.load(world.page(who, secure=True))
                tab.wait_for("document.body?.innerText.includes('exit=')")


def _reached(host: str, stream: Stream) -> bool:
    return stream.host == host and stream.succeeded


def _electrum(port: int) -> Act:
    """One Electrum, its servers."""

    def act(world: World) -> None:
        after = world.witness.mark()
        servers = [f"{who}.test:{world.electrum.port}:s" for who in SERVERS]
        with Electrum(world.folder("electrum"), world.at(port), servers):
            for who in SERVERS:
                reached = partial(_reached, f"{who}.test")
                world.witness.wait_for(1, reached, _FOUND_S, after)

    return act


def _of_curl() -> Sequence[Use]:
    apart: tuple[tuple[int, str, tuple[str, ...]], ...] = (
        (9250, "`--proxy socks5h://user:1@…`", ("--proxy", "socks5h://WHO:1@AT")),
        (
            9250,
            "`--socks5-hostname … --proxy-user`",
            ("--socks5-hostname", "AT", "--proxy-user", "WHO:1"),
        ),
        (
            9250,
            "`--socks5-basic`",
            ("--socks5-basic", "--socks5-hostname", "AT", "--proxy-user", "WHO:1"),
        ),
        (9250, "`--proxy socks4a://user@…`", ("--proxy", "socks4a://WHO@AT")),
        (9250, "`--proxytunnel --proxy http://…`", ("-p", "--proxy", "http://WHO:1@AT")),
        (9250, "`--proxy-basic`", ("-p", "--proxy-basic", "--proxy", "http://WHO:1@AT")),
        (
            9250,
            "`--proxy-header 'X-Tor-Stream-Isolation: …'`",
            ("-p", "--proxy", "http://AT", "--proxy-header", "X-Tor-Stream-Isolation: WHO"),
        ),
        (9254, "`--proxy-anyauth`", ("-p", "--proxy-anyauth", "--proxy", "http://WHO:1@AT")),
        (9251, "no user name", ("--proxy", "socks5h://AT")),
    )
    together: tuple[tuple[str, tuple[str, ...]], ...] = (
        ("no user name", ("--proxy", "socks5h://AT")),
        *(
            (f"`{option}`", ("-p", option, "--proxy", "http://WHO:1@AT"))
            for option in ("--proxy-anyauth", "--proxy-digest", "--proxy-ntlm", "--proxy-negotiate")
        ),
    )
    refused = ("--proxy-digest", "--proxy-ntlm", "--proxy-negotiate")
    return [
        *(Use("curl", port, how, _each(_curl(port, *words))) for port, how, words in apart),
        Use("curl", 9250, "`ALL_PROXY=socks5h://user:1@…`", _each(_curl_environment)),
        *(Use("curl", 9250, how, _each(_curl(9250, *words)), 1) for how, words in together),
        *(
            Use(
                "curl",
                9254,
                f"`{option}`",
                _refused(_curl(9254, "-p", option, "--proxy", "http://WHO:1@AT")),
                0,
            )
            for option in refused
        ),
    ]


USES: Final[Sequence[Use]] = (
    *_of_curl(),
    Use("git", 9250, "`http.proxy=socks5h://git:project@…`", _each(_git)),
    Use("ssh", 9250, "`isoproxy dial --isolation …`", _each(_ssh("--isolation WHO"))),
    Use("ssh", 9250, "`isoproxy dial` alone", _each(_ssh("")), len(PEOPLE) * _VISITS),
    Use("wget", 9250, "`https_proxy=http://user:1@…`, https", _each(_wget)),
    Use("torsocks, wget", 9250, "`torsocks -u user -p 1`, an onion service", _each(_torsocks)),
    Use("Go", 9250, "`net/http`, socks5 in the proxy's address", _each(_go)),
    Use("Node", 9250, "CONNECT by hand", _each(_node)),
    Use("Node", 9250, "`socks-proxy-agent`, socks5h", _each(_node_agent)),
    Use("Java", 9250, "SOCKS with an `Authenticator`", _each(_java_socks)),
    Use("Java", 9250, "`-DsocksProxyHost` alone", _each(_java_without_authenticator), 1),
    Use("Java", 9250, "HTTP with an `Authenticator`", _each(_java_http(9250)), 1),
    Use("Java", 9254, "HTTP with an `Authenticator`", _each(_java_http(9254))),
    Use("Firefox ESR", 9251, "`user.js`, two sites", _firefox(9251)),
    Use("Firefox ESR", 9250, "the same at 9250", _firefox(9250), 1),
    Use("Chromium", 9251, "the page's options, two sites", _chromium(9251)),
    Use("Chromium", 9250, "the same at 9250", _chromium(9250), 1),
    Use("Chromium", 9254, "`--proxy-server=http://…`, a user name typed, https", _chromium_http),
    Use("Electrum", 9251, "`--proxy`, seven servers", _electrum(9251), len(SERVERS), SERVERS),
    Use("Electrum", 9250, "the same at 9250", _electrum(9250), 1, SERVERS),
)
"""All of them."""


def needs(use: Use) -> tuple[str, ...]:
    """The programs without which it cannot be tried."""
    extra = {"torsocks, wget": ("torsocks",), "Java": ("javac", "keytool")}
    return (VERSIONS[use.program][0], *extra.get(use.program, ()))
