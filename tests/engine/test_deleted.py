"""What somebody deletes between two starts is named, and no reason to leave anything else half done (D10)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.disktree import capture, diff
from tests.support.dying import dying
from tests.support.olddisk import ENGINE, IMAGE, PREPARED, TARGETS, FakeVault, checked, fake_vault, make_disk, unsynced

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True, params=[True, False], ids=["vault", "one domain"])
def vault(request: pytest.FixtureRequest) -> Iterator[FakeVault]:
    """Let the vault be a domain of its own, or a plain directory."""
    if not request.param:
        with unsynced():
            yield FakeVault()
        return
    with unsynced(), fake_vault() as state:
        yield state


def _run(top: Path, *words: str) -> tuple[int, dict[str, Any]]:
    return checked(*words, "-p", str(top), "--target", "latest")


def _verbs(tmp_path: Path) -> int:
    with dying() as done:
        _run(Path(make_disk(tmp_path / "counted")))
    return len(done)


@pytest.mark.slow
@pytest.mark.parametrize("deleted", [IMAGE, TARGETS[0]], ids=["source", "target"])
@pytest.mark.parametrize("words", [(), ("rollback",)], ids=["run", "rollback"])
def test_deleted_after_a_death(tmp_path: Path, deleted: str, words: tuple[str, ...]) -> None:
    """Die anywhere, delete one volume at its old or new place, go on: the others are converted, or all back."""
    for at in range(_verbs(tmp_path)):
        top = Path(make_disk(tmp_path / str(at)))
        with dying(at):
            _run(top)
        if not (top / deleted).exists():
            continue
        (top / deleted).unlink()
        status, document = _run(top, *words)
        is_nothing = bool(document["error"]) and document["error"]["code"] == "NothingToRollBack"
        assert status in (0, 1) or is_nothing, (at, document["error"])
        others = [(top / path).exists() for path in ((PREPARED, *TARGETS[1:]) if words else (*TARGETS[1:], PREPARED))]
        assert others == ([True, False, False] if words else [True, True, False]), at
        assert _run(top)[0] == 0
        assert not any((top / home / ENGINE / name).exists() for home in ("", "vault") for name in ("trash", "stage", "manifest"))


@pytest.mark.parametrize("folder", ["img", "runx"])
def test_old_folder_is_gone(tmp_path: Path, folder: str) -> None:
    """When the folder to which something was to go back is gone that is named, and everything else goes back."""
    top = Path(make_disk(tmp_path / "persist"))
    (top / folder / "nobody knows this").touch()
    _run(top)
    shutil.rmtree(top / folder)
    status, document = _run(top, "rollback")
    assert (status, document["skipped"][0]["reason"]) == (1, "ChangedMeanwhile")
    assert f"{folder}" in document["skipped"][0]["detail"]
    assert (top / IMAGE).exists() is (folder != "img")
    assert (top / PREPARED).exists() is (folder != "runx")


def test_written_to_a_file_that_a_rollback_takes_out(tmp_path: Path, vault: FakeVault) -> None:
    """What was added inside stays when somebody wrote to it, wherever a rollback was when it stopped."""
    assert not vault.locked
    counted = Path(make_disk(tmp_path / "counted"))
    _run(counted)
    with dying() as done:
        _run(counted, "rollback")
    for at in range(len(done)):
        top = Path(make_disk(tmp_path / str(at)))
        _run(top)
        with dying(at):
            _run(top, "rollback")
        added = next(iter(top.rglob("snapshotid.txt")), None)
        if added is None or ENGINE in added.parts:
            continue
        added.write_bytes(b"somebody's own")
        _run(top, "rollback")
        assert b"somebody's own" in [path.read_bytes() for path in top.rglob("*") if path.is_file()], at


def test_chain_of_targets_comes_back(tmp_path: Path) -> None:
    """A run to one layout that died, and a run to the next: one rollback brings back what was before both."""
    total = _verbs(tmp_path)
    for at in range(total // 2, total, 7):
        top = Path(make_disk(tmp_path / str(at)))
        before = capture(str(top))
        with dying(at):
            checked("-p", str(top), "--target", "design")
        _run(top)
        for _ in range(2):
            _run(top, "rollback")
        assert diff(before, capture(str(top))) == "", at
