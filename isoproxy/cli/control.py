"""`isoproxy status`, `newnym`, `explain`: questions to a running isoproxy."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from isoproxy.admin import ask
from isoproxy.cli.bitcoin_text import bitcoin_lines
from isoproxy.cli.options import Commands, add_configuration, add_json, admin_path, print_json

_CLEAR = "\x1b[H\x1b[2J"
_MAX_FLOWS = 40


def register(commands: Commands) -> None:
    status = commands.add_parser("status", help="show what a running isoproxy does")
    add_configuration(status)
    add_json(status)
    status.add_argument("--watch", action="store_true", help="show it anew every second")
    status.set_defaults(run=show_status)

    newnym = commands.add_parser("newnym", help="give every activity new circuits from now on")
    add_configuration(newnym)
    newnym.set_defaults(run=renew)

    reload = commands.add_parser("reload", help="apply the configuration as it is now")
    add_configuration(reload)
    reload.set_defaults(run=apply_configuration)

    explain = commands.add_parser(
        "explain", help="say what would keep a stream apart, and with what it would share"
    )
    add_configuration(explain)
    add_json(explain)
    explain.add_argument("--listener", metavar="L", help="name or address of the listener")
    explain.add_argument("--client", metavar="IP", help="address of the client")
    explain.add_argument("username", metavar="USER")
    explain.add_argument("password", metavar="PASS")
    explain.add_argument("target", metavar="HOST:PORT", nargs="?")
    explain.set_defaults(run=explain_stream)


def show_status(options: argparse.Namespace) -> int:
    path = admin_path(options)
    while True:
        answer = ask(path, "status")
        if options.json:
            print_json(answer)
        else:
            print((_CLEAR if options.watch else "") + status_text(answer))
        if not options.watch:
            return 0
        sys.stdout.flush()
        time.sleep(1.0)


def renew(options: argparse.Namespace) -> int:
    answer = ask(admin_path(options), "newnym")
    print(f"every activity has new circuits from now on (epoch {answer['epoch']})")
    return 0


def apply_configuration(options: argparse.Namespace) -> int:
    answer = ask(admin_path(options), "reload")
    print("changed: " + (", ".join(answer["changed"]) or "nothing"))
    if answer["after_a_restart"]:
        print("takes effect after a restart: " + ", ".join(answer["after_a_restart"]))
    return 0


def explain_stream(options: argparse.Namespace) -> int:
    names = ("listener", "client", "username", "password", "target")
    given = {name: getattr(options, name) for name in names}
    answer = ask(
        admin_path(options),
        "explain",
        **{name: value for name, value in given.items() if value is not None},
    )
    if options.json:
        print_json(answer)
        return 0
    for name, value in answer.items():
        text = ", ".join(value) if isinstance(value, list) else str(value)
        print(f"{name.replace('_', ' ') + ':':15} {text}")
    return 0


def status_text(answer: dict[str, Any]) -> str:
    """The status for a person."""
    tor, counters = answer["tor"], answer["counters"]
    version = f" {tor['version']}" if tor["version"] else ""
    answers = "answers" if tor["answers"] else "DOES NOT ANSWER"
    lines = [
        f"isoproxy {answer['version']}, up {_duration(answer['uptime_s'])}, "
        f"epoch {answer['epoch']}",
        f"tor{version} ({tor['mode']}): {tor['state']}, {answers}; control port {tor['control']}",
        names_text(answer["names"]),
        "",
        f"{'LISTENER':16} {'ADDRESS':28} {'OPEN':>6} {'SINCE START':>11}  ISOLATES BY",
    ]
    lines += [
        f"{one['name']:16} {one['address']:28} {one['open']:6} {one['accepted']:11}  "
        f"{','.join(one['isolate']) or 'nothing'}"
        for one in answer["listeners"]
    ]
    refused = ", ".join(f"{kind} {count}" for kind, count in counters["refusals"].items())
    lines += [
        "",
        f"streams opened {counters['opened']}, up {_size(counters['bytes_up'])}, "
        f"down {_size(counters['bytes_down'])}; circuits pending "
        f"{counters['circuits_pending']}, queued {counters['circuits_queued']}",
        f"refused: {refused or 'none'}",
    ]
    flows = answer["flows"]
    if flows:
        header = f"{'KEY':6} {'LISTENER':16} {'STATE':10} {'AGE':>8} {'UP':>10} {'DOWN':>10}"
        lines += ["", header, *map(_flow_line, flows[:_MAX_FLOWS])]
    if len(flows) > _MAX_FLOWS:
        lines.append(f"... and {len(flows) - _MAX_FLOWS} more")
    lines += bitcoin_lines(answer["bitcoin"], _size)
    return "\n".join(lines)


def names_text(names: dict[str, Any]) -> str:
    """One line on how `.bit` names stand."""
    if "servers" not in names:
        return f"names: {names['backend']}"
    servers = names["servers"]
    if not names["ready"]:
        state = f"synchronising headers, {names['tip']} of {names['target']}"
    elif not names["complete"]:
        state = f"newest names ready, headers down to {names['base']} of {names['wanted_base']}"
    else:
        state = f"ready at block {names['tip']}"
    return (
        f"names: {names['backend']}, {state}; servers {servers['up']} of {servers['known']} up, "
        f"{servers['demoted']} demoted, quorum {names['quorum']}"
    )


def _flow_line(flow: dict[str, Any]) -> str:
    return (
        f"{flow['key'] or '-':6} {flow['listener']:16} {flow['state']:10} "
        f"{_duration(flow['age_s']):>8} {_size(flow['bytes_up']):>10} "
        f"{_size(flow['bytes_down']):>10}"
    )


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
