"""What lies where something was published counts as ours only while it can be that; inode numbers are given out again."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from upgradeconverter.disk.posix import PosixDisk
from upgradeconverter.engine.work import Work
from upgradeconverter.model.entry import Kind
from upgradeconverter.model.plan import Precondition, Shape, Step

if TYPE_CHECKING:
    from pathlib import Path


def _step(shape: Shape, kind: Kind, identity: int) -> Step:
    """Return a step that published something of a kind; what moved was that before, too."""
    if shape is Shape.CREATE:
        return Step(number=1, group=1, migration="m", operation="Link", shape=shape, target="new", made_of=kind.value)
    expected = Precondition(identity=identity, kind=kind.value, size=0, mtime_ns=0, fingerprint="")
    return Step(number=1, group=1, migration="m", operation="Move", shape=shape, source="old", target="new", expected=expected)


@pytest.mark.parametrize("shape", [Shape.CREATE, Shape.COPY, Shape.RENAME])
@pytest.mark.parametrize("published", [Kind.SYMLINK, Kind.FILE, Kind.DIRECTORY])
@pytest.mark.parametrize("found", [Kind.SYMLINK, Kind.FILE, Kind.DIRECTORY])
def test_another_kind_is_not_ours(shape: Shape, published: Kind, found: Kind, tmp_path: Path) -> None:
    """With the inode number of what was published, something counts as that only if it is of the same kind."""
    new = tmp_path / "new"
    {Kind.SYMLINK: lambda: new.symlink_to("x"), Kind.FILE: new.touch, Kind.DIRECTORY: new.mkdir}[found]()
    identity = os.lstat(new).st_ino
    disk = PosixDisk.at(str(tmp_path))
    work = Work(disk=disk, txid="1", staged={1: identity})
    step = _step(shape, published, identity)
    assert ("T" in work.who(step, ours_only=True)) is (found is published)
    assert "T" in work.who(step, ours_only=False)
    disk.close()
