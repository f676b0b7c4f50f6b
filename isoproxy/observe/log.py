"""The log: events with fields, scrubbed on the way out.

    log = logger("front")
    log.info("handshake_failed", listener=name, kind=error.kind, target=Sensitive(target))

Theory of operation
    An event is a fixed word; what differs is in its fields.  There is no message that
    could be formatted, so there is one place, `_shown`, that turns a value into text:
    numbers, booleans, enum members and short texts are shown; `Sensitive` values, bytes
    and objects of other types are not.  An exception is shown as its kind (ours) or its
    type (others'), with the places in the code that it came through: never its text.
    Records of other libraries (asyncio, stem) carry texts that we did not write, so of
    those only the logger, the place and the exception's type are shown.
    `safe_logging = false` shows `Sensitive` values and foreign texts, and says so once.

    The levels are Tor's.  Of warnings and errors with the same event, kind and listener
    one is written per 5 s, and the next says how many were left out: a client must not
    be able to fill the disk.

Invariants
    Nothing marked `Sensitive` appears while logging is safe, whatever the level or form.
    A record takes one line; values cannot contain line ends or forge fields.
"""

from __future__ import annotations

import json
import logging
import os
import stat
import sys
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final, TextIO

from isoproxy.errors import IsoproxyError

NOTICE: Final = 25
LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "notice": NOTICE,
    "warn": logging.WARNING,
    "err": logging.ERROR,
}
SCRUBBED: Final = "[scrubbed]"

_ROOT = "isoproxy"
_MAX_TEXT = 500
_REPEAT_S = 5.0
_MAX_REPEATS = 256
_MAX_PLACES = 8
_LEVEL_NAMES = {number: name for name, number in LEVELS.items()}
_JOURNAL_PRIORITIES = {"debug": 7, "info": 6, "notice": 5, "warn": 4, "err": 3}


class Sensitive:
    """A value that identifies someone's activity; it prints as `[scrubbed]` everywhere.

    Only this module can look inside, and does so only with `safe_logging = false`.
    """

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def __repr__(self) -> str:
        return SCRUBBED


def reveal(value: Sensitive, *, safe: bool) -> str:
    """What may be shown of `value`: `[scrubbed]` where logging is `safe`, else its text."""
    return SCRUBBED if safe else _text(value._value)


class Logger:
    """Writes the events of one part of isoproxy."""

    __slots__ = ("_logger",)

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(f"{_ROOT}.{name}")

    @property
    def debugging(self) -> bool:
        """Whether `debug` writes: for busy code, before it gathers the fields."""
        return self._logger.isEnabledFor(logging.DEBUG)

    def debug(self, event: str, /, **fields: object) -> None:
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, /, **fields: object) -> None:
        self._write(logging.INFO, event, fields)

    def notice(self, event: str, /, **fields: object) -> None:
        self._write(NOTICE, event, fields)

    def warn(self, event: str, /, **fields: object) -> None:
        self._write(logging.WARNING, event, fields)

    def err(self, event: str, /, **fields: object) -> None:
        self._write(logging.ERROR, event, fields)

    def _write(self, level: int, event: str, fields: dict[str, object]) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event, extra={"fields": fields})


def logger(name: str) -> Logger:
    """The logger of the part called `name`, e.g. `front`."""
    return Logger(name)


def configure(
    *, level: str = "notice", form: str = "text", safe: bool = True, stream: TextIO | None = None
) -> None:
    """Send all records to `stream` (standard error by default); callable again at a reload."""
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    journal = "JOURNAL_STREAM" in os.environ and stream is None
    handler.setFormatter(Formatter(form=form, safe=safe, journal=journal))
    handler.addFilter(RepeatFilter())
    root = logging.getLogger()
    for old in list(root.handlers):
        if isinstance(old.formatter, Formatter):
            root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger(_ROOT).setLevel(LEVELS[level])
    logging.raiseExceptions = False  # a full disk must not print records on standard error
    if not safe:
        logger("log").warn("safe_logging_is_off", consequence="names and targets are logged")


def goes_to_the_journal(stream: TextIO) -> bool:
    """Whether systemd's journal keeps what is written to `stream` (systemd.exec(5))."""
    try:
        mode = os.fstat(stream.fileno()).st_mode
    except (OSError, ValueError):  # it is no file at all
        return False
    return "JOURNAL_STREAM" in os.environ and stat.S_ISSOCK(mode)


