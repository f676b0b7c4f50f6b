"""The commented sample file, made from the schema: it is the reference of all settings.

Every setting is in it with its sentence.  What a given configuration sets stands as a
setting, everything else as a comment with its default, so that the file says the same as
the configuration it was made from.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, replace
from typing import Any

from isoproxy.config.option import Option, options_of
from isoproxy.config.schema import DEFAULT_NAME, Config, ListenerConfig
from isoproxy.isolation import FLAG_NAMES, Isolate

_HEAD = """\
isoproxy.toml: every setting with its default.  A setting is changed by removing the "#"
before it.  Files in conf.d/ beside this one are read after it, in the order of their names.
"""


def sample_toml(config: Config | None = None) -> str:
    """A file that explains every setting and sets what `config` does; by default nothing."""
    given = config or Config()
    first, *others = given.listener or (ListenerConfig(),)
    if first.name == DEFAULT_NAME:  # it has this name without being given it
        given = replace(given, listener=(replace(first, name=""), *others))
    blocks = ["\n".join(_comment(_HEAD))]
    for name, (_, option) in options_of(Config).items():
        value = getattr(given, name)
        for one in value or (None,) if option.repeated else (value,):
            blocks += _blocks(name, option, one)
    return "\n\n".join(blocks) + "\n"


def _blocks(path: str, option: Option, given: Any) -> Iterator[str]:
    """The table of a section, then those of the sections in it; all comments if None is given."""
    assert option.section is not None
    header = f"[[{path}]]" if option.repeated else f"[{path}]"
    lines = [*_comment(option.doc), header if given is not None else f"# {header}"]
    nested = []
    for name, (field, inner) in options_of(option.section).items():
        value = None if given is None else getattr(given, name)
        if inner.section is not None:
            nested += [
                (f"{path}.{name}", inner, one)
                for one in (value or (None,) if inner.repeated else (value,))
            ]
            continue
        lines += [
            "",
            *_comment(inner.sentence),
            _line(name, field, inner, value, given is not None),
        ]
    yield "\n".join(lines)
    for inner_path, inner, one in nested:
        yield from _blocks(inner_path, inner, one)


def _line(name: str, field: Field[Any], option: Option, value: Any, active: bool) -> str:
    """One setting: itself if it has another value than the default, else a comment."""
    default = None if field.default is MISSING else field.default
    if active and value != default:
        return f"{name} = {toml_value(value)}"
    if default is None:
        return f"# Unset by default; an example: {name} = {example_of(option)}"
    return f"{'#' if active else '# '}{name} = {toml_value(default)}"


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, 92, break_on_hyphens=False)]


def example_of(option: Option) -> str:
    bare = option.example.replace(".", "").isdigit() or option.example.startswith('"')
    return option.example if bare else json.dumps(option.example)


def toml_value(value: Any) -> str:
    """`value` in TOML; every default of the schema is of a kind listed here."""
    match value:
        case Isolate():
            names = (name for name, flag in FLAG_NAMES.items() if flag in value)
            return toml_value(tuple(names))
        case bool():
            return "true" if value else "false"
        case tuple():
            return "[" + ", ".join(toml_value(item) for item in value) + "]"
        case Mapping():
            pairs = (f"{json.dumps(key)} = {toml_value(item)}" for key, item in value.items())
            return "{ " + ", ".join(pairs) + " }" if value else "{}"
        case int() | float() if str(value).replace(".", "").isdigit() and str(value)[0] != "0":
            return str(value)
        case 0:
            return "0"
        case _:
            return json.dumps(str(value))
