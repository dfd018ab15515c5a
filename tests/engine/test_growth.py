"""What a start costs grows with what there is to do, and with nothing else: counted in calls, not in seconds."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from tests.packs.eve_words import DEVICE, app, device, ref, response, tree, volume
from tests.support.disktree import capture, diff
from tests.support.olddisk import DIGEST, PREPARED, TARGETS, VERIFIED_FOLDER, checked, make_disk, unsynced, write
from upgradeconverter.disk import usage
from upgradeconverter.disk.posix import PosixDisk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nobody else is there, whose number of open files would count."""
    monkeypatch.setattr(usage, "_processes", list)
    with unsynced():
        yield


def _calls(start: Callable[[], object], *, of_system: bool) -> int:
    """Return how many functions something calls; or, of the system, only those of `posix`."""
    count = 0

    def profile(_frame: object, event: str, called: Any) -> None:
        nonlocal count
        is_system = event == "c_call" and getattr(called, "__module__", "") == "posix"
        count += is_system if of_system else event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        start()
    finally:
        sys.setprofile(None)
    return count


def _uuid(kind: int, number: int) -> str:
    return str(UUID(int=(kind << 96) + number + 1))


def _volumes(top: Path, count: int) -> Path:
    """Build a disk with so many volumes of virtual machines, all of which the configuration names."""
    apps = [app(refs=[ref(_uuid(2, n))], uuid=_uuid(1, n)) for n in range(count)]
    volumes = [volume(_uuid(2, n), _uuid(3, n)) for n in range(count)]
    trees = [tree(_uuid(3, n), f"{n:064x}") for n in range(count)]
    write(top / "checkpoint/lastconfig", response(device(*apps, volumes=volumes, trees=trees, uuid=DEVICE)))
    for number in range(count):
        write(top / f"img/{number:064x}-{_uuid(1, number)}.qcow2", b"x")
    (top / "vault").mkdir()
    return top


def _plan(top: Path) -> None:
    document = checked("plan", "-p", str(top), "--target", "latest")[1]
    assert document["skipped"] == []


@pytest.mark.parametrize("of_system", [False, True], ids=["functions", "system calls"])
def test_planning_is_linear(tmp_path: Path, of_system: bool) -> None:
    """A volume costs the same, however many others there are."""
    _plan(_volumes(tmp_path / "first", 1))
    tops = [_volumes(tmp_path / str(count), count) for count in (50, 100, 400)]
    few, more, many = (_calls(partial(_plan, top), of_system=of_system) for top in tops)
    assert (many - more) / 300 <= (more - few) / 50 * 1.1


def _tree(top: Path, files: int) -> Path:
    make_disk(top)
    for number in range(files):
        write(top / PREPARED / f"rootfs/{number % 7}/{number}", b"x")
    return top


@pytest.mark.parametrize("words", [(), ("rollback",)], ids=["there", "back"])
def test_renaming_a_tree_takes_constant_time(tmp_path: Path, words: tuple[str, ...]) -> None:
    """What is only renamed is not looked into: a tree costs the same whatever it holds, and nobody says how much that is."""
    counts = []
    # The first one also imports what is needed.
    for files in (1, 0, 7, 300):
        top = _tree(tmp_path / str(files), files)
        if words:
            checked("-p", str(top), "--target", "latest")
        documents: list[dict[str, Any]] = []

        def start(top: Path = top, documents: list[dict[str, Any]] = documents) -> None:
            documents.append(checked(*words, "-p", str(top), *(() if words else ("--target", "latest")))[1])

        counts.append(_calls(start, of_system=True))
        sizes = {item["size"] for item in documents[0]["items"] if item["transfer"] == "rename" and "prepared" in str(item)}
        assert sizes == {None}
        assert sum(path.is_file() for path in top.rglob("[0-9]*")) >= files
    assert counts[1] == counts[2] == counts[3]


def _verified(top: Path, count: int) -> Path:
    make_disk(top)
    for number in range(count):
        (top / f"downloads/baseOs.obj/verified/{number:064x}").mkdir()
    return top


def test_others_are_looked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many directories go, the processes that there are get looked through as often as for one."""
    looks: list[str] = []

    def processes() -> list[str]:
        looks.append("")
        return []

    monkeypatch.setattr(usage, "_processes", processes)
    counts = []
    for count in (1, 40):
        before = len(looks)
        document = checked("-p", str(_verified(tmp_path / str(count), count)), "--target", "latest")[1]
        assert sum(item["operation"] == "Retire" for item in document["items"]) >= count
        counts.append(len(looks) - before)
    assert counts[0] == counts[1] > 0


def test_somebody_came_while_all_was_put_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who entered a directory after the first look finds it where it was, with all that held it; the next start goes on."""
    top = Path(make_disk(tmp_path / "persist"))
    other = Path(make_disk(tmp_path / "other"))
    real = PosixDisk.lived_in

    def lived_in(disk: PosixDisk, trees: Iterable[str], folders: Iterable[str] = ()) -> frozenset[str]:
        folders = list(folders)
        late = {path for path in folders if "/trash/" in path and (top / path).stat().st_ino == inode}
        return real(disk, trees, folders) | late

    inode = (top / VERIFIED_FOLDER).stat().st_ino
    with monkeypatch.context() as patch:
        patch.setattr(PosixDisk, "lived_in", lived_in)
        document = checked("-p", str(top), "--target", "latest")[1]
    assert [(skip["path"], skip["reason"]) for skip in document["skipped"]] == [(VERIFIED_FOLDER, "InUse")]
    assert (top / VERIFIED_FOLDER).stat().st_ino == inode
    assert [(top / target).exists() for target in TARGETS] == [True] * 3
    assert DIGEST in VERIFIED_FOLDER
    for each in (top, other):
        checked("-p", str(each), "--target", "latest")
    assert not (top / VERIFIED_FOLDER).exists()
    kept = [{path for path in capture(str(each)) if not path.startswith(".upgradeconverter")} for each in (top, other)]
    assert kept[0] == kept[1], diff(capture(str(top)), capture(str(other)))
