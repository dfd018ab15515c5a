"""What is not as a run left it is told by name: what somebody did with it, and what no use of it explains."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.disktree import capture, diff
from tests.support.olddisk import (
    ENGINE,
    IMAGE,
    PREPARED,
    TARGETS,
    FakeVault,
    checked,
    fake_vault,
    make_disk,
    stopping,
    unsynced,
    write,
)
from upgradeconverter.disk.manifest import file_crc
from upgradeconverter.journal.record import RecordKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VOLUME, CONTAINER, VERIFIED = TARGETS
INSIDE = f"{CONTAINER}/rootfs/etc/hostname"


@pytest.fixture(autouse=True)
def vault() -> Iterator[FakeVault]:
    """Return a vault that is a domain of its own, so that what goes there is copied."""
    with unsynced(), fake_vault() as state:
        yield state


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """Return a converted disk."""
    made = make_disk(tmp_path / "persist")
    assert checked("-p", made, "--target", "latest")[0] == 0
    return Path(made)


def _verify(top: Path, *words: str) -> tuple[int, list[str], list[str]]:
    before = capture(str(top), engine=True)
    status, document = checked("verify", *words, "-p", str(top), "--target", "latest")
    assert diff(before, capture(str(top), engine=True)) == ""
    assert document["outcome"] == ("deviations" if document["details"]["deviations"] else "information")
    return status, document["details"]["deviations"], document["details"]["changed since"]


def _quietly(place: Path, content: bytes) -> None:
    """Replace the content of a file so that size and time do not tell."""
    facts = place.stat()
    place.write_bytes(content.ljust(facts.st_size, b".")[: facts.st_size])
    os.utime(place, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def _replace(place: Path) -> None:
    shutil.copy2(place, place.with_name("new"))
    place.with_name("new").rename(place)


@pytest.mark.parametrize("words", [(), ("--deep",)], ids=["", "deep"])
def test_nothing_changed(top: Path, words: tuple[str, ...]) -> None:
    """Just after a run everything is as it was left, down to the content of what was copied."""
    assert _verify(top, *words) == (0, [], [])


@pytest.mark.parametrize(
    ("use", "told"),
    [
        pytest.param(lambda top: (top / VOLUME).unlink(), f"{VOLUME}: deleted since ", id="deleted"),
        pytest.param(lambda top: shutil.rmtree(top / CONTAINER), f"{CONTAINER}: deleted since ", id="tree deleted"),
        pytest.param(
            lambda top: (top / VOLUME).write_bytes(b"more"), f"{VOLUME}: written to (26 -> 4 bytes) since ", id="written"
        ),
        pytest.param(lambda top: os.utime(top / VOLUME), f"{VOLUME}: written to (26 -> 26 bytes) since ", id="time"),
        pytest.param(
            lambda top: (top / INSIDE).write_bytes(b"x"), f"{CONTAINER}: something inside written to since ", id="inside"
        ),
        pytest.param(lambda top: (top / INSIDE).unlink(), f"{CONTAINER}: something inside written to since ", id="gone inside"),
        pytest.param(lambda top: _replace(top / VOLUME), f"{VOLUME}: replaced since ", id="replaced"),
        pytest.param(
            lambda top: _quietly(top / VOLUME, b"x"), f"{VOLUME}: touched without a trace in size and time ", id="hidden"
        ),
    ],
)
def test_use_is_no_deviation(top: Path, use: Callable[[Path], object], told: str) -> None:
    """The new system writes to what it has, and deletes it: that is told, and the disk still is as it should be."""
    use(top)
    status, deviations, since = _verify(top)
    assert (status, deviations) == (0, [])
    assert [sentence.startswith(told) for sentence in since] == [True]


@pytest.mark.parametrize(
    ("mess", "path", "told"),
    [
        pytest.param(lambda top: (top / VOLUME).chmod(0o666), VOLUME, "expected mode 0644 as of ", id="mode"),
        pytest.param(lambda top: (top / CONTAINER).chmod(0o711), CONTAINER, "expected mode 0755 as of ", id="mode of a tree"),
        pytest.param(
            lambda top: os.setxattr(top / VOLUME, "user.upgradeconverter.owner", b"me"), VOLUME, "expected labels {", id="label"
        ),
        pytest.param(lambda top: ((top / VOLUME).unlink(), (top / VOLUME).mkdir()), VOLUME, "expected a file as of ", id="kind"),
        pytest.param(
            lambda top: write(top / IMAGE, b"anew"), IMAGE, f"Diverged: it is there again since it became {VOLUME} ", id="old"
        ),
        pytest.param(
            lambda top: write(top / PREPARED / "rootfs/x", b""), PREPARED, "Diverged: it is there again since ", id="old tree"
        ),
    ],
)
def test_deviations_from_what_was_noted(top: Path, mess: Callable[[Path], object], path: str, told: str) -> None:
    """What no use of it explains is a deviation, named by path, with what was expected."""
    mess(top)
    status, deviations, _ = _verify(top)
    assert status == 1
    assert [sentence for sentence in deviations if sentence.startswith(f"{path}: {told}")]
    assert {sentence.split(": ")[0] for sentence in deviations} == {path}


@pytest.mark.root
def test_owner(top: Path) -> None:
    """Another owner than the run left is a deviation."""
    os.chown(top / VOLUME, 4711, 4712)
    status, deviations, _ = _verify(top)
    assert (status, len(deviations)) == (1, 1)
    assert deviations[0].startswith(f"{VOLUME}: expected owner [0, 0] as of ")
    assert deviations[0].endswith("found [4711, 4712]")


@pytest.mark.parametrize("place", [VOLUME, VERIFIED], ids=["volume", "verified"])
def test_altered_without_a_trace(top: Path, place: str) -> None:
    """Content that is another one although size and time are as they were is found by reading it."""
    _quietly(top / place, b"altered")
    status, deviations, _ = _verify(top, "--deep")
    assert (status, [sentence.split(": ")[0] for sentence in deviations]) == (1, [place])
    assert "expected" in deviations[0]


def test_hidden_change_inside_a_tree(top: Path) -> None:
    """Inside of a copied tree the kernel's own time of the change gives it away, even where size and time do not."""
    _quietly(top / INSIDE, b"altered")
    assert [sentence.startswith(f"{CONTAINER}: something inside") for sentence in _verify(top)[2]] == [True]


