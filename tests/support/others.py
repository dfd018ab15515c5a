"""Other processes, real ones: instances of the program that stop where they are told to, and users of its files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent.parent
_PATIENCE = 60

# Stops for good just before it writes the record; that it got there stands in the file named first.
_INSTANCE = """
import os, sys, signal
from upgradeconverter.journal.log import Journal
from upgradeconverter.cli.main import main
ready, record, *arguments = sys.argv[1:]
append = Journal.append
def appending(journal, txid, kind, payload):
    if kind == record:
        open(ready, "w").close()
        signal.pause()
    append(journal, txid, kind, payload)
Journal.append = appending
signal.signal(signal.SIGUSR1, lambda *_: None)
sys.exit(main(arguments))
"""


def start(*arguments: str) -> subprocess.Popen[str]:
    """Start an instance of the program."""
    command = (sys.executable, "-m", "upgradeconverter", *arguments)
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def finished(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for an instance; returns its exit status and what it printed."""
    text = process.communicate(timeout=_PATIENCE)[0]
    return process.returncode, text


@contextmanager
def instance_before(record: str, ready: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Have an instance that waits before it writes a record to the journal, until it gets SIGUSR1; killed at the end."""
    command = (sys.executable, "-c", _INSTANCE, str(ready), record, *arguments)
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        _wait_for(ready, process)
        yield process
    finally:
        process.kill()
        process.communicate(timeout=_PATIENCE)


def let_go(process: subprocess.Popen[str]) -> int:
    """Let a waiting instance go on; returns its exit status."""
    process.send_signal(signal.SIGUSR1)
    return finished(process)[0]


@contextmanager
def somebody(ready: Path, deed: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Have a process that has done something in Python, has said so, and goes on living; it has `os`, `sys` and `mmap`."""
    code = f"import ctypes, mmap, os, sys, time\n{deed}\nopen(sys.argv[1], 'w').close()\nsys.stdin.read()\n"
    process = subprocess.Popen((sys.executable, "-c", code, str(ready), *arguments), stdin=subprocess.PIPE)
    try:
        _wait_for(ready, process)
        yield process
    finally:
        process.kill()
        process.communicate(timeout=_PATIENCE)


def _wait_for(ready: Path, process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _PATIENCE
    while not ready.exists():
        assert process.poll() is None, f"it ended with {process.returncode}"
        assert time.monotonic() < end, "it never came so far"
        time.sleep(0.01)
    os.unlink(ready)
