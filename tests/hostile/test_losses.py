"""What a copy cannot keep stands in the plan before anything happens, and what must not be lost is not copied."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import vaults
from tests.support.disktree import capture, diff
from tests.support.olddisk import IMAGE, PREPARED, TARGETS, checked, make_disk, set_times

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root


@contextmanager
def _disk(scratch: Path, kind: str, vault: str) -> Iterator[Path]:
    """Mount an old disk with a vault that is encrypted, or another file system."""
    with vaults.mounted(str(scratch / "image"), str(scratch / "disk"), kind=kind, size="640M") as mount:
        top = Path(make_disk(Path(mount) / "persist"))
        if vault == "fscrypt":
            vaults.encrypt(str(top / "vault"), vaults.add_key(mount))
            yield top
        else:
            with vaults.mounted(str(scratch / "vault"), str(top / "vault"), kind=vault, size="640M"):
                yield top


def _planned(top: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """Return what the plan warns of in the container, and what it leaves, with the reason."""
    before = capture(str(top), engine=True)
    _, document = checked("plan", "-p", str(top), "--target", "latest")
    assert diff(before, capture(str(top), engine=True)) == ""
    return [text for text in document["warnings"] if PREPARED in text], _left(document)


def _left(document: dict[str, Any]) -> list[tuple[str, str]]:
    return [(skip["path"], skip["reason"]) for skip in document["skipped"]]


def _do(*words: str | Path) -> None:
    subprocess.run(words, check=True, capture_output=True)


def test_flags_that_cannot_be_kept(tmp_path: Path) -> None:
    """Flags that the vault's file system does not have are named by their letters; the others go along."""
    with _disk(tmp_path, "ext4", "xfs") as top:
        _do("chattr", "+sud", top / PREPARED / "rootfs/etc/hostname")
        assert _planned(top) == ([f"{PREPARED}: the flags su (chattr) in it cannot be kept"], [])
        assert checked("-p", str(top), "--target", "latest")[0] == 0
        flags = subprocess.run(["lsattr", top / TARGETS[1] / "rootfs/etc/hostname"], capture_output=True, text=True, check=True)
        assert set(flags.stdout.split()[0]) == {"-", "d"}


@pytest.mark.parametrize(("vault", "kept"), [("xfs", True), ("ext4", False)])
def test_projects(tmp_path: Path, vault: str, kept: bool) -> None:
    """Quota projects go along where they surely can be kept, and are named where not."""
    with _disk(tmp_path, "xfs", vault) as top:
        inside = top / PREPARED / "rootfs/etc"
        _do("xfs_io", "-c", "chproj 7", "-c", "chattr +P", inside)
        _do("xfs_io", "-c", "chproj 8", inside / "hostname")
        warned = [f"{PREPARED}: that things in it belong to the quota projects 7, 8 cannot be kept"]
        assert _planned(top) == ([] if kept else warned, [])
        assert checked("-p", str(top), "--target", "latest")[0] == 0
        said = subprocess.run(
            ["lsattr", "-p", "-d", top / TARGETS[1] / "rootfs/etc", top / TARGETS[1] / "rootfs/etc/hostname"],
            capture_output=True,
            text=True,
            check=True,
        )
        found = [(line.split()[0], "P" in line.split()[1]) for line in said.stdout.splitlines()]
        assert found == ([("7", True), ("8", False)] if kept else [("0", False), ("0", False)])


def test_project_of_the_vault(tmp_path: Path) -> None:
    """Where the vault hands on a project of its own all that comes there gets it; the plan says so."""
    with _disk(tmp_path, "xfs", "xfs") as top:
        _do("xfs_io", "-c", "chproj 9", "-c", "chattr +P", top / "vault")
        _do("xfs_io", "-c", "chproj 7", top / PREPARED / "rootfs/etc/hostname")
        text = f"{PREPARED}: that things in it belong to the quota projects 7 cannot be kept, as all there belongs to 9"
        assert _planned(top) == ([text], [])
        assert checked("-p", str(top), "--target", "latest")[0] == 0
        assert (top / TARGETS[1]).exists()


def test_allocator_hints(tmp_path: Path) -> None:
    """Extent sizes are hints that no copy keeps."""
    with _disk(tmp_path, "xfs", "xfs") as top:
        (top / PREPARED / "rootfs/empty").touch()
        _do("xfs_io", "-c", "extsize 65536", top / PREPARED / "rootfs/empty")
        assert _planned(top) == ([f"{PREPARED}: hints for the allocator of its file system cannot be kept"], [])


def test_attributes_of_the_kernel(tmp_path: Path) -> None:
    """The kernel's own signatures of files belong to an inode and are not copied."""
    with _disk(tmp_path, "ext4", "fscrypt") as top:
        os.setxattr(top / PREPARED / "rootfs/etc/hostname", "security.ima", b"\x01" + bytes(20))
        assert _planned(top) == ([f"{PREPARED}: the extended attributes security.ima in it cannot be kept"], [])


def test_long_links(tmp_path: Path) -> None:
    """A link may be two bytes shorter behind a key: what does not fit is left whole by name, what just fits is carried."""
    with _disk(tmp_path, "ext4", "fscrypt") as top:
        longest = top / PREPARED / "rootfs/longest"
        longest.symlink_to("l" * 4094)
        set_times(top / PREPARED)
        assert _planned(top) == ([], [(PREPARED, "UnexpectedContent")])
        assert checked("-p", str(top), "--target", "latest")[0] == 0
        assert longest.is_symlink()
        longest.unlink()
        longest.symlink_to("l" * 4093)
        assert _planned(top) == ([], [])
        assert checked("-p", str(top), "--target", "latest")[0] == 0
        assert os.readlink(top / TARGETS[1] / "rootfs/longest") == "l" * 4093


def test_immutable_file_with_two_names(tmp_path: Path) -> None:
    """What is immutable gets no second name, so a tree with two names of it is not copied."""
    with _disk(tmp_path, "ext4", "fscrypt") as top:
        inside = top / PREPARED / "rootfs/etc/hostname"
        os.link(inside, inside.parent / "again")
        _do("chattr", "+i", inside)
        assert _planned(top) == ([], [(PREPARED, "Immutable")])
        _do("chattr", "-i", inside)


def test_names_that_stay_behind(tmp_path: Path) -> None:
    """A file with a name that is not converted becomes two, and the plan says so; names in one item are no matter."""
    with _disk(tmp_path, "ext4", "fscrypt") as top:
        inside = top / PREPARED / "rootfs/etc/hostname"
        os.link(inside, inside.parent / "again")
        assert _planned(top) == ([], [])
        os.link(inside, top / "elsewhere")
        assert _planned(top) == (
            [f"{PREPARED}: 1 files in it have names elsewhere too; what is copied is a file of its own"],
            [],
        )
        assert checked("-p", str(top), "--target", "latest")[0] == 0
        copied = top / TARGETS[1] / "rootfs/etc"
        assert (copied / "hostname").stat().st_ino == (copied / "again").stat().st_ino
        assert (copied / "hostname").stat().st_nlink == 2
        assert checked("rollback", "-p", str(top))[0] == 0
        assert inside.stat().st_nlink == 2
        assert (top / IMAGE).exists()
