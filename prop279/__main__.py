"""`prop279-namecoin`: Namecoin names for StemNS, TorNS, `stemns`, or anything that runs plugins.

Options of ours (`-c FILE`, `--set key=value`) and those of ncprop279 (`-namecoinrpcaddress`
and the rest, `-conf FILE` with a section `[ncprop279]`) are understood; of two that say the
same, the later in this order wins: the configuration, `-conf`, the command line's ncprop279
options, TOR_NS_PLUGIN_OPTIONS, `--set`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from isoproxy.config import Config, load, state_directory
from isoproxy.daemon.compose.names import NO_NAMES
from isoproxy.daemon.compose.resolver import open_resolver
from isoproxy.errors import ConfigError, IsoproxyError, RemoteProtocolError
from isoproxy.isolation import Isolator
from isoproxy.namecoin.resolve.cache import PER_KEY
from isoproxy.net.endpoint import Endpoint
from isoproxy.net.resolver_guard import ResolverGuard
from isoproxy.observe.log import configure
from prop279.hosts_file import HostsFile
from prop279.plugin import parse_bit_name, serve
from prop279.protocol import VERSION, Environment, Init, write_answer

OK, FAILED, USAGE = 0, 1, 2

_THEIRS: Final = {
    "namecoinrpcaddress": "names.rpc.address",
    "namecoinrpcusername": "names.rpc.username",
    "namecoinrpcpassword": "names.rpc.password",
    "namecoinrpccookiepath": "names.rpc.cookie_file",
    "onlyonion": "names.only_onion",
}
"""ncprop279's options that are settings of ours."""
_TUNING: Final = ("namecoinrpctimeout", "cachemaxentries")


@dataclass(frozen=True, slots=True)
class Tuning:
    """What ncprop279's options set beside the configuration: seconds, entries per key."""

    timeout_s: float | None = None
    per_key: int = PER_KEY


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="prop279-namecoin",
        description="A name plugin (Tor proposal 279) for Namecoin's .bit names.",
        allow_abbrev=False,
    )
    parser.add_argument("-c", "--config", type=Path, metavar="FILE", help="configuration file")
    parser.add_argument(
        "--set", action="append", default=[], dest="settings", metavar="KEY=VALUE",
        help="change one setting, e.g. names.backend=electrum-nmc; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--hosts", type=Path, metavar="FILE", help="resolve the names in FILE and no others"
    )
    theirs = parser.add_argument_group("as ncprop279 has them")
    theirs.add_argument("-conf", type=Path, metavar="FILE", help="TOML, section [ncprop279]")
    for name in (*_THEIRS, *_TUNING):
        optional: dict[str, Any] = {"nargs": "?", "const": "true"} if name == "onlyonion" else {}
        spellings = (f"-{name}", f"--{name}", f"-ncprop279.{name}", f"--ncprop279.{name}")
        theirs.add_argument(*spellings, dest=name, metavar="VALUE", **optional)
    return parser


def their_options(options: argparse.Namespace, environment: Environment) -> dict[str, str]:
    """ncprop279's options from `-conf`, the command line and the environment; ConfigError."""
    known = (*_THEIRS, *_TUNING)
    found: dict[str, str] = {}
    if options.conf is not None:
        try:
            section = tomllib.loads(options.conf.read_text("utf-8")).get("ncprop279", {})
        except (OSError, ValueError) as error:
            raise ConfigError(f"{options.conf}: {error}") from None
        for key, value in section.items():
            if key not in known:
                raise ConfigError(f"{options.conf}: ncprop279.{key}: there is no such option")
            found[key] = str(value).lower() if isinstance(value, bool) else str(value)
    found |= {name: getattr(options, name) for name in known if getattr(options, name) is not None}
    found |= {key: value for key, value in (environment.options or {}).items() if key in known}
    return found


