"""Owner, mode and extended attributes reach what they are meant for, and nothing else."""

from __future__ import annotations

import os
import stat
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from upgradeconverter.disk import attributes
from upgradeconverter.disk.posix import PosixDisk
from upgradeconverter.model.plan import Attributes

if TYPE_CHECKING:
    from pathlib import Path


def test_mode_of_what_became_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where somebody puts a link in the place of a file just before its mode is set, what the link leads to keeps its own."""
    (tmp_path / "outside").touch(mode=0o600)
    (tmp_path / "root").mkdir()
    (tmp_path / "root/file").touch(mode=0o644)
    real = attributes._chmod

    def late(fd: int, name: str, mode: int) -> None:
        (tmp_path / "root/file").unlink()
        (tmp_path / "root/file").symlink_to(tmp_path / "outside")
        real(fd, name, mode)

    monkeypatch.setattr(attributes, "_chmod", late)
    disk = PosixDisk.at(str(tmp_path / "root"))
    # Some kernels refuse a link's mode, others ignore it.
    with suppress(OSError):
        disk.set_attributes("file", Attributes(mode=0o666))
    disk.close()
    assert stat.S_IMODE((tmp_path / "outside").stat().st_mode) == 0o600


@pytest.mark.root
def test_capabilities_outlast_a_new_owner(tmp_path: Path) -> None:
    """A new owner would take a file's capabilities and its setuid bit away; it keeps both."""
    file = tmp_path / "tool"
    file.touch(mode=0o4755)
    subprocess.run(["setcap", "cap_net_raw=ep", file], check=True)
    before = os.getxattr(file, "security.capability")
    disk = PosixDisk.at(str(tmp_path))
    disk.set_attributes("tool", Attributes(uid=1001, gid=1001, mode=0o4755))
    disk.close()
    assert (file.stat().st_uid, stat.S_IMODE(file.stat().st_mode)) == (1001, 0o4755)
    assert os.getxattr(file, "security.capability") == before
