"""Runs the commands of one way, and measures them: time, memory of all its processes, system calls."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_LAUNCHER = Path(__file__).resolve().parent / "launch.py"
# So seldom that looking costs a thousandth of what is looked at.
_EVERY = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How commands ended; sizes are bytes. See `launch` and `figures.Sample`."""

    seconds: float
    cpu: float
    largest: int
    together: int | None
    status: int
    output: str
    errors: str


def plain_environment() -> dict[str, str]:
    """Return the environment without what would change what is measured."""
    foreign = ("COVERAGE", "PYTHON", "UPGRADECONVERTER_")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | {"LC_ALL": "C.UTF-8"}


def run(commands: Sequence[Sequence[str]], scratch: Path, environment: Mapping[str, str] | None = None) -> Ended:
    """Run commands one after the other, up to the first that fails; what it says is kept in two files in `scratch`."""
    asked = {
        "commands": [list(each) for each in commands],
        "output": str(scratch / "output"),
        "errors": str(scratch / "errors"),
        "environment": dict(plain_environment() if environment is None else environment),
    }
    launcher = [sys.executable, "-I", "-S", str(_LAUNCHER)]
    with subprocess.Popen(launcher, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        watch = _Watch(process.pid)
        watch.start()
        try:
            said, _ = process.communicate(json.dumps(asked))
        finally:
            watch.over.set()
            watch.join()
            _end(process)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, launcher)
    output, errors = ((scratch / name).read_text(errors="replace") for name in ("output", "errors"))
    return Ended(**json.loads(said), together=watch.most, output=output, errors=errors)


def _end(process: subprocess.Popen[str]) -> None:
    """Leave nothing behind that would keep a file system busy, when this process was interrupted."""
    if process.poll() is None:
        for pid in (*descendants(process.pid), process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, 9)


def descendants(pid: int) -> Iterator[int]:
    """Yield the processes that a process has started, and those that these have started."""
    try:
        words = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except OSError:
        return
    for word in words:
        yield int(word)
        yield from descendants(int(word))


def resident(pid: int) -> int:
    """Return the bytes that a process has in memory, its share of what it shares; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:")), 0)


class _Watch(threading.Thread):
    """Looks now and then at the memory of all that a process has started."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self.over = threading.Event()
        self.most: int | None = None

    def run(self) -> None:
        while not self.over.wait(_EVERY):
            found = sum(resident(pid) for pid in descendants(self._pid))
            if found:
                self.most = max(found, self.most or 0)


def count_calls(commands: Sequence[Sequence[str]], scratch: Path) -> tuple[Ended, dict[str, int]]:
    """Run commands under strace; returns how they ended, and the number of system calls by name, in all processes."""
    tables = [scratch / f"calls-{number}" for number in range(len(commands))]
    traced = [["strace", "-f", "-c", "-o", str(table), *each] for table, each in zip(tables, commands, strict=True)]
    ended = run(traced, scratch)
    counts: dict[str, int] = {}
    for table in tables:
        for name, count in (read_table(table.read_text()) if table.exists() else {}).items():
            counts[name] = counts.get(name, 0) + count
    return ended, dict(sorted(counts.items(), key=lambda pair: -pair[1]))


def read_table(text: str) -> dict[str, int]:
    """Return the counts of a table of `strace -c`: share, seconds, microseconds, calls, errors (may be empty), name."""
    counts = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) in (5, 6) and words[3].isdigit() and words[-1] != "total":
            counts[words[-1]] = int(words[3])
    return counts
