"""torrc.sample is what a real tor takes, word for word, flags included."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Hashable
from pathlib import Path

import pytest

from tests.kit.repository import ROOT
from tests.kit.servers import WebServer
from tests.kit.tornet import TorNetwork
from tests.kit.witness import Stream, Witness

_SAMPLE = ROOT / "torrc.sample"
# Prose has a space after the "#".
_SWITCHED_OFF = re.compile(r"^#(?=[A-Za-z_]+ )", re.MULTILINE)


def _settings(text: str) -> str:
    """What is left of a torrc without comments."""
    return "".join(line + "\n" for line in text.splitlines() if line and not line.startswith("#"))


def _verify(text: str, directory: Path) -> tuple[int, str]:
    """Let tor read a torrc, with a data directory that this user may have."""
    torrc, data = directory / "torrc", directory / "data"
    torrc.write_text(text)
    data.mkdir(mode=0o700)
    done = subprocess.run(
        [
            *("tor", "-f", torrc, "--defaults-torrc", "/dev/null"),
            *("--DataDirectory", data, "--verify-config"),
        ],
        capture_output=True,
        text=True,
        timeout=30,
    )
    return done.returncode, done.stdout + done.stderr


def _complaints(output: str) -> list[str]:
    """Warnings and errors, those about this machine aside."""
    return [
        line
        for line in output.splitlines()
        if re.search(r"\[(warn|err)\]|[Uu]nrecogni[sz]ed", line)
        and "running Tor as root" not in line
    ]


@pytest.mark.parametrize("controller", [False, True], ids=["front end", "controller mode"])
def test_tor_accepts_every_line_without_a_warning(controller: bool, tmp_path: Path) -> None:
    text = _SAMPLE.read_text()
    if controller:
        text = _SWITCHED_OFF.sub("", text)
        assert "\n__LeaveStreamsUnattached 1\n" in text
    status, output = _verify(text, tmp_path)
    assert _complaints(output) == []
    assert status == 0
    assert "Configuration was valid" in output


def test_the_check_sees_a_misspelt_flag_that_tor_calls_valid(tmp_path: Path) -> None:
    text = _settings(_SAMPLE.read_text()).replace("IsolateSOCKSAuth", "IsolateSocksAuht", 1)
    status, output = _verify(text, tmp_path)
    assert status == 0
    assert any("IsolateSocksAuht" in line for line in _complaints(output))


def test_the_check_sees_an_unknown_option(tmp_path: Path) -> None:
    status, output = _verify(_SAMPLE.read_text() + "LeaveStreamsUnattached 1\n", tmp_path)
    assert status != 0
    assert _complaints(output)


def test_the_controller_lines_are_off_as_shipped() -> None:
    assert "__LeaveStreamsUnattached" not in _settings(_SAMPLE.read_text())


def test_a_tor_with_these_settings_runs_and_isolates(tor_network: TorNetwork) -> None:
    """The shipped lines on a running tor; only paths and the port are put elsewhere."""
    options = _settings(_SAMPLE.read_text())
    for shipped, here in (
        ("/run/tor/control.authcookie", "{dir}/cookie"),
        ("/run/tor/control ", "{dir}/sample-control "),
        ("/run/tor/socks", "{dir}/isoproxy.socks"),
        ("127.0.0.1:9050", "{ip}:9250"),
    ):
        assert shipped in options
        options = options.replace(shipped, here)
    with (
        tor_network.temporary_client(options) as client,
        WebServer(tor_network.server_ip) as web,
        Witness(client) as witness,
    ):
        path = str(client.dir / "isoproxy.socks")
        assert {(client.ip, 9250), path} <= set(client.listener("socks"))
        assert str(client.dir / "sample-control") in client.listener("control")
        assert "ConfluxEnabled 0" in client.ctl.getinfo("config-text")
        proxies = [
            f"{user}:x@{at}"
            for at in (f"{client.ip}:9250", "localhost" + path)
            for user in ("a", "b", "a")
        ]
        for proxy in proxies:
            subprocess.run(
                ["curl", "-sS", "--proxy", "socks5h://" + proxy, web.url(name="web.test")],
                check=True,
                capture_output=True,
                timeout=60,
            )
        streams = witness.wait_for(len(proxies), lambda stream: stream.closed)
        witness.assert_isolated(streams, _listener_and_user)
        witness.assert_shared(streams, _listener_and_user)
        assert len(witness.by_carrier(streams)) == 4


def _listener_and_user(stream: Stream) -> Hashable:
    return stream.session_group, stream.credentials
