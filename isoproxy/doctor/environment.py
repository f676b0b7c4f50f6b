"""What the doctor sees of this machine: ports, permissions, secrets, sockets of a process."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import NamedTuple

from isoproxy.config import Config
from isoproxy.config.passwords import has_password, is_exposed
from isoproxy.config.sources import read_file
from isoproxy.doctor.finding import Finding, failed, ok, unproven, warning
from isoproxy.net.endpoint import Endpoint


def ports(config: Config) -> Iterator[Finding]:
    """Whether each address to listen at can be had; asked when isoproxy does not run."""
    for name, section, address, kind in _listening(config):
        problem = _cannot_bind(address, kind)
        if problem:
            yield failed(
                f"address of {name}",
                f"{address} cannot be had: {problem}",
                f"stop the program that uses it, or choose another address in {section}",
            )
        else:
            yield ok(f"address of {name}", f"{address} is free")


def _listening(config: Config) -> Iterator[tuple[str, str, Endpoint, socket.SocketKind]]:
    """What listens, where that is set, the address, and the kind of socket."""
    tcp = socket.SOCK_STREAM
    for listener in config.listener:
        yield f"listener {listener.name}", "[[listener]]", listener.address, tcp
    for proxy in config.bitcoin.proxy:
        yield f"proxy {proxy.name}", "[[bitcoin.proxy]]", proxy.address, tcp
    if config.dns.address is not None:
        yield "DNS server", "[dns]", config.dns.address, socket.SOCK_DGRAM
        yield "DNS server, TCP", "[dns]", config.dns.address, tcp
    if config.observe.dashboard is not None:
        yield "dashboard", "[observe]", config.observe.dashboard, tcp


def _cannot_bind(address: Endpoint, kind: socket.SocketKind) -> str:
    """Why not, or nothing."""
    if address.path is not None:
        return _cannot_listen(Path(address.path))
    with socket.socket(address.family, kind) as sock:
        if kind is socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(address.address)
        except OSError as error:
            return error.strerror or "it is refused"
    return ""


def _cannot_listen(path: Path) -> str:
    """Why there cannot be a socket of ours at `path`, or nothing."""
    if not path.parent.is_dir():
        return f"the directory {path.parent} does not exist"
    if path.exists() and not path.is_socket():
        return "something that is no socket is there"
    with socket.socket(socket.AF_UNIX) as sock:
        if sock.connect_ex(str(path)) == 0:
            return "another program listens there"
    return "" if os.access(path.parent, os.W_OK) else f"{path.parent} is not writable"


def secrets(files: Iterable[Path]) -> Iterator[Finding]:
    """Whether others can read the configuration's passwords."""
    for file in files:
        check = f"passwords in {file.name}"
        problems: list[str] = []
        table = read_file(file, problems)
        if problems:
            yield failed(check, f"{file} cannot be read", "run the doctor as isoproxy's user")
        elif not has_password(table):
            continue
        elif is_exposed(file):
            yield failed(check, f"every user can read {file}", f"chmod o-rwx {file}")
        else:
            yield ok(check, f"{file} has mode {stat.S_IMODE(file.stat().st_mode):04o}")


def permissions(config: Config, state: Path, admin: Path, *, running: bool) -> Iterator[Finding]:
    """Who may enter our directories and sockets."""
    yield _private("state directory", state, 0o700)
    if running:
        yield _private("admin socket", admin, 0o600)
    for listener in config.listener:
        if not running or listener.address.path is None:
            continue
        path, check = Path(listener.address.path), f"socket of listener {listener.name}"
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
        except OSError as error:
            yield failed(check, f"{path}: {error.strerror}", "restart isoproxy")
            continue
        if mode == int(listener.mode):
            yield ok(check, f"{path} has mode {mode:04o}")
        else:
            yield failed(
                check,
                f"{path} has mode {mode:04o}, configured is {listener.mode}",
                f"chmod {listener.mode} {path}",
            )


