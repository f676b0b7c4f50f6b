"""`python -m tests.kit.tornet`: a private Tor network to play with; Ctrl-C ends it."""

from __future__ import annotations

import argparse
import json
import signal
import sys

from tests.kit.tornet.network import TorNetwork


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.kit.tornet", description=__doc__)
    parser.add_argument("--authorities", type=int, default=1)
    parser.add_argument("--exits", type=int, default=4)
    parser.add_argument("--middles", type=int, default=0)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--conflux", action="store_true", help="let the clients use conflux")
    parser.add_argument("--keep", action="store_true", help="leave the directory behind")
    parser.add_argument("--log-level", default="notice")
    parser.add_argument(
        "--client-option", action="append", default=[], help="a torrc line (repeatable)"
    )
    parser.add_argument(
        "--param", action="append", default=[], help="a consensus parameter name=value"
    )
    parser.add_argument("--exit", action="store_true", help="stop as soon as it is up")
    parser.add_argument("-v", "--verbose", action="store_true")
    return parser.parse_args()


def main() -> int:
    arguments = _arguments()
    params = {name: int(value) for name, value in (p.split("=", 1) for p in arguments.param)}
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with TorNetwork(
            authorities=arguments.authorities,
            exits=arguments.exits,
            middles=arguments.middles,
            clients=arguments.clients,
            conflux=arguments.conflux,
            keep=arguments.keep,
            log_level=arguments.log_level,
            params=params,
            client_options="\n".join(arguments.client_option),
            verbose=arguments.verbose,
        ) as net:
            print(json.dumps(net.describe(), indent=1), flush=True)
            if not arguments.exit:
                signal.pause()
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
