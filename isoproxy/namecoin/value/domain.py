"""A `d/` value as a tree of names: maps, imports, what hides what.

Theory of operation
    A value is a JSON object; the objects in its `map` stand for the labels below it
    (IFA-0001, "Abstract Constructs").  Other values may be imported anywhere.  So the
    contents of one name are a stack of objects in falling precedence: the object itself,
    what it imports (the first import before the second, each with what it imports in
    turn), then the entries of the empty label.  For each item the first object that has
    it counts, even if what it has is null or wrong: so an importer overrides, or hides,
    what it imports.  Their maps are merged label by label in the same way.  `delegate`
    replaces the object by what it imports, if that is anything.

    Imports need values that only a backend has.  `Domain` does no I/O: its methods are
    generators that yield the name of a value they need and are sent the value, or None
    where there is none.  An import that does not exist, or is no JSON object, is
    skipped; what else goes wrong is the driver's to raise.

    On the way down to a name, the first `ns` or `translate` hides all DNS records below:
    `ns` > `translate` > `alias` > the rest (IFA-0001, "Item Suppression Rules").  Items
    outside the DNS (`tor`, `i2p`) are never hidden.

Invariants
    One Domain asks for at most MAX_NAMES values and looks at no more than MAX_OBJECTS
    objects in its life, whatever the values say; beyond that NamingError(NAME_BUDGET).
    Each value is asked for once.  No answer depends on the order of asking.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from dns.rdatatype import RdataType
from dns.rdtypes.nsbase import NSBase

from isoproxy.errors import ErrorKind, NamingError
from isoproxy.namecoin.value.imports import Statement, import_statements
from isoproxy.namecoin.value.json import Json, parse_json
from isoproxy.namecoin.value.name import BitName
from isoproxy.namecoin.value.problems import (
    hidden_problems,
    item_problems,
    map_problems,
    onion_problems,
)
from isoproxy.namecoin.value.records import Position, Records, mail_exchangers, read_records
from isoproxy.net.host_name import MAX_DOTTED_LENGTH, is_label

MAX_NAMES: Final = 8
"""Values one name may be put together from, its own included."""
MAX_OBJECTS: Final = 512
"""JSON objects looked at for one name."""
MAX_IMPORT_DEPTH: Final = 8
MAX_ZONE_DEPTH: Final = 16
"""Labels below the base name that a listing of the whole zone descends to."""

_T = TypeVar("_T")
Inquiry = Generator[bytes, bytes | None, _T]
"""Yields names whose values are needed, is sent each value or None, returns the result."""

_Object = dict[str, Json]
_Chain = tuple[Statement, ...]

_STRUCTURE: Final = frozenset({"map", "import", "delegate"})
_AT_A_CUT: Final = frozenset({RdataType.NS, RdataType.DS})
_TRANSLATION: Final = frozenset({RdataType.DNAME})
_ALIAS: Final = frozenset({RdataType.CNAME})
_GLUE: Final = frozenset({RdataType.A, RdataType.AAAA})
_NOTHING: Final[frozenset[RdataType]] = frozenset()


@dataclass(frozen=True, slots=True)
class Node:
    """What a value says about one name.

    `owner` is the name in DNS form without a last dot.  `exists` is False where DNS would
    say NXDOMAIN.  `redirect` is the host name (no last dot) that an alias, or a
    `translate` further up, points to.  `delegated` tells that name servers outside this
    value have the DNS records of this name; those in `records` are then NS, DS and glue.
    `cut` is the number of labels of the name further up whose `ns` or `translate` hides
    what is said here; None if there is none.
    """

    owner: str
    exists: bool
    records: Records
    redirect: str | None = None
    delegated: bool = False
    cut: int | None = None


@dataclass(slots=True)
class _Merged:
    """One name's objects in falling precedence, merged; `problems` are of their imports."""

    items: _Object
    maps: list[_Object]
    problems: list[str] = field(default_factory=list, compare=False)


