"""What is out of date makes way for what is converted anew: whoever writes, dies or is refused meanwhile, nothing is lost."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from tests.support.dying import ProcessDeathError, dying
from tests.support.olddisk import (
    DIGEST,
    IMAGE,
    PREPARED,
    TARGETS,
    VERIFIED,
    VERIFIED_FOLDER,
    append,
    checked,
    fake_vault,
    left,
    make_disk,
    set_times,
    stopping,
    unsynced,
    write,
)
from upgradeconverter.disk.posix import PosixDisk
from upgradeconverter.errors import EXIT_DEVIATIONS, EXIT_DONE, EXIT_REFUSED
from upgradeconverter.journal.record import RecordKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NEW = TARGETS[0]
INSIDE = "rootfs/etc/hostname"
FILE, TREE = (IMAGE, NEW), (f"{PREPARED}/{INSIDE}", f"{TARGETS[1]}/{INSIDE}")
VERIFIED_FILE = f"{VERIFIED_FOLDER}/name of the download"
DUPLICATE = VERIFIED_FILE.replace("appImg.obj", "baseOs.obj")
PRECIOUS = b" by the new system"


@pytest.fixture(autouse=True)
def vault() -> Iterator[None]:
    """Let the vault be a domain of its own, so that everything has two versions."""
    with unsynced(), fake_vault():
        yield


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """Return an old disk that was converted on trial, with whose image the old system went on since."""
    place = tmp_path / "persist"
    make_disk(place)
    assert _do(place, "--trial")[0] == EXIT_DONE
    append(place / IMAGE, b" old")
    return place


def _do(top: Path, *words: str) -> tuple[int, dict[str, Any]]:
    return checked(*words, "-p", str(top), "--target", "latest")


def _where(top: Path, text: bytes) -> list[str]:
    """Return the files that hold a text, the journal aside."""
    files = (path for path in top.rglob("*") if path.is_file() and not path.is_symlink() and path.name != "journal")
    return [str(path.relative_to(top)) for path in files if text in path.read_bytes()]


def _is_aside(paths: list[str]) -> bool:
    return len(paths) == 1 and "/quarantine/" in paths[0]


@contextmanager
def _dying_after_the_rename(of: str = NEW) -> Iterator[None]:
    """Let the body die just after something, the new one where nothing is said, has got another name."""
    rename = PosixDisk.rename

    def stopped(disk: PosixDisk, source: str, target: str) -> None:
        rename(disk, source, target)
        if source == of:
            raise ProcessDeathError

    with pytest.MonkeyPatch.context() as patch, suppress(ProcessDeathError):
        patch.setattr(PosixDisk, "rename", stopped)
        yield


def _replace(path: Path, content: bytes) -> None:
    """Write as careful programs do."""
    other = path.with_name("being written")
    other.write_bytes(content)
    other.rename(path)


# --- the new system goes on with what makes way ------------------------------------------------------------------------


@pytest.mark.parametrize(("old", "new"), [FILE, TREE], ids=["file", "tree"])
def test_new_system_writes_after_a_death(top: Path, old: str, new: str) -> None:
    """Die when all is staged; the new system boots all the same: what it writes then is not deleted for being out of date."""
    append(top / old, b" old")
    with stopping((RecordKind.STAGED, "after")):
        _do(top, "--trial")
    append(top / new, PRECIOUS)
    status, document = _do(top, "confirm")
    assert (status, document["error"]["code"]) == (EXIT_REFUSED, "TrialOvertaken")
    assert _where(top, PRECIOUS) == [new]
    assert _do(top, "--trial")[0] == EXIT_DONE
    assert _is_aside(_where(top, PRECIOUS))
    assert (top / new).read_bytes() == (top / old).read_bytes()


def _write(path: Path) -> None:
    append(path, PRECIOUS)


def _put_another(path: Path) -> None:
    _replace(path, PRECIOUS)


@pytest.mark.parametrize("go_on", [_write, _put_another])
def test_new_system_writes_while_the_old_one_is_copied(top: Path, go_on: Callable[[Path], None]) -> None:
    """Copying takes its time; what the new system goes on with meanwhile stays, and is settled by the next start."""
    copy = PosixDisk.copy

    def copying(disk: PosixDisk, order: Any, **options: Any) -> Any:
        receipt = copy(disk, order, **options)
        if order.source == IMAGE:
            go_on(top / NEW)
        return receipt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PosixDisk, "copy", copying)
        assert left(_do(top, "--trial")[1]) == {IMAGE: "ChangedMeanwhile"}
    assert _where(top, PRECIOUS) == [NEW]
    _do(top, "--trial")
    assert _is_aside(_where(top, PRECIOUS))


@pytest.mark.parametrize("go_on", [_write, _put_another, "open"])
def test_new_system_is_quicker_than_the_rename(top: Path, go_on: Callable[[Path], None] | str) -> None:
    """Somebody goes on with what makes way, after the last look at it: it is looked at once more, and set aside."""
    rename, held = PosixDisk.rename, list[IO[bytes]]()

    def renaming(disk: PosixDisk, source: str, target: str) -> None:
        if source == NEW and callable(go_on):
            go_on(top / NEW)
        elif source == NEW:
            held.append((top / NEW).open("r+b"))
        rename(disk, source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PosixDisk, "rename", renaming)
        status, document = _do(top, "--trial")
    for file in held:
        file.write(PRECIOUS)
        file.close()
    assert (status, left(document)) == (EXIT_DONE, {NEW: "Diverged"})
    assert _is_aside(_where(top, PRECIOUS))
    assert (top / NEW).read_bytes().endswith(b" old")


def test_new_system_has_mounted_something_there(top: Path) -> None:
    """A tree with a mount in it does not make way."""
    append(top / TREE[0], b" old")
    with pytest.MonkeyPatch.context() as patch:
        inside = (f"{TARGETS[1]}/mnt",)
        patch.setattr(PosixDisk, "mounts", lambda _, path: inside if path == TARGETS[1] else ())
        assert left(_do(top, "--trial")[1]) == {PREPARED: "InUse"}
    assert not (top / TREE[1]).read_bytes().endswith(b" old")


# --- recovery ----------------------------------------------------------------------------------------------------------


def test_number_of_an_inode_is_used_again(top: Path) -> None:
    """A new version by the new system may have the inode number of what has made way: it is taken for what it is."""
    (top / "kept").hardlink_to(top / NEW)
    _do(top, "--trial")
    (top / "kept").rename(top / NEW)
    with stopping((RecordKind.CONFIRMED, "after")):
        _do(top, "confirm")
    assert _do(top, "--trial")[0] == EXIT_DONE
    assert _do(top, "rollback")[0] == EXIT_DONE
    assert (top / IMAGE).exists()


@pytest.mark.parametrize("written", [b"", b" new"])
def test_both_names_after_a_power_cut(top: Path, written: bytes) -> None:
    """A power cut in a rename can leave both names to what makes way (seen on btrfs)."""
    append(top / NEW, written)

    def torn(disk: PosixDisk, source: str, target: str) -> None:
        if source == NEW:
            (top / target).hardlink_to(top / source)
            raise ProcessDeathError
        rename(disk, source, target)

    rename = PosixDisk.rename
    with pytest.MonkeyPatch.context() as patch, suppress(ProcessDeathError):
        patch.setattr(PosixDisk, "rename", torn)
        _do(top, "--trial")
    assert _do(top, "--trial")[0] == EXIT_DONE
    assert (top / NEW).read_bytes().endswith(b" old")
    assert _do(top, "rollback")[0] == EXIT_DONE
    assert not (top / NEW).exists()


@pytest.mark.parametrize("other", ["nothing", "file", "link"])
def test_folder_is_gone(top: Path, other: str) -> None:
    """Die when what was out of date has made way; somebody removes the empty folder: the next start comes to its end."""
    shutil.rmtree(top / TARGETS[1])
    shutil.rmtree(top / PREPARED)
    with _dying_after_the_rename():
        _do(top, "--trial")
    folder = (top / NEW).parent
    folder.rmdir()
    if other == "file":
        folder.write_bytes(b"")
    elif other == "link":
        folder.symlink_to("elsewhere")
    status, document = _do(top, "--trial")
    assert status == EXIT_DONE
    assert left(document)[NEW] == "ChangedMeanwhile"
    assert (top / NEW).exists() == (other == "nothing")
    assert (top / IMAGE).read_bytes().endswith(b" old")
    assert _do(top, "rollback")[0] in (EXIT_DONE, EXIT_DEVIATIONS)


def test_rollback_that_died(top: Path) -> None:
    """What the second trial has taken out of the first stays out of it, however far a rollback has come."""
    _do(top, "--trial")
    with dying() as done:
        _do(top, "rollback")
    for at in range(0, len(done), 5):
        _do(top, "--trial")
        append(top / IMAGE, b" old")
        _do(top, "--trial")
        with dying(at):
            _do(top, "rollback")
        status, document = _do(top, "--trial")
        assert (status, left(document)) == (EXIT_DONE, {}), at
        assert (top / NEW).read_bytes() == (top / IMAGE).read_bytes(), at
        _do(top, "rollback")


@pytest.mark.parametrize("kind", [RecordKind.BEGIN, RecordKind.STAGED, RecordKind.COMMITTED])
def test_old_system_writes_once_more_after_a_death(top: Path, kind: RecordKind) -> None:
    """A confirmation that has to recover first looks after that whether the old system went on with something."""
    with stopping((kind, "after")):
        _do(top, "--trial")
    append(top / IMAGE, b" once more")
    status, document = _do(top, "confirm")
    assert (status, document["error"]["code"]) == (EXIT_REFUSED, "TrialOvertaken")
    assert (top / IMAGE).read_bytes().endswith(b" once more")


# --- what the disk refuses ---------------------------------------------------------------------------------------------


def test_second_names_are_refused(tmp_path: Path) -> None:
    """Where a second name is refused and a copy is made instead, what is out of date makes way for that as well."""
    place = tmp_path / "persist"
    make_disk(place)

    def refusing(_: PosixDisk, source: str, __: str) -> int:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), source)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("upgradeconverter.disk.native.encryption_policy", lambda _: b"")
        patch.setattr(PosixDisk, "make_hard_link", refusing)
        for _ in range(3):
            assert _do(place, "--trial")[0] == EXIT_DONE
            assert (place / NEW).read_bytes() == (place / IMAGE).read_bytes()
            append(place / IMAGE, b" old")


def _become_immutable(patch: pytest.MonkeyPatch, fixed: str) -> None:
    survey = PosixDisk.survey
    patch.setattr(PosixDisk, "is_immutable", lambda _, path: path == fixed)
    patch.setattr(
        PosixDisk,
        "survey",
        lambda disk, path, **how: replace(survey(disk, path, **how), immutable=(path,) if path == fixed else ()),
    )


def test_new_one_is_immutable(top: Path) -> None:
    """What cannot be moved stays, and stops nothing else; a rollback names it, and says that it is not all."""
    append(top / TREE[0], b" old")
    with pytest.MonkeyPatch.context() as patch:
        _become_immutable(patch, NEW)
        status, document = _do(top, "--trial")
        assert (status, left(document)) == (EXIT_DONE, {IMAGE: "Immutable"})
        assert (top / TREE[1]).read_bytes().endswith(b" old")
        status, document = _do(top, "rollback")
        assert (status, left(document)) == (EXIT_DEVIATIONS, {IMAGE: "Immutable"})
    assert ((top / NEW).exists(), (top / TREE[1]).exists(), (top / TREE[0]).exists()) == (True, False, True)


# --- what somebody put in the place of a new one -----------------------------------------------------------------------


def _to_a_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


@pytest.mark.parametrize("put", [_put_another, _to_a_link])
def test_new_one_was_replaced(top: Path, put: Callable[[Path], None]) -> None:
    """A rollback sets aside what somebody put in the place of what the trial made, so that the next one finds its place free."""
    put(top / NEW)
    status, document = _do(top, "rollback")
    assert (status, left(document)) == (EXIT_DONE, {IMAGE: "Diverged"})
    assert not os.path.lexists(top / NEW)
    assert len(list(top.rglob("quarantine/*"))) == 1
    assert left(_do(top, "--trial")[1]) == {}


def test_new_one_was_replaced_by_something_else(top: Path) -> None:
    """A confirmation does not put the old one away when what is there under the new name is no such thing any more."""
    _do(top, "--trial")
    _to_a_link(top / NEW)
    document = _do(top, "confirm")[1]
    assert left(document) == {IMAGE: "ChangedMeanwhile"}
    assert {item["source"]: item["status"] for item in document["items"]}[IMAGE] == "left"
    assert (top / IMAGE).exists()


# --- what was there under its new name already -------------------------------------------------------------------------


@pytest.fixture
def adopted(tmp_path: Path) -> Path:
    """Return an old disk that was converted on trial, on which image and verified file lay at their new places before."""
    place = tmp_path / "adopted"
    make_disk(place)
    for old, new in ((IMAGE, NEW), (VERIFIED_FILE, TARGETS[2])):
        write(place / new, (place / old).read_bytes())
    set_times(place)
    _do(place, "--trial")
    return place


def test_adopted_one_is_gone(adopted: Path) -> None:
    """What was deleted under its new name is not deleted under its old one; nor what has not its digest any more."""
    (adopted / NEW).unlink()
    _replace(adopted / TARGETS[2], b"something else")
    document = _do(adopted, "confirm")[1]
    assert {path: left(document)[path] for path in (IMAGE, VERIFIED_FILE)} == dict.fromkeys(
        (IMAGE, VERIFIED_FILE), "ChangedMeanwhile"
    )
    assert ((adopted / IMAGE).exists(), (adopted / VERIFIED_FILE).exists()) == (True, True)


def test_old_system_goes_on_with_an_adopted_one(adopted: Path) -> None:
    """The old system's version is converted anew; since nobody knows whose the other one is, that is set aside."""
    before = (adopted / NEW).read_bytes()
    append(adopted / IMAGE, b" old")
    assert _do(adopted, "confirm")[1]["error"]["code"] == "TrialOvertaken"
    assert left(_do(adopted, "--trial")[1]) == {NEW: "Diverged"}
    assert (adopted / NEW).read_bytes() == (adopted / IMAGE).read_bytes()
    assert [path.read_bytes() for path in adopted.rglob("quarantine/*")] == [before]


