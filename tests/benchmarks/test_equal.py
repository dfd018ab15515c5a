"""A result that differs in anything that counts is seen, and one that differs in its holes only is the same."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.equal import ALL, CONTENT, differences, digest_of, facts_of

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a tree with a file, a file with holes, and a link."""
    top = tmp_path / "tree"
    (top / "folder").mkdir(parents=True)
    (top / "folder/file").write_bytes(b"content")
    with (top / "sparse").open("wb") as stream:
        os.pwrite(stream.fileno(), b"data", 1 << 20)
        stream.truncate(4 << 20)
    (top / "link").symlink_to("file")
    os.setxattr(top / "folder/file", "user.test", b"value")
    return top


def copied(tree: Path) -> Path:
    """Return a copy that has all of it."""
    target = tree.parent / "copy"
    subprocess.run(["cp", "-a", str(tree), str(target)], check=True)
    return target


def said(tree: Path, copy: Path, keeps: frozenset[str] = ALL) -> list[str]:
    """Return how a copy differs."""
    return list(differences(facts_of(str(tree)), facts_of(str(copy)), keeps))


def test_faithful_copy_is_equal(tree: Path) -> None:
    """A copy by cp -a has nothing that differs."""
    assert said(tree, copied(tree)) == []


def _fill(copy: Path) -> None:
    content = (copy / "sparse").read_bytes()
    seen = (copy / "sparse").stat()
    (copy / "sparse").write_bytes(content)
    os.utime(copy / "sparse", ns=(seen.st_atime_ns, seen.st_mtime_ns))


def _touch(copy: Path) -> None:
    os.utime(copy / "folder", ns=(0, (copy / "folder").stat().st_mtime_ns + 1))


def _relink(copy: Path) -> None:
    seen = (copy / "link").lstat()
    (copy / "link").unlink()
    (copy / "link").symlink_to("elsewhere")
    os.utime(copy / "link", ns=(0, seen.st_mtime_ns), follow_symlinks=False)
    os.utime(copy, ns=(0, copy.parent.joinpath("tree").stat().st_mtime_ns))


def _edit(copy: Path) -> None:
    seen = (copy / "folder/file").stat()
    (copy / "folder/file").write_bytes(b"CONTENT")
    os.utime(copy / "folder/file", ns=(0, seen.st_mtime_ns))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "folder/file: digest": _edit,
    "folder/file: mode": lambda copy: (copy / "folder/file").chmod(0o600),
    "folder/file: xattrs": lambda copy: os.removexattr(copy / "folder/file", "user.test"),
    "folder/file is missing": lambda copy: (copy / "folder/file").unlink(),
    "folder/more is there too": lambda copy: (copy / "folder/more").touch(),
    "folder: mtime_ns": _touch,
    "link: to": _relink,
    "bytes are allocated": _fill,
}


@pytest.mark.parametrize("expected", DAMAGES)
def test_every_difference_is_seen(tree: Path, expected: str) -> None:
    """Content, mode, attribute, a lost and an added file, a time, a link and filled holes are each named."""
    copy = copied(tree)
    DAMAGES[expected](copy)
    assert any(expected in each for each in said(tree, copy))


def test_only_what_is_claimed_is_asked_for(tree: Path) -> None:
    """A way that claims to keep content may lose attributes, holes and links, but no file and no byte."""
    copy = copied(tree)
    for name in ("folder/file: mode", "folder/file: xattrs", "folder: mtime_ns", "bytes are allocated"):
        DAMAGES[name](copy)
    (copy / "link").unlink()
    assert said(tree, copy, CONTENT) == []
    (copy / "sparse").unlink()
    assert said(tree, copy, CONTENT) == ["sparse is missing"]


@pytest.mark.parametrize("offset", [0, 1, 65535, 65536, 200_000])
def test_digest_does_not_depend_on_holes(tmp_path: Path, offset: int) -> None:
    """The same bytes have the same digest wherever the file system has holes, and other places another one."""
    sparse, full, moved = (str(tmp_path / name) for name in ("sparse", "full", "moved"))
    for path, place in ((sparse, offset), (moved, offset + 1)):
        with open(path, "wb") as stream:
            os.pwrite(stream.fileno(), b"data" * 20_000, place)
            stream.truncate(1 << 20)
    shutil.copy(sparse, full)
    Path(full).write_bytes(Path(sparse).read_bytes())
    assert digest_of(sparse) == digest_of(full) != digest_of(moved)
