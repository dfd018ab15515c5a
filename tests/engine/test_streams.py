"""Conversions for which there is no room: what goes over piece by piece, whatever stops it, is there, or is back, exactly."""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import signal
import subprocess
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import trouble, vaults
from tests.support.disktree import Tree, capture, diff
from tests.support.olddisk import (
    DIGEST,
    ENGINE,
    IMAGE,
    PREPARED,
    TARGETS,
    VERIFIED_FOLDER,
    checked,
    contents,
    left,
    make_disk,
    set_times,
    write,
)
from upgradeconverter.disk.posix import PosixDisk
from upgradeconverter.engine.places import JOURNAL
from upgradeconverter.errors import EXIT_WEDGED
from upgradeconverter.journal.log import Journal
from upgradeconverter.journal.record import RecordKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.root

MIB = 1 << 20
BALLAST = "ballast"
# A file or a tree is larger than what is free, and that is enough for pieces of a MiB or two.
FREE = 6 * MIB
KINDS = ("ext4", "xfs", "btrfs")
STREAMED = {IMAGE, PREPARED}


def _filler(size: int, seed: int) -> bytes:
    """Return bytes of which no two blocks are alike, and which nothing can make smaller."""
    return hashlib.shake_256(str(seed).encode()).digest(size)


def _fill_in(top: Path) -> None:
    """Put a large image and a large container onto an old disk."""
    with (top / IMAGE).open("wb") as stream:
        stream.write(_filler(5 * MIB + 77, 1))
        stream.seek(8 * MIB)
        stream.write(_filler(4 * MIB, 2))
        stream.truncate(15 * MIB + 1)
    os.chmod(top / IMAGE, 0o640)
    write(top / PREPARED / "rootfs/bin/large", _filler(4 * MIB + 3, 3))
    os.setxattr(
        top / PREPARED / "rootfs/bin/large", "security.capability", bytes.fromhex("01000002000400000000000000000000" + 8 * "0")
    )
    for number in range(40):
        write(top / PREPARED / f"rootfs/lib/{number}", _filler(100_000 + number, 100 + number))
    os.link(top / PREPARED / "rootfs/lib/7", top / PREPARED / "rootfs/lib/again")
    write(top / PREPARED / "rootfs/empty", b"")


@dataclass(slots=True)
class _Full:
    """A disk that is nearly full.

    Attributes:
        pieces: how many pieces have been recorded.
        lowest: the least that was free at any record of the journal.
        at: what is to happen after how many pieces.
    """

    top: str
    kind: str
    pieces: int = 0
    lowest: int = 1 << 62
    at: dict[int, Callable[[], object]] = field(default_factory=dict)

    @property
    def free(self) -> int:
        """Bytes that are free."""
        facts = os.statvfs(self.top)
        return facts.f_bavail * facts.f_frsize

    def start(self, *words: str) -> tuple[int, dict[str, Any]]:
        """Start the program; the disk is looked at before and after each record."""
        append = Journal.append

        def appending(journal: Journal, txid: str, kind: RecordKind, payload: dict[str, Any]) -> None:
            self.lowest = min(self.lowest, self.free)
            append(journal, txid, kind, payload)
            self.lowest = min(self.lowest, self.free)
            if kind is RecordKind.PIECE:
                self.pieces += 1
                self.at.pop(self.pieces, lambda: None)()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Journal, "append", appending)
            return checked(*words, "-p", self.top, "--target", "latest")

    def sha256(self, path: str) -> str:
        """Return the digest of a file, without a trace on its access time."""
        disk = PosixDisk.at(self.top)
        try:
            return disk.sha256(path)
        finally:
            disk.close()

    def take_all(self, but: int = 0) -> None:
        """Let somebody else take all the room that there is, but so many bytes."""
        with open(f"{self.top}/{BALLAST}/more", "ab") as stream:
            size = 0
            for step in (MIB, 1 << 16, 1 << 12):
                with _until_full():
                    while True:
                        os.posix_fallocate(stream.fileno(), size, step)
                        size += step
            os.ftruncate(stream.fileno(), max(size - but, 0))

    def give_back(self) -> None:
        """Let somebody else go away again."""
        os.unlink(f"{self.top}/{BALLAST}/more")
        subprocess.run(["sync", "-f", self.top], check=True)

    def files(self) -> Tree:
        """Return all that lies there, but for what is in the way."""
        return {path: entry for path, entry in capture(self.top).items() if BALLAST not in path and path}


