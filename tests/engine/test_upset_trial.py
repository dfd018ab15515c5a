"""What somebody may do to a disk while a trial waits, and what must not happen then: nothing goes that cannot be had again."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from tests.support.disktree import capture, diff
from tests.support.dying import dying
from tests.support.olddisk import (
    ENGINE,
    IMAGE,
    PREPARED,
    TARGETS,
    FakeVault,
    append,
    checked,
    fake_vault,
    left,
    make_disk,
    stopping,
    unsynced,
)
from upgradeconverter.disk.posix import PosixDisk
from upgradeconverter.errors import EXIT_DEVIATIONS, EXIT_DONE, EXIT_REFUSED, EXIT_WEDGED
from upgradeconverter.journal.record import RecordKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NEW = TARGETS[0]
TREE = (PREPARED, TARGETS[1])


@pytest.fixture(autouse=True)
def vault() -> Iterator[FakeVault]:
    """Let the vault be a domain of its own, so that everything has two versions."""
    with unsynced(), fake_vault() as state:
        yield state


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """Return an old disk that was converted on trial."""
    place = tmp_path / "persist"
    make_disk(place)
    assert _do(place, "--trial")[0] == EXIT_DONE
    return place


def _do(top: Path, *words: str) -> tuple[int, dict[str, Any]]:
    return checked(*words, "-p", str(top), "--target", "latest")


# --- what cannot be converted anew is not taken back -------------------------------------------------------------------


def _to_a_link(top: Path) -> None:
    (top / IMAGE).unlink()
    (top / IMAGE).symlink_to("/elsewhere")


def _without_configuration(top: Path) -> None:
    append(top / IMAGE, b" old")
    shutil.rmtree(top / "checkpoint")


def _without_room(top: Path) -> None:
    append(top / IMAGE, b"\xff" * (2 << 20))


@pytest.mark.parametrize("upset", [_to_a_link, _without_configuration, _without_room])
def test_old_one_cannot_be_converted(top: Path, upset: Callable[[Path], None]) -> None:
    """What the trial made stays where nothing could take its place, and so does what the old system made."""
    space = PosixDisk.space
    upset(top)
    before = capture(str(top))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PosixDisk, "space", lambda disk, path: replace(space(disk, path), free=2 << 20))
        for _ in range(2):
            status, document = _do(top, "--trial")
            assert (status, left(document)[IMAGE]) == (EXIT_DONE, "Diverged")
            assert diff(before, capture(str(top))) == ""
    _do(top, "confirm")
    assert (os.path.lexists(top / IMAGE), (top / NEW).exists()) == (True, True)


@pytest.mark.parametrize("written", [b"", b" new"])
@pytest.mark.parametrize("kind", [RecordKind.BEGIN, RecordKind.STAGED])
def test_old_one_goes_while_a_fallback_is_settled(top: Path, kind: RecordKind, written: bytes) -> None:
    """Die while what the old system went on with is settled; it deletes that then: what the trial made is there again."""
    append(top / NEW, written)
    append(top / IMAGE, b" old")
    new = (top / NEW).read_bytes()
    with stopping((kind, "after")):
        _do(top, "--trial")
    (top / IMAGE).unlink()
    assert _do(top, "--trial")[1]["recovered"][0]["result"] == "undone"
    assert (top / NEW).read_bytes() == new


@pytest.mark.parametrize("written", [b"", b" new"])
def test_old_one_cannot_be_read(top: Path, written: bytes) -> None:
    """What the disk refuses to read is not converted anew, and what the trial made of it is there, however far that had come."""
    append(top / NEW, written)
    append(top / IMAGE, b" old")
    before, copy = capture(str(top)), PosixDisk.copy

    def refusing(disk: PosixDisk, order: Any, **options: Any) -> Any:
        if order.source == IMAGE:
            raise OSError(errno.EIO, os.strerror(errno.EIO), IMAGE)
        return copy(disk, order, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PosixDisk, "copy", refusing)
        assert left(_do(top, "--trial")[1])[IMAGE] == "DiskFailed"
        assert diff(before, capture(str(top))) == ""
    assert _do(top, "--trial")[0] == EXIT_DONE
    assert (top / NEW).read_bytes().endswith(b" old")


# --- a rollback looks before it takes something out --------------------------------------------------------------------


@pytest.mark.parametrize("inside", ["", "/rootfs/etc/hostname"])
def test_new_one_in_use(top: Path, inside: str) -> None:
    """What somebody has open may be written to yet: it is set aside, and goes on being what they have open."""
    target = TREE[1] if inside else NEW
    with Path(top, target + inside).open("r+b") as file:
        status, document = _do(top, "rollback")
        assert (status, list(left(document).values())) == (EXIT_DONE, ["InUse"])
        file.seek(0)
        file.write(b"written on")
    assert not (top / target).exists()
    assert any(path.read_bytes().startswith(b"written on") for path in top.rglob("quarantine/**/*") if path.is_file())


def test_attributes_that_the_old_system_set(tmp_path: Path) -> None:
    """Where both names are one file, an undo takes back what the trial set, and nothing that was set since."""
    place = tmp_path / "one"
    make_disk(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("upgradeconverter.disk.native.encryption_policy", lambda _: b"")
        (place / IMAGE).chmod(0o666)
        _do(place, "--trial")
        (place / IMAGE).chmod(0o640)
        os.chown(place / IMAGE, 5, 5)
        _do(place, "rollback")
    found = (place / IMAGE).stat()
    assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (0o640, 5, 5)


@pytest.mark.parametrize("words", [("--trial",), ()])
@pytest.mark.parametrize("other", ["file", "link"])
def test_new_directory_became_something_else(tmp_path: Path, words: tuple[str, ...], other: str) -> None:
    """A rollback that finds no directory any more where the run made one leaves what is there and ends."""
    place = tmp_path / "persist"
    make_disk(place)
    _do(place, *words)
    moved = place / "vault/verifier"
    moved.rename(tmp_path / "away")
    moved.write_bytes(b"") if other == "file" else moved.symlink_to("elsewhere")
    assert _do(place, "rollback")[0] in (EXIT_DONE, EXIT_DEVIATIONS)
    assert os.path.lexists(moved)
    assert (place / IMAGE).exists()
    assert _do(place, "rollback")[0] != EXIT_WEDGED


@pytest.mark.parametrize("other", ["gone", "another file", "link"])
@pytest.mark.parametrize("linked", [False, True], ids=["copy", "second name"])
def test_new_one_is_the_only_one(tmp_path: Path, other: str, *, linked: bool) -> None:
    """What the old system deleted or put something else in the place of is set aside when the trial is taken back."""
    place = tmp_path / "persist"
    make_disk(place)
    content = (place / IMAGE).read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        if linked:
            patch.setattr("upgradeconverter.disk.native.encryption_policy", lambda _: b"")
        _do(place, "--trial")
        (place / IMAGE).unlink()
        if other == "another file":
            (place / IMAGE).write_bytes(b"made anew")
        elif other == "link":
            (place / IMAGE).symlink_to("elsewhere")
        status, document = _do(place, "rollback")
    is_kept = linked or other != "another file"
    assert (status, list(left(document).values())) == (EXIT_DONE, ["Diverged"] * is_kept)
    assert os.path.lexists(place / IMAGE) == (other != "gone")
    assert any(path.read_bytes() == content for path in place.rglob("*") if path.is_file() and not path.is_symlink()) == is_kept


def test_second_name_is_the_only_one_while_a_trial_begins(tmp_path: Path) -> None:
    """Die between two new names; the old system deletes the first file and changes the second: the next start loses nothing."""
    place = tmp_path / "persist"
    make_disk(place)
    content = (place / IMAGE).read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("upgradeconverter.disk.native.encryption_policy", lambda _: b"")
        found = False
        for at in range(200):
            with dying(at):
                _do(place, "--trial")
            if (place / NEW).exists() and not (place / TREE[1]).exists():
                found = True
                break
            _do(place, "rollback")
        assert found
        (place / IMAGE).unlink()
        append(place / TREE[0] / "rootfs/etc/hostname", b" old")
        _do(place, "--trial")
    assert any(path.read_bytes() == content for path in place.rglob("*") if path.is_file() and not path.is_symlink())


@pytest.mark.parametrize("words", [("--trial",), ()])
def test_special_file_at_a_new_name(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Something of another kind in place of a new file stays, and all the others go back."""
    place = tmp_path / "persist"
    make_disk(place)
    _do(place, *words)
    (place / NEW).unlink()
    os.mkfifo(place / NEW)
    for _ in range(2):
        assert _do(place, "rollback")[0] in (EXIT_DONE, EXIT_DEVIATIONS, EXIT_REFUSED)
    # It may have got the number of the inode that was there before, and is set aside like that then.
    assert any(path.is_fifo() for path in (place / NEW, *place.rglob("quarantine/*")))
    assert ((place / TREE[0]).exists(), (place / TREE[1]).exists()) == (True, False)


