"""Nothing outside the root is read as ours, made or changed, whatever is replaced by a link that leads out of it (D7)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.disktree import capture, diff
from tests.support.olddisk import ENGINE, IMAGE, PREPARED, VERIFIED_FOLDER, checked, contents, make_disk, unsynced
from upgradeconverter.preflight import answer, read_release

if TYPE_CHECKING:
    from collections.abc import Iterator

SLOTS = ("img", "runx", "runx/pods/prepared", "downloads", "downloads/appImg.obj/verified")
ITEMS = (IMAGE, PREPARED, VERIFIED_FOLDER)
TARGETS = ("vault", "vault/volumes", "vault/verifier", "vault/verifier/verified")
SAVED = ("checkpoint", "checkpoint/lastconfig")
OWN = tuple(f"{ENGINE}{name}" for name in ("", "/journal", "/stamp", "/ledger", "/ledger.previous", "/journal.previous"))
WORKING = tuple(f"{ENGINE}/{name}" for name in ("trash", "stage", "manifest", "quarantine"))
COMMANDS = (("plan",), (), ("status",), ("verify",), ("history",), (), ("rollback",))


@pytest.fixture(autouse=True)
def _quick() -> Iterator[None]:
    with unsynced():
        yield


def _lead_out(top: Path, path: str) -> Path:
    """Replace a path by a link to a copy of it outside the root, or to a new folder there; returns that place."""
    away = top.parent / "away"
    away.mkdir()
    (away / "precious").write_bytes(b"not ours")
    place = top / path
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_dir():
        shutil.copytree(place, away / "there", symlinks=True)
        shutil.rmtree(place)
    elif place.exists():
        shutil.move(place, away / "there")
    else:
        (away / "there").mkdir()
    place.symlink_to(away / "there")
    return away


@pytest.mark.parametrize("path", [*SLOTS, *ITEMS, *TARGETS, *SAVED, *OWN, *WORKING])
def test_link_out_of_the_root(tmp_path: Path, path: str) -> None:
    """No command touches what a link leads to, on a fresh disk; and nothing on the disk is lost."""
    top = Path(make_disk(tmp_path / "persist"))
    away = _lead_out(top, path)
    outside, inside = capture(str(away), engine=True), contents(str(top))
    for words in COMMANDS:
        checked(*words, "-p", str(top), "--target", "latest")
        assert diff(outside, capture(str(away), engine=True)) == ""
        assert not inside - contents(str(top))
        assert os.path.islink(top / path)


@pytest.mark.parametrize("path", [*OWN, *TARGETS])
def test_link_out_of_the_root_after_a_run(tmp_path: Path, path: str) -> None:
    """The same holds when the link appears after a conversion, where the copy outside is a whole one of the engine's own."""
    top = Path(make_disk(tmp_path / "persist"))
    checked("-p", str(top), "--target", "latest")
    away = _lead_out(top, path)
    outside, inside = capture(str(away), engine=True), contents(str(top))
    for words in COMMANDS[:-1]:
        checked(*words, "-p", str(top), "--target", "latest")
        assert diff(outside, capture(str(away), engine=True)) == ""
        assert not inside - contents(str(top))
    checked("rollback", "-p", str(top))
    assert diff(outside, capture(str(away), engine=True)) == ""


@pytest.mark.parametrize("path", [*SLOTS, *ITEMS])
def test_link_is_reported(tmp_path: Path, path: str) -> None:
    """What lies behind a link stays, and the link is reported by name, also where it stands above the place of the items."""
    top = Path(make_disk(tmp_path / "persist"))
    _lead_out(top, path)
    _, document = checked("-p", str(top), "--target", "latest")
    assert [skip["reason"] for skip in document["skipped"] if skip["path"] == path] in (["NotADirectory"], ["NotARegularFile"])


@pytest.mark.parametrize("path", [*OWN, *WORKING])
@pytest.mark.parametrize("kind", ["link", "other"])
def test_strange_things_in_the_engine_folder(tmp_path: Path, path: str, kind: str) -> None:
    """What the engine cannot have made is refused by name before any write, for every command."""
    top = Path(make_disk(tmp_path / "persist"))
    place = top / path
    place.parent.mkdir(exist_ok=True)
    if kind == "link":
        place.symlink_to(tmp_path)
    elif path in WORKING or path == ENGINE:
        place.touch()
    else:
        place.mkdir()
    before = capture(str(top), engine=True)
    for words in COMMANDS:
        status, document = checked(*words, "-p", str(top), "--target", "latest")
        assert (status, document["error"]["code"]) == (3, "EngineFolder")
        assert path in document["error"]["message"]
    assert diff(before, capture(str(top), engine=True)) == ""


def test_repaired_target_is_noticed(tmp_path: Path) -> None:
    """Once the link that stood in the way is replaced by a directory, the stamp no longer says that there is nothing to do."""
    expected = {
        "pack": "eve",
        "asked": "latest",
        "release": read_release(("/run/eve-release", "/etc/eve-release"))[0],
        "config": "",
    }
    top = Path(make_disk(tmp_path / "persist"))
    (top / "vault/volumes").symlink_to(tmp_path)
    status, document = checked("-p", str(top), "--target", "latest")
    assert (status, "vault/volumes" in {skip["path"] for skip in document["skipped"]}) == (0, True)
    assert answer(str(top), "all", expected, form="text") is not None
    (top / "vault/volumes").unlink()
    assert answer(str(top), "all", expected, form="text") is None
    assert checked("-p", str(top), "--target", "latest")[1]["outcome"] == "done"