def test_old_system_goes_on_with_a_duplicate(tmp_path: Path) -> None:
    """Of two with the same new name one was converted and the other is a duplicate: what becomes of that is told."""
    place = tmp_path / "persist"
    make_disk(place)
    upper = DUPLICATE.replace(DIGEST, DIGEST.upper())
    write(place / upper, VERIFIED)
    set_times(place)
    _do(place, "--trial")
    append(place / upper, b" old")
    assert left(_do(place, "--trial")[1]) == {upper: "Diverged"}
    _do(place, "confirm")
    assert (place / upper).exists()


# --- somebody puts something in the way --------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("--trial",), ("confirm",), ("rollback",)])
def test_name_is_taken_after_a_death(top: Path, words: tuple[str, ...]) -> None:
    """Die when something has made way; whoever has it open writes on, and another takes its name: both are kept."""
    with _dying_after_the_rename():
        _do(top, "--trial")
    with next(top.rglob("trash/*/*")).open("ab") as file:
        file.write(PRECIOUS)
    (top / NEW).write_bytes(b"another")
    status, document = _do(top, *words)
    assert (status, left(document)[NEW]) in [
        (EXIT_DONE, "Diverged"),
        (EXIT_REFUSED, "ChangedMeanwhile"),
        (EXIT_DEVIATIONS, "ChangedMeanwhile"),
    ]
    assert _is_aside(_where(top, PRECIOUS))
    assert len(_where(top, b"another")) == 1


