"""The programs that benchmarks run, made at first use and kept in `benchmarks/.cache`.

Whatever cannot be had on this machine raises `AbsentError` with the reason; the benchmark goes on
without it and says so.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
CACHE: Final = HERE / ".cache"

_PPROXY: Final = "pproxy==2.7.9"
_ELECTRUMX: Final = ("e-x==1.16.0", "plyvel", "setuptools<81")
"""The oldest server that is still seen; it cuts headers right."""
_BUILD_SECONDS: Final = 300


class AbsentError(Exception):
    """A program is not on this machine and could not be made; the text says why."""


def load() -> Path:
    """The load generator."""
    return _compiled("load")


def server() -> Path:
    """The far end of every connection."""
    return _compiled("server")


def microsocks() -> Path:
    return _found("microsocks", "install Debian's package microsocks")


def gosocks5() -> Path:
    """armon's go-socks5 behind a small main of ours."""
    source = HERE / "gosocks5"
    made = CACHE / "gosocks5"
    if not _is_newer(made, [source / "main.go", source / "go.mod", source / "go.sum"]):
        go = _found("go", "install Go")
        CACHE.mkdir(exist_ok=True)
        _run([str(go), "build", "-o", str(made), "."], cwd=source)
    return made


def electrumx() -> list[str]:
    """The command of ElectrumX 1.16, in a virtual environment of its own."""
    home = CACHE / "electrumx-1.16"
    program = home / "bin" / "electrumx_server"
    if not program.exists():
        venv.create(home, clear=True, with_pip=True)
        _run([str(home / "bin" / "pip"), "install", "--quiet", *_ELECTRUMX])
    return [str(home / "bin" / "python"), str(program)]  # its own first line ends in \\r\\n


def pproxy() -> Path:
    """pproxy in a virtual environment of its own, without uvloop (it fails with recent ones)."""
    home = CACHE / "pproxy"
    script = home / "bin" / "pproxy"
    if not script.exists():
        venv.create(home, clear=True, with_pip=True)
        _run([str(home / "bin" / "pip"), "install", "--quiet", _PPROXY])
    return script


def python() -> str:
    return sys.executable


def _compiled(name: str) -> Path:
    source, made = HERE / f"{name}.c", CACHE / name
    if not _is_newer(made, [source, HERE / "net.h"]):
        cc = _found("cc", "install a C compiler (Debian: gcc libc6-dev)")
        CACHE.mkdir(exist_ok=True)
        _run([str(cc), "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(made), str(source), "-lm"])
    return made


def _found(name: str, advice: str) -> Path:
    path = shutil.which(name)
    if path is None:
        raise AbsentError(f"{name} is not on PATH: {advice}")
    return Path(path)


def _is_newer(made: Path, sources: list[Path]) -> bool:
    return made.exists() and all(made.stat().st_mtime >= s.stat().st_mtime for s in sources)


def _run(command: list[str], cwd: Path | None = None) -> None:
    try:
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, timeout=_BUILD_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise AbsentError(f"{command[0]} took longer than {_BUILD_SECONDS} s") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise AbsentError(f"{Path(command[0]).name} failed: {last}")