@dataclass(slots=True)
class _Cut:
    """What an ancestor hides: a delegation with its servers, or a `translate` target."""

    depth: int
    servers: frozenset[str] = field(default_factory=frozenset)
    target: str | None = None


class Domain:
    """The value of one `d/` name, put together on demand."""

    def __init__(self, base: str, value: bytes) -> None:
        """`base` as in `BitName.base`; raises NamingError(NAME_INVALID_VALUE)."""
        self._base: Final = base
        self._root: Final = _root_object(value)
        self._values: Final[dict[bytes, _Object | None]] = {BitName(base).key: self._root}
        self._merged: Final[dict[tuple[str, ...], _Merged | None]] = {}
        self._records: Final[dict[tuple[str, ...], Records]] = {}
        self._objects = 0

    def at(self, labels: tuple[str, ...], *, mail: bool = False) -> Inquiry[Node]:
        """What the value says about the name with `labels` left of the base name.

        With `mail` also the MX records that follow from SRV records at `_smtp._tcp`.
        """
        cut: _Cut | None = None
        path: tuple[str, ...] = ()
        merged = yield from self._merged_at(path, None)
        while merged is not None and len(path) < len(labels):
            cut = cut or self._cut(merged, path)
            path = labels[len(labels) - len(path) - 1 :]
            merged = yield from self._merged_at(path, merged)
        node = self._node(labels, merged, cut)
        if mail and merged is not None and cut is None:
            node = yield from self._with_mail(labels, merged, node)
        return node

    def zone(self) -> Inquiry[list[Node]]:
        """Every name the value speaks of, parents first, wildcards as `*`.

        Where what is below a name is what is below one above it (a name that imports itself,
        say) it is not listed again.  Problems are noted in the nodes.
        """
        nodes: list[Node] = []
        root = yield from self._merged_at((), None)
        pending: list[tuple[tuple[str, ...], _Merged | None, _Cut | None, tuple[_Merged, ...]]]
        pending = [((), root, None, ())]
        while pending:
            path, merged, cut, above = pending.pop()
            if merged is None:
                continue
            node = self._node(path, merged, cut)
            if cut is None:
                node = yield from self._with_mail(path, merged, node)
            problems = self._problems(path, merged, node)
            labels = [label for label in _labels(merged) if label == "*" or is_label(label)]
            if labels and merged in above:
                problems.append("map: the names below are those of a name above, and so on")
                labels = []
            if labels and len(path) >= MAX_ZONE_DEPTH:
                raise NamingError(kind=ErrorKind.NAME_BUDGET)
            nodes.append(replace(node, records=replace(node.records, problems=problems)))
            cut = cut or self._cut(merged, path)
            for label in reversed(labels):
                below = (label, *path)
                found = yield from self._merged_at(below, merged)
                pending.append((below, found, cut, (*above, merged)))
        return nodes

    def _problems(self, path: tuple[str, ...], merged: _Merged, node: Node) -> list[str]:
        """What of `merged` has no effect in `node`, and why."""
        said = self._said(path, merged)
        at = None if node.cut is None else Position(self._base, path[len(path) - node.cut :]).owner
        found = [*said.problems, *item_problems(merged.items), *merged.problems]
        found += map_problems(merged.maps)
        found += onion_problems(node.records) if path[:1] == ("_tor",) else []
        return list(dict.fromkeys((*found, *hidden_problems(said, node.records, at))))

    def _node(self, path: tuple[str, ...], merged: _Merged | None, cut: _Cut | None) -> Node:
        """What is left of what `merged` says, below `cut` and beside its own items."""
        said = self._said(path, merged) if merged is not None else Records()
        owner = Position(self._base, path).owner
        redirect: str | None
        if cut is not None and cut.target is not None:
            redirect = ".".join((*path[: len(path) - cut.depth], cut.target))
            fits = len(redirect) <= MAX_DOTTED_LENGTH
            hidden = said.only(_NOTHING)
            return Node(owner, True, hidden, redirect if fits else None, cut=cut.depth)
        if cut is not None:
            kept = said.only(_GLUE if owner in cut.servers else _NOTHING)
            return Node(owner, True, kept, delegated=True, cut=cut.depth)
        if RdataType.NS in said.rdatas:
            glue = _GLUE if owner in _hosts(said, RdataType.NS) else _NOTHING
            return Node(owner, True, said.only(_AT_A_CUT | glue), delegated=True)
        if RdataType.DNAME in said.rdatas:
            return Node(owner, True, said.only(_TRANSLATION))
        if RdataType.CNAME in said.rdatas:
            (redirect,) = _hosts(said, RdataType.CNAME)
            return Node(owner, True, said.only(_ALIAS), redirect)
        return Node(owner, merged is not None, said)

    def _said(self, path: tuple[str, ...], merged: _Merged) -> Records:
        """All that `merged` says, suppressed or not."""
        records = self._records.get(path)
        if records is None:
            records = read_records(merged.items, Position(self._base, path))
            self._records[path] = records
        return records

    def _cut(self, merged: _Merged, path: tuple[str, ...]) -> _Cut | None:
        """What `merged` hides below itself."""
        if "ns" not in merged.items and "translate" not in merged.items:
            return None
        said = self._said(path, merged)
        if RdataType.NS in said.rdatas:
            return _Cut(len(path), servers=frozenset(_hosts(said, RdataType.NS)))
        if RdataType.DNAME in said.rdatas:
            (target,) = _hosts(said, RdataType.DNAME)
            return _Cut(len(path), target=target)
        return None

    def _with_mail(self, path: tuple[str, ...], merged: _Merged, node: Node) -> Inquiry[Node]:
        """`node` with the MX records that IFA-0001 derives from `_smtp._tcp`."""
        own = node.records.rdatas.keys()
        if node.delegated or own & {RdataType.MX, RdataType.DNAME, RdataType.CNAME}:
            return node
        if "_tcp" not in _labels(merged):
            return node
        protocol = yield from self._merged_at(("_tcp", *path), merged)
        if protocol is None or "_smtp" not in _labels(protocol):
            return node
        service = yield from self.at(("_smtp", "_tcp", *path))
        mail = list(mail_exchangers(service.records.rdatas.get(RdataType.SRV, ())))
        if not mail:
            return node
        rdatas = node.records.rdatas | {RdataType.MX: mail}
        return replace(node, records=replace(node.records, rdatas=rdatas))

    def _merged_at(self, path: tuple[str, ...], parent: _Merged | None) -> Inquiry[_Merged | None]:
        """What is merged at `path`, whose parent is known; `()` has none."""
        if path in self._merged:
            return self._merged[path]
        merged: _Merged | None
        if parent is None:
            own = (BitName(self._base).key, "")
            merged = yield from self._merge([self._root], (own,))
        else:
            merged = yield from self._child(parent, path[0], ())
        self._merged[path] = merged
        return merged

    def _child(self, parent: _Merged, label: str, chain: _Chain) -> Inquiry[_Merged | None]:
        if not parent.maps:
            return None
        objects = _entries(parent.maps, label) or _entries(parent.maps, "*")
        return (yield from self._merge(objects, chain)) if objects else None

    def _merge(self, objects: list[_Object], chain: _Chain) -> Inquiry[_Merged]:
        """Merge `objects`, what they import, and the empty label below them."""
        items: _Object = {}
        maps: list[_Object] = []
        problems: list[str] = []
        hidden = False
        while objects:
            added: list[_Object] = []
            for entry in objects:
                layers = yield from self._layers(entry, chain, problems)
                for layer in layers:
                    _add_items(items, layer)
                    if hidden or "map" not in layer:
                        continue
                    below = layer["map"]
                    hidden = below is None
                    if isinstance(below, dict):
                        added.append(below)
            maps += added
            objects = _entries(added, "")
        return _Merged(items, maps, problems)

    def _layers(self, entry: _Object, chain: _Chain, problems: list[str]) -> Inquiry[list[_Object]]:
        """One object and what it imports, in falling precedence.

        A `delegate` that brings nothing leaves the object as it is.
        """
        self._objects += 1
        if self._objects > MAX_OBJECTS:
            raise NamingError(kind=ErrorKind.NAME_BUDGET)
        delegate = entry.get("delegate")
        if delegate is not None:
            layers = yield from self._imported("delegate", delegate, chain, problems)
            if layers:
                return layers
        imports = entry.get("import")
        if imports is None:
            return [entry]
        return [entry, *(yield from self._imported("import", imports, chain, problems))]

    def _imported(
        self, item: str, written: Json, chain: _Chain, problems: list[str]
    ) -> Inquiry[list[_Object]]:
        layers: list[_Object] = []
        known: set[Statement] = set()
        for number, statement in import_statements(item, written, problems):
            if statement in known:
                continue
            known.add(statement)
            name, selector = statement
            if statement in chain:
                problems.append(f"{item}: entry {number} is being imported already")
                continue
            if len(chain) > MAX_IMPORT_DEPTH:
                raise NamingError(kind=ErrorKind.NAME_BUDGET)
            imported = yield from self._value(name)
            if imported is None:
                problems.append(f"{item}: entry {number} does not exist, or is no JSON object")
                continue
            found = yield from self._select(imported, selector, (*chain, statement), problems)
            if not found:
                problems.append(f"{item}: entry {number} has nothing at its selector")
            layers += found
        return layers

    def _select(
        self, imported: _Object, selector: str, chain: _Chain, problems: list[str]
    ) -> Inquiry[list[_Object]]:
        """The layers at `selector` (DNS order, "" for all) inside an imported object."""
        if not selector:
            return (yield from self._layers(imported, chain, problems))
        merged: _Merged | None = yield from self._merge([imported], chain)
        for label in reversed(selector.split(".")):
            if merged is None:
                return []
            merged = yield from self._child(merged, label, chain)
        if merged is None:
            return []
        return [merged.items | {"map": below} for below in merged.maps] or [merged.items]

    def _value(self, name: bytes) -> Inquiry[_Object | None]:
        if name not in self._values:
            if len(self._values) >= MAX_NAMES:
                raise NamingError(kind=ErrorKind.NAME_BUDGET)
            raw = yield name
            try:
                value = None if raw is None else parse_json(raw)
            except NamingError:
                value = None
            self._values[name] = value if isinstance(value, dict) else None
        return self._values[name]