def _private(check: str, path: Path, wanted: int) -> Finding:
    try:
        found = path.stat()
    except FileNotFoundError:
        return ok(check, f"{path} is not there, so nothing in it is open to others")
    except OSError as error:
        return failed(check, f"{path}: {error.strerror}", "run the doctor as isoproxy's user")
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid not in (os.geteuid(), 0) and os.geteuid() != 0:
        return failed(check, f"{path} belongs to another user", f"chown it, or remove {path}")
    if mode & ~wanted:
        return failed(check, f"{path} has mode {mode:04o}", f"chmod {wanted:04o} {path}")
    return ok(check, f"{path} has mode {mode:04o}")


def environment_of(pid: int) -> dict[str, str]:
    """What process `pid` was started with.  Raises OSError if it is not ours."""
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="surrogateescape")
    return dict(entry.split("=", 1) for entry in entries.split("\0") if "=" in entry)


class Peer(NamedTuple):
    """One socket of a process: its kind, the other end, and its own."""

    kind: str
    host: IPv4Address | IPv6Address
    port: int
    own_host: IPv4Address | IPv6Address
    own_port: int


def sockets_of(pid: int) -> list[Peer]:
    """The inet sockets that process `pid` holds now.  Raises OSError if it is not ours."""
    inodes = set()
    for entry in os.scandir(f"/proc/{pid}/fd"):
        try:
            name = os.readlink(entry.path)
        except FileNotFoundError:
            continue
        if name.startswith("socket:["):
            inodes.add(name[8:-1])
    return [
        peer
        for kind in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6")
        for inode, peer in _table(pid, kind)
        if inode in inodes
    ]


def _table(pid: int, kind: str) -> Iterator[tuple[str, Peer]]:
    try:
        lines = Path(f"/proc/{pid}/net/{kind}").read_text().splitlines()[1:]
    except FileNotFoundError:
        return
    for line in lines:
        columns = line.split()
        yield columns[9], Peer(kind.rstrip("6"), *_end(columns[2]), *_end(columns[1]))


def _end(column: str) -> tuple[IPv4Address | IPv6Address, int]:
    host, _, port = column.partition(":")
    words = [bytes.fromhex(host[i : i + 8])[::-1] for i in range(0, len(host), 8)]
    return ip_address(b"".join(words)), int(port, 16)


def connections(
    pids: Iterable[int], tor: tuple[str, int] | None, dns: Endpoint | None = None
) -> Finding:
    """Whether the running isoproxy talks to Tor and its clients alone.

    `pids` are all of its processes; `tor` is the address of Tor's SocksPort, None when that
    is a unix socket; at `dns` our own DNS server may listen.
    """
    check = "connections of isoproxy"
    try:
        peers = {peer for pid in pids for peer in sockets_of(pid)}
    except OSError:
        return unproven(
            check, "its sockets cannot be looked at", "run the doctor as root or isoproxy's user"
        )
    server = {peer for peer in peers if _is_dns_server(peer, dns)}
    peers -= server
    if any(peer.kind != "tcp" for peer in peers):
        return failed(check, "it holds a UDP or raw socket", "report this defect")
    away = {(str(peer.host), peer.port) for peer in peers if not _is_near(peer)}
    away.discard(tor or ("", 0))
    if away:
        return warning(
            check,
            f"{len(away)} addresses beyond this machine; those must be clients of listeners "
            "that are not on loopback",
            "keep listeners on 127.0.0.1, or check the firewall",
        )
    udp = "UDP only of the DNS server" if server else "no UDP"
    return ok(check, f"{len(peers)} TCP sockets, all on this machine or to Tor; {udp}")


def _is_dns_server(peer: Peer, dns: Endpoint | None) -> bool:
    """Whether `peer` is the socket of a DNS server at `dns`, which has no other end."""
    if dns is None or dns.host is None or peer.kind != "udp" or not peer.host.is_unspecified:
        return False
    return (str(peer.own_host), peer.own_port) == (dns.host, dns.port)


def _is_near(peer: Peer) -> bool:
    return peer.host.is_loopback or peer.host.is_unspecified


def without_credentials(destinations: int) -> Finding:
    """What it means that one identity without credentials has so many destinations."""
    check = "programs without user name"
    if destinations <= 1:
        return ok(check, "none has two destinations under one identity now")
    return warning(
        check,
        f"{destinations} destinations share one identity, and can be linked by it",
        "give the program a user name and password, or point it at a listener with preset "
        "no-credentials, by default 127.0.0.1:9251",
    )
