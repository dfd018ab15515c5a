"""Where the disk hangs, a start still ends in time and says so; a real file system is frozen under it. Needs root."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import vaults
from tests.support.olddisk import IMAGE, TARGETS, make_disk
from tests.support.starting import CHECKOUT
from upgradeconverter.cli.watching import GRACE, PATIENCE, is_hanging
from upgradeconverter.errors import EXIT_WEDGED

if TYPE_CHECKING:
    from collections.abc import Iterator

WORDS = (sys.executable, "-m", "upgradeconverter", "all", "--target", "latest")


@pytest.mark.parametrize(
    ("seconds", "still", "deadline", "hangs"),
    [
        pytest.param(PATIENCE * 9, PATIENCE - 1, 0, False, id="slow without a deadline"),
        pytest.param(PATIENCE, PATIENCE, 0, True, id="nothing moves for too long"),
        pytest.param(PATIENCE, PATIENCE, 1800, True, id="nothing moves for too long, before the deadline"),
        pytest.param(1800, GRACE, 1800, False, id="at the deadline"),
        pytest.param(1800 + GRACE, GRACE, 1800, True, id="after the deadline, and nothing moves"),
        pytest.param(1800 + GRACE, GRACE - 1, 1800, False, id="after the deadline, and something moves"),
        pytest.param(4, 2, 2, True, id="a short deadline has a short grace"),
    ],
)
def test_what_hangs(seconds: float, still: float, deadline: float, hangs: bool) -> None:
    """A start is given up when nothing moves after its deadline, or for very long, and for no other reason."""
    assert is_hanging(seconds, still, deadline) is hangs


@contextmanager
def _frozen(top: Path) -> Iterator[None]:
    subprocess.run(["fsfreeze", "--freeze", str(top)], check=True)
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", str(top)], check=True)


@pytest.fixture
def top(tmp_path: Path) -> Iterator[Path]:
    """Return an old disk on a file system of its own."""
    with vaults.mounted(str(tmp_path / "image"), str(tmp_path / "mount")) as mount:
        make_disk(Path(mount) / "persist")
        yield Path(mount)


def _start(top: Path, *words: str) -> subprocess.Popen[bytes]:
    command = (*WORDS, "-p", str(top / "persist"), "--report", str(top.parent / "report"), *words)
    # Not a pipe: the process that hangs holds it open.
    with open(top.parent / "said", "wb") as said:
        return subprocess.Popen(command, cwd=CHECKOUT, stderr=said, stdout=subprocess.DEVNULL)


def _worker(start: subprocess.Popen[bytes]) -> int:
    while not (children := Path(f"/proc/{start.pid}/task/{start.pid}/children").read_text().split()):
        time.sleep(0.05)
    return int(children[0])


@pytest.mark.root
def test_hung_disk_ends_in_a_report(top: Path) -> None:
    """A start on a disk that does not answer ends soon after its deadline, with a report; the next one converts all."""
    began = time.monotonic()
    with _frozen(top):
        start = _start(top, "--deadline", "2")
        start.wait(timeout=60)
        took = time.monotonic() - began
    report = json.loads((top.parent / "report/all.json").read_text())
    assert (start.returncode, report["exit_status"], report["error"]["code"]) == (EXIT_WEDGED, EXIT_WEDGED, "DiskHangs")
    assert took >= 4
    assert '"disk-hangs"' in (top.parent / "said").read_text()
    assert (top / "persist" / IMAGE).exists()
    # The process that hung keeps the lock until it is dead.
    time.sleep(0.5)
    again = _start(top, "--deadline", "60")
    assert again.wait(timeout=60) == 0
    assert all((top / "persist" / target).exists() for target in TARGETS)


@pytest.mark.root
def test_who_watches_passes_on(top: Path) -> None:
    """A wish to stop reaches the process that works, which ends politely, and its status is that of the start."""
    with _frozen(top):
        start = _start(top, "--deadline", "600")
        _worker(start)
        # Until it listens to signals it would die of it.
        time.sleep(2)
        start.send_signal(signal.SIGTERM)
        time.sleep(0.2)
    assert start.wait(timeout=60) == 4


@pytest.mark.root
def test_nobody_works_unwatched(top: Path) -> None:
    """The process that works does not outlive the one that watches it."""
    with _frozen(top):
        start = _start(top, "--deadline", "600")
        worker = _worker(start)
        time.sleep(1)
        start.kill()
        start.wait(timeout=60)
    for _ in range(100):
        if not Path(f"/proc/{worker}").exists() or Path(f"/proc/{worker}/stat").read_text().split(") ")[1][0] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("it goes on")


@pytest.mark.root
def test_death_of_the_one_that_works_is_told(top: Path) -> None:
    """When the process that works is killed, who watches says so."""
    with _frozen(top):
        start = _start(top, "--deadline", "600")
        os.kill(_worker(start), signal.SIGKILL)
        time.sleep(0.5)
    start.wait(timeout=60)
    assert start.returncode == EXIT_WEDGED
    assert json.loads((top.parent / "report/all.json").read_text())["error"]["code"] == "Killed"
