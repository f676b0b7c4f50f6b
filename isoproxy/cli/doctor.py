"""`isoproxy doctor`."""

from __future__ import annotations

import argparse
from typing import Final

from isoproxy.cli.options import (
    Commands,
    add_configuration,
    add_json,
    loaded,
    print_json,
    seconds,
)
from isoproxy.errors import ConfigError, IsoproxyError
from isoproxy.net.target import Target

DEFAULT_TARGET: Final = "check.torproject.org:443"


def register(commands: Commands) -> None:
    doctor = commands.add_parser(
        "doctor", help="examine this set-up and prove that isolation is real"
    )
    add_configuration(doctor)
    add_json(doctor)
    doctor.add_argument(
        "--target",
        metavar="HOST:PORT",
        default=DEFAULT_TARGET,
        help="what the probe's streams are opened to (default: %(default)s)",
    )
    doctor.add_argument(
        "--timeout",
        type=seconds,
        metavar="SECONDS",
        default=60.0,
        help="seconds that one stream of the probe may take (default: %(default)s)",
    )
    doctor.set_defaults(run=run_doctor)


def run_doctor(options: argparse.Namespace) -> int:
    import asyncio

    from isoproxy.doctor import Finding, Verdict, examine

    found = loaded(options)
    target = parse_target(options.target)

    async def gather() -> list[Finding]:
        findings = []
        async for finding in examine(found, target, timeout_s=options.timeout):
            if not options.json:
                print(finding, flush=True)
            findings.append(finding)
        return findings

    findings = asyncio.run(gather())
    failures = sum(finding.verdict is Verdict.FAILED for finding in findings)
    unproven = sum(finding.verdict is Verdict.UNPROVEN for finding in findings)
    if options.json:
        print_json(
            {
                "ok": failures == 0,
                "unproven": unproven,
                "findings": [
                    {
                        "check": one.check,
                        "verdict": one.verdict.value,
                        "found": one.found,
                        "advice": one.advice,
                    }
                    for one in findings
                ],
            }
        )
    else:
        print(_summary(failures, unproven))
    return 1 if failures else 0


def _summary(failures: int, unproven: int) -> str:
    def things(number: int) -> str:
        return "1 thing" if number == 1 else f"{number} things"

    if failures:
        return f"{things(failures)} to mend, see above"
    if unproven:
        return f"nothing to mend was found, but {things(unproven)} could not be proven, see above"
    return "all is well"


def parse_target(text: str) -> Target:
    """`host:port`; raises ConfigError, which ends a command as a usage error."""
    host, _, port = text.rpartition(":")
    try:
        if port.isascii() and port.isdigit() and 0 < int(port) <= 0xFFFF:
            return Target.parse(host.removeprefix("[").removesuffix("]"), int(port))
    except IsoproxyError as error:
        raise ConfigError(f"--target: {error}") from None
    raise ConfigError("--target: expected HOST:PORT")
