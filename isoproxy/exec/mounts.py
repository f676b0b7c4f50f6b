"""What a program must not find: sockets of those who would resolve or dial for it.

Theory of operation
    In a mount namespace of its own an empty file system is put over each directory of such
    sockets, and an empty file over each single one.  `/etc/resolv.conf` and `/etc/nsswitch.conf`
    are replaced in the same way.  All of it is in memory and ends with the namespace.

    Sockets without a file (abstract ones) belong to a network namespace and are out of reach by
    that; other sockets with files (D-Bus, Wayland, X11) stay: this keeps identities apart on
    the network, it is no sandbox.

Specification: mount_namespaces(7), mount(2), resolv.conf(5), nsswitch.conf(5), unix(7).
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from isoproxy.exec.namespace import called, libc

RESOLVING_OR_DIALLING: Final = (
    "/run/nscd",
    "/var/run/nscd",
    "/run/systemd/resolve",
    "/run/avahi-daemon",
    "/var/run/avahi-daemon",
    "/run/tor",
    "/var/run/tor",
    "/run/isoproxy",
)
"""Directories of sockets of other programs, and of a system's isoproxy."""
RESOLV_CONF: Final = "nameserver 127.0.0.1\n"
_MS_NOSUID: Final = 0x2
_MS_NODEV: Final = 0x4
_MS_BIND: Final = 0x1000
_MS_REC: Final = 0x4000
_MS_PRIVATE: Final = 0x40000
_MNT_DETACH: Final = 0x2
_STAGE: Final = "/tmp"  # noqa: S108 -- under a file system of our own, for a moment
_HOSTS_LINE: Final = re.compile(r"^\s*hosts:.*\n?", re.MULTILINE)


def nsswitch(text: str) -> str:
    """`/etc/nsswitch.conf` by which hosts are looked up in files and the DNS alone."""
    return _HOSTS_LINE.sub("", text).rstrip("\n") + "\nhosts: files dns\n"


def hide(directories: Iterable[str], sockets: Iterable[str]) -> None:
    """Put nothing in the place of all these, as far as they are there; raises OSError."""
    called(libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))
    for directory in sorted(set(map(os.path.realpath, directories))):
        if os.path.isdir(directory):
            empty(directory)
    cover({path: "" for path in sockets if os.path.exists(path)})


def empty(directory: str) -> None:
    """Put an empty file system of our own over a directory; raises OSError."""
    flags = _MS_NOSUID | _MS_NODEV
    called(libc.mount(b"tmpfs", os.fsencode(directory), b"tmpfs", flags, b"mode=0700"))


def name_services() -> None:
    """Have names looked up in `/etc/hosts` and the DNS at 127.0.0.1 alone; raises OSError.

    A file that is not there stays so: the C library does without as it does with ours.
    """
    text = ""
    with contextlib.suppress(FileNotFoundError):
        text = Path("/etc/nsswitch.conf").read_text(errors="surrogateescape")
    files = {"/etc/resolv.conf": RESOLV_CONF, "/etc/nsswitch.conf": nsswitch(text)}
    cover({path: content for path, content in files.items() if os.path.exists(path)})


def cover(files: Mapping[str, str]) -> None:
    """Put files with these contents in the place of others, or of sockets; raises OSError."""
    with contextlib.ExitStack() as stack:
        places = {}
        for path in files:  # they may be where the new ones are made
            places[path] = os.open(path, os.O_PATH)
            stack.callback(os.close, places[path])
        empty(_STAGE)
        stack.callback(lambda: called(libc.umount2(_STAGE.encode(), _MNT_DETACH)))
        for number, (path, content) in enumerate(files.items()):
            file = Path(_STAGE, str(number))
            file.write_text(content, errors="surrogateescape")
            file.chmod(0o444)
            place = f"/proc/self/fd/{places[path]}".encode()
            called(libc.mount(str(file).encode(), place, None, _MS_BIND, None))
