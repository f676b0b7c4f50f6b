"""Text in the man(7) macros of roff."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping

from isoproxy import __version__


def plain(text: str) -> str:
    """`text` as roff prints it: escapes, and no line that would be taken for a request."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    escaped = escaped.replace("`", "\\(ga").replace("^", "\\(ha").replace("~", "\\(ti")
    return f"\\&{escaped}" if escaped.startswith(".") else escaped


def bold(text: str) -> str:
    return f"\\fB{plain(text)}\\fR"


def title(
    name: str, section: int, summary: str, environment: Mapping[str, str] = os.environ
) -> list[str]:
    """The head of a page: `.TH` and NAME."""
    epoch = environment.get("SOURCE_DATE_EPOCH", "")
    date = time.strftime("%Y-%m-%d", time.gmtime(int(epoch))) if epoch.isdigit() else ""
    return [
        f'.TH {plain(name.upper())} {section} "{date}" "isoproxy {__version__}" "isoproxy"',
        # No hyphenation and a ragged margin: words of this page are to be copied.
        ".nh",
        ".ad l",
        *heading("NAME"),
        f"{plain(name)} \\- {plain(summary)}",
    ]


def heading(text: str) -> list[str]:
    return [f'.SH "{plain(text)}"']


def subheading(text: str) -> list[str]:
    return [f'.SS "{plain(text)}"']


def paragraphs(text: str) -> list[str]:
    """Paragraphs that a blank line separates."""
    lines = []
    for paragraph in text.strip().split("\n\n"):
        lines += [".PP", *map(plain, paragraph.splitlines())]
    return lines


def item(tag: str, text: Iterable[str]) -> list[str]:
    """A tagged paragraph; `tag` is roff already, the lines of `text` are plain."""
    lines = [plain(line) for line in text if line]
    # A tag without a text would take the next tag for it.
    return [".TP", tag, *(lines or ["\\&"])]


def example(lines: Iterable[str]) -> list[str]:
    return [".PP", ".RS 4", ".nf", *map(plain, lines), ".fi", ".RE"]


def page(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n"
