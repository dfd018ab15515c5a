"""A tree of ten thousand levels is converted by copy and by rename, verified, and rolled back in seconds, with little memory."""

from __future__ import annotations

import os
import resource
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import vaults
from tests.support.olddisk import PREPARED, TARGETS, checked, make_disk, unsynced
from upgradeconverter.disk.port import CopyOrder
from upgradeconverter.disk.posix import PosixDisk
from upgradeconverter.model.plan import Attributes

if TYPE_CHECKING:
    from collections.abc import Iterator

DEPTH = 10_000
LONG = "n" * 255


@pytest.fixture(autouse=True)
def _quick() -> Iterator[None]:
    with unsynced():
        yield


def _dig(top: Path, depth: int, name: str) -> None:
    """Make that many directories in each other, and now and then a file with two names."""
    fd = os.open(top, os.O_RDONLY)
    for level in range(depth):
        os.mkdir(name, dir_fd=fd)
        deeper = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
        if level % 1000 == 0:
            os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
            os.link("file", "again", src_dir_fd=fd, dst_dir_fd=fd)
            os.symlink("../../..", "up", dir_fd=fd)
    os.close(fd)


def _listing(top: Path) -> list[str]:
    """Return what find sees at each depth, without whole paths, which together would be as long as it is deep, squared."""
    words = ("find", str(top), "-mindepth", "1", "-not", "-name", "snapshotid.txt", "-printf", "%d %f %y %m %U:%G %n %l %T@\n")
    return sorted(subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines())


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.parametrize("copied", [False, True], ids=["renamed", "copied"])
def test_deep_tree_there_and_back(tmp_path: Path, copied: bool) -> None:
    """Every command deals with the tree; find sees the same after the conversion and after the rollback."""
    with vaults.mounted(str(tmp_path / "image"), str(tmp_path / "disk"), size="256M") as mount:
        top = Path(make_disk(Path(mount) / "persist"))
        if copied:
            vaults.encrypt(str(top / "vault"), vaults.add_key(mount))
        _dig(top / PREPARED / "rootfs", DEPTH, "d")
        before = _listing(top / PREPARED)
        assert len(before) > DEPTH
        _there_and_back(top, before)


def _there_and_back(top: Path, before: list[str]) -> None:
    words = ("-p", str(top), "--target", "latest", "--read-back", "all")
    assert checked("plan", *words)[0] == 0
    assert checked(*words)[0] == 0
    assert _listing(top / TARGETS[1]) == before
    assert checked("verify", *words)[0] == 0
    assert checked(*words)[1]["outcome"] == "nothing-to-do"
    assert checked("rollback", "-p", str(top))[0] == 0
    assert _listing(top / PREPARED) == before
    assert not (top / ".upgradeconverter/trash").exists()


def test_long_names_deep_down(tmp_path: Path) -> None:
    """Also where the paths of a tree together would be half a gigabyte, it takes some megabytes to deal with it."""
    (tmp_path / "tree").mkdir()
    _dig(tmp_path / "tree", 2_000, LONG)
    disk = PosixDisk.at(str(tmp_path))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    receipt = disk.copy(CopyOrder(source="tree", target="copy", after=Attributes()))
    assert disk.manifest("copy") == receipt.manifest
    assert disk.same_content("tree", "copy")
    assert disk.survey("copy", closely=True).entries == disk.survey("tree").entries == 2_000 + 7
    for name in ("tree", "copy"):
        disk.remove(name)
    disk.close()
    assert os.listdir(tmp_path) == []
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 128 << 10
