"""The verbs of the real disk where what they meet is not what they are for."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

from upgradeconverter.disk.posix import PosixDisk

if TYPE_CHECKING:
    from pathlib import Path


def test_remove_directory_leaves_what_is_none(tmp_path: Path) -> None:
    """A file, a link, and a directory that is not empty stay and are said to be there; an empty one goes."""
    (tmp_path / "full/inner").mkdir(parents=True)
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "full/inner")
    disk = PosixDisk.at(str(tmp_path))
    found = {name: disk.remove_directory(name) for name in ("full", "file", "link", "full/inner", "none")}
    assert found == {"full": False, "file": False, "link": False, "full/inner": True, "none": True}
    disk.close()


def test_entries_hide_only_the_engine_folder(tmp_path: Path) -> None:
    """The engine's folder is left out at the home of a domain; the same name elsewhere is somebody's."""
    (tmp_path / "img/.upgradeconverter").mkdir(parents=True)
    (tmp_path / ".upgradeconverter").mkdir()
    disk = PosixDisk.at(str(tmp_path))
    assert [entry.path for entry in disk.entries("")] == ["img"]
    assert [entry.path for entry in disk.entries("img")] == ["img/.upgradeconverter"]
    disk.close()


def test_who_waits_at_a_pipe_goes_on_waiting(tmp_path: Path) -> None:
    """Whether something is open is asked without opening anything but regular files and directories."""
    disk, pipe = PosixDisk.at(str(tmp_path)), tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["sh", "-c", 'echo precious > "$0"', str(pipe)]) as writer:
        time.sleep(0.1)
        assert not disk.is_open("pipe")
        assert not disk.is_immutable("pipe")
        assert disk.survey("pipe").entries == 1
        assert os.read(os.open(pipe, os.O_RDONLY), 100) == b"precious\n"
        assert writer.wait(10) == 0
    disk.close()
