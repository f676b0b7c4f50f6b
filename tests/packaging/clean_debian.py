"""`make deb-check`: the package on a clean Debian 12 and 13, under their own systemd.

    python -m tests.packaging.clean_debian [--keep] [bookworm] [trixie]

Has `make deb` build the package of this commit there, and lintian find nothing.  Then, on
another clean system, installs it with apt, watches the service do all it should under its
confinement, tries the recipes over Debian's tor on a private Tor network, removes the package and
compares the disk.  Needs root.  Prints what was seen; the first thing that is not as it should
be ends it.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.kit.repository import ROOT
from tests.packaging.leftovers import Files, changed, files
from tests.packaging.machine import (
    SUITES,
    Machine,
    MachineError,
    base_system,
    build,
    lintian,
    run,
)
from tests.packaging.recipes import SOCKET, USERS

PROBE: Final = Path(__file__).with_name("probe.py")
GREETING: Final = (
    r"exec 3<>/dev/tcp/127.0.0.1/{port}; printf '\5\2\0\2' >&3; head -c2 <&3 | od -An -tx1"
)
MOST_EXPOSED: Final = 1.5
ALLOWED: Final = {"connect to this machine", "write its state"}


class Check:
    """The steps, on one machine."""

    def __init__(self, machine: Machine, package: Path) -> None:
        self.machine = machine
        self.package = f"/root/{package.name}"
        self.users_before = ""

    # -- installation

    def install(self) -> str:
        """apt resolves what is needed, nobody answers a question."""
        self.users_before = self.machine.shell("cut -d: -f1 /etc/passwd | sort")
        self._apt("install", self.package)
        return self.machine.shell("dpkg-query -W isoproxy tor python3; id isoproxy").strip()

    def programs(self) -> str:
        shell = self.machine.shell
        shell("isoproxy --help; stemns --help; prop279-namecoin --help; isoproxy check")
        pages = shell(
            "man -w isoproxy; man -w isoproxy.toml; man -w stemns; man -w prop279-namecoin"
        )
        text = shell("MANWIDTH=80 man --warnings isoproxy isoproxy.toml stemns 2>&1")
        _expect(text, "isoproxy.toml - settings of isoproxy")
        found = shell(
            "apropos -e isoproxy; test -s /usr/share/bash-completion/completions/isoproxy"
        )
        _expect(found, "isoproxy (8)")
        links = shell("readlink -f /usr/lib/isoproxy/bin/python3; head -1 /usr/bin/isoproxy")
        return f"{pages}{links}".strip()

    # -- the service

    def runs(self) -> str:
        """READY=1 arrived (Type=notify: else it would not be active), and it answers."""
        self._await_active()
        state = self._show("Type", "ActiveState", "SubState", "NRestarts", "StatusText")
        _expect(state, "Type=notify", "ActiveState=active", "SubState=running", "NRestarts=0",
                "StatusText=2 listeners")  # fmt: skip
        _expect(self.machine.shell("systemctl is-enabled isoproxy"), "enabled")
        off = self.machine.fails("systemctl", "is-enabled", "stemns.service", "isoproxy.socket")
        assert off.count("disabled") == 2, off
        self._greet(9250)
        return state + self.machine.shell(
            "systemctl status isoproxy --no-pager -n 4; isoproxy status"
        )

    def passes_its_autopkgtest(self) -> str:
        """packaging/debian/tests/service, which knows no private network."""
        script = self.machine.path("/run/autopkgtest")
        script.write_text((ROOT / "packaging" / "debian" / "tests" / "service").read_text())
        said = self.machine.shell("bash /run/autopkgtest; rm /run/autopkgtest")
        self._await_active()
        return said.strip()

    def is_exposed_little(self) -> str:
        lines = []
        for unit in ("isoproxy", "stemns"):
            text = self.machine.shell(f"systemd-analyze security --no-pager {unit}")
            found = re.search(r"Overall exposure level.*?: ([0-9.]+)", text)
            assert found is not None, text
            assert float(found[1]) <= MOST_EXPOSED, text
            lines.append(found[0])
        return "\n".join(lines)

    def is_confined(self) -> str:
        """The unit's own confinement, with a probe in the place of the program."""
        shell = self.machine.shell
        shell(
            "ip address add 203.0.113.5/32 dev lo; "
            "systemd-run -q --unit=other-machine python3 -m http.server --bind 203.0.113.5 80"
        )
        time.sleep(2)
        self.machine.path("/usr/local/lib/probe.py").write_text(PROBE.read_text())
        shell(
            "sed -e '/^Exec/d; /^Type=/d; /^Watchdog/d; /^Restart/d; /^NotifyAccess/d' "
            "-e 's|^.Service.|&\\nType=oneshot\\nExecStart=/usr/bin/python3 /usr/local/lib/probe.py"
            "\\nStandardOutput=file:/run/probe.out|' -e '/Directory/s/isoproxy/isoproxy-probe/' "
            "-e '/HOME/s/isoproxy/isoproxy-probe/' "
            "/lib/systemd/system/isoproxy.service > /run/systemd/system/isoproxy-probe.service; "
            "systemctl daemon-reload; systemctl start isoproxy-probe"
        )
        confined = shell("cat /run/probe.out")
        free = shell("HOME=/tmp python3 /usr/local/lib/probe.py")
        shell(
            "systemctl stop other-machine; ip address delete 203.0.113.5/32 dev lo; "
            "rm -r /usr/local/lib/probe.py /run/systemd/system/isoproxy-probe.service "
            "/run/probe.out /var/lib/isoproxy-probe; systemctl daemon-reload"
        )
        assert "refused" not in free, f"the probe cannot tell: without confinement\n{free}"
        for line in confined.splitlines():
            verdict, what = line.split(" ", 1)
            assert (verdict == "allowed") == (what in ALLOWED), confined
        status = shell(
            f"grep -E '^(Uid|Groups|CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/{self._pid()}/status"
        )
        _expect(status, "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2")
        return confined + status.strip()

    def reloads(self) -> str:
        """A listener more, the process the same; a file with an error changes nothing."""
        pid = self._pid()
        drop_in = self.machine.path("/etc/isoproxy/conf.d/50-check.toml")
        drop_in.write_text(
            f'[[listener]]\naddress = "127.0.0.1:9251"\n\n[[listener]]\naddress = "unix:{SOCKET}"\n'
        )
        self.machine.shell("systemctl reload isoproxy")
        self._until(lambda: self._greet(9251))
        self._greet(9250)
        good = drop_in.read_text()
        drop_in.write_text("[tor]\nsock = 1\n")
        self.machine.shell("systemctl reload isoproxy; sleep 1")
        self._greet(9251)
        log = self._log("reload")
        _expect(log, "reload_refused", "did you mean tor.socks?")
        drop_in.write_text(good)
        self.machine.shell("systemctl reload isoproxy")
        assert self._pid() == pid
        modes = self.machine.shell(
            f"stat -c '%A %U:%G %n' /run/isoproxy {SOCKET} /var/lib/isoproxy"
        )
        return f"process {pid} stayed\n{log}{modes}".strip()

    def serves(self) -> str:
        """The recipes, over Debian's tor on a private network."""
        for user in USERS:
            self.machine.shell(f"useradd -M -G isoproxy {user}")
        said = self._in_its_network("tests.packaging.recipes")
        for user in USERS:
            self.machine.shell(f"userdel {user}")
        log = self.machine.shell("journalctl --no-pager -u isoproxy")
        assert not re.search(r"web\.test|alice|\.onion", log), log
        return said

    def comes_back(self) -> str:
        """After SIGKILL; and when it hangs, by the watchdog."""
        first = self._pid()
        self.machine.shell(f"kill -KILL {first}")
        self._await_active(other_than=first)
        self._greet(9250)
        self.machine.shell(
            "cd /run/systemd/system; mkdir -p isoproxy.service.d; "
            "printf '[Service]\\nWatchdogSec=4\\n' > isoproxy.service.d/watchdog.conf; "
            "systemctl daemon-reload; systemctl restart isoproxy; sleep 6"
        )
        second = self._pid()
        assert self._show("NRestarts").strip() == "NRestarts=0", "the watchdog killed a live one"
        self.machine.shell(f"kill -STOP {second}")
        self._await_active(other_than=second)
        self._greet(9250)
        log = self.machine.shell("journalctl --no-pager -u isoproxy | grep -iE 'watchdog|killed'")
        self.machine.shell(
            "rm -r /run/systemd/system/isoproxy.service.d; systemctl daemon-reload; "
            "systemctl restart isoproxy"
        )
        return log.strip()

    def keeps_its_port(self) -> str:
        """By socket activation, clients wait during a restart; without, they are refused."""
        shell = self.machine.shell
        shell("systemctl stop isoproxy; systemctl start isoproxy.socket")
        assert "inactive" in self.machine.fails("systemctl", "is-active", "isoproxy")
        self._greet(9250)  # starts it
        self._await_active()
        knock = (
            "refused=0; for i in $(seq 60); do "
            "(exec 3<>/dev/tcp/127.0.0.1/9250) 2>/dev/null || refused=$((refused+1)); sleep 0.05; "
            "done; echo $refused"
        )
        with_socket = shell(f"systemctl restart --no-block isoproxy; {knock}").strip()
        shell("systemctl stop isoproxy.socket isoproxy; systemctl start isoproxy")
        without = shell(f"systemctl restart --no-block isoproxy; {knock}").strip()
        assert with_socket == "0"
        assert without != "0", "the knocking shows nothing: no client was refused without a socket"
        self._await_active()
        return f"refused of 60 during a restart: {with_socket} with the socket, {without} without"

    def gives_up_on_a_wrong_file(self) -> str:
        """At once: a wrong configuration stays wrong."""
        drop_in = self.machine.path("/etc/isoproxy/conf.d/50-check.toml")
        drop_in.write_text("[tor]\nsock = 1\n")
        self.machine.fails("systemctl", "restart", "isoproxy")
        _expect(self._show("ActiveState", "NRestarts"), "ActiveState=failed", "NRestarts=0")
        log = self._log("did you mean")
        _expect(log, "did you mean tor.socks?")
        drop_in.unlink()
        self.machine.shell("systemctl reset-failed isoproxy; systemctl start isoproxy")
        self._await_active()
        return log.strip().splitlines()[-1]

    def runs_a_tor_of_its_own(self) -> str:
        """tor.mode = "managed": tor starts under the same confinement, and ends with isoproxy."""
        shell = self.machine.shell
        drop_in = self.machine.path("/etc/isoproxy/conf.d/60-check.toml")
        drop_in.write_text('[tor]\nmode = "managed"\n')
        shell("systemctl restart isoproxy")
        self._await_active()
        self._until(lambda: _expect(shell("isoproxy status"), "(managed)", "control port ready"))
        status = shell(
            "pgrep -u isoproxy -x tor | xargs -I{} grep -E '^(NoNewPrivs|Seccomp):' /proc/{}/status"
        )
        _expect(status, "NoNewPrivs:\t1", "Seccomp:\t2")
        drop_in.unlink()
        shell("systemctl restart isoproxy; rm -r /var/lib/isoproxy/tor")
        self._await_active()
        self.machine.fails("pgrep", "-u", "isoproxy", "-x", "tor")
        return status.strip()

    def goes_through_a_bridge(self) -> str:
        """A real bridge beyond loopback: refused as packaged, reached with the drop-ins."""
        self._apt("install", "obfs4proxy")
        said = self._in_its_network("tests.packaging.bridge")
        self._apt("purge", "obfs4proxy")
        self._await_active()
        return said

    def stems(self) -> str:
        """stemns refuses while torrc has not the option, and serves when it has."""
        shell = self.machine.shell
        shell("systemctl start stemns; sleep 3")
        log = shell("journalctl --no-pager -u stemns -o cat | grep -m1 LeaveStreams")
        shell("systemctl stop stemns; echo __LeaveStreamsUnattached 1 >> /etc/tor/torrc; "
              "systemctl restart tor@default; systemctl reset-failed stemns || true; "
              "systemctl start stemns")  # fmt: skip
        self._until(
            lambda: _expect(
                shell("journalctl --no-pager -u stemns -o cat -n 20"), "stemns: streams are served"
            )
        )
        shell("systemctl stop stemns; sed -i '$d' /etc/tor/torrc; systemctl restart tor@default")
        return log.strip()

    def stops(self) -> str:
        self.machine.shell("systemctl stop isoproxy")
        state = self._show("ActiveState", "Result")
        _expect(state, "ActiveState=inactive", "Result=success")
        self.machine.fails("bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/9250")
        self.machine.fails("test", "-e", "/run/isoproxy")
        self.machine.shell("systemctl start isoproxy")
        return state.strip()

    # -- removal

    def leaves_nothing(self) -> str:
        """A purge, then an installation, a removal and a purge with the disk compared."""
        self._apt("purge", "isoproxy")
        bare = self._files()
        named = [path for path in bare if re.search(r"isoproxy|stemns", path)]
        assert not named, named
        users = self.machine.shell("cut -d: -f1 /etc/passwd | sort")
        assert set(users.split()) - set(self.users_before.split()) == {"debian-tor"}, users
        self._apt("install", self.package)
        self._await_active()
        self.machine.shell("isoproxy status")
        self._apt("remove", "isoproxy")
        left = changed(bare, self._files())
        outside = [line for line in left if not self._may_stay(line)]
        assert not outside, outside
        self._apt("purge", "isoproxy")
        assert changed(bare, self._files()) == []
        return "\n".join(["after remove:", *left, "after purge: nothing"])

    @staticmethod
    def _may_stay(line: str) -> bool:
        """Files of /etc, and what dpkg needs to purge them."""
        path = line.split(" ", 1)[1]
        return path.startswith(("/etc/", "/var/lib/dpkg/info/isoproxy.",
                                "/var/lib/systemd/deb-systemd-helper-"))  # fmt: skip

    # -- tools

    def _in_its_network(self, module: str) -> str:
        """What a module of ours says that runs in the machine's network."""
        command = self.machine.in_network(sys.executable, "-m", module, str(self.machine.leader))
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
        if done.returncode:
            raise MachineError(f"{done.stdout}\n{done.stderr}")
        return done.stdout.strip()

    def _apt(self, *words: str) -> None:
        self.machine.run("apt-get", "-y", "-q", "--no-install-recommends", *words)

    def _files(self) -> Files:
        return files(self.machine.root)

    def _show(self, *properties: str) -> str:
        return self.machine.run("systemctl", "show", "isoproxy", "-p", ",".join(properties))

    def _pid(self) -> int:
        return int(self.machine.run("systemctl", "show", "isoproxy", "-p", "MainPID", "--value"))

    def _log(self, pattern: str) -> str:
        return self.machine.shell(
            f"journalctl --no-pager -o cat -u isoproxy | grep -E '{pattern}' | tail -3"
        )

    def _greet(self, port: int) -> None:
        """A SOCKS5 greeting gets its answer: user name and password, 05 02."""
        answer = self.machine.shell(GREETING.format(port=port), timeout_s=30)
        assert answer.split() == ["05", "02"], answer

    def _await_active(self, other_than: int = 0) -> None:
        def active() -> None:
            _expect(self._show("ActiveState"), "ActiveState=active")
            assert self._pid() not in (0, other_than)

        self._until(active)

    def _until(self, attempt: Callable[[], object], seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(AssertionError, MachineError):
                attempt()
                return
            time.sleep(0.5)
        attempt()


STEPS: Final = (
    Check.install, Check.programs, Check.runs, Check.passes_its_autopkgtest,
    Check.is_exposed_little, Check.is_confined,
    Check.reloads, Check.serves, Check.comes_back, Check.keeps_its_port,
    Check.gives_up_on_a_wrong_file, Check.runs_a_tor_of_its_own,
    Check.goes_through_a_bridge, Check.stems,
    Check.stops, Check.leaves_nothing,
)  # fmt: skip


def _expect(text: str, *parts: str) -> None:
    for part in parts:
        assert part in text, f"{part!r} is not in:\n{text}"


def _built(base: Path, suite: str, root: Path) -> Path:
    """The package, built on the suite itself and judged by its lintian; a copy is in dist/."""
    found = build(base, root)
    packages = [path for path in found if path.suffix == ".deb"]
    assert all(f"~deb{SUITES[suite]}_" in path.name for path in packages), packages
    (changes,) = [path for path in found if path.suffix == ".changes"]
    complaints = lintian(root, changes)
    assert not complaints, complaints
    (ROOT / "dist").mkdir(exist_ok=True)
    for path in found:
        shutil.copy(path, ROOT / "dist")
    return next(path for path in packages if path.name.startswith("isoproxy_"))


def check(suite: str, cache: Path, *, keep: bool) -> None:
    """All of it on one release; raises MachineError or AssertionError."""
    began = time.monotonic()

    def tell(title: str, seen: str) -> None:
        print(f"## {suite}: {title} ({time.monotonic() - began:.0f} s)\n{seen}\n", flush=True)

    base = base_system(cache, suite)
    builder = cache / suite / "builder"
    package = _built(base, suite, builder)
    tell("make deb", package.name)
    machine = Machine(base, cache / suite / "machine")
    machine.fetch(package, "obfs4proxy")
    with machine:
        checked = Check(machine, package)
        for step in STEPS:
            tell(step.__name__.replace("_", " "), step(checked))
    if not keep:
        run(["rm", "-rf", machine.root, builder])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.packaging.clean_debian")
    parser.add_argument("--keep", action="store_true", help="leave the machines' disks behind")
    parser.add_argument("suites", nargs="*", metavar="SUITE", help="bookworm, trixie; or both")
    options = parser.parse_args()
    for suite in options.suites or SUITES:
        try:
            check(suite, ROOT / ".cache" / "clean-debian", keep=options.keep)
        except (MachineError, AssertionError) as error:
            print(f"deb-check: {suite}: {error}", file=sys.stderr)
            return 1
        print(f"The package does all it should on a clean Debian {SUITES[suite]}.", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
