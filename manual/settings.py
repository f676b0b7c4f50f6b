"""The page about the settings, from the configuration's schema."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING
from typing import Any, Final

from isoproxy.config import Config
from isoproxy.config.option import Option, options_of
from isoproxy.config.sample import example_of, toml_value
from manual import roff

_ABOUT: Final = """
/etc/isoproxy/isoproxy.toml holds the settings of isoproxy(8). Everything has a default, and the
file may be missing. It is written in TOML: a section in brackets, then one setting per line. A
section in double brackets may be given several times.

After it, the files /etc/isoproxy/conf.d/*.toml and /usr/local/etc/isoproxy.d/*.toml are read in
the order of their names. A later value replaces an earlier one. A later section in double
brackets is added, or replaces the earlier one with the same address or name.

isoproxy check says what is wrong in a file, with the line and what to write instead. isoproxy
check --sample prints all that is below as a file to edit. isoproxy reload reads the files again;
a file with an error changes nothing.
"""

_EXAMPLE: Final = """\
[tor]
mode = "system"
socks = "unix:/run/tor/socks"
control = "unix:/run/tor/control"

[[listener]]
address = "127.0.0.1:9250"

[[listener]]
address = "127.0.0.1:9251"
isolate = ["ClientAddr", "SOCKSAuth", "DestAddr"]
"""


def settings_page() -> str:
    """isoproxy.toml(5), in roff."""
    lines = [
        *roff.title("isoproxy.toml", 5, "settings of isoproxy"),
        *roff.heading("DESCRIPTION"),
        *roff.paragraphs(_ABOUT),
        *roff.heading("SETTINGS"),
    ]
    for name, (_, option) in options_of(Config).items():
        lines += _section(name, option)
    lines += [*roff.heading("EXAMPLE"), *roff.example(_EXAMPLE.splitlines())]
    lines += [
        *roff.heading("FILES"),
        *roff.item(roff.bold("/etc/isoproxy/isoproxy.toml"), ["The main file."]),
        *roff.item(
            roff.bold("/etc/isoproxy/conf.d/*.toml"),
            ["Drop-ins. One that holds a password should belong to root and isoproxy's group,",
             "mode 0640."],
        ),
        *roff.item(roff.bold("/usr/local/etc/isoproxy.d/*.toml"), ["Drop-ins, read last."]),
        *roff.heading("SEE ALSO"),
        f"{roff.bold('isoproxy')}(8),",
        f"{roff.bold('tor')}(1)",
    ]  # fmt: skip
    return roff.page(lines)


def _section(path: str, option: Option) -> Iterator[str]:
    assert option.section is not None
    yield from roff.subheading(f"[[{path}]]" if option.repeated else f"[{path}]")
    yield from roff.paragraphs(option.doc)
    nested = []
    for name, (field, inner) in options_of(option.section).items():
        if inner.section is not None:
            nested.append((f"{path}.{name}", inner))
            continue
        yield from roff.item(roff.bold(name), [inner.sentence, _default(field.default, inner)])
    for inner_path, inner in nested:
        yield from _section(inner_path, inner)


def _default(value: Any, option: Option) -> str:
    if value is None or value is MISSING:
        return f"Unset by default; an example: {example_of(option)}"
    return f"Default: {toml_value(value)}"
