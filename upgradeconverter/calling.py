"""The converter for a caller that is itself a Python program, such as the agent of a system that unlocks the vault.

It works in a process of its own: the caller may have threads, and a disk that hangs does not hold it. The caller is told how it
goes, and only when something has moved, so that it may feed a watchdog by that: a conversion that stands still stops feeding it.

Calling sequence: `convert` once for each phase; `confirm` once the system is known to be good.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_EVENT = "progress"
_BEAT = 0.5
_PIECE = 1 << 16


class Progress(Struct, frozen=True, kw_only=True):
    """How far a conversion has come: items, bytes (`size`), seconds that are left (None while nobody knows)."""

    what: str
    doing: str
    percent: int
    items: int
    of_items: int
    size: int
    of_size: int
    left: int | None


class Result(Struct, frozen=True, kw_only=True):
    """How a start ended: its exit status (`errors.EXIT_STATUSES`), and its report as `schema.json` describes it, or nothing."""

    status: int
    report: dict[str, Any]

    @property
    def may_be_read(self) -> bool:
        """Whether readers of the state may start: all is converted, or all is as it was (see `init/README.md`)."""
        # An interpreter that cannot start ends with 1 as well, and has no report.
        return self.status in (0, 7) or (self.status == 1 and bool(self.report))


def convert(
    phase: str,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    persist: str | None = None,
    trial: bool = True,
    deadline: float = 0,
    on_failure: str = "keep",
    report: str | None = None,
    words: Sequence[str] = (),
) -> Result:
    """Carry out a phase, and tell how it goes, at most once a second.

    Args:
        phase: `pre-vault`, `post-vault`, or another one of the pack.
        on_progress: is called in this thread when something has moved; what it raises stops the conversion politely.
        persist: root of the state, None: the pack's own.
        trial: whether the old layout stays until `confirm`.
        deadline: seconds after which nothing more is begun; 0 is none.
        on_failure: `keep`, or `take-back`.
        report: directory for the last report and its figures, None: none.
        words: further words of the command line.
    """
    chosen = ["--trial"] if trial else []
    chosen += ["--on-failure", on_failure, "--deadline", f"{deadline:g}", *_places(persist, report), *words]
    return _start([phase, *chosen], on_progress)


def confirm(
    *, on_progress: Callable[[Progress], None] | None = None, persist: str | None = None, report: str | None = None
) -> Result:
    """Let a trial last: the old layout goes."""
    return _start(["confirm", "--deadline", "0", *_places(persist, report)], on_progress)


def _places(persist: str | None, report: str | None) -> list[str]:
    named = (("--persist", persist), ("--report", report))
    return [word for name, value in named if value is not None for word in (name, value)]


def _start(words: list[str], on_progress: Callable[[Progress], None] | None) -> Result:
    command = [sys.executable, "-I", "-c", "from upgradeconverter.__main__ import main; main()", *words, "--output", "json"]
    # Systemd is told by the caller, if by anybody.
    environment = {name: value for name, value in os.environ.items() if name not in ("NOTIFY_SOCKET", "JOURNAL_STREAM")}
    # Not a pipe: a long report would wait for somebody to read it while nobody does.
    with open(os.memfd_create("report"), "w+b") as document:
        with subprocess.Popen(command, env=environment, stdout=document, stderr=subprocess.PIPE) as start:  # noqa: S603 - this program itself
            try:
                for reading in _readings(start):
                    if on_progress is not None:
                        on_progress(reading)
            except BaseException:
                start.terminate()
                start.wait()
                raise
        document.seek(0)
        return Result(status=start.returncode, report=_report(document.read()))


def _readings(start: subprocess.Popen[bytes]) -> Iterator[Progress]:
    """Yield what the start tells of its progress; all else goes where the caller's own messages go."""
    for line in _lines(start):
        try:
            told = json.loads(line)
        except ValueError:
            told = {}
        if isinstance(told, dict) and told.get("event") == _EVENT:
            told |= {"size": told["bytes"], "of_size": told["of_bytes"]}
            yield Progress(**{name: told[name] for name in Progress.__struct_fields__})
        elif sys.stderr is not None:
            # Whatever state that is in: what is said there is no condition for the conversion.
            with suppress(OSError, ValueError):
                sys.stderr.write(f"{line.decode('utf-8', 'replace')}\n")


def _lines(start: subprocess.Popen[bytes]) -> Iterator[bytes]:
    """Yield what the start says until it has ended: a process of its own that hangs may hold the pipe open for longer."""
    if start.stderr is None:
        return
    fd, rest = start.stderr.fileno(), b""
    while True:
        has_ended = start.poll() is not None
        while select.select([fd], [], [], 0 if has_ended else _BEAT)[0]:
            if not (piece := os.read(fd, _PIECE)):
                return
            *lines, rest = (rest + piece).split(b"\n")
            yield from lines
        if has_ended:
            return


def _report(document: bytes) -> dict[str, Any]:
    try:
        found = json.loads(document)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