def test_bits_that_somebody_removed(tmp_path: Path) -> None:
    """A rollback gives no set-uid bit back that somebody took away since."""
    place = tmp_path / "persist"
    make_disk(place)
    (place / IMAGE).chmod(0o4644)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("upgradeconverter.disk.native.encryption_policy", lambda _: b"")
        _do(place, "--trial")
        (place / IMAGE).chmod(0o644)
        _do(place, "rollback")
    assert (place / IMAGE).stat().st_mode & 0o7777 == 0o644


def test_room_is_looked_for_before_anything_is_taken_out(top: Path) -> None:
    """A start that is refused for want of room has not taken anything out of the trial before."""
    append(top / PREPARED / "rootfs/etc/hostname", b" old")
    (top / "containerd").mkdir()
    (top / "containerd/large").write_bytes(b"\xff" * (8 << 20))
    before, space = capture(str(top), engine=True), PosixDisk.space
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("upgradeconverter.disk.native.encryption_policy", lambda _: b"")
        patch.setattr(PosixDisk, "space", lambda disk, path: replace(space(disk, path), free=4 << 20))
        assert _do(top, "--trial")[1]["error"]["code"] == "BothDoNotFit"
        assert diff(before, capture(str(top), engine=True)) == ""


@pytest.mark.parametrize("tree", TREE)
def test_one_in_use_while_a_fallback_is_settled(top: Path, tree: str) -> None:
    """While somebody works on the old or the new tree the trial stands; the start after that settles it."""
    append(top / TREE[0] / "rootfs/etc/hostname", b" old")
    with Path(top, tree, "rootfs/etc/hostname").open("r+b"):
        _do(top, "--trial")
        assert (top / TREE[1]).exists()
        assert TREE[0] in _do(top, "status")[1]["details"]["waiting for confirmation"]
    for _ in range(2):
        _do(top, "--trial")
    assert (top / TREE[1] / "rootfs/etc/hostname").read_bytes().endswith(b" old")
    assert TREE[0] in _do(top, "status")[1]["details"]["waiting for confirmation"]
    assert _do(top, "rollback")[0] == EXIT_DONE
    assert not (top / TREE[1]).exists()


