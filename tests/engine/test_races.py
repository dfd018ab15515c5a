"""What others do to the disk in the middle of a run: nothing of it is lost, and nothing is said that is not so."""

from __future__ import annotations

import errno
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.dying import VERBS, ProcessDeathError, dying
from tests.support.olddisk import (
    CONFIG,
    IMAGE,
    PREPARED,
    TARGETS,
    checked,
    contents,
    fake_vault,
    make_disk,
    unsynced,
    write,
)
from upgradeconverter.disk.posix import PosixDisk
from upgradeconverter.engine import remember, session
from upgradeconverter.journal.log import Journal
from upgradeconverter.journal.record import RecordKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.olddisk import FakeVault

LATE = b"written by somebody else"


@pytest.fixture(autouse=True)
def vault() -> Iterator[FakeVault]:
    """Return a vault that is a domain of its own."""
    with unsynced(), fake_vault() as state:
        yield state


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """Return the old disk."""
    return Path(make_disk(tmp_path / "persist"))


def _run(top: Path, *words: str) -> tuple[int, dict[str, Any]]:
    return checked(*words, "-p", str(top), "--target", "latest")


def _meanwhile(patch: pytest.MonkeyPatch, at: int, deed: Callable[[str], None]) -> None:
    """Let somebody do something just before the `at`-th effective verb, which the deed is told."""
    count = iter(range(1 << 20))

    def counted(verb: str) -> Any:
        original = getattr(PosixDisk, verb)

        def call(*arguments: Any, **options: Any) -> Any:
            if next(count) == at:
                deed(verb)
            return original(*arguments, **options)

        return call

    for verb in VERBS:
        patch.setattr(PosixDisk, verb, counted(verb))


def _verbs(tmp_path: Path) -> int:
    top = make_disk(tmp_path / "counted")
    with dying() as done:
        _run(Path(top))
    return len(done)


def _all_bytes(top: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(top.rglob("*")) if path.is_file() and not path.is_symlink())


def _overwrite(image: Path, written: list[str], verb: str, *, hides: bool) -> None:
    """Overwrite an image that is still there; hidden, between the last look and the rename, nothing could show it."""
    if image.exists() and not (hides and verb == "rename"):
        facts = image.stat()
        image.write_bytes(LATE[: facts.st_size].ljust(facts.st_size, b"."))
        os.utime(image, ns=(facts.st_atime_ns, facts.st_mtime_ns + (not hides)))
        written.append(verb)


@pytest.mark.parametrize("hides", [True, False], ids=["size and time as before", "size as before"])
def test_source_written_at_any_moment(tmp_path: Path, hides: bool) -> None:
    """Whoever writes to a source in the middle, even hidden by size and time, finds what was written somewhere."""
    for at in range(_verbs(tmp_path)):
        top = Path(make_disk(tmp_path / str(at)))

        written: list[str] = []
        with pytest.MonkeyPatch.context() as patch:
            _meanwhile(patch, at, partial(_overwrite, top / IMAGE, written, hides=hides))
            _run(top)
        _run(top)
        assert LATE in _all_bytes(top) or not written, at
        _run(top, "rollback")
        assert LATE in _all_bytes(top) or not written, at


def test_published_copy_written_to(tmp_path: Path) -> None:
    """Die anywhere, let the new system write to what is published, then start or roll back: that is kept, and told."""
    told = 0
    for at in range(_verbs(tmp_path)):
        for words in ((), ("rollback",)):
            top = Path(make_disk(tmp_path / f"{at} {words}"))
            with dying(at):
                _run(top)
            if not (top / TARGETS[0]).exists():
                continue
            with (top / TARGETS[0]).open("ab") as image:
                image.write(LATE)
            document = _run(top, *words)[1]
            assert LATE in _all_bytes(top), (at, words)
            aside = [path for path in top.rglob("quarantine/*") if path.is_file() and LATE in path.read_bytes()]
            assert [skip["reason"] for skip in document["skipped"] if "set aside" in skip["detail"]] == ["Diverged"] * len(aside)
            told += len(aside)
    assert told


def test_both_places_written_to(top: Path) -> None:
    """After a power cut between publication and commitment both systems ran: both copies stay, and the old one is named."""
    with pytest.MonkeyPatch.context() as patch:
        real = PosixDisk.append

        def die_before_committed(disk: PosixDisk, path: str, content: bytes) -> None:
            if b'"kind":"committed"' in content:
                raise ProcessDeathError
            real(disk, path, content)

        patch.setattr(PosixDisk, "append", die_before_committed)
        with pytest.raises(ProcessDeathError):
            _run(top)
    for path in (TARGETS[0], IMAGE):
        with (top / path).open("ab") as image:
            image.write(LATE + path.encode())
    status, document = _run(top)
    assert (status, [skip["path"] for skip in document["skipped"]]) == (0, [IMAGE])
    for path in (TARGETS[0], IMAGE):
        assert (top / path).read_bytes().endswith(LATE + path.encode())


