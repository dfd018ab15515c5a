"""Rolling back, whatever came between: deaths, refusals, starts that were several, things that others did."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.disktree import Tree, capture, diff
from tests.support.dying import dying
from tests.support.olddisk import ENGINE, IMAGE, TARGETS, FakeVault, checked, fake_vault, make_disk, unsynced
from upgradeconverter.disk.posix import PosixDisk

if TYPE_CHECKING:
    from collections.abc import Iterator

SEED, DEATHS = 20262, 80
LEFTOVERS = ("trash", "stage", "manifest")


@pytest.fixture(autouse=True, params=[1, 64], ids=["many waves", "one wave"])
def waves(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Carry everything out in one wave, or each group in one of its own."""
    monkeypatch.setattr("upgradeconverter.planning.fitting.WAVE_STEPS", request.param)
    return int(request.param)


@pytest.fixture(autouse=True)
def vault() -> Iterator[FakeVault]:
    """Return a vault that is a domain of its own."""
    with unsynced(), fake_vault() as state:
        yield state


def _run(top: Path, *words: str) -> tuple[int, dict[str, Any]]:
    return checked(*words, "-p", str(top), "--target", "latest")


def _tree(top: Path) -> Tree:
    """Return the disk without the root's own times, which a death while the engine's folder is made leaves unknown."""
    return {path: entry for path, entry in capture(str(top)).items() if path}


def _is_swept(top: Path) -> bool:
    return not any((top / home / ENGINE / name).exists() for home in ("", "vault") for name in LEFTOVERS)


def _verbs(tmp_path: Path, *words: str) -> int:
    """Return how much a command does, after a run if it is not the run."""
    top = Path(make_disk(tmp_path / "counted"))
    if words:
        _run(top)
    with dying() as done:
        _run(top, *words)
    return len(done)


def test_death_in_a_rollback(tmp_path: Path) -> None:
    """A rollback may die before anything that it does: the next one brings everything back."""
    verbs = _verbs(tmp_path, "rollback")
    for at in random.Random(SEED).sample(range(verbs), min(DEATHS, verbs)):  # noqa: S311 - a choice that can be repeated
        top = Path(make_disk(tmp_path / str(at)))
        before = _tree(top)
        _run(top)
        with dying(at):
            _run(top, "rollback")
        status, document = _run(top, "rollback")
        is_through = status == 0 or document["error"]["code"] == "NothingToRollBack"
        assert (is_through, diff(before, _tree(top)), _is_swept(top)) == (True, "", True), (at, document)
        assert _run(top, "status")[1]["details"]["carries layout"] == "legacy"
        assert _run(top, "rollback")[1]["error"]["code"] == "NothingToRollBack"


def test_death_in_a_run_of_several_starts(tmp_path: Path) -> None:
    """Die, start again: that is one run, and it comes back as a whole, also when nobody started again."""
    verbs = _verbs(tmp_path)
    for at in random.Random(SEED).sample(range(verbs), min(DEATHS, verbs)):  # noqa: S311 - a choice that can be repeated
        top = Path(make_disk(tmp_path / str(at)))
        before = _tree(top)
        with dying(at):
            _run(top)
        if at % 2:
            _run(top)
        has_changed = diff(before, _tree(top)) != "" or (top / ENGINE / "journal").exists()
        status, document = _run(top, "rollback")
        assert (status == 0 or not has_changed, diff(before, _tree(top)), _is_swept(top)) == (True, "", True), (at, document)


