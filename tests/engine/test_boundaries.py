"""Where `rename` does not work: quota projects are seen when planning, anything else is copied once the disk has refused."""

from __future__ import annotations

import errno
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.cases import disk_of, load_cases
from tests.support.disktree import capture, diff
from tests.support.running import run
from tests.support.vaults import mounted
from upgradeconverter.disk import native
from upgradeconverter.disk.posix import PosixDisk

if TYPE_CHECKING:
    from pathlib import Path

CASE = next(case for case in load_cases("eve") if case.name == "kitchen_sink")


@pytest.mark.root
def test_quota_projects_are_boundaries(tmp_path: Path) -> None:
    """A directory that hands a quota project on is a domain of its own, for the kernel refuses renames into it."""
    with mounted(str(tmp_path / "image"), str(tmp_path / "top"), kind="xfs") as top:
        for name in ("one", "two", "three"):
            os.mkdir(f"{top}/{name}")
        subprocess.run(["xfs_io", "-c", "chproj 7", "-c", "chattr +P", f"{top}/two"], check=True)
        with open(f"{top}/one/file", "w", encoding="ascii"):
            pass
        with pytest.raises(OSError, match="cross-device") as refused:
            os.rename(f"{top}/one/file", f"{top}/two/file")
        assert refused.value.errno == errno.EXDEV
        disk = PosixDisk.at(top)
        one, two, three = (disk.domain(name) for name in ("one", "two", "three"))
        disk.close()
        assert (one.key == three.key, one.key == two.key, two.home) == (True, False, "two")


@pytest.mark.root
@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM])
def test_refused_rename_is_copied_instead(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rename that the disk refuses although nothing spoke against it costs a second plan, not the conversion."""
    rename = native.rename_exclusively

    def refuse(source_fd: int, source: str, target_fd: int, target: str) -> None:
        inner = {os.readlink(f"/proc/self/fd/{fd}").partition("persist/")[2] for fd in (source_fd, target_fd)}
        if not any(folder.startswith(".upgradeconverter") or "/.upgradeconverter" in folder for folder in inner):
            raise OSError(code, os.strerror(code), target)
        rename(source_fd, source, target_fd, target)

    with disk_of(CASE, tmp_path, "plain") as top:
        before = capture(top)
        monkeypatch.setattr(native, "rename_exclusively", refuse)
        (start,) = CASE.starts(top)
        status, document = run(*start)
        assert (status, document["outcome"]) == (0, "done")
        assert "rename" not in {item["transfer"] for item in document["items"] if item["status"] == "done"}
        assert any("copied instead" in warning for warning in document["warnings"])
        expected = (CASE.folder / "expect.diff").read_text(encoding="utf-8", errors="surrogateescape")
        changed = [line for line in expected.splitlines() if not line.startswith("#")]
        assert diff(before, capture(top)).splitlines() == changed
        assert run(*start)[1]["items"] == []
        monkeypatch.undo()
        assert run("rollback", "-p", top)[0] == 0
        assert diff(before, capture(top)) == ""


@pytest.mark.root
def test_refused_everywhere_ends_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where copies cannot be published either, everything is put back and the boundary is named."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), "somewhere")

    with disk_of(CASE, tmp_path, "plain") as top:
        before = capture(top)
        monkeypatch.setattr(native, "rename_exclusively", refuse)
        status, document = run("-p", top, "--target", "latest")
        assert (status, document["outcome"]) == (4, "rolled-back")
        assert diff(before, capture(top)) == ""
