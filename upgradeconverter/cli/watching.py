"""A second process that watches the one that works: where the disk hangs, somebody still ends in time and says so.

A process that waits for a disk that does not answer can be neither asked nor killed. So who was started only watches: it passes
on signals, and the status in the end. When nothing moves any more, after the deadline or for longer than is bearable, it leaves
the report, tells the log, and ends; the one that works dies of SIGKILL as soon as the disk lets it, and the next start finishes
or undoes what it had begun. Until then it keeps the lock.

Calling sequence: `watched` before anything else is imported; `told_deadline` and `told_moves` in the process that works.
"""

from __future__ import annotations

import mmap
import os
import select
import signal
import struct
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    from upgradeconverter.cli.notify import Notifier
    from upgradeconverter.errors import UpgradeConverterError

# For so long (seconds) nothing may move before a start is given up; TimeoutStartSec= of the units is longer.
PATIENCE = 300.0
# After the deadline nothing may stand still for as long as was granted, and no longer than this.
GRACE = 30.0
_BEAT = 0.5
_SIGNALLED = 128
# What both see: how much has moved, the deadline, and how it goes as a sentence.
_MOVES, _DEADLINE, _TEXT = struct.Struct("=Q"), struct.Struct("=8xd"), struct.Struct("=16x256p")

_shared: mmap.mmap | None = None


def told_deadline(seconds: float) -> None:
    """Let who watches know the deadline; 0 is none."""
    if _shared is not None:
        _DEADLINE.pack_into(_shared, 0, seconds)


def told_moves(moves: int, text: str) -> None:
    """Let who watches know that something moves, and how it goes."""
    if _shared is not None:
        fields = bytearray(_TEXT.size)
        _TEXT.pack_into(fields, 0, text.encode("utf-8", "replace")[:255])
        _shared[_DEADLINE.size : _TEXT.size] = bytes(fields[_DEADLINE.size :])
        _MOVES.pack_into(_shared, 0, moves)


def is_watched() -> bool:
    """Return whether somebody watches this process."""
    return _shared is not None


def watched(work: Callable[[], int], argv: Sequence[str]) -> int:
    """Let another process do the work, and return its exit status, or that of a start that was given up."""
    global _shared  # noqa: PLW0603 - one of each process, like the process itself
    _shared = mmap.mmap(-1, _TEXT.size)
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        _die_with(parent)
        return work()
    signal.signal(signal.SIGTERM, lambda number, _: _pass_on(child, number))
    # The terminal sends it to both.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return _watch(child, _shared, argv)


def _pass_on(child: int, number: int, _: FrameType | None = None) -> None:
    with suppress(ProcessLookupError):
        os.kill(child, number)


def _die_with(parent: int) -> None:
    """Let this process be killed once the one that watches is gone."""
    from upgradeconverter.disk import native

    native.die_with_parent()
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def _watch(child: int, shared: mmap.mmap, argv: Sequence[str]) -> int:
    begun = last = time.monotonic()
    moves = 0
    place = os.environ.get("NOTIFY_SOCKET", "")
    notifier = _notifier(place) if place else None
    ended = os.pidfd_open(child)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    while not poll.poll(_BEAT * 1000):
        now, (moved,), (deadline,) = time.monotonic(), _MOVES.unpack_from(shared), _DEADLINE.unpack_from(shared)
        if moved != moves:
            moves, last = moved, now
            _tell(notifier, shared)
        if is_hanging(now - begun, now - last, deadline):
            return _give_up(child, now - last, argv)
    _tell(notifier, shared)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status if status >= 0 else _tell_death(-status, argv)


def _notifier(place: str) -> Notifier:
    from upgradeconverter.cli.notify import Notifier

    return Notifier(place)


def _tell(notifier: Notifier | None, shared: mmap.mmap) -> None:
    (moves,), text = _MOVES.unpack_from(shared), _TEXT.unpack_from(shared)[0].decode("utf-8", "replace")
    if notifier is not None and text:
        notifier.tell(text, moves)


def is_hanging(seconds: float, still: float, deadline: float) -> bool:
    """Return whether a start is to be given up: so long after its begin, when for so long nothing has moved."""
    grace = min(deadline, GRACE)
    return still >= PATIENCE or (deadline > 0 and seconds >= deadline + grace and still >= grace)


def _give_up(child: int, still: float, argv: Sequence[str]) -> int:
    from upgradeconverter import log
    from upgradeconverter.errors import DiskHangsError

    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    log.event("disk-hangs", seconds=round(still))
    return _report(DiskHangsError(round(still)), argv)


def _tell_death(number: int, argv: Sequence[str]) -> int:
    from upgradeconverter.errors import KilledError

    _report(KilledError(signal.Signals(number).name), argv)
    return _SIGNALLED + number


def _report(error: UpgradeConverterError, argv: Sequence[str]) -> int:
    from upgradeconverter.cli.main import tell_failure

    status = tell_failure(list(argv), error)
    sys.stdout.flush()
    return status