class Formatter(logging.Formatter):
    """One record, one line of `key=value` pairs or one JSON object."""

    def __init__(self, *, form: str = "text", safe: bool = True, journal: bool = False) -> None:
        super().__init__()
        self._form = form
        self._safe = safe
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        fields = self._fields(record)
        if self._form == "json":
            line = json.dumps(fields, ensure_ascii=True)
        else:
            line = " ".join(f"{key}={_quoted(value)}" for key, value in fields.items())
        if self._journal:  # sd-daemon(3): the journal reads the level from the prefix
            return f"<{_JOURNAL_PRIORITIES[str(fields['level'])]}>{line}"
        return line

    def _fields(self, record: logging.LogRecord) -> dict[str, object]:
        shown: dict[str, object] = {}
        if not self._journal:
            shown["time"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        shown["level"] = _level_name(record.levelno)
        fields = getattr(record, "fields", None)
        if isinstance(fields, Mapping):
            shown["part"] = record.name.removeprefix(f"{_ROOT}.")
            shown["event"] = record.msg
            for key, value in fields.items():
                shown[key] = _shown(value, safe=self._safe)
        else:
            shown |= self._foreign(record)
        repeated = getattr(record, "repeated", 0)
        if repeated:
            shown["left_out"] = repeated
        return shown

    def _foreign(self, record: logging.LogRecord) -> dict[str, object]:
        shown: dict[str, object] = {
            "part": record.name,
            "event": "foreign_record",
            "at": f"{record.module}:{record.lineno}",
        }
        if record.exc_info and record.exc_info[1] is not None:
            shown["error"] = describe_exception(record.exc_info[1])
        if not self._safe:
            shown["text"] = record.getMessage()[:_MAX_TEXT]
        return shown


class RepeatFilter(logging.Filter):
    """Lets one of many like warnings through per 5 s; counts the rest."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._seen: OrderedDict[tuple[object, ...], tuple[float, int]] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        fields = getattr(record, "fields", None)
        what = f"{record.module}:{record.lineno}" if fields is None else record.msg
        fields = fields or {}
        key = (record.name, what, _word(fields.get("kind")), _word(fields.get("listener")))
        now = self._clock()
        since, left_out = self._seen.pop(key, (-_REPEAT_S, 0))
        if now - since < _REPEAT_S:
            self._seen[key] = (since, left_out + 1)
            return False
        self._seen[key] = (now, 0)
        while len(self._seen) > _MAX_REPEATS:
            self._seen.popitem(last=False)
        record.repeated = left_out
        return True


def describe_exception(error: BaseException) -> str:
    """The kind or type of `error` and the code it passed through; not a word of its text."""
    name = f"{type(error).__name__}"
    if isinstance(error, IsoproxyError):
        name += f"({error.kind.value})"
    elif isinstance(error, OSError) and error.errno is not None:
        name += f"(errno {error.errno})"
    frames = traceback.extract_tb(error.__traceback__)[-_MAX_PLACES:]
    places = [f"{os.path.basename(frame.filename)}:{frame.lineno}" for frame in frames]
    return " ".join([name, *places])


def _shown(value: object, *, safe: bool) -> object:
    """The one place where a value becomes text (or stays a number, for JSON)."""
    match value:
        case Sensitive():
            return reveal(value, safe=safe)
        case None | bool() | int() | float():
            return value
        case Enum():
            return str(value.value)[:_MAX_TEXT]
        case str():
            return value[:_MAX_TEXT]
        case BaseException():
            return describe_exception(value)
        case list() | tuple():
            return ",".join(str(_shown(item, safe=safe)) for item in value[:100])[:_MAX_TEXT]
        case _:
            return f"<{type(value).__name__}>"


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("ascii", "backslashreplace")[:_MAX_TEXT]
    return str(value)[:_MAX_TEXT]


def _word(value: object) -> object:
    return value if isinstance(value, str | Enum) else None


def _quoted(value: object) -> str:
    """`value` for a key=value line: quoted unless it is a plain word."""
    text = str(value)
    if text and text.isascii() and text.isprintable() and not set(text) & set(' "=\\'):
        return text
    return json.dumps(text)


def _level_name(number: int) -> str:
    for known in sorted(_LEVEL_NAMES, reverse=True):
        if number >= known:
            return _LEVEL_NAMES[known]
    return "debug"
