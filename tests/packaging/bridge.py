"""`python -m tests.packaging.bridge LEADER`: the packaged service behind a bridge.

Theory of operation
    This runs in the network of the machine whose systemd has process id LEADER, where the
    package and obfs4proxy are installed.  It starts a private Tor network there, with a
    bridge at an address that is not the machine's loopback.  As it is packaged the service
    may not reach it, nor may AppArmor let it execute the transport; with the two files of
    the package, as docs/howto/bridges.md has it, a stream goes through.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from isoproxy.tor.managed.advice import NO_BRIDGE
from tests.kit.servers import WebServer
from tests.kit.tornet import TorNetwork
from tests.kit.tornet.bridge import obfs4_bridge
from tests.packaging.machine import MachineError, run

ADDRESS: Final = "203.0.113.9"
_SHIPPED: Final = "/usr/share/isoproxy/transports"
_DROP_IN: Final = "/etc/systemd/system/isoproxy.service.d/bridges.conf"
_LOCAL: Final = "/etc/apparmor.d/local/system_isoproxy"
_WAIT_S: Final = 90


def main() -> int:
    leader, program = int(sys.argv[1]), shutil.which("obfs4proxy")
    assert program is not None, "obfs4proxy is missing"
    inside = Path(f"/proc/{leader}/root")
    enter = ["nsenter", "-t", str(leader), "-a", "--"]

    def shell(script: str) -> str:
        return run([*enter, "bash", "-euc", script])

    shell(f"ip address add {ADDRESS}/32 dev lo")
    settings = inside / "etc/isoproxy/conf.d/70-bridge.toml"
    try:
        with (
            TorNetwork() as net,
            obfs4_bridge(net, program, ADDRESS) as (_, line),
            WebServer(net.server_ip, net.exit_of, port=8080) as web,
        ):
            settings.write_text(
                f"[tor]\nmode = 'managed'\nbridges = {json.dumps([line])}\n"
                f"extra_torrc = {json.dumps(net.joining_lines)}\n"
            )
            file = "/etc/isoproxy/conf.d/70-bridge.toml"
            shell(f"chown isoproxy {file}; chmod 0400 {file}; systemctl restart isoproxy")
            _until(lambda: NO_BRIDGE in shell("isoproxy status"))
            shell(
                f"install -D -m 644 {_SHIPPED}/obfs4.conf {_DROP_IN}; "
                f"install -D -m 644 {_SHIPPED}/obfs4.apparmor {_LOCAL}; "
                "systemctl daemon-reload; systemctl restart isoproxy"
            )
            _until(lambda: ", answers" in shell("isoproxy status"))
            url = web.url(name="web.test")
            shell(f"curl -sS -m 60 --proxy socks5h://a:b@127.0.0.1:9250 {url}")
            log = shell("journalctl --no-pager -u isoproxy; isoproxy tor log; isoproxy status")
            assert ADDRESS not in log, log
            print("refused as packaged: the bridge does not answer; with the drop-ins: a stream")
    finally:
        settings.unlink(missing_ok=True)
        shell(
            f"rm -rf {_DROP_IN} {_LOCAL} /var/lib/isoproxy/tor; "
            f"rmdir /etc/systemd/system/isoproxy.service.d || true; ip address delete {ADDRESS}/32 "
            "dev lo; systemctl daemon-reload; systemctl restart isoproxy"
        )
    return 0


def _until(found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _WAIT_S
    while time.monotonic() < deadline:
        try:
            if found():
                return
        except MachineError:
            pass
        time.sleep(1)
    raise MachineError("not in time")


if __name__ == "__main__":
    sys.exit(main())