# --- nobody is told what is not so -------------------------------------------------------------------------------------


def test_history_of_what_was_taken_back(top: Path) -> None:
    """What was taken out of a trial and converted anew waits once; everything is as noted."""
    append(top / IMAGE, b" old")
    _do(top, "--trial")
    _do(top, "confirm")
    last = _do(top, "history")[1]["details"]["runs"][-1]
    assert [item["status"] for item in last["items"] if item["source"] == IMAGE] == ["done"]
    assert _do(top, "verify")[1]["details"] == {"deviations": [], "changed since": []}


def test_confirming_what_was_deleted(top: Path) -> None:
    """What is gone under its new name was not moved; its old name stays, and is told as left."""
    (top / NEW).unlink()
    document = _do(top, "confirm")[1]
    assert {item["source"]: item["status"] for item in document["items"]}[IMAGE] == "left"


@pytest.mark.parametrize("damage", [os.unlink, lambda path: Path(path).write_bytes(b"")])
def test_journal_that_was_lost(top: Path, damage: Callable[[Path], None]) -> None:
    """A trial whose journal is gone is told by every command that would need it, until it is taken up anew."""
    before = capture(str(top))
    damage(top / ENGINE / "journal")
    for _ in range(2):
        assert [each for each in _do(top, "verify")[1]["details"]["deviations"] if "waits to be confirmed" in each]
        assert _do(top, "confirm")[1]["error"]["code"] == "TrialLost"
    assert _do(top, "--trial")[0] == EXIT_DONE
    assert diff(before, capture(str(top))) == ""
    assert _do(top, "confirm")[0] == EXIT_DONE
    assert ((top / IMAGE).exists(), (top / NEW).exists()) == (False, True)


