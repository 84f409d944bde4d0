"""Structured logging: text for people, JSON lines for machines, on one stream."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Final, Literal, TextIO

import structlog
import structlog.contextvars
from structlog.typing import EventDict, FilteringBoundLogger, Processor

Logger = FilteringBoundLogger
"""What `get_logger` returns; the only name of structlog's that other modules see."""

_SEVERITY: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}


def get_logger(name: str) -> Logger:
    """The logger of a module: every line it writes carries `name` as ``logger_name``."""
    logger: Logger = structlog.get_logger(logger_name=name)
    return logger


def log_context(**values: object) -> AbstractContextManager[None]:
    """Have every line that is written within carry these values: in tasks begun there, too."""
    return structlog.contextvars.bound_contextvars(**values)


def iso_utc(seconds: float) -> str:
    """Unix time as ISO 8601 in UTC, to the millisecond: ``2023-11-14T22:13:20.000Z``."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def configure_logging(
    *,
    level: Callable[[], str],
    output: Literal["text", "json"],
    now: Callable[[], float],
    stream: TextIO,
) -> None:
    """Send the lines of every logger, and those of the standard library's, to `stream`.

    Args:
        level: the lowest level written; asked for each line, so that it may change at run time.
        output: ``text`` (coloured where the stream is a terminal) or ``json``.
        now: Unix time in seconds, for the timestamps (ISO 8601, UTC).
        stream: where lines go.
    """
    shared: list[Processor] = [
        _drop_below(level),
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        _stamp(now),
    ]
    rendering = _rendering(output, coloured=stream.isatty())
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),
        logger_factory=structlog.PrintLoggerFactory(stream),
        # A logger made at import must follow a later configuration, as tests make.
        cache_logger_on_first_use=False,
    )
    # asyncio reports what nobody awaited through the standard library.
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared[1:], _name_of_record],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    handler.addFilter(lambda record: record.levelno >= _SEVERITY[level()])
    logging.basicConfig(handlers=[handler], level=logging.NOTSET, force=True)


def _drop_below(level: Callable[[], str]) -> Processor:
    def drop_below(logger: object, method: str, event: EventDict) -> EventDict:
        del logger
        # `exception` is an error with a traceback; every other method is named after its level.
        if _SEVERITY.get(method, logging.ERROR) < _SEVERITY[level()]:
            raise structlog.DropEvent
        return event

    return drop_below


def _stamp(now: Callable[[], float]) -> Processor:
    def stamp(logger: object, method: str, event: EventDict) -> EventDict:
        del logger, method
        event["timestamp"] = iso_utc(now())
        return event

    return stamp


def _name_of_record(logger: object, method: str, event: EventDict) -> EventDict:
    del logger, method
    event["logger_name"] = event["_record"].name
    return event


def _rendering(output: Literal["text", "json"], *, coloured: bool) -> list[Processor]:
    if output == "json":
        return [
            structlog.processors.format_exc_info,
            structlog.processors.UnicodeDecoder(),
            structlog.processors.JSONRenderer(default=repr, ensure_ascii=False),
        ]
    return [
        structlog.dev.ConsoleRenderer(
            colors=coloured, exception_formatter=structlog.dev.plain_traceback
        )
    ]