def test_foreseen_as_it_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run in several transactions a dry rollback says what a real one does, and not what would be in its way by itself."""
    monkeypatch.setattr("upgradeconverter.planning.fitting.WAVE_STEPS", 1)
    top = Path(make_disk(tmp_path / "persist"))
    _run(top)
    foreseen, done = (_run(top, "rollback", *words)[1] for words in (("--dry-run",), ()))
    assert (foreseen["skipped"], done["skipped"]) == ([], [])
    assert {(each["operation"], each["source"], each["target"]) for each in foreseen["items"]} == {
        (each["operation"], each["source"], each["target"]) for each in done["items"]
    }


def test_two_runs_come_back_one_after_the_other(tmp_path: Path) -> None:
    """The last run comes back first, then the one before it."""
    top = Path(make_disk(tmp_path / "persist"))
    first = capture(str(top))
    assert checked("-p", str(top), "--target", "design")[0] == 0
    second = capture(str(top))
    assert _run(top)[1]["outcome"] == "done"
    assert _run(top, "rollback")[0] == 0
    assert diff(second, capture(str(top))) == ""
    assert checked("status", "-p", str(top))[1]["details"]["carries layout"] == "design"
    assert _run(top, "rollback")[0] == 0
    assert diff(first, capture(str(top))) == ""


def test_rolled_back_run_and_rolled_back_again(tmp_path: Path) -> None:
    """Convert, take back, convert, take back: each time everything, and nothing twice."""
    top = Path(make_disk(tmp_path / "persist"))
    before = capture(str(top))
    for _ in range(3):
        assert _run(top)[1]["outcome"] == "done"
        assert _run(top, "rollback")[0] == 0
        assert diff(before, capture(str(top))) == ""


def test_what_was_left_comes_back_later(tmp_path: Path) -> None:
    """A file that is open when the run is taken back stays and is named; once it is closed the next rollback brings it back."""
    top = Path(make_disk(tmp_path / "persist"))
    before = capture(str(top))
    _run(top)
    fd = os.open(top / TARGETS[0], os.O_RDONLY)
    status, document = _run(top, "rollback")
    assert (status, document["skipped"][0]["reason"]) == (1, "InUse")
    os.close(fd)
    assert _run(top, "rollback")[0] == 0
    assert diff(before, capture(str(top))) == ""


def test_converted_again_after_half_a_rollback(tmp_path: Path) -> None:
    """Half taken back, converted again, taken back: each item comes back once."""
    top = Path(make_disk(tmp_path / "persist"))
    before = capture(str(top))
    _run(top)
    fd = os.open(top / TARGETS[0], os.O_RDONLY)
    assert _run(top, "rollback")[0] == 1
    os.close(fd)
    assert _run(top)[0] == 0
    assert _run(top, "rollback")[0] == 0
    assert diff(before, capture(str(top))) == ""


def test_immutable_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What may not be put back where it was stays, by name and reason; nothing is half done."""
    top = Path(make_disk(tmp_path / "persist"))
    _run(top)
    with monkeypatch.context() as patch:
        patch.setattr(PosixDisk, "is_immutable", lambda _, path: path == "img")
        status, document = _run(top, "rollback")
    assert (status, document["skipped"][0]["reason"]) == (1, "Immutable")
    assert not (top / IMAGE).exists()
    assert _run(top, "rollback")[0] == 0
    assert (top / IMAGE).exists()


def test_read_only_vault_is_refused(tmp_path: Path, vault: FakeVault) -> None:
    """A vault that cannot be written to is said before anything is touched."""
    top = Path(make_disk(tmp_path / "persist"))
    _run(top)
    before = capture(str(top), engine=True)
    vault.read_only = True
    status, document = _run(top, "rollback")
    assert (status, document["error"]["code"]) == (3, "VaultNotUsable")
    assert diff(before, capture(str(top), engine=True)) == ""


def test_status_names_the_layout_of_a_stopped_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that the disk stopped tells what is done and what is not; the disk counts as converted only at the end."""
    top = Path(make_disk(tmp_path / "persist"))
    real, calls = PosixDisk.sync_filesystem, iter(range(9))

    def refuse(disk: PosixDisk, path: str) -> None:
        if next(calls) == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        real(disk, path)

    with monkeypatch.context() as patch:
        patch.setattr(PosixDisk, "sync_filesystem", refuse)
        status, document = _run(top)
    if status == 0:
        return
    there = {path: (top / path).exists() for path in TARGETS}
    told = {item["target"]: item["status"] == "done" for item in document["items"] if item["operation"] == "Move"}
    assert {path: told[path] for path in TARGETS} == there
    assert _run(top, "status")[1]["details"]["carries layout"] == "legacy"
    assert _run(top, "history")[1]["details"]["runs"][0]["outcome"] == "rolled-back"


def test_opened_after_the_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who opens a source after it was copied may write to it: it stays, and both are there."""
    top = Path(make_disk(tmp_path / "persist"))
    real = PosixDisk.sync_filesystem
    held: list[int] = []

    def open_it(disk: PosixDisk, path: str) -> None:
        real(disk, path)
        if not held:
            held.append(os.open(top / IMAGE, os.O_RDWR))

    with monkeypatch.context() as patch:
        patch.setattr(PosixDisk, "sync_filesystem", open_it)
        status, document = _run(top)
    assert (status, [(s["path"], s["reason"]) for s in document["skipped"]]) == (0, [(IMAGE, "InUse")])
    os.write(held[0], b"written late")
    os.close(held[0])
    assert (top / IMAGE).read_bytes().startswith(b"written late")


def test_events_name_the_run_that_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that takes up a run tells its events under the identity of that run, as the report does."""
    monkeypatch.setattr("upgradeconverter.planning.fitting.WAVE_STEPS", 1)
    top = Path(make_disk(tmp_path / "persist"))
    with dying(_verbs(tmp_path) // 2):
        _run(top)
    told: list[tuple[str, str]] = []
    monkeypatch.setattr("upgradeconverter.log.event", lambda name, **fields: told.append((name, fields.get("run", ""))))
    document = _run(top)[1]
    assert ("run-started", document["run"]) in told
    assert {run for _, run in told} == {"", document["run"]}
