"""The log: its form, its silence about people, its bound on floods."""

from __future__ import annotations

import io
import json
import logging
import shlex
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.errors import DialError, ErrorKind
from isoproxy.observe import log as log_module
from isoproxy.observe.log import SCRUBBED, RepeatFilter, Sensitive, configure, logger, reveal

MARKS = ("marked-host.onion", "marked-user", "MARKED-PASSWORD", "\udcffmarked")


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("isoproxy")
    before = (list(root.handlers), root.level, ours.level, logging.raiseExceptions)
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])
    logging.raiseExceptions = before[3]


def started(**options: object) -> io.StringIO:
    stream = io.StringIO()
    configure(level="debug", stream=stream, **options)  # type: ignore[arg-type]  # test options
    return stream


def fields_of(line: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in shlex.split(line))


class Target:
    """Stands for an object of another module, whose repr and str tell all."""

    def __repr__(self) -> str:
        return MARKS[0]


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("level", ["debug", "info", "notice", "warn", "err"])
@pytest.mark.parametrize("mark", MARKS)
def test_nothing_marked_appears_at_any_level_in_any_form(form: str, level: str, mark: str) -> None:
    stream = started(form=form)
    caught: Exception
    try:
        raise ValueError(mark)
    except ValueError as error:
        caught = error
    values: tuple[object, ...] = (
        Sensitive(mark),
        Sensitive(mark.encode("utf-8", "surrogateescape")),
        Sensitive({mark: [mark]}),
        [Sensitive(mark), "x"],
        mark.encode("utf-8", "surrogateescape"),
        {mark: mark},
        Target(),
        caught,
        DialError(mark, kind=ErrorKind.EXIT_POLICY),
        f"{Sensitive(mark)} {Sensitive(mark)!r}",
    )
    for number, value in enumerate(values):
        getattr(logger("front"), level)(f"event_{number}", value=value)
    foreign = logging.getLogger("asyncio")
    foreign.error("text with %s", mark, exc_info=caught)
    foreign.error(f"text with {mark}")
    output = stream.getvalue()
    assert output.count("\n") >= len(values)
    assert mark not in output
    assert "marked" not in output.lower()


def test_unsafe_logging_shows_what_is_sensitive_and_says_so_once() -> None:
    stream = started(safe=False)
    logger("front").info("dialing", target=Sensitive("a.example"), user=Sensitive(b"\xff\n"))
    logging.getLogger("asyncio").error("text with %s", "argument")
    lines = stream.getvalue().splitlines()
    assert fields_of(lines[0])["event"] == "safe_logging_is_off"
    assert "target=a.example" in lines[1]
    assert r'user="\\xff\n"' in lines[1]
    assert 'text="text with argument"' in lines[2]
    assert len(lines) == 3


def test_what_a_status_may_reveal() -> None:
    assert reveal(Sensitive("a.example"), safe=True) == SCRUBBED
    assert reveal(Sensitive("a.example"), safe=False) == "a.example"
    assert len(reveal(Sensitive("a" * 10_000), safe=False)) < 1000


def test_a_line_of_text() -> None:
    stream = started()
    logger("front").notice(
        "listening", listener="default", kind=ErrorKind.BUSY, n=3, f=0.5, on=True, none=None
    )
    fields = fields_of(stream.getvalue())
    assert fields.pop("time").endswith("Z")
    assert fields == {
        "level": "notice",
        "part": "front",
        "event": "listening",
        "listener": "default",
        "kind": "busy",
        "n": "3",
        "f": "0.5",
        "on": "True",
        "none": "None",
    }


def test_an_object_of_json() -> None:
    stream = started(form="json")
    logger("tor").err("failed", n=3, error=DialError(kind=ErrorKind.EXIT_POLICY), why="a b")
    record = json.loads(stream.getvalue())
    assert (record["part"], record["level"], record["n"]) == ("tor", "err", 3)
    assert record["error"] == "DialError(exit_policy)"


def test_the_journal_gets_priorities_and_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    errors = io.StringIO()
    monkeypatch.setattr("sys.stderr", errors)
    configure(level="info")
    logger("front").warn("oops")
    logger("front").debug("hidden")
    assert errors.getvalue() == "<4>level=warn part=front event=oops\n"


def test_an_exception_is_shown_as_the_places_it_came_through() -> None:
    stream = started()
    try:
        raise OSError(24, "Too many open files: marked")
    except OSError as error:
        logger("front").err("failed", error=error)
    assert 'error="OSError(errno 24) test_log.py:' in stream.getvalue()


@given(st.text(max_size=80), st.sampled_from(["text", "json"]))
def test_a_value_cannot_end_its_line_or_forge_a_field(value: str, form: str) -> None:
    record = logging.LogRecord("isoproxy.x", logging.INFO, "", 0, "event", None, None)
    record.fields = {"value": value, "after": 1}
    line = log_module.Formatter(form=form).format(record)
    assert "\n" not in line
    assert "\r" not in line
    if form == "json":
        assert json.loads(line)["value"] == value
    else:
        assert line.endswith(" after=1")
        shown = line.split(" value=", 1)[1].removesuffix(" after=1")
        assert (json.loads(shown) if shown.startswith('"') else shown) == value


def test_long_values_are_cut() -> None:
    stream = started()
    logger("x").info("e", value="a" * 10_000, many=["b" * 100] * 1000)
    assert len(stream.getvalue()) < 1500


def record_of(event: str, **fields: object) -> logging.LogRecord:
    record = logging.LogRecord("isoproxy.x", logging.WARNING, "", 0, event, None, None)
    record.fields = fields
    return record


def test_like_warnings_are_written_once_in_five_seconds_and_counted() -> None:
    now = 100.0
    repeats = RepeatFilter(clock=lambda: now)
    passed = [repeats.filter(record_of("e", kind="a", n=n)) for n in range(10)]
    assert passed == [True] + [False] * 9
    assert repeats.filter(record_of("e", kind="b"))
    assert repeats.filter(record_of("f", kind="a"))
    assert repeats.filter(record_of("e", kind="a", listener="other"))
    now += 5.0
    again = record_of("e", kind="a")
    assert repeats.filter(again)
    assert "left_out=9" in log_module.Formatter().format(again)


def test_the_memory_of_warnings_is_bounded() -> None:
    repeats = RepeatFilter(clock=lambda: 0.0)
    assert all(repeats.filter(record_of(f"e{n}")) for n in range(5000))
    assert len(repeats._seen) <= 256


def test_information_is_never_held_back() -> None:
    stream = started()
    for _ in range(10):
        logger("x").info("e")
    assert stream.getvalue().count("event=e") == 10


def test_configuring_again_replaces_the_old_output() -> None:
    old = started()
    new = started()
    logger("x").info("e")
    assert old.getvalue() == ""
    assert new.getvalue().count("event=e") == 1


def test_a_full_disk_is_not_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    class Full(io.StringIO):
        def write(self, text: str, /) -> int:
            raise OSError(28, "No space left on device")

    configure(level="info", stream=Full())
    logger("x").warn("e", value="marked")
    assert capsys.readouterr().err == ""
