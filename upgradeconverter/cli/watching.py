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
# `linux/posix-timers.h`
_SCHEDULED = 2
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
        # Until the program listens to signals nothing has begun, as when a person interrupts it.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        _die_with(parent)
        return work()
    signal.signal(signal.SIGTERM, lambda number, _: _pass_on(child, number))
    # A terminal sends it to both.
    signal.signal(signal.SIGINT, signal.SIG_IGN if os.isatty(0) else lambda number, _: _pass_on(child, number))
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


class _Pulse:
    """Whether the process that works still does: something moves, or it uses a processor.

    To look at a disk moves nothing; who waits for a disk uses no processor.
    """

    def __init__(self, process: int, shared: mmap.mmap) -> None:
        self.process, self.shared = process, shared
        self.moves, self.worked, self.beats = 0, 0.0, 0
        self.has_moved = False

    def is_felt(self) -> bool:
        """Return whether there was anything since the last time."""
        (moves,), worked = _MOVES.unpack_from(self.shared), self._processor_time()
        self.has_moved, is_felt = moves != self.moves, (moves, worked) != (self.moves, self.worked)
        self.moves, self.worked = moves, worked
        self.beats += is_felt
        return is_felt

    @property
    def deadline(self) -> float:
        """The deadline that the process has told, 0 for none."""
        (seconds,) = _DEADLINE.unpack_from(self.shared)
        return float(seconds)

    @property
    def text(self) -> str:
        """How it goes, as a sentence."""
        (text,) = _TEXT.unpack_from(self.shared)
        return text.decode("utf-8", "replace") or "looking"

    def _processor_time(self) -> float:
        """Return for how many seconds the process has used a processor (clock_getcpuclockid(3))."""
        try:
            return time.clock_gettime((~self.process << 3) | _SCHEDULED)
        except OSError:
            return 0.0


def _watch(child: int, shared: mmap.mmap, argv: Sequence[str]) -> int:
    begun = last = time.monotonic()
    pulse, notifier = _Pulse(child, shared), _notifier()
    poll = select.poll()
    poll.register(os.pidfd_open(child), select.POLLIN)
    while not poll.poll(_BEAT * 1000):
        now = time.monotonic()
        if pulse.is_felt():
            last = now
            # Who only computes gets no more time than until the deadline.
            if notifier is not None and (pulse.has_moved or now - begun < pulse.deadline):
                notifier.tell(pulse.text, pulse.beats)
        if is_hanging(now - begun, now - last, pulse.deadline):
            return _give_up(child, now - last, argv)
    if notifier is not None and pulse.is_felt():
        notifier.tell(pulse.text, pulse.beats)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status if status >= 0 else _tell_death(-status, argv)


def _notifier() -> Notifier | None:
    from upgradeconverter.cli import notify

    place = os.environ.get(notify.VARIABLE, "")
    return notify.Notifier(place) if place else None


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

    return _report(KilledError(signal.Signals(number).name), argv)


def _report(error: UpgradeConverterError, argv: Sequence[str]) -> int:
    from upgradeconverter.cli.main import tell_failure

    status = tell_failure(list(argv), error)
    sys.stdout.flush()
    return status