@contextmanager
def _until_full() -> Iterator[None]:
    try:
        yield
    except OSError:
        return


@contextmanager
def _full(scratch: Path, kind: str, *, free: int = FREE, fill_in: Callable[[Path], None] = _fill_in) -> Iterator[_Full]:
    """Make an old disk on which so much is free; its vault is behind a real key, or a mount of its own."""
    with ExitStack() as stack:
        top = stack.enter_context(vaults.mounted(str(scratch / "image"), str(scratch / "persist"), size="64M", kind=kind))
        make_disk(Path(top))
        fill_in(Path(top))
        os.mkdir(f"{top}/{BALLAST}")
        if kind == "ext4":
            vaults.encrypt(f"{top}/vault", vaults.add_key(top))
        else:
            stack.enter_context(trouble.mount_inside(f"{top}/vault"))
        subprocess.run(["sync", "-f", top], check=True)
        disk = _Full(top, kind)
        _load(disk, free)
        set_times(Path(top))
        yield disk


def _load(disk: _Full, free: int) -> None:
    """Leave only so much free."""
    for number in range(4):
        more = disk.free - free
        if more > 1 << 16:
            with open(f"{disk.top}/{BALLAST}/{number}", "wb") as stream:
                os.posix_fallocate(stream.fileno(), 0, more)
            subprocess.run(["sync", "-f", disk.top], check=True)