def test_copy_that_rots(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree in which nothing was written to but whose content reads differently, as from a failing disk, is altered."""
    with monkeypatch.context() as patch:
        patch.setattr("upgradeconverter.disk.trees.file_crc", lambda fd, size: file_crc(fd, size) ^ 1)
        status, deviations, since = _verify(top, "--deep")
        assert (status, since) == (1, [])
        told = "altered although size and time are as they were: expected manifest:"
        assert [sentence.split(": ", 1)[0] for sentence in deviations if told in sentence] == [CONTAINER, VOLUME][::-1]
        assert _verify(top)[0] == 0


def test_locked_vault_is_not_taken_for_an_empty_one(top: Path, vault: FakeVault) -> None:
    """What cannot be looked at was not deleted."""
    vault.locked = True
    status, deviations, since = _verify(top)
    assert (status, deviations, since) == (1, ["vault: expected a usable vault, found it locked"], [])


def test_old_name_during_a_trial(tmp_path: Path) -> None:
    """On trial the old names are there beside the new ones, as they should be; once confirmed they should not."""
    top = Path(make_disk(tmp_path / "persist"))
    checked("-p", str(top), "--target", "latest", "--trial")
    assert not [sentence for sentence in _verify(top)[1] if "Diverged" in sentence]
    checked("confirm", "-p", str(top))
    write(top / IMAGE, b"anew")
    assert [sentence.split(": ")[0] for sentence in _verify(top)[1] if "Diverged" in sentence] == [IMAGE]


def test_what_was_taken_back_is_expected_where_it_was(top: Path) -> None:
    """After a rollback the old names are the right ones, and the new ones are expected no more."""
    assert checked("rollback", "-p", str(top))[0] == 0
    _, deviations, since = _verify(top)
    assert not [sentence for sentence in deviations if "not converted yet" not in sentence and "is noted as" not in sentence]
    assert since == []


@pytest.mark.parametrize("kind", [RecordKind.BEGIN, RecordKind.STAGED, RecordKind.COMMITTED, RecordKind.DONE])
def test_stopped_and_finished_later(tmp_path: Path, kind: RecordKind) -> None:
    """A run that died is verified like any other once a later start has finished it."""
    top = Path(make_disk(tmp_path / "persist"))
    with stopping((kind, "after")):
        checked("-p", str(top), "--target", "latest")
    checked("-p", str(top), "--target", "latest")
    assert _verify(top, "--deep") == (0, [], [])
    (top / VOLUME).chmod(0o600)
    assert [sentence.split(": ")[0] for sentence in _verify(top)[1]] == [VOLUME]


def test_journal_that_lost_records(top: Path) -> None:
    """A journal cut between two records is sound in itself; that it once held more stands in the history."""
    journal = top / ENGINE / "journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-1]))
    found = [sentence for sentence in _verify(top)[1] if sentence.startswith(f"{ENGINE}/journal: ")]
    assert found == [f"{ENGINE}/journal: expected {len(lines)} records, found {len(lines) - 1}"]
