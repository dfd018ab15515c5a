"""A deadline that passes in the middle leaves whole items only, names the others, and the next start goes on from there."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.disktree import capture, diff, timeless
from tests.support.olddisk import ENGINE, IMAGE, PREPARED, TARGETS, checked, fake_vault, left, make_disk, unsynced, write
from upgradeconverter.cli import commands
from upgradeconverter.disk.posix import PosixDisk
from upgradeconverter.errors import EXIT_DONE, EXIT_ROLLED_BACK

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from upgradeconverter.disk.port import CopyOrder, CopyReceipt, Progress

UNFINISHED = (EXIT_ROLLED_BACK, "unfinished", "NoTime")
# One copy takes so long (seconds); with this much time the second one is broken off.
COPY, ONE = 600.0, ("--deadline", "1000")


@pytest.fixture(autouse=True)
def _slow_copies(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let each copy take long by a clock that stands still else."""
    real = PosixDisk.copy
    now = time.monotonic()

    def copy(disk: PosixDisk, order: CopyOrder, *, progress: Progress | None = None) -> CopyReceipt:
        nonlocal now
        now += COPY
        return real(disk, order, progress=progress)

    monkeypatch.setattr(PosixDisk, "copy", copy)
    monkeypatch.setattr(commands, "_clock", lambda: now)
    with unsynced(), fake_vault():
        yield
    monkeypatch.undo()


