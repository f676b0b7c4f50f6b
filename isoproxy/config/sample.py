"""The commented sample file, made from the schema: it is the reference of all settings."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import MISSING
from typing import Any

from isoproxy.config.option import Option, options_of
from isoproxy.config.schema import Config
from isoproxy.isolation import FLAG_NAMES, Isolate

_HEAD = """\
isoproxy.toml: every setting with its default.  A setting is changed by removing the "#"
before it.  Files in conf.d/ beside this one are read after it, in the order of their names.
"""


def sample_toml() -> str:
    """A configuration file that changes nothing and explains everything."""
    blocks = ["\n".join(_comment(_HEAD))]
    for name, (_, option) in options_of(Config).items():
        blocks += _blocks(name, option, active=name == "listener" or not option.repeated)
    return "\n\n".join(blocks) + "\n"


def _blocks(path: str, option: Option, *, active: bool) -> Iterator[str]:
    """The table of a section, then those of the sections in it."""
    assert option.section is not None
    header = f"[[{path}]]" if option.repeated else f"[{path}]"
    lines = [*_comment(option.doc), header if active else f"# {header}"]
    nested = []
    for name, (field, inner) in options_of(option.section).items():
        if inner.section is not None:
            nested.append((f"{path}.{name}", inner))
            continue
        lines += ["", *_comment(inner.doc)]
        default = None if field.default is MISSING else field.default
        if default is None:
            lines.append(f"# Unset by default; an example: {name} = {_example(inner)}")
        else:
            lines.append(f"{'#' if active else '# '}{name} = {_toml(default)}")
    yield "\n".join(lines)
    for name, inner in nested:
        yield from _blocks(name, inner, active=active and not inner.repeated)


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, 92, break_on_hyphens=False)]


def _example(option: Option) -> str:
    bare = option.example.replace(".", "").isdigit() or option.example.startswith('"')
    return option.example if bare else json.dumps(option.example)


def _toml(value: Any) -> str:
    """`value` in TOML; every default of the schema is of a kind listed here."""
    match value:
        case Isolate():
            names = (name for name, flag in FLAG_NAMES.items() if flag in value)
            return _toml(tuple(names))
        case bool():
            return "true" if value else "false"
        case tuple():
            return "[" + ", ".join(_toml(item) for item in value) + "]"
        case Mapping():
            pairs = (f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items())
            return "{ " + ", ".join(pairs) + " }" if value else "{}"
        case int() | float() if str(value).replace(".", "").isdigit() and str(value)[0] != "0":
            return str(value)
        case 0:
            return "0"
        case _:
            return json.dumps(str(value))
