"""Events for machines and people, on standard error; the one door to `structlog`, imported where a person looks.

For machines an event is one line of JSON, and to write that takes no package: importing one would take longer than many a run.

Event names are stable: `run-started`, `recovered`, `planned`, `wave-done`, `run-done`, `refused`, `rolled-back`, `wedged`,
`progress` (at most one a second).
Nothing is logged on a start with nothing to do.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_level = "info"
_before: list[Callable[[], None]] = []


def show_details() -> None:
    """Log also single steps (`--debug`)."""
    global _level  # noqa: PLW0603 - one log per process
    _level = "debug"
    _logger.cache_clear()


@contextmanager
def behind(make_room: Callable[[], None]) -> Iterator[None]:
    """Let what is shown on the same terminal make room before each event, while the body runs."""
    _before.append(make_room)
    try:
        yield
    finally:
        _before.remove(make_room)


def is_dumb() -> bool:
    """Return whether a terminal understands nothing but text and ends of lines, as far as the environment says."""
    return os.environ.get("TERM", "") in ("", "dumb", "unknown")


@cache
def _logger() -> Any:
    import structlog

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer(colors=not is_dumb() and "NO_COLOR" not in os.environ),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_level),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    return structlog.get_logger()


def event(name: str, **fields: object) -> None:
    """Log one event with its fields; must never be given file contents or keys. Nobody listening is no failure."""
    _tell("info", name, fields)


def detail(name: str, **fields: object) -> None:
    """Log one event that only `--debug` shows."""
    if _level == "debug":
        _tell("debug", name, fields)


def _tell(level: str, name: str, fields: dict[str, object]) -> None:
    if sys.stderr is None:
        return
    with suppress(OSError, ValueError):
        for make_room in _before:
            make_room()
        if sys.stderr.isatty():
            getattr(_logger(), level)(name, **fields)
        else:
            at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            line = {**fields, "event": name, "level": level, "timestamp": at}
            sys.stderr.write(json.dumps(line, sort_keys=True, default=str) + "\n")
            sys.stderr.flush()
