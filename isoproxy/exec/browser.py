"""A fresh profile for Firefox or Chromium, in memory unless it is to be kept.

Theory of operation
    The profile is in a file system of the mount namespace (tmpfs(5)), so it is gone with the
    browser's last process, however that ended, and was on no disk.  `--profile DIR` keeps it in
    a directory instead.

    The browser needs no proxy.  What it is told is to leave names to the system's DNS, which is
    ours in there, and not to take `name.bit` for something to search for.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from isoproxy.errors import OperationError

KNOWN: Final = ("firefox-esr", "firefox", "chromium", "chromium-browser", "google-chrome")
"""Programs that are looked for where none is named, the first that is there."""
FIREFOX_SETTINGS: Final = {
    "browser.aboutwelcome.enabled": "false",
    "browser.fixup.domainsuffixwhitelist.bit": "true",
    "browser.fixup.domainsuffixwhitelist.onion": "true",
    "browser.shell.checkDefaultBrowser": "false",
    "datareporting.policy.dataSubmissionEnabled": "false",
    "dom.security.https_first_schemeless": "false",
    "media.peerconnection.enabled": "false",
    "network.captive-portal-service.enabled": "false",
    "network.connectivity-service.enabled": "false",
    "network.dns.blockDotOnion": "false",
    "network.http.http3.enable": "false",
    "network.proxy.type": "0",
    "network.trr.mode": "5",
}
CHROMIUM_OPTIONS: Final = ("--no-first-run", "--no-default-browser-check", "--disable-quic")


@dataclass(frozen=True, slots=True)
class Browser:
    """The profile of `program`: in `kept` if that is given, else over the directory `place`."""

    program: str
    place: str
    kept: Path | None = None

    def prepare(self, empty: Callable[[str], None]) -> Sequence[str]:
        """Make it; the options that have the program use it.  Raises OSError.

        `empty(directory)` puts an empty file system of our own over a directory.
        """
        if self.kept is None:
            empty(self.place)
            profile = Path(self.place, "profile")
        else:
            profile = self.kept
        profile.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not is_firefox(self.program):
            return (f"--user-data-dir={profile}", *CHROMIUM_OPTIONS)
        lines = (f'user_pref("{name}", {value});\n' for name, value in FIREFOX_SETTINGS.items())
        (profile / "user.js").write_text("".join(lines))
        return ("--new-instance", "--profile", str(profile))


def browser_of(words: Sequence[str]) -> str:
    """The browser that is to be started; raises OperationError."""
    if not words:
        found = next(filter(shutil.which, KNOWN), None)
        if found is None:
            raise OperationError("no browser is installed; name one after --browser --")
        return found
    name = os.path.basename(words[0])
    if not is_firefox(name) and not any(part in name for part in ("chrom", "brave")):
        raise OperationError("--browser is for Firefox and Chromium, and their relatives")
    return words[0]


def is_firefox(program: str) -> bool:
    """Whether it takes Firefox's options."""
    return "firefox" in os.path.basename(program)


def place_for(directories: Sequence[str]) -> str:
    """The directory over which a profile is put: the first that is there.  OperationError."""
    found = next(filter(os.path.isdir, directories), None)
    if found is None:
        raise OperationError("there is no directory that a profile could be put over")
    return found
