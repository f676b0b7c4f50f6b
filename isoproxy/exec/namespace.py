"""New namespaces, and no privilege in them.

Theory of operation
    In a user namespace of its own a process has all capabilities, over its own network and
    mounts alone.  They are used for the set-up and given up for good: what is not in the
    bounding set no program gains, not even one of root's.

Specification: user_namespaces(7), capabilities(7), prctl(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path
from typing import Final

from isoproxy.errors import OperationError

_CLONE_NEWNS: Final = 0x00020000
_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWNET: Final = 0x40000000
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_LAST_CAPABILITY: Final = Path("/proc/sys/kernel/cap_last_cap")
_RESTRICTED: Final = (
    (
        Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        "1",
        "AppArmor forbids user namespaces to programs that have no profile; the page "
        "docs/howto/exec.md has one, or: sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    ),
    (
        Path("/proc/sys/kernel/unprivileged_userns_clone"),
        "0",
        "user namespaces are off; sysctl kernel.unprivileged_userns_clone=1",
    ),
    (
        Path("/proc/sys/user/max_user_namespaces"),
        "0",
        "user namespaces are off; sysctl user.max_user_namespaces=10000",
    ),
)

libc: Final = ctypes.CDLL(None, use_errno=True)


def enter() -> None:
    """Leave the user, network and mount namespaces for new ones, as the same user.

    Raises OperationError, which says what forbids it.
    """
    user, group = os.geteuid(), os.getegid()
    try:
        called(libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET | _CLONE_NEWNS))
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    except OSError as error:
        raise refused(error) from None


def refused(error: OSError) -> OperationError:
    """What to say where the system lets no namespace be made, or nothing be done in it."""
    if error.errno not in (errno.EPERM, errno.EACCES, errno.ENOSPC, errno.EUSERS):
        return OperationError(f"no namespace can be set up here: {error.strerror}")
    for setting, closed, advice in _RESTRICTED:
        if setting.exists() and setting.read_text().strip() == closed:
            return OperationError(f"this system lets users set up no namespace: {advice}")
    return OperationError(
        "this system lets users set up no namespace; a container's seccomp filter may forbid it"
    )


def give_up_privileges() -> None:
    """Have no capability any more, nor any program that follows; raises OperationError."""
    try:
        for capability in range(int(_LAST_CAPABILITY.read_text()) + 1):
            called(libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0))
        called(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, ourselves
        called(libc.capset(header, (ctypes.c_uint32 * 6)()))
    except OSError as error:
        raise OperationError(f"privileges cannot be given up: {error.strerror}") from None


def called(result: int) -> None:
    """Raise OSError where a function of the C library has failed."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