def settings_of(theirs: Mapping[str, str], environment: Environment) -> list[str]:
    """`key=value` settings of ours that say what ncprop279's options say."""
    settings = []
    if any(name.startswith("namecoinrpc") for name in theirs):
        settings.append("names.backend=namecoin-core")
    for name, key in _THEIRS.items():
        if name in theirs:
            value = theirs[name]
            if key == "names.rpc.address":
                value = value.replace("localhost:", "127.0.0.1:")
            settings.append(f"{key}={value}")
    if theirs.get("namecoinrpccookiepath"):  # it wins over a password, as with ncprop279
        settings = [one for one in settings if not re.match(r"names\.rpc\.(user|pass)", one)]
    for key, value in (environment.options or {}).items():
        if "." in key:
            settings.append(f"{key}={value}")
    return settings


def tuning_of(theirs: Mapping[str, str]) -> Tuning:
    """Times and sizes that ncprop279's options set; raises ConfigError."""
    tuning = Tuning()
    try:
        if "namecoinrpctimeout" in theirs:
            seconds = int(theirs["namecoinrpctimeout"]) / 1000
            tuning = replace(tuning, timeout_s=seconds)
        if "cachemaxentries" in theirs:
            tuning = replace(tuning, per_key=int(theirs["cachemaxentries"]))
    except ValueError:
        raise ConfigError("namecoinrpctimeout and cachemaxentries are whole numbers") from None
    if (tuning.timeout_s is not None and tuning.timeout_s <= 0) or tuning.per_key <= 0:
        raise ConfigError("namecoinrpctimeout and cachemaxentries are greater than 0")
    return tuning


def plugin_config(config: Config, tuning: Tuning) -> Config:
    """`config` for a plugin: it starts no tor, but goes through the one at `tor.socks`.

    Raises ConfigError where names are refused.
    """
    if config.names.backend == "none":
        raise ConfigError(NO_NAMES)
    names = replace(config.names, timeout_s=tuning.timeout_s or config.names.timeout_s)
    return replace(config, tor=replace(config.tor, mode="system", control=Endpoint()), names=names)


async def _run(options: argparse.Namespace, environment: Environment) -> None:
    pipes = sys.stdin.buffer, sys.stdout.buffer
    if options.hosts is not None:
        hosts = HostsFile.read(options.hosts)
        await serve(hosts, hosts.parse, Isolator(), *pipes)
        return
    theirs = their_options(options, environment)
    settings = [*settings_of(theirs, environment), *options.settings]
    config = load(options.config, settings).config
    configure(level=config.observe.log_level, safe=config.observe.safe_logging)
    tuning = tuning_of(theirs)
    config = plugin_config(config, tuning)
    # beside a daemon's state, not in it: one may run as well
    state = (environment.state or state_directory()) / "prop279"
    async with open_resolver(config, state, None, per_key=tuning.per_key) as (resolver, isolator):
        await serve(resolver, parse_bit_name, isolator, *pipes)


def _say(text: str, *, status: int) -> None:
    """Tell the program that the plugin does not start, and a person why."""
    with contextlib.suppress(OSError):
        sys.stdout.buffer.write(write_answer(Init(VERSION, status, text.encode())))
        sys.stdout.buffer.flush()
    print(f"prop279-namecoin: {text}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the plugin; the exit code is 0 after the end of its input, 2 for a wrong setting."""
    options = argument_parser().parse_args(arguments)
    ResolverGuard().install()
    configure()
    try:
        environment = Environment.read(os.environ)
        if not environment.is_compatible:
            _say("this plugin speaks version 1 of the protocol alone", status=USAGE)
            return USAGE
        asyncio.run(_run(options, environment))
    except (ConfigError, RemoteProtocolError) as error:
        _say(str(error), status=USAGE)
        return USAGE
    except (IsoproxyError, OSError, ValueError) as error:
        _say(str(error), status=FAILED)
        return FAILED
    return OK


if __name__ == "__main__":
    sys.exit(main())
