"""What was converted together is overtaken one by one: what the old system went on with comes anew, all else goes on waiting."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.cases import disk_of, load_cases
from tests.support.disktree import ENGINE
from tests.support.running import run

if TYPE_CHECKING:
    from collections.abc import Iterator

CASE = next(case for case in load_cases("rayos") if case.name == "no_compat")
OLD, NEW = "linux-guest/desktop/desktop-rootfs.ext4", "vm/linux/linux-desktop-001/rootfs.ext4"
OTHER = "vm/windows/windows-desktop-001/disk.qcow2"
LATER = 1_790_000_000_000_000_000

pytestmark = pytest.mark.root


@pytest.fixture
def top(tmp_path: Path) -> Iterator[Path]:
    """Return a root on which a trial waits."""
    with disk_of(CASE, tmp_path, "plain") as made:
        assert run("--trial", *CASE.starts(made)[0])[0] == 0
        yield Path(made)


def _rewrite(path: Path, text: bytes = b"by the old system") -> None:
    """Put another file in the place of one that may have another name."""
    new = path.with_name("new")
    new.write_bytes(path.read_bytes() + text)
    os.utime(new, ns=(LATER, LATER))
    new.rename(path)


def _ask(top: Path, *words: str) -> dict[str, object]:
    document = run(*words, *CASE.starts(str(top))[0])[1]
    assert document["error"] is None
    return document


def test_only_what_was_written_comes_anew(top: Path) -> None:
    """One disk is taken over again; the other stays the file that it was, and both are confirmed with all that goes with them."""
    kept = os.stat(top / OTHER).st_ino
    _rewrite(top / OLD)
    _ask(top, "--trial")
    assert (top / NEW).read_bytes().endswith(b"by the old system")
    assert os.stat(top / OTHER).st_ino == kept
    _ask(top, "confirm")
    assert (top / NEW).read_bytes().endswith(b"by the old system")
    assert not (top / OLD).exists()
    assert not (top / "linux-guest/desktop/vm_registry.json").exists()
    assert not (top / "windows-guest/windows-desktop-001/tpm").exists()
    assert _ask(top)["outcome"] == "nothing-to-do"


def test_going_back_after_that(top: Path) -> None:
    """A rollback gives what the old system had when it was last there."""
    _rewrite(top / OLD)
    before = {path: path.read_bytes() for path in _files(top) if path.relative_to(top).parts[0] not in ("vm", "policy")}
    _ask(top, "--trial")
    run(*CASE.asked(str(top), "rollback"))
    assert {path: path.read_bytes() for path in _files(top)} == before


def _files(top: Path) -> list[Path]:
    return [path for path in top.rglob("*") if path.is_file() and ENGINE not in path.parts]


def test_both_wrote(top: Path) -> None:
    """Where the new system wrote to one of them as well nothing is decided, and what belongs together is not parted."""
    _rewrite(top / OLD)
    _rewrite(top / NEW, b"by the new system")
    document = run("--trial", *CASE.starts(str(top))[0])[1]
    assert [(skip["path"], skip["reason"]) for skip in document["skipped"] if skip["reason"] == "Diverged"] == [(OLD, "Diverged")]
    assert run("confirm", *CASE.starts(str(top))[0])[1]["error"]["code"] == "TrialOvertaken"
    assert (top / "windows-guest/windows-desktop-001/tpm/tpm2-00.permall").exists()
    assert (top / OLD).read_bytes().endswith(b"by the old system")
    assert (top / NEW).read_bytes().endswith(b"by the new system")
