"""What the disk refuses at a bad moment never costs content, and never makes the report untrue."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.durability.small_disks import PACKS, place_in, small_disks
from tests.support.disktree import capture, diff
from tests.support.door import CHANGE, LOOK, Fault, armed
from tests.support.dying import dying
from tests.support.olddisk import ENGINE, TARGETS, checked, make_disk
from upgradeconverter.disk.posix import PosixDisk
from upgradeconverter.engine import convert, takeback
from upgradeconverter.engine.session import Session
from upgradeconverter.errors import PackDamagedError
from upgradeconverter.journal.log import Journal
from upgradeconverter.packs import find

if TYPE_CHECKING:
    from collections.abc import Iterator

DISK = small_disks()["everything plain"]
CLAIM = next(source for source, target in DISK.moves if not target)


@pytest.fixture
def top(tmp_path: Path) -> str:
    """Return an old EVE disk."""
    return make_disk(tmp_path / "persist")


@pytest.fixture
def everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the small disk that takes every operation."""
    monkeypatch.setenv("UPGRADECONVERTER_PACK_ROOT", str(PACKS))
    with place_in(tmp_path, encrypted=False) as place, place.disk(DISK) as root:
        yield root


def _start(top: str, *words: str) -> tuple[int, dict[str, Any]]:
    return checked(*words, "-p", top, *(DISK.words if Path(top, "claims").exists() else ("--target", "latest")))


def _fail(patch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    """Let the disk refuse whatever this does."""

    def refused(*_: Any, **__: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), "a path")

    patch.setattr(owner, name, refused)


@pytest.mark.root
def test_what_cannot_be_read_is_no_hole(everything: str) -> None:
    """A disk that cannot tell where the data of a file is has no list, and no copy, of that file without its data."""
    disk = PosixDisk.at(everything)
    with armed() as door:
        disk.manifest("old/tree")
    lseeks = [number for number, name in enumerate(door.calls[LOOK]) if name == "lseek"]
    assert lseeks
    for at in lseeks:
        with armed(Fault(at, LOOK, errno.EIO)) as door, pytest.raises(OSError, match=os.strerror(errno.EIO)):
            disk.manifest("old/tree")
        assert door.reached
    disk.close()


@pytest.mark.root
def test_not_set_aside_what_was_put_back(everything: str) -> None:
    """What fails its digest is said to be set aside only once it is: not when the wave with it was put back."""
    with armed(Fault(_first_sync(everything), code=errno.EIO)) as door:
        status, document = _start(everything)
    assert (door.reached, status, document["error"]["code"]) == (True, 4, "DiskFailed")
    assert Path(everything, CLAIM).exists()
    assert "quarantined" not in {item["status"] for item in document["items"]}


def _first_sync(top: str) -> int:
    """Return the number of the change that makes the staged copies durable, learnt from another disk of the same kind."""
    other = f"{top}.other"
    with place_in(_made(Path(other)), encrypted=False) as place, place.disk(DISK) as root, armed() as door:
        _start(root)
    return door.calls[CHANGE].index("syncfs")


def _made(path: Path) -> Path:
    path.mkdir()
    return path


def test_a_lock_that_cannot_be_released_is_not_what_is_told(top: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Releasing the locks is not worth a word: they go with the process, and what was done was done."""
    flock = fcntl.flock

    def held(fd: int, operation: int) -> None:
        if operation == fcntl.LOCK_UN:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", held)
    assert _start(top)[0] == 0


def test_done_is_done_although_it_cannot_be_looked_at(top: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that refuses the last look at the new layout undoes nothing, and the report says both."""
    _fail(monkeypatch, convert, "deviations")
    status, document = _start(top)
    assert (status, document["outcome"]) == (0, "done")
    assert all(Path(top, target).exists() for target in TARGETS)
    assert "what was done could not be looked at again" in " ".join(document["warnings"])


@pytest.mark.parametrize("at", [25, 45])
def test_refused_after_recovery(top: str, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that recovered something and then cannot go on never says that nothing was changed."""
    with dying(at):
        _start(top)
    _fail(monkeypatch, Session, "make_plan")
    status, document = _start(top)
    assert (status, document["error"]["code"]) == (4, "DiskFailed")
    assert document["recovered"]


def test_refused_while_recovering(top: str) -> None:
    """A start that stops while a transaction is open says so, and the next one goes on."""
    with dying(40):
        _start(top)
    with pytest.MonkeyPatch.context() as patch:
        _fail(patch, PosixDisk, "sync_filesystem")
        status, document = _start(top)
    assert (status, document["error"]["code"]) == (6, "Halted")
    assert _start(top)[0] == 0
    assert all(Path(top, target).exists() for target in TARGETS)
    assert not Journal(PosixDisk.at(top), f"{ENGINE}/journal").read(repair=False).open


def test_pack_that_vanishes_while_it_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pack that is listed but cannot be found is refused by name."""
    monkeypatch.setattr(find, "names", lambda _=(): ("ghost",))
    with pytest.raises(PackDamagedError):
        find.load("ghost")


@pytest.mark.parametrize("verb", ["write_file", "sync_file", "rename"])
def test_no_unfinished_stamp_stays(top: str, verb: str) -> None:
    """A stamp that could not be written is gone at once, or at the latest after the next start."""
    _start(top)
    stamp = Path(top, ENGINE, "stamp")
    before = stamp.read_bytes()
    _start(top, "rollback")
    with pytest.MonkeyPatch.context() as patch:
        original = getattr(PosixDisk, verb)

        def refused(disk: PosixDisk, path: str, *rest: Any) -> Any:
            if path.endswith("stamp.new"):
                raise OSError(errno.EIO, os.strerror(errno.EIO), path)
            return original(disk, path, *rest)

        patch.setattr(PosixDisk, verb, refused)
        _start(top)
    _start(top)
    _start(top)
    assert not stamp.with_suffix(".new").exists()
    assert stamp.read_bytes().split(b"\n")[1:3] == before.split(b"\n")[1:3]


@pytest.mark.parametrize("name", ["mark_waiting", "note", "forget"])
def test_rollback_that_could_not_be_noted(top: str, name: str) -> None:
    """A trial that was taken back leaves nothing behind, at the latest after another rollback, whatever could not be noted."""
    before = capture(top)
    _start(top, "--trial")
    with pytest.MonkeyPatch.context() as patch:
        _fail(patch, takeback, name)
        assert _start(top, "rollback")[0] == 0
    _start(top, "rollback")
    assert diff(before, capture(top)) == ""
    assert set(os.listdir(Path(top, ENGINE))) <= {"ledger", "stamp"}
    assert b"\nlayout legacy\n" in Path(top, ENGINE, "stamp").read_bytes()