def test_lost_trial_that_was_converted_for_good(top: Path) -> None:
    """Once nothing lies twice any more nobody is told of a trial that was lost."""
    (top / ENGINE / "journal").unlink()
    assert "waits" in _do(top, "status")[1]["warnings"][0]
    _do(top)
    assert not (top / ENGINE / "waiting").exists()
    assert _do(top, "verify")[1]["details"]["deviations"] == []


def test_journal_of_a_run_that_was_lost(top: Path) -> None:
    """A journal that is gone as a whole is missed like one that lost a record."""
    _do(top, "confirm")
    (top / ENGINE / "journal").unlink()
    assert [each for each in _do(top, "verify")[1]["details"]["deviations"] if "expected the records" in each]


def test_verify_after_a_rollback_and_a_trial(tmp_path: Path) -> None:
    """What a trial does to both names of one file is no deviation from what a rollback left."""
    place = tmp_path / "persist"
    make_disk(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("upgradeconverter.disk.native.encryption_policy", lambda _: b"")
        for words in ((), ("rollback",), ("--trial",)):
            _do(place, *words)
        assert _do(place, "verify")[1]["details"]["deviations"] == []


def test_vault_is_not_there(top: Path, vault: FakeVault) -> None:
    """A confirmation of what lies in another domain is refused before anything is written where that domain is missing."""
    before = capture(str(top), engine=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("upgradeconverter.disk.native.encryption_policy", lambda _: b"")
        for word in ("confirm", "rollback"):
            status, document = _do(top, word)
            assert (status, document["error"]["code"]) == (EXIT_REFUSED, "VaultNotUsable")
    assert not vault.locked
    assert diff(before, capture(str(top), engine=True)) == ""


def test_what_a_rollback_would_do(top: Path) -> None:
    """A rollback of a trial says what goes, before and after; nothing is named twice."""
    planned = _do(top, "rollback", "-n")[1]["details"]["taken back"]
    assert f"{NEW} ({IMAGE} stays)" in planned
    assert _do(top, "rollback")[1]["details"]["taken back"] == planned


def test_vault_that_cannot_be_written_to(top: Path, vault: FakeVault) -> None:
    """What would have to be settled in a vault that refuses every write is refused by name, not passed over."""
    append(top / IMAGE, b" old")
    vault.read_only = True
    status, document = _do(top, "--trial")
    assert (status, document["error"]["code"]) == (EXIT_REFUSED, "VaultNotUsable")
    assert _do(top, "pre-vault", "--trial")[1]["items"] == []


def test_disk_is_full_while_confirming(top: Path) -> None:
    """A disk that refuses on the way is told as what it is; nothing was to be put back, and the next start goes on."""

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), IMAGE)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PosixDisk, "rename", full)
        status, document = _do(top, "confirm")
    assert (status, document["error"]["code"]) == (EXIT_WEDGED, "Halted")
    assert _do(top)[0] == EXIT_DONE
    assert not (top / IMAGE).exists()
