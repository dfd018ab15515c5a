"""The table of mounts is read once, and nevertheless always as it is now."""

from __future__ import annotations

import os
import subprocess
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest

from upgradeconverter.disk import mounts
from upgradeconverter.disk.mounts import MountTable
from upgradeconverter.disk.posix import PosixDisk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.root


@contextmanager
def memory_at(place: Path) -> Iterator[None]:
    """Mount a file system in memory."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_changes_are_seen(tmp_path: Path) -> None:
    """What is mounted, or unmounted, between two questions is in the answer to the second."""
    top = str(tmp_path)
    with closing(MountTable()) as table:
        assert table.at(top) == []
        with memory_at(tmp_path / "a"):
            assert table.at(top) == [f"{top}/a"]
            assert table.at(f"{top}/a") == [f"{top}/a"]
            with memory_at(tmp_path / "a/b"):
                assert table.at(top) == [f"{top}/a", f"{top}/a/b"]
        assert table.at(top) == []


def test_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read where nothing has changed."""
    with closing(MountTable()) as table:
        table.at(str(tmp_path))
        monkeypatch.setattr(mounts, "_point", lambda line: pytest.fail(f"read again: {line!r}"))
        for _ in range(3):
            assert table.at(str(tmp_path)) == []


@pytest.mark.parametrize("name", ["a b", "tab\there", "end\nof line", "back\\slash", "octal\\040", "umlaut-ü"])
def test_names(tmp_path: Path, name: str) -> None:
    """Whatever is in a name, it comes back as it is."""
    place = tmp_path / name
    with memory_at(place), closing(MountTable()) as table:
        assert table.at(str(tmp_path)) == [str(place)]


def test_beside(tmp_path: Path) -> None:
    """What only begins with the same letters is somewhere else."""
    with memory_at(tmp_path / "ab"), closing(MountTable()) as table:
        assert table.at(str(tmp_path / "a")) == []


def test_in_a_fork(tmp_path: Path) -> None:
    """A process that was forked sees changes as well, and takes none away from the one that it was forked from."""
    top = str(tmp_path)
    with closing(MountTable()) as table:
        table.at(top)
        with memory_at(tmp_path / "a"):
            child = os.fork()
            if child == 0:
                os._exit(table.at(top) != [f"{top}/a"])
            assert os.waitpid(child, 0)[1] == 0
            assert table.at(top) == [f"{top}/a"]


def test_of_a_root(tmp_path: Path) -> None:
    """A disk tells of mounts relative to its root, and not of that one itself."""
    (tmp_path / "disk").mkdir()
    with memory_at(tmp_path / "disk"), memory_at(tmp_path / "disk/inside"), closing(PosixDisk.at(str(tmp_path / "disk"))) as disk:
        assert disk.mounts("") == ("inside",)
        assert disk.mounts("inside") == ("inside",)
        assert disk.survey("inside").mounts == ("inside",)
