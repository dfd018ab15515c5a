"""Every operation that a pack may yield goes through planner and executor on a real directory, forth and back."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from upgradeconverter.disk.posix import PosixDisk
from upgradeconverter.engine.executor import Executor
from upgradeconverter.engine.places import JOURNAL
from upgradeconverter.engine.recover import recover
from upgradeconverter.journal.log import Journal
from upgradeconverter.model.layout import Layout, Slot, Zone
from upgradeconverter.model.operation import (
    Copy,
    EnsureDirectory,
    Link,
    Move,
    Operation,
    Proposal,
    Retire,
    SetAttributes,
    Write,
)
from upgradeconverter.model.outcome import Reason
from upgradeconverter.model.plan import Undo, undo_of
from upgradeconverter.planning.planner import plan
from upgradeconverter.planning.survey import survey

if TYPE_CHECKING:
    from pathlib import Path

    from upgradeconverter.model.plan import Plan

SLOT = Slot(name="new", directory="new", owner="agent", mode=0o700, zone=Zone.PLAIN, entry_mode=0o600)
LAYOUT = Layout(label="next", slots=(SLOT,))
# 128 characters, 256 bytes.
LONG = f"new/{'ä' * 128}"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a directory with a few old files."""
    (tmp_path / "old").mkdir()
    for name in ("moved", "copied", "retired", "adjusted"):
        (tmp_path / "old" / name).write_text(name)
    (tmp_path / "empty").mkdir()
    return tmp_path


def _plan(root: Path, *operations: Operation) -> tuple[PosixDisk, Plan]:
    disk = PosixDisk.at(str(root))
    agents = {"agent": (os.getuid(), os.getgid())}
    proposal = Proposal(migration="test", operations=operations)
    return disk, plan([proposal], survey(disk, operations), LAYOUT, pack="test", source="legacy", agents=agents)


EVERY: tuple[Operation, ...] = (
    Move(source="old/moved", target="new/moved", slot="new"),
    Copy(source="old/copied", target="new/copied", slot="new"),
    Write(target="new/written", content=b"text", slot="new"),
    Link(target="new/link", destination="../old/copied", slot="new"),
    EnsureDirectory(target="new/made", slot="new"),
    Retire(source="old/retired", why="not needed"),
    Retire(source="empty", why="emptied"),
    SetAttributes(target="old/adjusted", slot="new"),
)


def test_every_operation_is_carried_out(root: Path) -> None:
    """One wave moves, copies, writes, links, makes, puts away and adjusts."""
    disk, made = _plan(root, *EVERY)
    assert made.skips == ()
    (wave,) = made.waves
    lost = [step.source for step in wave.steps if undo_of(step, trial=wave.trial) is Undo.NEVER]
    assert lost == ["old/retired"]
    Executor(disk=disk, journal=Journal(disk, JOURNAL), wave=wave, txid="1", contents=dict(made.contents)).run_wave()
    disk.close()
    assert sorted(os.listdir(root / "new")) == ["copied", "link", "made", "moved", "written"]
    assert (root / "new/written").read_bytes() == b"text"
    assert (root / "new/link").read_text() == "copied"
    assert stat.S_IMODE((root / "new/moved").stat().st_mode) == 0o600
    assert stat.S_IMODE((root / "old/adjusted").stat().st_mode) == 0o600
    assert sorted(os.listdir(root / "old")) == ["adjusted", "copied"]
    assert not (root / "empty").exists()
    assert sorted(os.listdir(root / ".upgradeconverter")) == ["journal"]


def test_every_operation_is_undone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wave that stops before its sources are put away goes back completely."""
    before = {path: path.lstat().st_mtime_ns for path in sorted(root.rglob("*"))}
    disk, made = _plan(root, *EVERY)
    (wave,) = made.waves
    journal = Journal(disk, JOURNAL)
    executor = Executor(disk=disk, journal=journal, wave=wave, txid="1", contents=dict(made.contents))

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("upgradeconverter.engine.steps.retire", stop)
    with pytest.raises(KeyboardInterrupt):
        executor.run_wave()
    (done,) = recover(disk, journal, journal.read(repair=True), undo=True)
    disk.close()
    assert done.result == "undone"
    after = {path: path.lstat().st_mtime_ns for path in sorted(root.rglob("*")) if ".upgradeconverter" not in str(path)}
    assert after == before


@pytest.mark.parametrize(
    ("operation", "path", "reason"),
    [
        pytest.param(Move(source="old/none", target="new/x", slot="new"), "old/none", Reason.CHANGED_MEANWHILE, id="gone"),
        pytest.param(
            Move(source="old/moved", target="old/copied/x", slot="new"), "old/moved", Reason.NOT_A_DIRECTORY, id="parent"
        ),
        pytest.param(Move(source="old/moved", target="old/copied", slot="new"), "old/moved", Reason.TARGET_EXISTS, id="taken"),
        pytest.param(Move(source="old/moved", target=LONG, slot="new"), "old/moved", Reason.UNEXPECTED_CONTENT, id="long"),
        pytest.param(Write(target="old/copied", content=b"", slot="new"), "old/copied", Reason.TARGET_EXISTS, id="write"),
        pytest.param(Link(target="new/l", destination="/etc", slot="new"), "new/l", Reason.UNEXPECTED_CONTENT, id="absolute"),
        pytest.param(Link(target="new/l", destination="../../x", slot="new"), "new/l", Reason.UNEXPECTED_CONTENT, id="out"),
        pytest.param(EnsureDirectory(target="old/copied", slot="new"), "old/copied", Reason.NOT_A_DIRECTORY, id="no directory"),
        pytest.param(Retire(source="old", why="emptied"), "old", Reason.UNEXPECTED_CONTENT, id="not empty"),
    ],
)
def test_what_cannot_be_done_is_left_by_name(root: Path, operation: Operation, path: str, reason: Reason) -> None:
    """Each obstacle has its reason and leaves no step behind."""
    disk, made = _plan(root, operation)
    disk.close()
    assert [(skip.path, skip.reason) for skip in made.skips] == [(path, reason)]
    assert made.steps == ()


def test_two_sources_for_one_name_never_both_move(root: Path) -> None:
    """The second of two different sources for a target stays; an equal one is put away with the first."""
    (root / "old/twin").write_text("moved")
    sources = ("old/moved", "old/copied", "old/twin")
    disk, made = _plan(root, *(Move(source=source, target="new/x", slot="new") for source in sources))
    disk.close()
    assert [(skip.path, skip.reason) for skip in made.skips] == [("old/copied", Reason.TARGET_EXISTS)]
    assert [step.operation for step in made.steps] == ["EnsureDirectory", "Move", "Retire"]
    assert made.steps[1].group == made.steps[2].group
