"""Directories elsewhere that are part of a disk: everything that a disk can be asked works there as well, and nothing mixes."""

from __future__ import annotations

import os
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.olddisk import write
from upgradeconverter.disk.port import ENGINE_FOLDER, CopyOrder
from upgradeconverter.disk.posix import Annexed, PosixDisk
from upgradeconverter.errors import RootMissingError
from upgradeconverter.model.entry import Kind
from upgradeconverter.model.plan import Attributes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def _disk(top: Path) -> Iterator[PosixDisk]:
    (top / "root").mkdir(exist_ok=True)
    write(top / "build/sub/file", b"content")
    write(top / "build/other", b"more")
    annexes = {"source:": Annexed(folder=str(top / "build")), "one.a:": Annexed(folder=str(top / "build"), only="other")}
    with closing(PosixDisk.at(str(top / "root"), annexes)) as disk:
        yield disk


def test_looking(tmp_path: Path) -> None:
    """An annex is a directory of the disk, though the root does not list it; of one for a file only that is seen."""
    with _disk(tmp_path) as disk:
        (tmp_path / "build" / ENGINE_FOLDER).mkdir()
        top = disk.find("source:")
        assert top is not None
        assert (top.kind, top.path, top.identity) == (Kind.DIRECTORY, "source:", os.stat(tmp_path / "build").st_ino)
        assert [entry.path for entry in disk.entries("source:")] == ["source:/other", "source:/sub"]
        assert [entry.path for entry in disk.entries("one.a:")] == ["one.a:/other"]
        assert disk.entries("") == ()
        assert disk.read("source:/sub/file", 100) == b"content"
        assert disk.part("source:/sub/file", 3, 2) == b"te"
        assert disk.find("other:") is None
        assert disk.find("source:/nothing") is None
        assert disk.place("source:/sub") == str(tmp_path / "build/sub")
        with pytest.raises(ValueError, match="not a path below the root"):
            disk.find("source:/../root/file")


def test_domains(tmp_path: Path) -> None:
    """An annex is a domain of its own, also where it lies on the file system of the root: nothing is renamed out of it."""
    with _disk(tmp_path) as disk:
        inside, root = disk.domain("source:/sub"), disk.domain("")
        assert (inside.home, root.home) == ("source:", "")
        assert inside.key != root.key
        assert disk.domain("one.a:").key != inside.key
        assert disk.space("source:").filesystem == disk.space("").filesystem


def test_a_link_of_that_name(tmp_path: Path) -> None:
    """What lies in the root under the name of an annex is not mistaken for it, and a link in one leads nowhere."""
    with _disk(tmp_path) as disk:
        write(tmp_path / "root/source:/sub/file", b"of the root")
        assert disk.read("source:/sub/file", 100) == b"content"
        (tmp_path / "build/out").symlink_to("/etc")
        assert disk.find("source:/out/passwd") is None


def test_copying_out_of_it(tmp_path: Path) -> None:
    """A copy into the root has all of it, and leaves no trace behind."""
    with _disk(tmp_path) as disk:
        before = os.stat(tmp_path / "build/sub")
        disk.copy(CopyOrder(source="source:/sub", target="sub", after=Attributes()))
        assert (tmp_path / "root/sub/file").read_bytes() == b"content"
        assert os.stat(tmp_path / "build/sub").st_atime_ns == before.st_atime_ns
        disk.make_directory(f"source:/{ENGINE_FOLDER}", Attributes(mode=0o700))
        disk.rename("source:/sub/file", f"source:/{ENGINE_FOLDER}/file")
        assert not (tmp_path / "build/sub/file").exists()


def test_one_that_is_not_there(tmp_path: Path) -> None:
    """Where an annex is missing nothing stays open."""
    before = os.listdir("/proc/self/fd")
    with pytest.raises(RootMissingError, match="nowhere"):
        PosixDisk.at(str(tmp_path), {"source:": Annexed(folder=str(tmp_path / "nowhere"))})
    assert os.listdir("/proc/self/fd") == before
