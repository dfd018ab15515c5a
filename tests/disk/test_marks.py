"""What a running program leaves as a mark tells of one that runs, and of nothing else."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest

from upgradeconverter.disk.posix import PosixDisk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCKING = """
import fcntl, sys
file = open(sys.argv[1], "r+")
fcntl.flock(file, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""
LONG_AGO = 1_000_000_000


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Have another process hold a lock of a file; yields its number."""
    command = (sys.executable, "-c", LOCKING, str(path))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process.pid
        process.communicate()


def _used_by(top: Path, path: str) -> str:
    with closing(PosixDisk.at(str(top))) as disk:
        return disk.used_by(path)


def test_lock(tmp_path: Path) -> None:
    """A lock that somebody holds is named with that process; one that nobody holds is a leftover."""
    lock = tmp_path / "lock"
    lock.touch()
    assert _used_by(tmp_path, "lock") == ""
    with _locked(lock) as number:
        assert _used_by(tmp_path, "lock") in (f"process {number}", "another process has it open")
    assert _used_by(tmp_path, "lock") == ""


@pytest.mark.parametrize("content", ["{}", "{}\n", " {} \n"])
def test_number_of_a_process(tmp_path: Path, content: str) -> None:
    """A file with the number of a process that runs since before counts; one that was written before that began does not."""
    mark = tmp_path / "pid"
    mark.write_text(content.format(os.getpid()))
    assert _used_by(tmp_path, "pid") == f"process {os.getpid()}"
    os.utime(mark, (LONG_AGO, LONG_AGO))
    assert _used_by(tmp_path, "pid") == ""


@pytest.mark.parametrize("content", ["", "0", "-1", "4194305", "12 34", "started", "9" * 40])
def test_what_is_no_number(tmp_path: Path, content: str) -> None:
    """What names no process that there is tells of none."""
    (tmp_path / "pid").write_text(content)
    assert _used_by(tmp_path, "pid") == ""


@pytest.mark.parametrize("is_relative", [False, True])
def test_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_relative: bool) -> None:
    """A socket that is bound counts, however it was named then; what is left of one does not."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    path = "in/qga.sock"
    with closing(socket.socket(socket.AF_UNIX)) as bound:
        bound.bind(path if is_relative else str(tmp_path / path))
        assert _used_by(tmp_path, path) == "somebody listens there"
    assert _used_by(tmp_path, path) == ""


def test_directory(tmp_path: Path) -> None:
    """A directory that is a lock counts while anything in it does."""
    folder = tmp_path / "lockdir"
    folder.mkdir()
    assert _used_by(tmp_path, "lockdir") == ""
    (folder / "owner").write_text(str(os.getpid()))
    assert _used_by(tmp_path, "lockdir") == f"process {os.getpid()}"


@pytest.mark.parametrize("kind", ["fifo", "link"])
def test_anything_else(tmp_path: Path, kind: str) -> None:
    """Nothing that cannot be a mark is waited for or followed."""
    if kind == "fifo":
        os.mkfifo(tmp_path / "mark")
    else:
        (tmp_path / "mark").symlink_to("/proc/self/stat")
    assert _used_by(tmp_path, "mark") == ""
    assert _used_by(tmp_path, "nothing") == ""
