"""System calls that the standard library does not offer: what they do, and what is done where they are missing."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest

from upgradeconverter.disk import native, vault
from upgradeconverter.disk.posix import PosixDisk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KEY = bytes(range(16))
V2_POLICY = bytes([2, 1, 4, 0, 0, 0, 0, 0]) + KEY
V1_POLICY = bytes([0, 1, 4, 0]) + KEY[:8]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    """Return an open directory with two files."""
    (tmp_path / "one").write_bytes(b"one")
    (tmp_path / "two").write_bytes(b"two")
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


class Library:
    """A C library whose calls fail in a chosen way; without any call where none is given."""

    def __init__(self, **errors: int) -> None:
        """Take the error of each call by its name."""
        for name, error in errors.items():
            setattr(self, name, self._failing(error))

    @staticmethod
    def _failing(error: int) -> Callable[..., int]:
        def call(*_: object) -> int:
            ctypes.set_errno(error)
            return -1

        return call


LACKING = [
    pytest.param(Library(renameat2=errno.EINVAL), id="file system"),
    pytest.param(Library(renameat2=errno.ENOSYS), id="kernel"),
    pytest.param(Library(), id="library"),
]


def _answering(answer: bytes | int) -> Callable[[int, int, bytearray], int]:
    """Return an ioctl that gives some bytes back, or fails with an error number."""

    def ioctl(_fd: int, _request: int, buffer: bytearray) -> int:
        if isinstance(answer, int):
            raise OSError(answer, os.strerror(answer))
        buffer[: len(answer)] = answer
        return 0

    return ioctl


def test_rename_replaces_nothing(folder: int, tmp_path: Path) -> None:
    """A name that is taken stays what it is; a free one is used."""
    with pytest.raises(FileExistsError, match="two"):
        native.rename_exclusively(folder, "one", folder, "two")
    native.rename_exclusively(folder, "one", folder, "three")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"two": b"two", "three": b"one"}


@pytest.mark.parametrize("library", LACKING)
def test_rename_without_the_flag(folder: int, tmp_path: Path, library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the flag is not known, the name is looked at first: the same outcome, links included."""
    monkeypatch.setattr(native, "_libc", library)
    os.symlink("nowhere", "dangling", dir_fd=folder)
    for taken in ("two", "dangling"):
        with pytest.raises(FileExistsError, match=taken):
            native.rename_exclusively(folder, "one", folder, taken)
    native.rename_exclusively(folder, "one", folder, "three")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "three", "two"]
    with pytest.raises(FileNotFoundError):
        native.rename_exclusively(folder, "none", folder, "four")


def test_rename_tells_other_errors(folder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that is not about the flag is told as it is, with the name, and nothing else is tried."""
    monkeypatch.setattr(native, "_libc", Library(renameat2=errno.EXDEV))
    with pytest.raises(OSError, match="three") as failed:
        native.rename_exclusively(folder, "one", folder, "three")
    assert failed.value.errno == errno.EXDEV
    assert not os.path.exists(f"/proc/self/fd/{folder}/three")


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_sync_tells_errors(tmp_path: Path, error: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel could not write back is an error of the sync, by the path that was synced."""
    disk = PosixDisk.at(str(tmp_path))
    (tmp_path / "folder").mkdir()
    disk.sync_filesystem("folder")
    monkeypatch.setattr(native, "_libc", Library(syncfs=error))
    with pytest.raises(OSError, match="folder") as failed:
        disk.sync_filesystem("folder")
    assert failed.value.errno == error
    disk.close()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(struct.pack("=Q", 0x10), True, id="immutable"),
        pytest.param(struct.pack("=Q", 0x20), True, id="append-only"),
        pytest.param(struct.pack("=Q", 0x80000), False, id="another flag"),
        pytest.param(errno.ENOTTY, False, id="no flags here"),
    ],
)
def test_fixed_flag(answer: bytes | int, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Immutable and append-only forbid to move; other flags, and file systems without any, do not."""
    monkeypatch.setattr("upgradeconverter.disk.native.fcntl.ioctl", _answering(answer))
    assert native.has_fixed_flag(0) is expected


@pytest.mark.root
@pytest.mark.parametrize("flag", ["i", "a"])
def test_fixed_flag_of_a_real_file(tmp_path: Path, flag: str) -> None:
    """The flags are those that chattr sets."""
    file = tmp_path / "file"
    file.touch()
    disk = PosixDisk.at(str(tmp_path))
    assert not disk.is_immutable("file")
    subprocess.run(["chattr", f"+{flag}", file], check=True)
    try:
        assert disk.is_immutable("file")
    finally:
        subprocess.run(["chattr", f"-{flag}", file], check=True)
        disk.close()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(struct.pack("=Q", 24) + V2_POLICY, V2_POLICY, id="version 2"),
        pytest.param(struct.pack("=Q", 12) + V1_POLICY, V1_POLICY, id="version 1"),
        *(pytest.param(getattr(errno, name), b"", id=name) for name in ("ENODATA", "ENOTTY", "EOPNOTSUPP", "EINVAL", "ENOSYS")),
    ],
)
def test_policy(answer: bytes | int, expected: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy is told as it is; file systems and kernels without encryption mean that there is none."""
    monkeypatch.setattr("upgradeconverter.disk.native.fcntl.ioctl", _answering(answer))
    assert native.encryption_policy(0) == expected


def test_policy_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails is not taken for one without encryption."""
    monkeypatch.setattr("upgradeconverter.disk.native.fcntl.ioctl", _answering(errno.EIO))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        native.encryption_policy(0)


@pytest.mark.parametrize(("status", "expected"), [(1, False), (2, True), (3, False)], ids=["absent", "present", "half removed"])
def test_key(status: int, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel is asked for the key by the identifier in the policy."""
    asked = []

    def ioctl(_fd: int, _request: int, buffer: bytearray) -> int:
        asked.append(bytes(buffer[8:24]))
        struct.pack_into("=I", buffer, 64, status)
        return 0

    monkeypatch.setattr("upgradeconverter.disk.native.fcntl.ioctl", ioctl)
    assert native.has_key(0, V2_POLICY) is expected
    assert asked == [KEY]


def test_old_policy_has_no_status(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The keys of version 1 policies cannot be asked for; whether something can be made there tells."""
    assert native.has_key(0, V1_POLICY) is None
    fd = os.open(tmp_path, os.O_RDONLY)
    assert vault.is_unlocked(fd, V1_POLICY)
    failing = {"number": errno.ENOKEY}

    def refuse(*_: object, **__: object) -> int:
        raise OSError(failing["number"], os.strerror(failing["number"]))

    monkeypatch.setattr("upgradeconverter.disk.vault.os.open", refuse)
    assert not vault.is_unlocked(fd, V1_POLICY)
    failing["number"] = errno.EROFS
    assert vault.is_unlocked(fd, V1_POLICY)
    os.close(fd)


@pytest.mark.parametrize("with_statx", [True, False], ids=["statx", "stat"])
def test_inode_of(tmp_path: Path, with_statx: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Device and inode are those that stat tells, through links too; what is not there is told as such."""
    if not with_statx:
        monkeypatch.setattr(native, "_libc", object())
    (tmp_path / "link").symlink_to(tmp_path)
    for path in (str(tmp_path), str(tmp_path / "link"), "/dev/null", "/proc/self/cwd"):
        facts = os.stat(path)
        assert native.inode_of(path) == (facts.st_dev, facts.st_ino)
    with pytest.raises(FileNotFoundError):
        native.inode_of(str(tmp_path / "missing"))
