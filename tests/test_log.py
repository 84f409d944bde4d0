"""Logging: levels, timestamps from the clock, and one format for every line."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Literal

import pytest
import structlog

from pyrope.log import configure_logging, get_logger, iso_utc, log_context
from pyrope.testing.clock import ManualClock


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []  # `force` would close those of pytest
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def test_a_json_line_holds_the_event_its_values_and_the_clocks_time(clock: ManualClock) -> None:
    stream = io.StringIO()
    configure_logging(level=lambda: "info", output="json", now=clock.wall, stream=stream)
    get_logger("pyrope.somewhere").warning("index rebuilt", index="a\nb", vectors=3)
    assert json.loads(stream.getvalue()) == {
        "event": "index rebuilt",
        "index": "a\nb",
        "vectors": 3,
        "level": "warning",
        "logger_name": "pyrope.somewhere",
        "timestamp": "2023-11-14T22:13:20.000Z",
    }
    assert stream.getvalue().count("\n") == 1


def test_what_json_cannot_hold_is_written_as_its_repr(clock: ManualClock) -> None:
    stream = io.StringIO()
    configure_logging(level=lambda: "info", output="json", now=clock.wall, stream=stream)
    get_logger("x").info("odd", value={1j})
    assert json.loads(stream.getvalue())["value"] == "{1j}"


def test_a_text_line_is_readable_and_a_value_cannot_break_it(clock: ManualClock) -> None:
    stream = io.StringIO()
    configure_logging(level=lambda: "info", output="text", now=clock.wall, stream=stream)
    get_logger("pyrope.somewhere").info("index rebuilt", index="a\nb")
    line = stream.getvalue()
    assert line.startswith("2023-11-14T22:13:20.000Z [info     ] index rebuilt")
    assert line.endswith("[pyrope.somewhere] index='a\\nb'\n")


def test_text_is_coloured_on_a_terminal_only(clock: ManualClock) -> None:
    for stream, coloured in ((io.StringIO(), False), (Terminal(), True)):
        configure_logging(level=lambda: "info", output="text", now=clock.wall, stream=stream)
        get_logger("x").info("hello")
        assert ("\x1b[" in stream.getvalue()) is coloured


def test_the_level_can_change_while_loggers_are_in_use(clock: ManualClock) -> None:
    stream = io.StringIO()
    level = "warning"
    configure_logging(level=lambda: level, output="json", now=clock.wall, stream=stream)
    log = get_logger("x")
    log.info("one")
    logging.getLogger("asyncio").info("two")
    level = "debug"
    log.debug("three")
    logging.getLogger("asyncio").debug("four")
    events = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    assert events == ["three", "four"]


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_errors_are_written_at_every_level(level: str, clock: ManualClock) -> None:
    stream = io.StringIO()
    configure_logging(level=lambda: level, output="json", now=clock.wall, stream=stream)
    get_logger("x").error("bad")
    get_logger("x").exception("worse")
    assert stream.getvalue().count("\n") == 2


@pytest.mark.parametrize("output", ["text", "json"])
def test_an_exception_is_written_with_its_traceback(
    output: Literal["text", "json"], clock: ManualClock
) -> None:
    stream = io.StringIO()
    configure_logging(level=lambda: "info", output=output, now=clock.wall, stream=stream)
    try:
        raise RuntimeError("boom")
    except RuntimeError:
        get_logger("x").exception("unexpected")
    assert "Traceback (most recent call last)" in stream.getvalue()
    assert "RuntimeError: boom" in stream.getvalue()


def test_lines_of_the_standard_library_look_like_ours(clock: ManualClock) -> None:
    stream = io.StringIO()
    configure_logging(level=lambda: "info", output="json", now=clock.wall, stream=stream)
    logging.getLogger("asyncio").error("task %s was lost", 7)
    assert json.loads(stream.getvalue()) == {
        "event": "task 7 was lost",
        "level": "error",
        "logger_name": "asyncio",
        "timestamp": "2023-11-14T22:13:20.000Z",
    }


def test_times_are_written_in_utc_to_the_millisecond() -> None:
    assert iso_utc(0.0015) == "1970-01-01T00:00:00.001Z"


async def test_lines_within_a_context_carry_its_values_in_other_tasks_too(
    clock: ManualClock,
) -> None:
    stream = io.StringIO()
    configure_logging(level=lambda: "info", output="json", now=clock.wall, stream=stream)

    async def work() -> None:
        get_logger("x").info("in a task")

    with log_context(request_id="r1"):
        task = asyncio.create_task(work())
        get_logger("x").info("at once", more=1)
    await task
    get_logger("x").info("afterwards")
    lines = {one["event"]: one for one in map(json.loads, stream.getvalue().splitlines())}
    assert lines["at once"]["request_id"] == lines["in a task"]["request_id"] == "r1"
    assert "request_id" not in lines["afterwards"]
