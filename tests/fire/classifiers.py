"""Ways to tell which connections to name servers are one client's: each gives a p-value.

They know the source.  Each compares what the operator sees with the truth, and asks by
permutation whether chance alone would do as well (`judge`): "own" is the client to which an
identity really belongs, "another" one drawn among the rest.

    opened after a use      the next connection opened after an identity's first use of one
    opened after newnym     the same after a new identity was asked for
    ended after newnym      the next connection that ends after it
    order of use            of two first uses, whether the older connection is the first
    shared connection       a connection that carries two identities
    same name               a name asked for again soon, by another identity
    height                  the height in a question, while a block is held back
    sizes and orders        what is asked, in which order, in how many bytes
    pings in step           the next ping on another connection
    told by a server        where identities go after one of them was denied a name
    timed by a program      how long a first look-up takes, by what others took before it
"""

from __future__ import annotations

import random
from bisect import bisect, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from tests.fire.judge import flips, mixes
from tests.fire.operator import Record

Classifier = Callable[[Record, random.Random], float]

_SOON_S: Final = 300.0
_AFTER_S: Final = 1800.0
_PING: Final = "server.ping"
_MINUTES_LATER: Final = 150
"""A ping so many later has nothing to do with it; as many connections are open still."""
_NEVER: Final = float("inf")


def _other(record: Record, client: int, chance: random.Random) -> int:
    return chance.choice([one for one in range(record.clients) if one != client])


def _next(times: Sequence[float], after: float) -> float | None:
    at = bisect_right(times, after)
    return times[at] - after if at < len(times) else None


def _own_or_another(
    record: Record,
    moments: Sequence[tuple[float, int]],
    events: dict[int, list[float]],
    chance: random.Random,
) -> float:
    """Whether the next event after a moment of a client's is sooner its own than another's.

    Of one that is started anew before, no event would be seen: such moments say nothing.
    """
    differences = []
    for at, client in moments:
        other = _other(record, client, chance)
        own, another = _next(events[client], at), _next(events[other], at)
        if own is None or another is None or not record.is_judged(at, other):
            continue
        first = at + min(own, another)
        if not any(at < began < first and of in (client, other) for began, of in record.restarts):
            differences.append(1.0 if own < another else -1.0)
    return flips(differences, chance)


def _openings(record: Record) -> dict[int, list[float]]:
    """Of connections that were not opened for a look-up that waited for them."""
    found = defaultdict(list)
    first = {one.connection: one.at for one in record.first_uses}
    for seen in record.connections:
        judged = record.is_judged(seen.opened, int(seen.client))
        if judged and first.get(seen, _NEVER) - seen.opened > 3.0:
            found[int(seen.client)].append(seen.opened)
    return {client: sorted(times) for client, times in found.items()}


def opened_after_a_use(record: Record, chance: random.Random) -> float:
    moments = [(one.at, one.client) for one in record.first_uses]
    return _own_or_another(record, moments, _openings(record), chance)


def opened_after_newnym(record: Record, chance: random.Random) -> float:
    return _own_or_another(record, record.new_identities, _openings(record), chance)


def ended_after_newnym(record: Record, chance: random.Random) -> float:
    ends = defaultdict(list)
    for seen in record.connections:
        if seen.ended is None or seen.ended >= record.until:
            continue
        if record.is_judged(seen.ended, int(seen.client)):
            ends[int(seen.client)].append(seen.ended)
    # what ends with it ends at that very moment, which is after the one before
    moments = [(at - 1e-3, client) for at, client in record.new_identities]
    return _own_or_another(record, moments, {c: sorted(t) for c, t in ends.items()}, chance)


def order_of_use(record: Record, chance: random.Random) -> float:
    """Of first uses one after the other at one server, how often the older is used first."""
    by_server = defaultdict(list)
    for one in record.first_uses:
        if one.at - one.connection.opened > 3.0:
            by_server[one.connection.label].append(one)
    pairs = [pair for uses in by_server.values() for pair in pairwise(uses)]
    older_first = [float(a.connection.opened < b.connection.opened) for a, b in pairs]
    own = [a.client == b.client for a, b in pairs]
    return mixes(older_first, own, chance)


def shared_connection(record: Record, chance: random.Random) -> float:
    shared = sum(len(owners) > 1 for owners in record.owners.values())
    return 0.0 if shared else 1.0


def same_name(record: Record, chance: random.Random) -> float:
    """How often a name asked for is asked for soon after by others of the same client."""
    asked = [one for one in record.carried if one.connection.label.startswith(("s0", "s1"))]
    pairs = []
    for at, one in enumerate(asked):
        for later in asked[at + 1 :]:
            if later.at - one.at > 2 * _SOON_S:
                break
            if later.identity != one.identity:
                pairs.append((one.identity, later.identity, later.name == one.name))
    truth = {one.identity: one.client for one in asked}
    return _alike(pairs, truth, [list(truth)], chance)