@pytest.mark.parametrize("words", [("--trial",), ("confirm",), ("rollback",)])
def test_name_is_taken_while_a_rollback_is_under_way(top: Path, words: tuple[str, ...]) -> None:
    """A rollback that died has set something aside; something else comes under the same name: that goes beside it."""
    append(top / NEW, PRECIOUS)
    with _dying_after_the_rename():
        _do(top, "rollback")
    (top / NEW).write_bytes(b"another")
    assert _do(top, *words)[0] == EXIT_DONE
    assert _is_aside(_where(top, PRECIOUS))
    assert _is_aside(_where(top, b"another"))


@pytest.mark.parametrize("reason", ["Immutable", "InUse"])
def test_what_replaced_a_new_one_cannot_be_moved(top: Path, reason: str) -> None:
    """A rollback that must leave what was put in the place of a new one names it and comes to its end."""
    _put_another(top / NEW)
    with pytest.MonkeyPatch.context() as patch:
        if reason == "Immutable":
            patch.setattr(PosixDisk, "is_immutable", lambda _, path: path == NEW)
        else:
            patch.setattr(PosixDisk, "mounts", lambda _, path: (NEW,) if path == NEW else ())
        status, document = _do(top, "rollback")
    assert (status, left(document)) == (EXIT_DEVIATIONS, {IMAGE: reason})
    assert (top / NEW).exists()
    assert not (top / TREE[1]).exists()


