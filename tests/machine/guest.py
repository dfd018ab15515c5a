"""Starts the machine in qemu, listens at its serial console, and cuts its power: no word to the guest, and no flush.

qemu emulates the processor, so that nothing but qemu is needed. How long the machine has worked is measured by the processor time
of qemu, which does not depend on what else the host has to do.
"""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO

from tests.powercut.blockdev import die_with

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.machine.image import Machine

LONGEST = 300  # seconds of a boot; it takes a tenth of that
PHASES = ("pre-vault", "post-vault", "confirm")
# What a boot goes through, in order; not every boot does everything.
MOMENTS = (
    "kernel",
    *("pre-vault", "pre-vault works", "after pre-vault"),
    *("post-vault", "post-vault works", "after post-vault"),
    *("confirm", "after confirm"),
)
_TICK = 0.002
_PER_SECOND = os.sysconf("SC_CLK_TCK")
_WORKS = re.compile(r"upgradeconverter\[\d+\]: run-started ")
_UNIT = re.compile(r"(Starting|Finished|Failed to start) upgradeconverter-([a-z-]+)\.service")
_RESULT = re.compile(r"MARK ([a-z-]+) (.*)")
_BOOT = (
    "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable no_timer_check random.trust_cpu=on "
    "systemd.show_status=1 systemd.status_unit_format=name systemd.log_color=0 systemd.getty_auto=0 "
    # What the program tells the journal is seen at the console.
    "systemd.journald.forward_to_console=1"
)
_QEMU = (
    *("qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=single", "-cpu", "max", "-m", "512"),
    *("-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"),
)


@dataclass(frozen=True, slots=True)
class Cut:
    """When the power goes: so many seconds of processor time after a moment has begun, or once so many bytes are written down.

    In a boot that leaves out the moment it is the next one that comes.
    """

    moment: str
    delay: float = 0.0
    written: int = 0


@dataclass(slots=True)
class Ending:
    """What was seen of one boot.

    Attributes:
        moment: where it was at the end, as in `moment_after`.
        began: processor time at which each moment began.
        written: how many bytes were written down by then.
        results: what systemd says of each unit, once the boot came to its end: its state, result and exit status.
    """

    was_cut: bool = False
    moment: str = "kernel"
    began: dict[str, float] = field(default_factory=lambda: {"kernel": 0.0})
    written: dict[str, int] = field(default_factory=lambda: {"kernel": 0})
    results: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    processor: float = 0.0

    def moment_at(self, written: int) -> str:
        """Return the moment in which so many bytes had been written down."""
        return [name for name, before in self.written.items() if before <= written][-1]


@dataclass(frozen=True, slots=True)
class Pace:
    """How long each moment lasts when nothing disturbs it, in seconds of processor time, and how many bytes are written in it."""

    lasting: dict[str, float]
    writing: dict[str, int]

    @classmethod
    def of(cls, ending: Ending, written: int) -> Pace:
        """Take it from a boot that came to its end, after so many bytes."""
        times = [*ending.began.items(), ("", ending.processor)]
        sizes = [*ending.written.items(), ("", written)]
        return cls(
            {name: until - at for (name, at), (_, until) in pairwise(times)},
            {name: until - at for (name, at), (_, until) in pairwise(sizes)},
        )


def moment_after(line: str, before: str) -> str:
    """Return in which moment of its life a machine is after a line at its console.

    `pre-vault` is that unit before anything is converted, `pre-vault works` while it is, `after pre-vault` from its end on.
    """
    if found := _UNIT.search(line):
        return found[2] if found[1] == "Starting" else f"after {found[2]}"
    if _WORKS.search(line) and before in PHASES:
        return f"{before} works"
    return before


def qemu_words(machine: Machine, disk: str, log: str, words: Sequence[str]) -> list[str]:
    """Return the command line; the data disk is the second one, and everything that it does is written down."""
    # What the host's own disk keeps when the host fails is not asked here: flushes are written down, and go no further.
    return [
        *_QEMU,
        *("-kernel", machine.kernel, "-initrd", machine.memory_disk, "-append", " ".join((_BOOT, *words))),
        *("-blockdev", f"driver=file,node-name=root,filename={machine.root},read-only=on"),
        *("-device", "virtio-blk-pci,drive=root"),
        *("-blockdev", f"driver=file,node-name=data,filename={disk},cache.no-flush=on"),
        *("-blockdev", f"driver=file,node-name=log,filename={log},cache.no-flush=on"),
        *("-blockdev", "driver=blklogwrites,node-name=recorded,file=data,log=log"),
        *("-device", "virtio-blk-pci,drive=recorded,discard=off,write-zeroes=off"),
    ]


def boot(machine: Machine, disk: str, log: str, console: str, words: Sequence[str] = (), cut: Cut | None = None) -> Ending:
    """Boot from a disk, which is changed, until the machine switches itself off or its power is cut."""
    Path(log).write_bytes(b"")
    process = subprocess.Popen(
        qemu_words(machine, disk, log, words),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=lambda: die_with(signal.SIGKILL),  # noqa: PLW1509 - nothing else runs in this process
    )
    assert process.stdout is not None
    try:
        with open(console, "wb") as copy:
            return _Listener(process.pid, log, process.stdout, copy, cut).listen()
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


class _Listener:
    def __init__(self, pid: int, log: str, console: IO[bytes], copy: BinaryIO, cut: Cut | None) -> None:
        self.pid, self.log, self.console, self.copy, self.cut = pid, log, console, copy, cut
        self.ending = Ending()
        self.rest = b""

    def listen(self) -> Ending:
        """Return what became of the boot; whoever called ends the process."""
        started = time.monotonic()
        os.set_blocking(self.console.fileno(), False)
        with selectors.DefaultSelector() as selector:
            selector.register(self.console, selectors.EVENT_READ)
            while time.monotonic() - started < LONGEST:
                if selector.select(_TICK) and not self._take():
                    break
                if self._is_time():
                    os.kill(self.pid, signal.SIGKILL)
                    self.ending.was_cut = True
                    break
        self.ending.seconds, self.ending.processor = time.monotonic() - started, self._processor()
        return self.ending

    def _take(self) -> bool:
        """Take what the console says; False at its end."""
        data = self.console.read()
        if data == b"":
            return False
        self.copy.write(data or b"")
        *lines, self.rest = (self.rest + (data or b"")).split(b"\n")
        for line in lines:
            self._hear(line.decode(errors="replace"))
        return True

    def _hear(self, line: str) -> None:
        ending = self.ending
        moment = moment_after(line, ending.moment)
        if moment != ending.moment:
            ending.moment = moment
            ending.began[moment] = self._processor()
            ending.written[moment] = os.path.getsize(self.log)
        if found := _RESULT.search(line):
            ending.results[found[1]] = found[2].strip()

    def _is_time(self) -> bool:
        if self.cut is None:
            return False
        to_come = MOMENTS[MOMENTS.index(self.cut.moment) :]
        since = next((moment for moment in to_come if moment in self.ending.began), None)
        if since is None:
            return False
        if self.cut.written and since == self.cut.moment:
            return os.path.getsize(self.log) >= self.ending.written[since] + self.cut.written
        return self._processor() >= self.ending.began[since] + self.cut.delay

    def _processor(self) -> float:
        """Return the processor time that qemu has used."""
        try:
            with open(f"/proc/{self.pid}/stat", encoding="ascii") as stream:
                fields = stream.read().rpartition(")")[2].split()
        except OSError:
            return self.ending.processor
        self.ending.processor = max(self.ending.processor, (int(fields[11]) + int(fields[12])) / _PER_SECOND)
        return self.ending.processor
