"""What is mounted where is told as it is now."""

from __future__ import annotations

import subprocess
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest

from upgradeconverter.disk.mounts import mounts_at
from upgradeconverter.disk.posix import PosixDisk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.root


@contextmanager
def memory_at(place: Path, source: str = "none") -> Iterator[None]:
    """Mount a file system in memory."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", source, str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_changes_are_seen(tmp_path: Path) -> None:
    """What is mounted, or unmounted, between two questions is in the answer to the second."""
    top = str(tmp_path)
    assert mounts_at(top) == []
    with memory_at(tmp_path / "a"), memory_at(tmp_path / "a/b"):
        assert mounts_at(top) == [f"{top}/a", f"{top}/a/b"]
        assert mounts_at(f"{top}/a/b") == [f"{top}/a/b"]
    assert mounts_at(top) == []


def test_goes_along(tmp_path: Path) -> None:
    """A mount in a directory that was renamed is where that is now."""
    with memory_at(tmp_path / "old/inside"):
        assert mounts_at(f"{tmp_path}/old") == [f"{tmp_path}/old/inside"]
        (tmp_path / "old").rename(tmp_path / "new")
        try:
            assert mounts_at(f"{tmp_path}/old") == []
            assert mounts_at(f"{tmp_path}/new") == [f"{tmp_path}/new/inside"]
        finally:
            (tmp_path / "new").rename(tmp_path / "old")


@pytest.mark.parametrize(
    "name", ["a b", "tab\there", "end\nof line", "return\rhere", "back\\slash", "octal\\040", "umlaut-ü", "surrogate-\udcff"]
)
def test_names(tmp_path: Path, name: str) -> None:
    """Whatever is in a name, it comes back as it is."""
    place = tmp_path / name
    with memory_at(place, source=name):
        assert mounts_at(str(tmp_path)) == [str(place)]


def test_beside(tmp_path: Path) -> None:
    """What only begins with the same letters is somewhere else."""
    with memory_at(tmp_path / "ab"):
        assert mounts_at(str(tmp_path / "a")) == []


def test_of_a_root(tmp_path: Path) -> None:
    """A disk tells of mounts relative to its root, and not of that one itself."""
    with memory_at(tmp_path / "disk"), memory_at(tmp_path / "disk/inside"), closing(PosixDisk.at(str(tmp_path / "disk"))) as disk:
        assert disk.mounts("") == ("inside",)
        assert disk.mounts("inside") == ("inside",)
