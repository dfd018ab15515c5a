"""While a directory is swapped for a link out of the root, over and over, nothing outside changes and nothing is lost."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.disktree import capture, diff
from tests.support.olddisk import PREPARED, checked, contents, make_disk, unsynced
from upgradeconverter.disk import native

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUNDS = 6
# Exchanges two names as fast as it can, which nobody can see half done (renameat2(2), RENAME_EXCHANGE).
_SWAP = """
import ctypes, os, sys
libc, one, other = ctypes.CDLL(None), os.fsencode(sys.argv[1]), os.fsencode(sys.argv[2])
print("swapping", flush=True)
while True:
    libc.renameat2(-100, one, -100, other, 2)
"""


@contextmanager
def _swapping(place: Path, outside: Path) -> Iterator[None]:
    """Exchange a directory and a link over and over; afterwards the directory has its name again."""
    link = place.parent / f"{place.name}.swapped"
    link.symlink_to(outside)
    words = (sys.executable, "-c", _SWAP, str(place), str(link))
    with subprocess.Popen(words, stdout=subprocess.PIPE) as swapper:
        assert swapper.stdout is not None
        assert swapper.stdout.readline() == b"swapping\n"
        try:
            yield
        finally:
            swapper.send_signal(signal.SIGKILL)
            swapper.wait()
    if place.is_symlink():
        place.unlink()
        if link.exists():
            link.rename(place)
    elif link.is_symlink():
        link.unlink()


def _no_such_call(*_: object) -> int:
    ctypes.set_errno(38)
    return -1


@pytest.mark.slow
@pytest.mark.parametrize("by_component", [False, True], ids=["openat2", "by component"])
@pytest.mark.parametrize(
    "where", ["runx/pods/prepared", f"{PREPARED}/rootfs", f"{PREPARED}/rootfs/etc", "img", "vault", "vault/volumes"]
)
def test_swapped_for_a_link(tmp_path: Path, where: str, by_component: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever moment a link is there, it is not followed; what was on the disk is there in the end."""
    if by_component:
        monkeypatch.setattr(native, "_syscall", _no_such_call)
    top, outside = Path(make_disk(tmp_path / "persist")), tmp_path / "outside"
    for folder in ("rootfs/etc", "etc", "volumes", os.path.basename(PREPARED)):
        (outside / folder).mkdir(parents=True)
    for file in ("precious", "rootfs/etc/hostname", "etc/hostname", "hostname"):
        (outside / file).write_bytes(b"not ours")
    (top / where).mkdir(parents=True, exist_ok=True)
    around, inside = capture(str(outside), engine=True), contents(str(top))
    with unsynced():
        with _swapping(top / where, outside):
            for _ in range(ROUNDS):
                checked("-p", str(top), "--target", "latest")
                checked("rollback", "-p", str(top))
                assert diff(around, capture(str(outside), engine=True)) == ""
        checked("-p", str(top), "--target", "latest")
        checked("rollback", "-p", str(top))
    assert diff(around, capture(str(outside), engine=True)) == ""
    assert not inside - contents(str(top))