@pytest.fixture(params=[1000, 1], ids=["one wave", "several waves"])
def top(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the old disk, which is converted in one transaction or in several."""
    monkeypatch.setattr("upgradeconverter.planning.fitting.WAVE_STEPS", request.param)
    return make_disk(tmp_path / "persist")


def _run(top: str, *words: str) -> tuple[int, dict[str, Any]]:
    return checked(*words, "-p", top, "--target", "latest")


def _ended(run: tuple[int, dict[str, Any]]) -> tuple[int, str, str]:
    status, document = run
    return status, document["outcome"], (document["error"] or {}).get("code", "")


def _there(top: str) -> int:
    return sum(os.path.exists(os.path.join(top, path)) for path in TARGETS)


def _fresh_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin the next start with all of its time."""
    monkeypatch.setattr(commands, "_clock", time.monotonic)


def test_end_is_that_of_a_run_without_deadline(top: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One item is converted, the others are named and whole where they were; the next start converts them, and all is equal."""
    started, before = time.time_ns(), capture(top)
    document = _run(top, *ONE)[1]
    assert _ended((document["exit_status"], document)) == UNFINISHED
    assert _there(top) == 1
    assert {reason for path, reason in left(document).items() if os.path.lexists(f"{top}/{path}")} == {"NoTime"}
    assert sorted(each["status"] for each in document["items"] if each["operation"] == "Move")[:2] == ["done", "left"]
    assert [name for name in ("stage", "trash", "manifest") if os.path.exists(f"{top}/{ENGINE}/{name}")] == []
    assert not os.path.exists(f"{top}/vault/{ENGINE}")
    _fresh_clock(monkeypatch)
    assert _ended(_run(top)) == (EXIT_DONE, "done", "")
    straight = make_disk(tmp_path / "straight")
    assert _ended(_run(straight)) == (EXIT_DONE, "done", "")
    assert timeless(diff(before, capture(top)), started) == timeless(diff(before, capture(straight)), started)
    assert _run(top, "verify")[0] == EXIT_DONE


def test_what_would_not_be_done_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a run knows how fast it goes, it begins no copy that would only be broken off."""
    monkeypatch.setattr("upgradeconverter.planning.fitting.WAVE_STEPS", 1)
    monkeypatch.setattr("upgradeconverter.engine.budget._ENOUGH", 1)
    slow, begun = PosixDisk.copy, []

    def copy(disk: PosixDisk, order: CopyOrder, *, progress: Progress | None = None) -> CopyReceipt:
        begun.append(order.source)
        return slow(disk, order, progress=progress)

    monkeypatch.setattr(PosixDisk, "copy", copy)
    document = _run(make_disk(tmp_path / "persist"), "--deadline", "700")[1]
    assert _ended((document["exit_status"], document)) == UNFINISHED
    assert [each["source"] for each in document["items"] if each["status"] == "done" and each["transfer"] == "copy"] == begun
    assert len(begun) == 1


def test_taken_back_as_one_run(top: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a deadline divides is one run: a single rollback takes all of it back."""
    before = capture(top)
    _run(top, *ONE)
    _fresh_clock(monkeypatch)
    _run(top)
    assert _ended(_run(top, "rollback")) == (EXIT_DONE, "done", "")
    assert diff(before, capture(top)) == ""


def test_trial(top: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial that a deadline divides leaves the old layout whole, goes on, and is confirmed as a whole."""
    before = capture(top)
    assert _ended(_run(top, "--trial", *ONE)) == UNFINISHED
    assert (
        diff(
            {path: entry for path, entry in capture(top).items() if path in before and path != "vault"},
            {path: entry for path, entry in before.items() if path != "vault"},
        )
        == ""
    )
    _fresh_clock(monkeypatch)
    assert _ended(_run(top, "--trial")) == (EXIT_DONE, "done", "")
    assert _there(top) == len(TARGETS)
    assert _ended(_run(top, "confirm")) == (EXIT_DONE, "done", "")
    assert _run(top, "verify")[0] == EXIT_DONE


@pytest.mark.parametrize("words", [(), ("--trial",)])
def test_no_time_at_all(top: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the time is over before anything is begun, nothing but the engine's own folder is touched, and all of it is named."""
    _fresh_clock(monkeypatch)
    before = capture(top)
    status, document = _run(top, *words, "--deadline", "0.001")
    assert _ended((status, document)) == UNFINISHED
    assert {each["status"] for each in document["items"]} == {"left"}
    assert document["error"]["message"].startswith("expected to be done within 0.001 s, found ")
    assert diff(before, capture(top)) == ""


def test_only_a_folder_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That only an empty directory is left to go is no reason to call everything done."""
    _fresh_clock(monkeypatch)
    top = make_disk(tmp_path / "persist")
    for path in (IMAGE, PREPARED):
        subprocess.run(["rm", "-r", f"{top}/{path}"], check=True)
    status, document = _run(top, "post-vault", "--deadline", "0.001")
    assert _ended((status, document)) == UNFINISHED
    assert {each["reason"] for each in document["skipped"]} == {"NoTime"}


def test_phases_that_were_not_begun_are_named(top: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start for all phases that ends in an earlier one says which others it never came to."""
    _fresh_clock(monkeypatch)
    write(tmp_path / "persist/status/zedrouter/AppInstMetaData/a.json", b"{}")
    document = _run(top, "--deadline", "0.001")[1]
    assert [each["migration"] for each in document["items"] if each["operation"] == "Move"] == ["eve-metadata"]
    assert "not begun before the deadline: post-vault" in document["warnings"]


def test_rollback_goes_on(top: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rollback that runs out of time has taken back whole items; the next one takes back the rest, to the nanosecond."""
    before = capture(top)
    _run(top)
    monkeypatch.setattr(commands, "_clock", time.monotonic)
    assert _ended(_run(top, "rollback", "--deadline", "0.001")) == UNFINISHED
    assert _there(top) == len(TARGETS)
    assert _ended(_run(top, "rollback")) == (EXIT_DONE, "done", "")
    assert diff(before, capture(top)) == ""


def test_rollback_stops_half_way(top: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was taken back before the deadline is back, and what was not is named or counted."""
    before = capture(top)
    slow = commands._clock
    _run(top)
    spent = slow() - time.monotonic()
    monkeypatch.setattr(commands, "_clock", lambda: slow() - spent)
    status, document = _run(top, "rollback", *ONE)
    assert _ended((status, document)) == UNFINISHED
    assert 0 < _there(top) < len(TARGETS)
    _fresh_clock(monkeypatch)
    assert _ended(_run(top, "rollback")) == (EXIT_DONE, "done", "")
    assert diff(before, capture(top)) == ""


def test_rollback_of_a_trial_goes_on(top: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial that waits is taken back transaction by transaction; without time for any it waits on."""
    before = capture(top)
    _run(top, "--trial")
    _fresh_clock(monkeypatch)
    assert _ended(_run(top, "rollback", "--deadline", "0.001")) == UNFINISHED
    assert _there(top) == len(TARGETS)
    assert _ended(_run(top, "rollback")) == (EXIT_DONE, "done", "")
    assert diff(before, capture(top)) == ""


def test_history_has_it(top: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The history tells that a start ended at its deadline, and the next one is not answered from the stamp."""
    _run(top, *ONE)
    _fresh_clock(monkeypatch)
    _run(top)
    runs = _run(top, "history")[1]["details"]["runs"]
    assert [each["outcome"] for each in runs] == ["unfinished", "done"]
    assert len({each["run"] for each in runs}) == 1
