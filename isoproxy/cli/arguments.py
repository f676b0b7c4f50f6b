"""A parser of arguments that says what was probably meant."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from isoproxy.config.option import nearest

_BELONGS_TO_COMMANDS = ("-c", "--config", "--set")


class Parser(argparse.ArgumentParser):
    """Names the nearest command or option to one that it does not know.

    Its commands have parsers of this kind, too; each complains with its own usage.
    """

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        found, left = super().parse_known_args(args, namespace)
        if left:
            self.error(f"unrecognized arguments: {' '.join(left)}{self._meant(left[0])}")
        return found, left

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        choices = action.choices
        if choices is not None and value not in choices:
            known = ", ".join(map(str, choices))
            raise argparse.ArgumentError(
                action, f"unknown: {value}{nearest(str(value), choices)}; known: {known}"
            )

    def _meant(self, word: str) -> str:
        return nearest(word, self._option_string_actions) if word.startswith("-") else ""


class _Misplaced(argparse.Action):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> NoReturn:
        parser.error(f"{option_string} stands after the command, as in: isoproxy run -c FILE")


def refuse_misplaced(parser: argparse.ArgumentParser) -> None:
    """Answer options of commands that stand before the command with a word of advice."""
    parser.add_argument(*_BELONGS_TO_COMMANDS, action=_Misplaced, nargs="?", help=argparse.SUPPRESS)
