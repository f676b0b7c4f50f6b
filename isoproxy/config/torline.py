"""A listener written as tor writes its own: `127.0.0.1:9250 IsolateDestAddr SessionGroup=3`.

tor only warns of a flag that it does not know, and isolation is silently off; here every
word must be known.  What the line does not say keeps isoproxy's default.
"""

from __future__ import annotations

import difflib

from isoproxy.isolation import DEFAULT_ISOLATION, FLAG_NAMES

_FLAGS = {f"isolate{flag.lower()}": flag for flag in FLAG_NAMES}
_SWITCHES: dict[str, tuple[str, object]] = {
    "extendederrors": ("extended_errors", True),
    "noextendederrors": ("extended_errors", False),
    "groupwritable": ("mode", "0660"),
    "worldwritable": ("mode", "0666"),
}
_WORDS = (
    *(f"Isolate{flag}" for flag in FLAG_NAMES),
    *(f"NoIsolate{flag}" for flag in FLAG_NAMES),
    "SessionGroup=1",
    "ExtendedErrors",
    "NoExtendedErrors",
    "GroupWritable",
    "WorldWritable",
)


def parse_tor_line(line: str) -> dict[str, object]:
    """The settings of `[[listener]]` that the line stands for.

    Raises ValueError for an unknown word; its text quotes flags, never the address.
    """
    first, *words = line.split() or [""]
    settings: dict[str, object] = {"address": f"127.0.0.1:{first}" if first.isdigit() else first}
    isolate = [name for name, flag in FLAG_NAMES.items() if flag in DEFAULT_ISOLATION]
    for word in words:
        lower = word.lower()
        if lower in _FLAGS and _FLAGS[lower] not in isolate:
            isolate.append(_FLAGS[lower])
        elif lower.removeprefix("no") in _FLAGS and lower.startswith("no"):
            isolate = [flag for flag in isolate if flag != _FLAGS[lower.removeprefix("no")]]
        elif lower in _SWITCHES:
            key, value = _SWITCHES[lower]
            settings[key] = value
        elif lower.startswith("sessiongroup=") and lower[13:].isascii() and lower[13:].isdigit():
            settings["session_group"] = int(lower[13:])
        elif lower not in _FLAGS:
            raise ValueError(_unknown(word))
    settings["isolate"] = isolate
    return settings


def _unknown(word: str) -> str:
    nearest = difflib.get_close_matches(word, _WORDS, n=1, cutoff=0.0)[0]
    shown = word if word.isprintable() and len(word) <= 40 else "..."
    return f'unknown word "{shown}" (did you mean {nearest}?); other flags belong in Tor\'s torrc'