def test_configuration_arrives_while_the_stamp_is_made(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration that comes between the look and the signature must not be answered with "nothing to do"."""
    (top / "checkpoint/lastconfig").unlink()
    real = session.watched_paths

    def arriving(*arguments: Any) -> tuple[str, ...]:
        if not (top / "checkpoint/lastconfig").exists():
            write(top / "checkpoint/lastconfig", CONFIG)
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(remember, "watched_paths", arriving)
        _run(top)
    assert (top / IMAGE).exists()
    from upgradeconverter.preflight import answer

    expected = {"pack": "eve", "asked": "latest", "release": "", "config": ""}
    assert answer(str(top), "all", expected, form="json") is None


def test_new_folder_that_cannot_be_made(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was to lie in a folder that cannot be made stays with it, by name; the others go on."""
    real = PosixDisk.make_directory

    def refuse(disk: PosixDisk, path: str, attributes: Any) -> int:
        if attributes.uid is not None and attributes.mode == 0o700 and next(first, 1) == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        return real(disk, path, attributes)

    first = iter(range(1))
    with monkeypatch.context() as patch:
        patch.setattr(PosixDisk, "make_directory", refuse)
        status, document = _run(top)
    moves = {item["target"]: item["status"] for item in document["items"] if item["operation"] == "Move"}
    assert (status, sorted(moves.values())) == (0, ["done", "left", "left"])
    assert {path: (top / path).exists() for path in moves} == {path: state == "done" for path, state in moves.items()}
    assert _run(top)[0] == 0
    assert all((top / path).exists() for path in TARGETS)


def test_target_folder_vanishes_before_recovery(top: Path) -> None:
    """When a transaction cannot be finished because a folder is gone, it is undone and done anew."""
    write(top / "vault/volumes/other", b"")
    (top / "vault/volumes/other").unlink()
    with pytest.MonkeyPatch.context() as patch:
        real = PosixDisk.append

        def die_after_staged(disk: PosixDisk, path: str, content: bytes) -> None:
            real(disk, path, content)
            if b'"kind":"staged"' in content:
                raise ProcessDeathError

        patch.setattr(PosixDisk, "append", die_after_staged)
        with pytest.raises(ProcessDeathError):
            _run(top)
    (top / "vault/volumes").rmdir()
    status, document = _run(top)
    assert (status, [each["result"] for each in document["recovered"]]) == (0, ["undone"])
    assert all((top / path).exists() for path in TARGETS)


def test_vault_locked_in_the_middle(top: Path, vault: FakeVault) -> None:
    """When the key goes in the middle nothing is called put back that is not; with the key the next start goes on."""
    inside = contents(str(top))
    with pytest.MonkeyPatch.context() as patch:
        real = PosixDisk.append

        def lock_at_committed(disk: PosixDisk, path: str, content: bytes) -> None:
            if b'"kind":"committed"' in content:
                vault.locked = True
                raise OSError(errno.ENOKEY, os.strerror(errno.ENOKEY), path)
            real(disk, path, content)

        patch.setattr(PosixDisk, "append", lock_at_committed)
        status, document = _run(top)
    assert (status, document["error"]["code"]) == (6, "Wedged")
    vault.locked = False
    assert _run(top)[0] == 0
    assert all((top / path).exists() for path in TARGETS)
    assert not inside - contents(str(top))


@pytest.mark.parametrize("curable", ["InUse", "Immutable"])
def test_nothing_was_converted(top: Path, curable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk on which nothing could be converted yet is not called converted."""
    with monkeypatch.context() as patch:
        if curable == "InUse":
            patch.setattr(PosixDisk, "is_open", lambda *_: True)
            patch.setattr(PosixDisk, "lived_in", lambda _, trees, folders=(): frozenset((*trees, *folders)))
            (top / PREPARED).rename(top / "runx/pods/other")
        else:
            patch.setattr(PosixDisk, "is_immutable", lambda _, path: path not in ("", "vault"))
        _run(top)
    assert _run(top, "status")[1]["details"]["carries layout"] == "legacy"


def test_replaced_just_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something else in the source's place at the last moment goes back at once; the run is put back as it says."""
    top = Path(make_disk(tmp_path / "persist"))
    real = PosixDisk.rename

    def replace_first(disk: PosixDisk, source: str, target: str) -> None:
        if source == f"{IMAGE}":
            write(top / "img/new", LATE)
            os.rename(top / "img/new", top / IMAGE)
        real(disk, source, target)

    with monkeypatch.context() as patch:
        patch.setattr("upgradeconverter.disk.native.encryption_policy", lambda _: b"")
        with monkeypatch.context() as inner:
            inner.setattr(PosixDisk, "rename", replace_first)
            status, document = _run(top)
        assert (status, document["error"]["code"]) == (4, "DiskFailed")
        assert (top / IMAGE).read_bytes() == LATE
        assert not (top / TARGETS[0]).exists()
        assert _run(top)[0] == 0
        assert (top / TARGETS[0]).read_bytes() == LATE


def test_replaced_before_its_attributes_are_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something else in the source's place does not get what the source was to get: it may be a second name of anything."""
    top = Path(make_disk(tmp_path / "persist"))
    append = Journal.append

    def replace_after(journal: Journal, txid: str, kind: RecordKind, payload: dict[str, Any]) -> None:
        append(journal, txid, kind, payload)
        if kind is RecordKind.STAGED:
            write(top / "img/new", LATE)
            os.rename(top / "img/new", top / IMAGE)

    with monkeypatch.context() as patch:
        patch.setattr("upgradeconverter.disk.native.encryption_policy", lambda _: b"")
        patch.setattr(Journal, "append", replace_after)
        status, document = _run(top)
    assert (status, document["error"]["code"]) == (4, "DiskFailed")
    assert ((top / IMAGE).read_bytes(), os.listxattr(top / IMAGE)) == (LATE, [])