@pytest.mark.parametrize("other", ["nothing", "file"])
def test_folder_of_an_old_one_is_gone(tmp_path: Path, other: str) -> None:
    """A rollback makes the folder anew that somebody removed, and sets aside what has no place any more; it tells of both."""
    place = tmp_path / "persist"
    make_disk(place)
    with stopping((RecordKind.COMMITTED, "after")):
        _do(place)
    with _dying_after_the_rename(IMAGE):
        _do(place)
    (place / "img").rmdir()
    if other == "file":
        (place / "img").write_bytes(b"")
    status, document = _do(place, "rollback")
    assert left(document) == {IMAGE: "ChangedMeanwhile"}
    assert (status, (place / IMAGE).exists()) == ((EXIT_DEVIATIONS, False) if other == "file" else (EXIT_DONE, True))
    assert len(_where(place, b"image of a virtual machine")) == 1


def test_disk_refuses_to_look_at_what_is_to_make_way(top: Path) -> None:
    """What cannot be read when a start goes on, or when all is staged, takes back only what it must."""
    append(top / TREE[0], b" old")
    with stopping((RecordKind.STAGED, "after")):
        _do(top, "--trial")
    survey = PosixDisk.survey

    def refusing(disk: PosixDisk, path: str, **options: Any) -> Any:
        if path == TARGETS[1]:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return survey(disk, path, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PosixDisk, "survey", refusing)
        status, document = _do(top, "--trial")
    assert (status, left(document)) == (EXIT_DONE, {PREPARED: "DiskFailed"})
    assert (top / NEW).read_bytes().endswith(b" old")


# --- what is said ------------------------------------------------------------------------------------------------------


def test_what_made_way_is_told_once(top: Path) -> None:
    """What made way waits for nothing, and is not told of again by the confirmation."""
    append(top / NEW, PRECIOUS)
    assert left(_do(top, "--trial")[1]) == {NEW: "Diverged"}
    assert NEW not in _do(top, "status")[1]["details"]["waiting for confirmation"]
    document = _do(top, "confirm")[1]
    assert left(document) == {}
    assert NEW not in {item["source"] for item in document["items"]}
