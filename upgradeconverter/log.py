"""Events for machines and people: the one door to `structlog`, imported where a person looks.

For systemd's journal an event is an entry with fields of its own, by the journal's native protocol; for other machines it is one
line of JSON on standard error. To write either takes no package: importing one would take longer than many a run.

Event names are stable, `EVENTS` lists them. Each event says the boot (`boot`) and the run (`run`) that it belongs to, and none
says what lies in a file, or a path. Nothing is logged on a start with nothing to do.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import time
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Each event by name: its MESSAGE_ID in systemd's journal (systemd.journal-fields(7)), and what it means.
EVENTS: dict[str, tuple[str, str]] = {
    "run-started": ("b550ff9ddbda518ca6ad90e00a6793b9", "a phase is carried out: `phase`, `steps`, digest of the `plan`"),
    "wave-done": ("11443ccfe10b5d8d98107d1f51052a45", "what was under way so far lasts: transaction `txid`"),
    "run-done": ("a97555a5ac47537ab3ccb659e678d2c7", "a run came to its end: `outcome`"),
    "recovered": (
        "9bfc4973b7b85be7a66c9b226a28a6a4",
        "an earlier start's transaction `txid` was settled: `last` record, `result`",
    ),
    "giving-up": ("d9339546b0b15139b32d34bbed32e352", "a start failed (`code`), and what it did is being taken back"),
    "start-failed": (
        "728df4d0f015542eabaccc103d6ac832",
        "a start ended with `exit_status`: `command`, `phase`, `outcome`, `code`",
    ),
    "disk-hangs": ("1c288d70c4f95f68a964844c59f848c9", "nothing moved for `seconds`; the start was given up"),
    "progress": ("08350fe09aba5935b1010f42227fb073", "how a run goes, at most once a second; see README"),
    "flip": ("0eb3c686ce54569da3b498610019ee65", "with --debug: a single `step` of `txid` becomes visible"),
}
_FAILURES = ("giving-up", "start-failed", "disk-hangs")
_JOURNAL = "/run/systemd/journal/socket"
_BOOT = "/proc/sys/kernel/random/boot_id"
# Numbers of syslog(3).
_PRIORITIES = {"debug": 7, "info": 6, "error": 3}

_level = "info"
_before: list[Callable[[], None]] = []
_bound: dict[str, object] = {}


def show_details() -> None:
    """Log also single steps (`--debug`)."""
    global _level  # noqa: PLW0603 - one log per process
    _level = "debug"
    _logger.cache_clear()


def bind(**fields: object) -> None:
    """Say something with each event from now on."""
    _bound.update(fields)


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
    _tell("error" if name in _FAILURES else "info", name, fields)


def detail(name: str, **fields: object) -> None:
    """Log one event that only `--debug` shows."""
    if _level == "debug":
        _tell("debug", name, fields)


def _tell(level: str, name: str, fields: dict[str, object]) -> None:
    if sys.stderr is None:
        return
    fields = {"boot": _boot(), **_bound, **fields}
    if _is_journal() and _sent(_entry(level, name, fields)):
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


@cache
def _boot() -> str:
    """Return the identity of this boot (random(4)), empty where nobody knows."""
    try:
        with open(_BOOT, encoding="ascii") as text:
            return text.read().strip().replace("-", "")
    except OSError:
        return ""


def _is_journal() -> bool:
    """Return whether standard error leads to systemd's journal (systemd.exec(5), JOURNAL_STREAM)."""
    stream = os.environ.get("JOURNAL_STREAM", "")
    try:
        facts = os.fstat(sys.stderr.fileno()) if stream and sys.stderr is not None else None
    except (OSError, ValueError):
        return False
    return facts is not None and stream == f"{facts.st_dev}:{facts.st_ino}"


def _entry(level: str, name: str, fields: dict[str, object]) -> bytes:
    """Return an event as an entry of the journal, by its native protocol."""
    said = " ".join(f"{key}={value}" for key, value in fields.items() if key != "boot" and value not in (None, ""))
    entry: dict[str, object] = {
        "MESSAGE": f"{name} {said}",
        "MESSAGE_ID": EVENTS[name][0],
        "PRIORITY": _PRIORITIES[level],
        "SYSLOG_IDENTIFIER": "upgradeconverter",
        "UPGRADECONVERTER_EVENT": name,
    }
    entry |= {f"UPGRADECONVERTER_{key.upper()}": value for key, value in fields.items() if value is not None}
    return b"".join(_field(key, str(value).encode("utf-8", "backslashreplace")) for key, value in entry.items())


def _field(key: str, value: bytes) -> bytes:
    if b"\n" in value:
        return key.encode() + b"\n" + struct.pack("<Q", len(value)) + value + b"\n"
    return key.encode() + b"=" + value + b"\n"


def _sent(entry: bytes) -> bool:
    import socket

    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as journal:
            journal.sendto(entry, _JOURNAL)
    except OSError:
        return False
    return True