def _root_object(value: bytes) -> _Object:
    """A value that is empty or JSON of another kind is a name without records."""
    if not value:
        return {}
    root = parse_json(value)
    return root if isinstance(root, dict) else {}


def _add_items(items: _Object, layer: Mapping[str, Json]) -> None:
    """Add the items of `layer` that no layer above it has; `dns` wins over `ns`."""
    if "dns" in layer:
        layer = dict(layer)
        servers = layer.pop("dns")
        if servers is not None or "ns" not in layer:
            layer["ns"] = servers
    for item, value in layer.items():
        if item not in items and item not in _STRUCTURE:
            items[item] = value


def _entries(maps: list[_Object], label: str) -> list[_Object]:
    """What the merged maps have at exactly `label`; a null hides what is below it."""
    found: list[_Object] = []
    for below in maps:
        if label not in below:
            continue
        entry = below[label]
        if entry is None:
            break
        if isinstance(entry, dict):
            found.append(entry)
        elif isinstance(entry, str):
            found.append({"ip": entry})
    return found


def _labels(merged: _Merged) -> dict[str, None]:
    return dict.fromkeys(label for below in merged.maps for label in below)


def _hosts(records: Records, kind: RdataType) -> list[str]:
    """The host names that the NS, CNAME or DNAME records in `records` point to."""
    return [
        b".".join(rdata.target.labels[:-1]).decode()
        for rdata in records.rdatas.get(kind, ())
        if isinstance(rdata, NSBase)
    ]
