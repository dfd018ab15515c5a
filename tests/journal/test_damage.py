"""A journal in which any one byte was damaged ends in a documented status, and never costs data."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.disktree import capture, diff
from tests.support.olddisk import ENGINE, IMAGE, TARGETS, checked, contents, fake_vault, make_disk, stopping, unsynced
from upgradeconverter.disk.posix import PosixDisk
from upgradeconverter.errors import EXIT_DONE, EXIT_REFUSED, EXIT_WEDGED
from upgradeconverter.journal.record import RecordKind

if TYPE_CHECKING:
    from collections.abc import Callable

JOURNAL = f"{ENGINE}/journal"
RECORDS = (RecordKind.BEGIN, RecordKind.STAGED, RecordKind.COMMITTED, RecordKind.DONE)
# A run stops before or after it writes a record of one kind, or, with None, not at all.
STOPS = (None, *((kind, when) for kind in RECORDS for when in ("before", "after")))
DAMAGES = ("flip", "remove", "insert")


def _damaged(content: bytes, place: int, damage: str, byte: int) -> bytes:
    before, after = content[:place], content[place:]
    if damage == "insert":
        return before + bytes([byte]) + after
    return before + (b"" if damage == "remove" else bytes([after[0] ^ byte])) + after[1:]


def _survives(stop: tuple[RecordKind, str] | None, where: float, damage: str, byte: int) -> None:
    with unsynced(), tempfile.TemporaryDirectory() as scratch:
        top = make_disk(Path(scratch) / "persist")
        arguments = ("-p", top, "--target", "latest")
        inside = contents(top)
        with stopping(stop):
            checked(*arguments)
        journal = Path(top) / JOURNAL
        content = journal.read_bytes() if journal.exists() else b""
        if not content:
            return
        journal.write_bytes(_damaged(content, min(int(where * len(content)), len(content) - 1), damage, byte))
        touched = capture(top)

        for words in (("plan",), ("status",)):
            checked(*words, *arguments)
        status, document = checked(*arguments)
        assert status in (EXIT_DONE, EXIT_WEDGED), document["error"]
        assert not inside - contents(top)
        if (document["error"] or {}).get("code") == "JournalDamaged":
            assert diff(touched, capture(top)) == ""

        result = capture(top)
        again, _ = checked(*arguments)
        assert again == status
        assert diff(result, capture(top)) == ""
        checked("rollback", "-p", top)
        assert not inside - contents(top)


@pytest.mark.timeout(120)
@settings(deadline=None, max_examples=20)
@given(
    stop=st.sampled_from(STOPS),
    where=st.floats(0, 1),
    damage=st.sampled_from(DAMAGES),
    byte=st.integers(1, 255),
)
def test_one_damaged_byte(stop: tuple[RecordKind, str] | None, where: float, damage: str, byte: int) -> None:
    """Wherever a run stopped and whichever byte of its journal is damaged: finished, or refused and untouched, never lost."""
    _survives(stop, where, damage, byte)


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("stop", STOPS, ids=str)
def test_each_place_of_the_journal(stop: tuple[RecordKind, str] | None, damage: str) -> None:
    """The same for places all over the journal, the first and the last byte and the ends of lines among them."""
    for number in range(13):
        _survives(stop, number / 12, damage, 1 + 37 * number % 255)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("stop", STOPS, ids=str)
def test_last_record(stop: tuple[RecordKind, str] | None, damage: str) -> None:
    """The end of the journal, which a power cut may tear, is where most can go wrong."""
    for where in (0.999, 1.0):
        _survives(stop, where, damage, ord("\n"))


def _twice(lines: list[bytes], number: int) -> list[bytes]:
    return [*lines[: number + 1], *lines[number:]]


def _swapped(lines: list[bytes], number: int) -> list[bytes]:
    return [*lines[:number], *lines[number : number + 2][::-1], *lines[number + 2 :]]


def _removed(lines: list[bytes], number: int) -> list[bytes]:
    return lines[:number] + lines[number + 1 :]


def _cut_at_its_end(lines: list[bytes], number: int) -> list[bytes]:
    return [*lines[:number], lines[number][:-1]]


def _cut_in_the_middle(lines: list[bytes], number: int) -> list[bytes]:
    return [*lines[:number], lines[number][: len(lines[number]) // 2]]


def _cut_before_it(lines: list[bytes], number: int) -> list[bytes]:
    return lines[:number]


def _zero_sector(lines: list[bytes], number: int) -> list[bytes]:
    content, place = b"".join(lines), len(b"".join(lines[:number])) // 512 * 512
    return [content[:place] + bytes(min(512, len(content) - place)) + content[place + 512 :]]


def _garbage_behind_it(lines: list[bytes], number: int) -> list[bytes]:
    return [*lines[: number + 1], b"\xff" * 100, *lines[number + 1 :]]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(damage, id=damage.__name__.strip("_"))
        for damage in (
            _twice,
            _swapped,
            _removed,
            _cut_at_its_end,
            _cut_in_the_middle,
            _cut_before_it,
            _zero_sector,
            _garbage_behind_it,
        )
    ],
)
@pytest.mark.parametrize("stop", [None, (RecordKind.STAGED, "after"), (RecordKind.COMMITTED, "after")], ids=str)
def test_damaged_records(tmp_path: Path, stop: tuple[RecordKind, str] | None, damage: Callable[..., list[bytes]]) -> None:
    """Whatever became of whichever record: refused by name without touching anything, or healed; in neither case data is lost."""
    with unsynced(), fake_vault():
        model = make_disk(tmp_path / "model")
        inside = contents(model)
        with stopping(stop):
            checked("-p", model, "--target", "latest")
        lines = (tmp_path / "model" / JOURNAL).read_bytes().splitlines(keepends=True)
        assert len(lines) > 1
        for number in range(len(lines)):
            top = str(tmp_path / f"{number}")
            subprocess.run(["cp", "-a", model, top], check=True)
            journal = Path(top) / JOURNAL
            journal.write_bytes(b"".join(damage(lines, number)))
            touched = capture(top, engine=True)

            for words in (("plan",), ("verify",), ("history",)):
                checked(*words, "-p", top, "--target", "latest")
            assert diff(touched, capture(top, engine=True)) == ""
            status, document = checked("-p", top, "--target", "latest")
            assert not inside - contents(top)
            if status == EXIT_DONE:
                again = capture(top)
                assert checked("-p", top, "--target", "latest")[0] == EXIT_DONE
                assert diff(again, capture(top)) == ""
            else:
                assert (status, document["error"]["code"] in ("JournalDamaged", "UnknownState")) == (EXIT_WEDGED, True)
                if document["error"]["code"] == "JournalDamaged":
                    assert diff(touched, capture(top, engine=True)) == ""
            checked("rollback", "-p", top)
            assert not inside - contents(top)


def test_journal_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk refuses to read the journal of a run that stopped, nothing is touched; later it is finished."""
    with unsynced():
        top = make_disk(tmp_path / "persist")
        inside = contents(top)
        with stopping((RecordKind.STAGED, "after")):
            checked("-p", top, "--target", "latest")
        before = capture(top, engine=True)
        read = PosixDisk.read

        def refusing(disk: PosixDisk, path: str, limit: int) -> bytes:
            if path == JOURNAL:
                raise OSError(errno.EIO, os.strerror(errno.EIO), path)
            return read(disk, path, limit)

        with monkeypatch.context() as patch:
            patch.setattr(PosixDisk, "read", refusing)
            for words in ((), ("rollback",), ("plan",), ("status",)):
                status, document = checked(*words, "-p", top, "--target", "latest")
                assert (status, document["error"]["code"]) == (EXIT_REFUSED, "DiskRefused")
        assert diff(before, capture(top, engine=True)) == ""
        status, document = checked("-p", top, "--target", "latest")
        assert (status, document["recovered"][0]["result"]) == (EXIT_DONE, "finished")
        assert not inside - contents(top)


@pytest.mark.parametrize("name", ["trash", "stage", "manifest"])
@pytest.mark.parametrize("ran", [False, True], ids=["fresh", "converted"])
def test_left_over_folders(tmp_path: Path, name: str, ran: bool) -> None:
    """What lies in a working folder without belonging to any transaction of the journal is nobody's to delete."""
    with unsynced():
        top = make_disk(tmp_path / "persist")
        if ran:
            checked("-p", top, "--target", "latest")
        left = Path(top) / ENGINE / name / "0123456789abcdef" / "1"
        left.parent.mkdir(parents=True)
        left.write_bytes(b"somebody's data")
        for words in (("plan",), (), (), ("verify",)):
            status, document = checked(*words, "-p", top, "--target", "latest")
            assert status == 0, document
        assert left.read_bytes() == b"somebody's data"
        assert [os.path.exists(os.path.join(top, path)) for path in (*TARGETS, IMAGE)] == [True, True, True, False]
        assert checked("rollback", "-p", top)[0] == 0
        assert left.read_bytes() == b"somebody's data"
        assert os.path.exists(os.path.join(top, IMAGE))
