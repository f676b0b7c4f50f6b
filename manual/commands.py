"""A page about a command, from its argparse parser."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from manual import roff


@dataclass(frozen=True)
class Command:
    """A program's page.

    about     what it is for, in paragraphs
    more      further sections by heading: tags and what is said of them
    see       names of other pages, such as `tor(1)`
    """

    name: str
    section: int
    summary: str
    parser: argparse.ArgumentParser
    about: str
    more: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    see: tuple[str, ...] = ()


def command_page(command: Command) -> str:
    """The page, in roff."""
    parser = command.parser
    lines = [
        *roff.title(command.name, command.section, command.summary),
        *roff.heading("SYNOPSIS"),
        *_usage(parser),
        *roff.heading("DESCRIPTION"),
        *roff.paragraphs(command.about),
        *roff.heading("OPTIONS"),
        *_arguments(parser),
    ]
    commands = list(_commands(parser))
    if commands:
        lines += roff.heading("COMMANDS")
        for one, summary in commands:
            lines += roff.subheading(one.prog.removeprefix(f"{parser.prog} "))
            text = one.description or f"{summary[:1].upper()}{summary[1:]}."
            lines += [*_usage(one), *roff.paragraphs(text), *_arguments(one, inner=True)]
    for name, items in command.more.items():
        lines += roff.heading(name)
        for tag, text in items.items():
            lines += roff.item(roff.bold(tag), text.splitlines())
    if command.see:
        see = ",\n".join(_reference(name) for name in command.see)
        lines += [*roff.heading("SEE ALSO"), *see.splitlines()]
    return roff.page(lines)


def _usage(parser: argparse.ArgumentParser) -> list[str]:
    words = parser.format_usage().removeprefix("usage: ").split()
    text = " ".join(words).removeprefix(parser.prog)
    return [".PP", f"{roff.bold(parser.prog)}{roff.plain(text)}"]


def _arguments(parser: argparse.ArgumentParser, *, inner: bool = False) -> list[str]:
    """Options and operands; `inner` commands do not say again that they have --help."""
    lines = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) or action.help == argparse.SUPPRESS:
            continue
        if inner and isinstance(action, argparse._HelpAction):
            continue
        text = parser._get_formatter()._expand_help(action) if action.help else ""
        if not action.option_strings:
            choices = [roff.bold(str(choice)) for choice in action.choices or ()]
            tag = "|".join(choices) or f"\\fI{roff.plain(_placeholder(action))}\\fR"
            lines += roff.item(tag, [text])
            continue
        tag = ", ".join(map(roff.bold, action.option_strings))
        if action.nargs != 0:
            value = f"\\fI{roff.plain(_placeholder(action))}\\fR"
            tag += f" [{value}]" if action.nargs == "?" else f" {value}"
        lines += roff.item(tag, [text])
    return lines


def _placeholder(action: argparse.Action) -> str:
    return str(action.metavar or action.dest.upper())


def _commands(
    parser: argparse.ArgumentParser,
) -> Iterator[tuple[argparse.ArgumentParser, str]]:
    """The commands that do something, depth first, each with its line of help."""
    for action in parser._actions:
        if not isinstance(action, argparse._SubParsersAction):
            continue
        summaries = {one.dest: one.help or "" for one in action._choices_actions}
        for name, command in action.choices.items():
            inner = list(_commands(command))
            if inner:
                yield from inner
            else:
                yield command, summaries.get(name, "")


def _reference(name: str) -> str:
    found = re.fullmatch(r"(.+)(\(\d\))", name)
    return f"{roff.bold(found[1])}{found[2]}" if found else roff.plain(name)
