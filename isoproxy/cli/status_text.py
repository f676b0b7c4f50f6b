"""The status for a person at a terminal: the dashboard's twin, with the same sections.

Lines and columns are as wide as what is in them; where that is more than the terminal has,
sentences are wrapped and the widest columns give way first, cut with an ellipsis.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, Final

MAX_FLOWS: Final = 40
"""Flows of either kind that are listed."""

Row = tuple[str, ...]

_GAP: Final = "  "
_CUT: Final = "…"
_RIGHT: Final = ">"
_MIN_COLUMNS: Final = 40


def fitting_text(
    answer: dict[str, Any], columns: int, rows: int, before: dict[str, Any] | None = None
) -> str:
    """`status_text` with as many flows as fit into a terminal of `columns` and `rows`."""
    for max_flows in range(MAX_FLOWS, 0, -1):
        text = status_text(answer, columns, max_flows, before)
        if text.count("\n") < rows:
            return text
    return "\n".join(text.splitlines()[:rows])


def status_text(
    answer: dict[str, Any],
    columns: int | None = None,
    max_flows: int = MAX_FLOWS,
    before: dict[str, Any] | None = None,
) -> str:
    """All sections, in lines of at most `columns` (None: of any length).

    `before` is an earlier answer; with it the traffic is shown per second, too.
    """
    if columns is not None:
        columns = max(columns, _MIN_COLUMNS)
    lines: list[str] = []
    for sentence in _sentences(answer, before):
        lines += [sentence] if columns is None else _wrapped(sentence, columns)
    listeners = [_listener(one) for one in answer["listeners"]]
    lines += _table(("LISTENER", "ADDRESS", ">OPEN", ">TOTAL", "ISOLATES BY"), listeners, columns)
    proxies = [_listener(one) for one in answer["bitcoin"]["proxies"]]
    lines += _table(("PROXY", "ADDRESS", ">OPEN", ">TOTAL", "ISOLATES BY"), proxies, columns)
    lines += _flows(answer, columns, max_flows)
    lines += _peers(answer, columns, max_flows)
    lines += _ends(answer["bitcoin"]["totals"]["ends"], columns)
    lines += _savings(answer["bitcoin"]["totals"])
    return "\n".join(lines)


def _sentences(answer: dict[str, Any], before: dict[str, Any] | None) -> Iterator[str]:
    yield f"isoproxy {answer['version']}, up {duration(answer['uptime_s'])}"
    if not answer["scrubbed"]:
        yield "WHERE STREAMS GO IS SHOWN: observe.safe_logging is off"
    if answer["dashboard"] is not None:
        yield f"dashboard: {answer['dashboard']}"
    yield tor_text(answer["tor"])
    yield names_text(answer["names"])
    counters = answer["counters"]
    yield (
        f"isolation: {counted(counters['identities'], 'identity', 'identities')}, "
        f"{counted(counters['open'], 'stream', 'streams')} of "
        f"{counters['opened']} since the start, epoch {answer['epoch']}; circuits pending "
        f"{counters['circuits_pending']}, queued {counters['circuits_queued']}; "
        f"local look-ups refused {counters['local_lookups_refused']}"
    )
    if (shared := counters["destinations_without_credentials"]) > 1:
        yield (
            f"WITHOUT CREDENTIALS: {shared} destinations share one identity, as programs send no "
            "user name; such programs belong on a listener with preset no-credentials"
        )
    traffic = f"up {size(counters['bytes_up'])}, down {size(counters['bytes_down'])}"
    yield f"traffic: {traffic}{_rates(answer, before)}"
    refused = ", ".join(f"{kind} {count}" for kind, count in counters["refusals"].items())
    yield f"refused: {refused or 'none'}"


def _rates(answer: dict[str, Any], before: dict[str, Any] | None) -> str:
    seconds = answer["uptime_s"] - before["uptime_s"] if before is not None else 0
    if before is None or seconds <= 0:
        return ""
    up, down = (
        (answer["counters"][way] - before["counters"][way]) / seconds
        for way in ("bytes_up", "bytes_down")
    )
    return f"; now up {size(up)}/s, down {size(down)}/s"


def tor_text(tor: dict[str, Any]) -> str:
    """One line on how Tor stands, and how far its start has come."""
    version = f" {tor['version']}" if tor["version"] else ""
    answers = "answers" if tor["answers"] else "DOES NOT ANSWER"
    text = f"tor{version} ({tor['mode']}): {tor['state']}, {answers}; control port {tor['control']}"
    start = tor["bootstrap"]
    if start is not None and start["percent"] < 100:
        text += f"; starting, {start['percent']} %: {start['warning'] or start['summary']}"
    if tor["advice"] is not None:
        text += f"; {tor['advice']}"
    return text


def names_text(names: dict[str, Any]) -> str:
    """One line on how `.bit` names stand."""
    problem = names.get("problem")
    if "servers" not in names:
        return f"names: {names['backend']}" + (f"; {problem}" if problem else "")
    servers = names["servers"]
    if problem:
        state = "not now"
    elif not names["ready"]:
        state = f"synchronising headers, {names['fetched']} of {names['target']}"
    elif not names["complete"]:
        state = f"newest names ready, headers down to {names['base']} of {names['wanted_base']}"
    else:
        state = f"ready at block {names['tip']}"
    if names["ready"] and names["unproven"]:
        state += f" by sampled proof, {names['unproven']} blocks to be checked yet"
    text = (
        f"names: {names['backend']}, {state}; servers {servers['up']} of {servers['known']} up, "
        f"{servers['demoted']} demoted, quorum {names['quorum']}"
    )
    refused = names["certificates"]
    if refused:
        affected = counted(len(refused), "server", "servers")
        text += f"; certificate refused of {affected}, see 'isoproxy doctor'"
    return f"{text}; {problem}" if problem else text


def _listener(one: dict[str, Any]) -> tuple[str, ...]:
    isolates = ",".join(one["isolate"]) or "nothing"
    return one["name"], one["address"], str(one["open"]), str(one["accepted"]), isolates


def _flows(answer: dict[str, Any], columns: int | None, max_flows: int) -> Iterator[str]:
    header = ("KEY", "STATE", "CIRCUIT", "LISTENER", ">AGE", ">UP", ">DOWN", "TARGET")
    flows = answer["flows"]
    rows = [
        (
            flow["key"] or "-",
            flow["state"],
            ",".join(flow["circuits"]) or "-",
            flow["listener"],
            duration(flow["age_s"]),
            size(flow["bytes_up"]),
            size(flow["bytes_down"]),
            flow["target"] or "-",
        )
        for flow in flows[:max_flows]
    ]
    yield from _table(*_without_targets(header, rows, answer["scrubbed"]), columns)
    yield from _more(answer["counters"]["open"], len(rows))


def _peers(answer: dict[str, Any], columns: int | None, max_flows: int) -> Iterator[str]:
    header = ("KEY", "BITCOIN", "TRANSPORT", "CIRCUIT", ">UP", ">DOWN", "SESSION ID", "TARGET")
    rows = [
        (
            flow["key"] or ("came in" if flow["inbound"] else "-"),
            flow["network"] or "-",
            flow["transport"] + (f" ({_words(flow['v1_reason'])})" if flow["v1_reason"] else ""),
            ",".join(flow["circuits"]) or "-",
            size(flow["bytes_up"]),
            size(flow["bytes_down"]),
            flow["session_id"] or "-",
            flow["target"],
        )
        for flow in answer["bitcoin"]["flows"][:max_flows]
    ]
    yield from _table(*_without_targets(header, rows, answer["scrubbed"]), columns)
    yield from _more(answer["bitcoin"]["open"], len(rows))


def _without_targets(header: Row, rows: Sequence[Row], scrubbed: bool) -> tuple[Row, Sequence[Row]]:
    """The last column is of targets; where all of them are scrubbed it says nothing."""
    return (header[:-1], [row[:-1] for row in rows]) if scrubbed else (header, rows)


def _more(total: int, shown: int) -> Iterator[str]:
    if total > shown:
        yield f"... and {total - shown} more"


def _ends(ends: Sequence[dict[str, Any]], columns: int | None) -> Iterator[str]:
    header = ("BITCOIN ENDED", "HOW", "WHY", "CLOSED BY", ">COUNT")
    rows = [
        (
            _words(end["outcome"]),
            _words(end["ending"]),
            _words(end["reason"] or "-"),
            end["closed_by"],
            str(end["count"]),
        )
        for end in ends
    ]
    yield from _table(header, rows, columns)


def _words(word: str) -> str:
    return word.replace("_", " ")


def _savings(totals: dict[str, Any]) -> Iterator[str]:
    v1 = sum(totals[way]["v1_bytes"] for way in ("to_peer", "to_client"))
    v2 = sum(totals[way]["v2_bytes"] for way in ("to_peer", "to_client"))
    if v1:
        yield ""
        yield f"bitcoin messages: {size(v1)} in v1, {size(v2)} in v2 ({(v2 - v1) / v1:+.2%})"


def _wrapped(sentence: str, columns: int) -> list[str]:
    return textwrap.wrap(sentence, columns, subsequent_indent="  ", break_on_hyphens=False)


def _table(header: Row, rows: Sequence[Row], columns: int | None) -> Iterator[str]:
    """An empty line, the header (">" before a word: the column stands right) and the rows."""
    if not rows:
        return
    right = [word.startswith(_RIGHT) for word in header]
    words = [word.removeprefix(_RIGHT) for word in header]
    least = [len(word) for word in words]
    widths = [max(map(len, column)) for column in zip(words, *rows, strict=True)]
    room = None if columns is None else columns - len(_GAP) * (len(words) - 1)
    while room is not None and sum(widths) > room and widths != least:
        spare = [width - few for width, few in zip(widths, least, strict=True)]
        widths[spare.index(max(spare))] -= 1
    yield ""
    for row in (words, *rows):
        cells = [
            _cut(cell, width).rjust(width) if to_right else _cut(cell, width).ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ]
        yield _GAP.join(cells).rstrip()


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - len(_CUT)] + _CUT


def counted(number: int, one: str, many: str) -> str:
    """A number with its noun."""
    return f"{number} {one if number == 1 else many}"


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def size(count: float) -> str:
    """Bytes as a person says them, in units of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
