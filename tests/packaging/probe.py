"""What a confined process may do; runs on the clean machine, with its own Python.

Prints one line for each attempt, "refused" or "allowed" and what it was.  The machine has an
address 203.0.113.5, with a server on port 80, that is no loopback address.
"""

import ctypes
import mmap
import os
import socket
from collections.abc import Callable

OTHER = "203.0.113.5"
CLONE_NEWUSER = 0x10000000


def send_to_another_machine() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", (OTHER, 53))


def connect_to_another_machine() -> None:
    socket.create_connection((OTHER, 80), timeout=3).close()


def connect_to_this_machine() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=3).close()


def write(path: str) -> Callable[[], None]:
    def attempt() -> None:
        with open(path, "w"):
            os.unlink(path)

    return attempt


def open_socket(family: socket.AddressFamily) -> Callable[[], None]:
    return lambda: socket.socket(family, socket.SOCK_RAW).close()


def system_call(name: str, *arguments: int | bytes | None) -> Callable[[], None]:
    def attempt() -> None:
        if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
            raise OSError(ctypes.get_errno(), name)

    return attempt


def mount() -> None:
    system_call("mount", b"none", b"/mnt", b"tmpfs", 0, None)()
    system_call("umount", b"/mnt")()


def write_and_execute_memory() -> None:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()


ATTEMPTS: dict[str, Callable[[], object]] = {
    "connect to this machine": connect_to_this_machine,
    "write its state": write(os.path.expanduser("~/probe")),
    "send a datagram to another machine": send_to_another_machine,
    "connect to another machine": connect_to_another_machine,
    "write programs": write("/usr/lib/isoproxy/probe"),
    "write settings": write("/etc/isoproxy/probe"),
    "write Tor's state": write("/var/lib/tor/probe"),
    "read homes": lambda: os.listdir("/root"),
    "see other processes": lambda: os.stat("/proc/1"),
    "talk netlink": open_socket(socket.AF_NETLINK),
    "talk raw packets": open_socket(socket.AF_PACKET),
    "make a user namespace": system_call("unshare", CLONE_NEWUSER),
    "mount": mount,
    "become root": system_call("setuid", 0),
    "choose processors": lambda: os.sched_setaffinity(0, {0}),
    "memory that is written and executed": write_and_execute_memory,
}


def is_allowed(attempt: Callable[[], object]) -> bool:
    """In a process of its own, because some attempts change the process."""
    child = os.fork()
    if child == 0:
        try:
            attempt()
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def main() -> None:
    for what, attempt in ATTEMPTS.items():
        print("allowed" if is_allowed(attempt) else "refused", what, flush=True)


if __name__ == "__main__":
    main()