def height(record: Record, chance: random.Random) -> float:
    """While a block is new: whether heights in questions are alike for one client's."""
    pairs: list[tuple[int, int, bool]] = []
    truth: dict[int, int] = {}
    strata = []
    for block in record.blocks:
        asked = [
            (number, one)
            for number, one in enumerate(record.carried)
            if block + 1.0 <= one.at < block + 120.0 and one.offset is not None
        ]
        strata.append([number for number, _ in asked])
        truth |= {number: one.client for number, one in asked}
        for at, (number, one) in enumerate(asked):
            pairs += [(number, other, one.offset == its.offset) for other, its in asked[at + 1 :]]
    return _alike(pairs, truth, strata, chance)


def _alike(
    pairs: Sequence[tuple[Hashable, Hashable, bool]],
    truth: Mapping[Any, int],
    strata: Sequence[Sequence[Any]],
    chance: random.Random,
    rounds: int = 4000,
) -> float:
    """The p-value of "pairs of one client are alike as often as others".

    The permutation is of the clients of what is paired, within each stratum: pairs that
    share a member do not count as independent.
    """
    if len({is_alike for _, _, is_alike in pairs}) < 2:
        return 1.0

    def distance(whose: Mapping[Any, int]) -> float:
        counts = Counter((whose[a] == whose[b], is_alike) for a, b, is_alike in pairs)
        own = counts[True, True] / max(1, counts[True, True] + counts[True, False])
        others = counts[False, True] / max(1, counts[False, True] + counts[False, False])
        return abs(own - others)

    found, as_large = distance(truth), 1
    for _ in range(rounds):
        whose = dict(truth)
        for members in strata:
            clients = [truth[one] for one in members]
            chance.shuffle(clients)
            whose |= dict(zip(members, clients, strict=True))
        as_large += distance(whose) >= found - 1e-12
    return as_large / (rounds + 1)


def sizes_and_orders(record: Record, chance: random.Random) -> float:
    """Whether what a connection is sent, beside the name, is alike for one client's."""
    shapes = []
    for seen in record.connections:
        if seen in record.owners:
            methods = Counter(method for _, method, _ in seen.requests if method != _PING)
            sizes = {
                size - len(params[0]) - len(str(number))
                for number, ((_, method, params), size) in enumerate(
                    zip(seen.requests, seen.sizes, strict=True), 1
                )
                if "value_proof" in method
            }
            first = [method for _, method, _ in seen.requests[:3]]
            shapes.append((str((first, sorted(sizes), sorted(methods))), int(seen.client)))
    if len({shape for shape, _ in shapes}) < 2:
        return 1.0
    equal = [float(a == b) for (a, _), (b, _) in pairwise(shapes)]
    return mixes(equal, [a == b for (_, a), (_, b) in pairwise(shapes)], chance)


def pings_in_step(record: Record, chance: random.Random) -> float:
    """Whether a ping less than half a second after another is oftener of the same client than
    one some minutes later.  Like with like: when many connections are open all pings are
    closer, and more of them may be of the client that has more."""
    pings = sorted(
        (at, int(seen.client))
        for seen in record.connections
        for at, method, _ in seen.requests
        if method == _PING and record.is_judged(at, int(seen.client))
    )
    differences = []
    for one, following, later in zip(pings, pings[1:], pings[_MINUTES_LATER:], strict=False):
        if following[0] - one[0] < 0.5:
            differences.append(float(following[1] == one[1]) - float(later[1] == one[1]))
    return flips([one for one in differences if one], chance)


def told_by_a_server(record: Record, chance: random.Random) -> float:
    """Whether identities stay away from a server that has lately denied a name to another one
    of their client."""
    there, told = [], []
    for one in record.first_uses:
        there.append(float(one.connection.label.startswith("s0")))
        told.append(
            any(
                0.0 < one.at - at < _AFTER_S and client == one.client and denied != one.identity
                for at, client, denied in record.withheld
            )
        )
    return mixes(there, told, chance)


def timed_by_a_program(record: Record, chance: random.Random) -> float:
    """Whether first look-ups take longer after others of the same client have bound more."""
    takes = defaultdict(list)
    for one in record.first_uses:
        takes[one.client].append(one.at)
    for times in takes.values():
        times.sort()
    longer, busy = [], []
    for use in record.uses:
        if use.is_first:
            own = takes[use.client]
            longer.append(use.took)
            busy.append(float(bisect(own, use.at) - bisect(own, use.at - 2 * _SOON_S)))
    return mixes(longer, [one > 0 for one in busy], chance)


CLASSIFIERS: Final[dict[str, Classifier]] = {
    "opened after a use": opened_after_a_use,
    "opened after newnym": opened_after_newnym,
    "ended after newnym": ended_after_newnym,
    "order of use": order_of_use,
    "shared connection": shared_connection,
    "same name": same_name,
    "height": height,
    "sizes and orders": sizes_and_orders,
    "pings in step": pings_in_step,
    "told by a server": told_by_a_server,
    "timed by a program": timed_by_a_program,
}