@pytest.fixture(params=KINDS)
def full(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[_Full]:
    """Return a disk on which neither the image nor the container fits twice."""
    with _full(tmp_path, request.param) as disk:
        yield disk


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[_Full]:
    """Return such a disk whose vault is behind a real key."""
    with _full(tmp_path, "ext4") as disk:
        yield disk


def _transfers(document: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {item["source"]: (item["transfer"], item["status"]) for item in document["items"] if item["operation"] == "Move"}


def _is_open(top: str) -> bool:
    disk = PosixDisk.at(top)
    try:
        return bool(Journal(disk, JOURNAL).read(repair=False).open)
    finally:
        disk.close()


def _require_converted(disk: _Full, before: Tree) -> None:
    """All that was there is there under its new name, and nothing is left over."""
    after = disk.files()
    for old, new in zip((IMAGE, PREPARED), TARGETS, strict=False):
        assert not [path for path in after if path == old or path.startswith(f"{old}/")]
        there = {path.removeprefix(new): entry for path, entry in after.items() if path == new or path.startswith(f"{new}/")}
        was = {path.removeprefix(old): entry for path, entry in before.items() if path == old or path.startswith(f"{old}/")}
        for path, entry in was.items():
            found = there.get(path, {})
            kept = ("kind", "size", "to", *(("mtime",) if path else ()))
            assert {name: found.get(name) for name in kept} == {name: entry.get(name) for name in kept}, old + path
            assert _different(found, entry) == [], (old + path, disk.pieces)
            assert found.get("xattrs", {}).items() >= entry.get("xattrs", {}).items()
    assert not _is_open(disk.top)
    assert not os.path.exists(f"{disk.top}/vault/{ENGINE}")
    assert not {"stage", "trash", "quarantine"} & set(os.listdir(f"{disk.top}/{ENGINE}"))


def _different(one: dict[str, Any], other: dict[str, Any]) -> list[int]:
    """Return where two files have other content, in blocks; what is a hole in one and zeros in the other is the same."""
    first, second = _content(one), _content(other)
    return [at for at in range(0, max(len(first), len(second)), 4096) if first[at : at + 4096] != second[at : at + 4096]]


def _content(entry: dict[str, Any]) -> bytes:
    content = bytearray(int(entry.get("size", 0)))
    for offset, coded, text in entry.get("data", []):
        part = base64.b64decode(text) if coded == "base64" else str(text).encode()
        content[offset : offset + len(part)] = part
    return bytes(content)


def _require_before(disk: _Full, before: Tree) -> None:
    """All is as it was."""
    assert diff(before, disk.files()) == ""
    assert not os.path.exists(f"{disk.top}/vault/{ENGINE}")


def test_forth_and_back(full: _Full) -> None:
    """What fits only so goes over in pieces, as the plan says, within the room that it states; and comes back the same way."""
    before = full.files()
    planned = full.start("plan")[1]
    assert {path for path, (transfer, _) in _transfers(planned).items() if transfer == "stream"} == STREAMED
    free = full.free
    status, document = full.start()
    assert (status, document["outcome"], document["skipped"]) == (0, "done", [])
    assert {_transfers(document)[path] for path in STREAMED} == {("stream", "done")}
    assert full.pieces > 4
    (space,) = document["space"]
    assert space["needed"] < free - space["reserve"]
    # How much of an extent is free of which a part was let go, btrfs decides.
    assert full.lowest >= (space["reserve"] if full.kind != "btrfs" else 0)
    _require_converted(full, before)
    assert full.start("verify")[0] == 0
    assert full.start()[1]["outcome"] == "nothing-to-do"
    full.lowest = 1 << 62
    status, document = full.start("rollback")
    assert (status, document["outcome"], document["skipped"]) == (0, "done", [])
    assert full.lowest >= (space["reserve"] if full.kind != "btrfs" else 0)
    _require_before(full, before)


@pytest.mark.parametrize("at", [1, 2, 4, 5, 6, 8])
@pytest.mark.parametrize("then", ["run", "rollback"])
def test_stopped_in_the_middle(vault: _Full, at: int, then: str) -> None:
    """Who asks it to stop is heard after the piece; the next start goes on from there, or a rollback gives what was."""
    before = vault.files()
    vault.at[at] = lambda: os.kill(os.getpid(), signal.SIGTERM)
    status, document = vault.start()
    # After the last piece there is nothing left to be half way.
    is_paused = document["error"]["code"] == "Paused"
    expected = (EXIT_WEDGED, "unfinished", "Paused") if is_paused else (4, "rolled-back", "Interrupted")
    assert (status, document["outcome"], document["error"]["code"]) == expected
    assert is_paused or at == 5
    assert vault.pieces == at
    assert _is_open(vault.top) == is_paused
    assert vault.start("status")[0] in (0, 1)
    if then == "run":
        status, document = vault.start()
        assert (status, document["outcome"]) == (0, "done")
        assert [each["result"] for each in document["recovered"]] == ["finished"] * is_paused
        _require_converted(vault, before)
        assert vault.start("rollback")[0] == 0
    else:
        status, document = vault.start("rollback")
        assert (status, document["outcome"]) == (0, "done")
        assert [each["result"] for each in document["recovered"]] == ["undone"] * is_paused
    _require_before(vault, before)


@pytest.mark.parametrize("at", [1, 2, 3])
def test_stopped_on_the_way_back(vault: _Full, at: int) -> None:
    """A rollback that is asked to stop does so after the piece, and the next start brings it to its end."""
    before = vault.files()
    vault.at[4] = lambda: os.kill(os.getpid(), signal.SIGTERM)
    assert vault.start()[1]["error"]["code"] == "Paused"
    vault.at[4 + at] = lambda: os.kill(os.getpid(), signal.SIGTERM)
    status, document = vault.start("rollback")
    assert (status, document["error"]["code"]) == (EXIT_WEDGED, "Paused")
    assert vault.start("rollback")[0] == 0
    _require_before(vault, before)


@pytest.mark.parametrize("at", [1, 3, 6])
@pytest.mark.parametrize("kind", KINDS)
def test_somebody_takes_all_room(tmp_path: Path, kind: str, at: int) -> None:
    """A disk that somebody fills up meanwhile loses nothing: it is put back or stays where it is, by name, and later goes on."""
    with _full(tmp_path, kind) as disk:
        before, pieces_of = disk.files(), contents(disk.top)
        disk.at[at] = disk.take_all
        status, document = disk.start()
        assert disk.pieces >= at
        if status:
            assert document["error"]["code"] in ("DiskFailed", "Wedged", "Halted"), document["error"]
            assert "space" in document["error"]["message"].lower(), document["error"]
        disk.give_back()
        _finish(disk)
        _require_converted(disk, before)
        # What came to its end with something left by name was a run of its own.
        while disk.start("rollback")[0] == 0:
            pass
        _require_before(disk, before)
        assert contents(disk.top) == pieces_of


def _started(disk: _Full, *words: str) -> tuple[int, dict[str, Any]]:
    """Start the program, and once more with room where btrfs has none, not even for the journal.

    Nothing is free there of an extent of which only a part was let go.
    """
    status, document = disk.start(*words)
    if disk.kind == "btrfs" and status == EXIT_WEDGED:
        assert "No space left" in document["error"]["message"]
        os.unlink(f"{disk.top}/{BALLAST}/0")
        status, document = disk.start(*words)
    return status, document


def _finish(disk: _Full) -> None:
    """Start until nothing is left: on btrfs what was let go may take a while until it is free."""
    for _ in range(3):
        status, document = _started(disk)
        assert (status, document["outcome"]) in ((0, "done"), (0, "nothing-to-do")), document["error"]
        if not document["skipped"]:
            break
        subprocess.run(["sync", "-f", disk.top], check=True)


def test_goes_on_in_the_room_that_it_leaves(vault: _Full) -> None:
    """When somebody takes all room but that of the journal, what it lets go is enough to go on; the others stay by name."""
    before = vault.files()
    vault.at[3] = lambda: vault.take_all(but=1 << 16)
    status, document = vault.start()
    assert (status, document["outcome"], left(document)) == (0, "done", {PREPARED: "NoSpace"})
    assert _transfers(document)[IMAGE] == ("stream", "done")
    vault.give_back()
    _finish(vault)
    _require_converted(vault, before)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("at", [1, 3, 7])
def test_refused_in_the_middle_is_put_back(vault: _Full, code: int, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the place where it goes takes no more, what went over comes back: it ends as if nothing had happened, by name."""
    before = vault.files()
    pwrite = os.pwrite

    def refuse() -> None:
        def refused(fd: int, content: Any, offset: int) -> int:
            if "/stage/" in os.readlink(f"/proc/self/fd/{fd}"):
                raise OSError(code, os.strerror(code))
            return pwrite(fd, content, offset)

        monkeypatch.setattr(os, "pwrite", refused)

    vault.at[at] = refuse
    status, document = vault.start()
    assert (status, document["outcome"], document["error"]["code"]) == (4, "rolled-back", "DiskFailed")
    assert os.strerror(code) in document["error"]["message"]
    assert not _is_open(vault.top)
    after = vault.files()
    assert {path: entry for path, entry in after.items() if path.startswith(PREPARED)} == {
        path: entry for path, entry in before.items() if path.startswith(PREPARED)
    }
    monkeypatch.setattr(os, "pwrite", pwrite)
    if at < 6:
        assert after[IMAGE] == before[IMAGE]
    assert vault.start("rollback")[0] in (0, 3)
    _require_before(vault, before)
    assert vault.start()[0] == 0
    _require_converted(vault, before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", [1, 4])
def test_sync_refused_in_the_middle(tmp_path: Path, kind: str, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A piece of which the disk says that it could not be written comes back, and all before it; later it goes over."""
    fsync = os.fsync
    refusals = [errno.ENOSPC]

    def refuse() -> None:
        def refused(fd: int) -> None:
            if refusals and "/stage/" in os.readlink(f"/proc/self/fd/{fd}"):
                raise OSError(refusals.pop(), "No space left on device")
            fsync(fd)

        monkeypatch.setattr(os, "fsync", refused)

    with _full(tmp_path, kind) as disk:
        before = disk.files()
        disk.at[at] = refuse
        status, document = disk.start()
        assert (status, document["error"]["code"]) == (4, "DiskFailed"), document["error"]
        assert disk.files()[IMAGE] == before[IMAGE]
        _finish(disk)
        _require_converted(disk, before)


@pytest.mark.parametrize("kind", KINDS)
def test_died_after_a_piece(tmp_path: Path, kind: str) -> None:
    """A process that dies after any piece leaves what the next start finishes, or what a rollback brings back."""
    for then in ("run", "rollback"):
        folder = tmp_path / then
        folder.mkdir()
        with _full(folder, kind) as disk:
            before = disk.files()
            disk.at[5] = _die
            with pytest.raises(_DiedError):
                disk.start()
            status, document = _started(disk, *((then,) if then == "rollback" else ()))
            assert (status, document["outcome"]) == (0, "done"), document["error"]
            if then == "run":
                _finish(disk)
                _require_converted(disk, before)
            else:
                _require_before(disk, before)


class _DiedError(BaseException):
    """The process is gone."""


def _die() -> None:
    raise _DiedError


@pytest.mark.parametrize("kind", [RecordKind.STAGED, RecordKind.COMMITTED, RecordKind.DONE])
def test_taken_back_around_the_end(vault: _Full, kind: RecordKind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Died just before or after a record, whichever way is open from there gives what was."""
    before = vault.files()
    append = Journal.append
    seen: list[RecordKind] = []

    def appending(journal: Journal, txid: str, record: RecordKind, payload: dict[str, Any]) -> None:
        steps = payload.get("steps", ())
        seen.extend(record for step in steps if record is RecordKind.STAGED and step["shape"] == "stream")
        if record is kind and len(seen) == 2 and kind is not RecordKind.STAGED:
            raise _DiedError
        append(journal, txid, record, payload)
        if record is kind and len(seen) == 2:
            raise _DiedError

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", appending)
        with pytest.raises(_DiedError):
            checked("-p", vault.top, "--target", "latest")
    status, document = vault.start("rollback")
    assert (status, document["outcome"], document["skipped"]) == (0, "done", [])
    _require_before(vault, before)


def test_names_elsewhere(tmp_path: Path) -> None:
    """What has a name elsewhere would keep its content there: it stays by name, and the others go over."""

    def linked(top: Path) -> None:
        _fill_in(top)
        os.link(top / PREPARED / "rootfs/bin/large", top / "elsewhere")

    with _full(tmp_path, "ext4", fill_in=linked) as disk:
        before = disk.files()
        status, document = disk.start()
        assert (status, left(document)) == (0, {PREPARED: "NoSpace"})
        assert _transfers(document)[IMAGE] == ("stream", "done")
        after = disk.files()
        assert {path: entry for path, entry in after.items() if path.startswith(PREPARED)} == {
            path: entry for path, entry in before.items() if path.startswith(PREPARED)
        }


@pytest.mark.parametrize("flag", ["+i", "+a"])
def test_immutable_inside(tmp_path: Path, flag: str) -> None:
    """What must not be written to stays by name."""
    with _full(tmp_path, "ext4") as disk:
        place = f"{disk.top}/{PREPARED}/rootfs/lib/3"
        subprocess.run(["chattr", flag, place], check=True)
        before = contents(disk.top)
        try:
            status, document = disk.start()
            assert (status, list(left(document))) == (0, [PREPARED])
            assert left(document)[PREPARED] in ("NoSpace", "Immutable")
            assert contents(disk.top) == before
        finally:
            subprocess.run(["chattr", f"-{flag[1]}", place], check=True)


def test_trial_refuses(vault: _Full) -> None:
    """A trial keeps the old layout: where something fits only in pieces nothing is begun."""
    before = vault.files()
    status, document = vault.start("--trial", "--when-short", "refuse")
    assert (status, document["error"]["code"]) == (3, "BothDoNotFit")
    assert all(path in document["error"]["message"] for path in STREAMED)
    assert "--when-short irreversible" in document["error"]["hint"]
    assert vault.pieces == 0
    _require_before(vault, before)


def test_trial_gives_up_at_once(vault: _Full) -> None:
    """With `irreversible` a trial lets go over in pieces what does not fit beside itself, and says so."""
    before = vault.files()
    status, document = vault.start("--trial", "--when-short", "irreversible")
    assert (status, document["outcome"], left(document)) == (0, "done", {})
    assert {_transfers(document)[path] for path in STREAMED} == {("stream", "done")}
    assert any("converted at once" in warning for warning in document["warnings"])
    assert vault.start("confirm")[0] == 0
    _require_converted(vault, before)
    assert vault.start("rollback")[0] == 0
    _require_before(vault, before)


def test_emptied_folder_goes_after_the_stream(vault: _Full) -> None:
    """The directory that a stream empties goes in the same start, and comes back with a rollback."""
    before = vault.files()
    assert vault.start()[0] == 0
    assert not os.path.exists(f"{vault.top}/runx")
    assert not os.path.exists(f"{vault.top}/img")
    assert vault.start("rollback")[0] == 0
    _require_before(vault, before)


@pytest.mark.parametrize("is_right", [True, False])
def test_digest_claim(tmp_path: Path, is_right: bool) -> None:
    """A file that claims a digest goes over when it has it, and is set aside when it has not, without any room for a copy."""
    content = b"QFI\xfb" + _filler(12 * MIB, 9)
    digest = hashlib.sha256(content).hexdigest()

    def claiming(top: Path) -> None:
        folder = os.path.dirname(VERIFIED_FOLDER)
        write(top / folder / digest / "name of the download", content if is_right else content[:-1] + b"?")

    with _full(tmp_path, "ext4", fill_in=claiming) as disk:
        before = disk.files()
        source = f"{os.path.dirname(VERIFIED_FOLDER)}/{digest}/name of the download"
        status, document = disk.start()
        assert status == 0
        targets = [name for name in os.listdir(f"{disk.top}/vault/verifier/verified") if name.startswith(digest)]
        if is_right:
            assert _transfers(document)[source] == ("stream", "done")
            (name,) = targets
            assert disk.sha256(f"vault/verifier/verified/{name}") == digest
        else:
            assert (targets, left(document)) == ([], {source: "DigestMismatch"})
            assert not os.path.exists(f"{disk.top}/{source}")
            assert os.listdir(f"{disk.top}/{ENGINE}/quarantine")
        assert DIGEST in " ".join(os.listdir(f"{disk.top}/vault/verifier/verified"))
        assert disk.start("rollback")[0] == 0
        _require_before(disk, before)


def test_writer_in_the_middle(vault: _Full) -> None:
    """Who opens something for writing that was put away stops it, by name; nothing is lost, and the next start goes on."""
    before = vault.files()
    held: list[int] = []
    reading, writing = os.pipe()

    def open_one() -> None:
        (away,) = Path(vault.top, ENGINE, "trash").glob("*/*")
        place = away if away.is_file() else away / "rootfs/lib/9"
        ready, told = os.pipe()
        child = os.fork()
        if child == 0:
            os.open(place, os.O_WRONLY)
            os.close(writing)
            os.write(told, b".")
            os.read(reading, 1)
            os._exit(0)
        os.close(told)
        os.read(ready, 1)
        os.close(ready)
        held.append(child)

    vault.at[8] = open_one
    status, document = vault.start()
    os.close(writing)
    for child in held:
        os.waitpid(child, 0)
    os.close(reading)
    assert held
    assert status in (0, 4, EXIT_WEDGED), document
    status, document = vault.start()
    assert (status, document["outcome"]) in ((0, "done"), (0, "nothing-to-do")), document
    assert vault.start("rollback")[0] == 0
    # Nothing was written, but the times inside say that a file was opened and closed.
    assert diff(before, vault.files()) == ""


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_room_of_what_is_no_content(tmp_path: Path, kind: str) -> None:
    """Directories, links and attributes take room before any is let go: what the plan states covers that too."""

    def branching(top: Path) -> None:
        for number in range(400):
            write(top / PREPARED / f"rootfs/{number}/file with a longer name {number}", _filler(20_000, number))
            os.symlink("a/long/destination" * 20, top / PREPARED / f"rootfs/{number}/link")
            os.setxattr(top / PREPARED / f"rootfs/{number}", "user.large", bytes(300))

    with _full(tmp_path, kind, free=9 * MIB, fill_in=branching) as disk:
        before = disk.files()
        free = disk.free
        status, document = disk.start()
        assert status == 0
        (space,) = document["space"]
        assert free - disk.lowest <= space["needed"], (free, disk.lowest, document["space"], document["skipped"])
        assert disk.lowest >= space["reserve"]
        if not document["skipped"]:
            assert _transfers(document)[PREPARED] == ("stream", "done")
            _require_converted(disk, before)
