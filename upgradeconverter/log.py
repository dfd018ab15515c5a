"""Events for machines and people, on standard error; the one door to `structlog`, imported at the first event.

Event names are stable: `run-started`, `recovered`, `planned`, `wave-done`, `run-done`, `refused`, `rolled-back`, `wedged`.
Nothing is logged on a start with nothing to do.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any


@cache
def _logger() -> Any:
    import structlog

    renderer: Any = structlog.processors.JSONRenderer(sort_keys=True, default=str)
    if sys.stderr.isatty():
        renderer = structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
    )
    return structlog.get_logger()


def event(name: str, **fields: object) -> None:
    """Log one event with its fields; must never be given file contents or keys."""
    _logger().info(name, **fields)
