"""Ways to a place below the root, and through a tree: no link is followed, and depth costs neither descriptors nor time."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import TYPE_CHECKING

import pytest

from upgradeconverter.disk import native, walking
from upgradeconverter.disk.posix import PosixDisk

if TYPE_CHECKING:
    from pathlib import Path

PLACES = ("a", "a/b", "a/b/c", "a/b/c/file")


def _missing(*_: object) -> int:
    ctypes.set_errno(errno.ENOSYS)
    return -1


def _forbidden(*_: object) -> int:
    ctypes.set_errno(errno.EPERM)
    return -1


@pytest.fixture(params=["openat2", "no such call", "filtered"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Resolve paths in one call, or by component because the kernel, or a filter, knows no such call."""
    if request.param != "openat2":
        monkeypatch.setattr(native, "_syscall", _missing if request.param == "no such call" else _forbidden)
    return str(request.param)


def _build(top: Path) -> None:
    (top / "a/b/c").mkdir(parents=True)
    (top / "a/b/c/file").write_bytes(b"inside")


def test_path_is_found(way: str, tmp_path: Path) -> None:
    """What is there is found, and what is not is absent, whichever way the path is resolved."""
    _build(tmp_path)
    disk = PosixDisk.at(str(tmp_path))
    assert [disk.find(path) is not None for path in PLACES] == [True] * 4, way
    assert disk.read("a/b/c/file", 100) == b"inside"
    for path in ("x", "a/x/c", "a/b/c/file/x", "a/b/c/file/x/y", "a/" + "y" * 256 + "/z"):
        assert disk.find(path) is None
    disk.close()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("absolute", [True, False], ids=["absolute", "relative"])
def test_link_in_any_component(way: str, tmp_path: Path, place: str, absolute: bool) -> None:
    """A link in the place of any component leads nowhere, also where it leads to the right thing, inside the root."""
    _build(tmp_path)
    os.rename(tmp_path / place, tmp_path / "moved")
    os.symlink(
        tmp_path / "moved" if absolute else os.path.relpath(tmp_path / "moved", (tmp_path / place).parent), tmp_path / place
    )
    disk = PosixDisk.at(str(tmp_path))
    refused = f"{os.strerror(errno.ENOTDIR)}|{os.strerror(errno.ELOOP)}"
    with pytest.raises(OSError, match=refused):
        disk.read("a/b/c/file", 100)
    with pytest.raises(OSError, match=refused):
        disk.entries(place)
    assert disk.find("a/b/c/file/x") is None, way
    disk.close()


@pytest.mark.parametrize("path", ["..", "a/..", "a/../../x", "/etc", "a//b", "a/./b", "a/\0"])
def test_path_that_climbs(way: str, tmp_path: Path, path: str) -> None:
    """A path that could lead out of the root is a mistake of the caller, and nothing is opened for it."""
    _build(tmp_path)
    disk = PosixDisk.at(str(tmp_path))
    with pytest.raises(ValueError, match="not a path below the root"):
        disk.entries(path)
    disk.close()
    assert way


def test_long_path(way: str, tmp_path: Path) -> None:
    """A path longer than the kernel takes at once is resolved by component."""
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(30):
        os.mkdir("n" * 200, dir_fd=fd)
        deeper = os.open("n" * 200, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.close(fd)
    disk = PosixDisk.at(str(tmp_path))
    assert disk.find("/".join(["n" * 200] * 30)) is not None, way
    disk.remove("n" * 200)
    assert os.listdir(tmp_path) == []
    disk.close()


def test_one_call_asks_for_no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one call is told to stay below the directory and to follow neither links nor those of /proc (openat2(2))."""
    asked = []

    def call(number: int, fd: int, path: bytes, how: bytes, size: int) -> int:
        asked.append((number, fd, path, struct.unpack("=QQQ", how)[2], size))
        return 77

    monkeypatch.setattr(native, "_syscall", call)
    assert native.open_beneath(5, "a/b", os.O_RDONLY) == 77
    assert asked == [(437, 5, b"a/b", 0x08 | 0x04 | 0x02, 24)]


def _deep(top: Path, depth: int) -> None:
    fd = os.open(top, os.O_RDONLY)
    for number in range(depth):
        os.mkdir("d", dir_fd=fd)
        deeper = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
        os.close(os.open(f"f{number}", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)


def test_walk_holds_few_descriptors(tmp_path: Path) -> None:
    """However deep a tree is, everything is visited once going in, directories once more coming out, with few descriptors."""
    _deep(tmp_path, 300)
    top = os.open(tmp_path, os.O_RDONLY)
    before = len(os.listdir("/proc/self/fd"))
    most, visits = 0, []
    for visit in walking.walk(top):
        most = max(most, len(os.listdir("/proc/self/fd")) - before)
        visits.append((visit.name, visit.depth, visit.leaving))
        assert os.fstat(visit.fd).st_nlink > 0
    assert len(visits) == len(set(visits)) == 900
    assert [visit for visit in visits if visit[2]] == [("d", depth, True) for depth in range(300, 0, -1)]
    assert most <= walking._KEPT + 3
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(top)
    PosixDisk.at(str(tmp_path)).remove("d")


@pytest.mark.parametrize("above", [0, 1, 20])
def test_walk_goes_down_twice(tmp_path: Path, above: int) -> None:
    """Several deep branches next to each other are walked like one: coming up and going down again closes nothing twice."""
    fork = tmp_path.joinpath(*["above"] * above)
    for branch in ("a", "b", "c"):
        (fork / branch).mkdir(parents=True)
        _deep(fork / branch, 100)
    top = os.open(tmp_path, os.O_RDONLY)
    before = len(os.listdir("/proc/self/fd"))
    assert sum(visit.name.startswith("f") for visit in walking.walk(top)) == 300
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(top)


def test_walk_is_not_led_astray(tmp_path: Path) -> None:
    """Where a directory is moved while a walk is far below, the walk stops instead of going on in another place."""
    _deep(tmp_path, 100)
    (tmp_path / "elsewhere").mkdir()
    inner = "/".join(["d"] * 10)
    top = os.open(tmp_path, os.O_RDONLY)
    seen: list[int] = []

    def move_while_walking() -> None:
        for visit in walking.walk(top):
            if visit.depth == 90 and not os.path.exists(tmp_path / "elsewhere/d"):
                os.rename(tmp_path / inner / "d", tmp_path / "elsewhere/d")
            if visit.leaving:
                seen.append(visit.depth)

    with pytest.raises(OSError, match="moved meanwhile") as failed:
        move_while_walking()
    assert failed.value.errno == errno.ESTALE
    assert min(seen) > 10
    os.close(top)


def test_walk_notices_what_was_put_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that is another one when it is entered than when it was looked at is not walked."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "other").mkdir()
    real = walking._open

    def late(name: str, flags: int, fd: int | None) -> int:
        if name == "folder":
            (tmp_path / "folder").rmdir()
            (tmp_path / "other").rename(tmp_path / "folder")
        return real(name, flags, fd)

    monkeypatch.setattr(walking, "_open", late)
    top = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(OSError, match="put in its place"):
        list(walking.walk(top))
    os.close(top)
