"""From a tree of settings with origins to the frozen `Config`; every problem is reported."""

from __future__ import annotations

import difflib
from dataclasses import replace
from typing import Any, TypeVar

from isoproxy.config.bitcoin import ProxyConfig
from isoproxy.config.option import Option, options_of
from isoproxy.config.schema import DEFAULT_NAME, PRESETS, Config, ListenerConfig, TransparentConfig
from isoproxy.config.sources import Leaf, Node, Table, Tables, plain
from isoproxy.config.torline import parse_tor_line
from isoproxy.isolation import FLAG_NAMES

T = TypeVar("T")
Named = TypeVar("Named", ListenerConfig, TransparentConfig, ProxyConfig)
Places = dict[str, str]


def build(tree: Table, problems: list[str]) -> tuple[Config, Places]:
    """The configuration and, by dotted key, where each setting was written.

    Settings that are wrong keep their default, so that the rest can be checked as well.
    """
    places: Places = {}
    config = _section(Config, tree, "", problems, places)
    config = replace(
        config,
        listener=_named(config.listener, DEFAULT_NAME, "listener"),
        transparent=_named(config.transparent, "transparent", "transparent"),
        bitcoin=replace(config.bitcoin, proxy=_named(config.bitcoin.proxy, "proxy", "proxy")),
    )
    return config, places


def problem(where: str, key: str, text: str) -> str:
    """One line of an error; `where` may name the key already, as in `--set key`."""
    return f"{where}: {text}" if where.endswith(key) else f"{where}: {key}: {text}"


def all_keys() -> tuple[str, ...]:
    """Every setting's dotted key, without indices."""
    return tuple(_keys(Config, ""))


def _keys(kind: type[Any], prefix: str) -> list[str]:
    keys = []
    for name, (_, option) in options_of(kind).items():
        keys.append(prefix + name)
        if option.section is not None:
            keys += _keys(option.section, f"{prefix}{name}.")
    return keys


def _section(kind: type[T], table: Table, prefix: str, problems: list[str], places: Places) -> T:
    options = options_of(kind)
    if kind is ListenerConfig:
        table = _with_preset(_expanded(table, problems))
    values: dict[str, object] = {}
    for key, node in table.items.items():
        if key not in options:
            problems.append(f"{node.where}: {_unknown_key(prefix, key, kind)}")
            continue
        dotted = prefix + key
        places[dotted] = node.where
        _, option = options[key]
        try:
            values[key] = _value(option, node, dotted, problems, places)
        except ValueError as error:
            problems.append(problem(node.where, dotted, str(error)))
    return kind(**values)


def _value(option: Option, node: Node, dotted: str, problems: list[str], places: Places) -> object:
    if option.section is None:
        assert option.read is not None
        return option.read(plain(node))
    if option.repeated:
        return tuple(
            _section(option.section, table, f"{dotted}.{index}.", problems, places)
            for index, table in enumerate(_repeated(node, dotted))
        )
    if not isinstance(node, Table):
        raise ValueError(f"expected a table, [{dotted}]")
    return _section(option.section, node, f"{dotted}.", problems, places)


def _repeated(node: Node, dotted: str) -> list[Table]:
    if isinstance(node, Tables):
        return node.items
    if isinstance(node, Leaf) and node.value == []:
        return []
    if isinstance(node, Table) and list(node.items) == [str(i) for i in range(len(node.items))]:
        tables = [item for item in node.items.values() if isinstance(item, Table)]
        if len(tables) == len(node.items):
            return tables
    raise ValueError(f"expected an array of tables, [[{dotted}]]")


def _expanded(table: Table, problems: list[str]) -> Table:
    """A listener with tor's own line spelt out."""
    line = table.items.get("socks")
    if line is None:
        return table
    items = {key: node for key, node in table.items.items() if key != "socks"}
    try:
        if not isinstance(line, Leaf) or not isinstance(line.value, str):
            raise ValueError('expected a line such as "127.0.0.1:9250 IsolateDestAddr"')
        settings = parse_tor_line(line.value)
    except ValueError as error:
        problems.append(f"{line.where}: listener.socks: {error}")
        return Table(table.where, items)
    for key, value in settings.items():
        if key in items:
            problems.append(
                f"{items[key].where}: listener.{key}: the line socks = ... says this already; "
                "keep one of them"
            )
        items[key] = Leaf(value, line.where)
    return Table(table.where, items)


def _with_preset(table: Table) -> Table:
    """A listener with its preset's flags, where it does not name its own."""
    preset = table.items.get("preset")
    known = isinstance(preset, Leaf) and isinstance(preset.value, str)
    if preset is None or not known or "isolate" in table.items:
        return table
    flags = PRESETS.get(str(plain(preset)))
    if flags is None:
        return table
    names = [name for name, flag in FLAG_NAMES.items() if flag in flags]
    return Table(table.where, {**table.items, "isolate": Leaf(names, preset.where)})


def _unknown_key(prefix: str, key: str, kind: type[Any]) -> str:
    """What is said of a key that the schema does not have."""
    shown = key if key.isprintable() and len(key) <= 60 else "..."
    here = [*options_of(kind), *(["socks"] if kind is ListenerConfig else [])]
    near = difflib.get_close_matches(key, here, n=1, cutoff=0.6)
    if near:
        nearest = _without_indices(prefix) + near[0]
    else:
        leaves = {dotted.rpartition(".")[2]: dotted for dotted in reversed(all_keys())}
        elsewhere = difflib.get_close_matches(key, leaves, n=1, cutoff=0.75)
        any_here = difflib.get_close_matches(key, here, n=1, cutoff=0.0)
        nearest = leaves[elsewhere[0]] if elsewhere else _without_indices(prefix) + any_here[0]
    return f'unknown key "{prefix}{shown}" (did you mean {nearest}?)'


def _without_indices(prefix: str) -> str:
    return "".join(f"{part}." for part in prefix.split(".") if part and not part.isdigit())


def _named(sections: tuple[Named, ...], first: str, rest: str) -> tuple[Named, ...]:
    """Fill in the names that are not given; they label logs and metrics."""
    taken = {section.name for section in sections}
    named = []
    for index, section in enumerate(sections):
        name = section.name
        if not name:
            name = first if index == 0 and first not in taken else f"{rest}{index + 1}"
            while name in taken:
                name += "x"
            taken.add(name)
        named.append(replace(section, name=name))
    return tuple(named)
