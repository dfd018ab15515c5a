"""Others at the same time, as real processes: a second instance, users of what is to be moved, writers of the configuration."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.packs.eve_words import APP, SHA1, V1, V2, app, device, drive, ref, response, volume
from tests.support.disktree import capture, diff
from tests.support.olddisk import (
    CONFIG,
    ENGINE,
    IMAGE,
    PREPARED,
    TARGETS,
    checked,
    contents,
    fake_vault,
    make_disk,
    stopping,
    unsynced,
    write,
)
from tests.support.others import finished, instance_before, let_go, somebody, start
from upgradeconverter.disk.content import has_no_hole
from upgradeconverter.disk.posix import PosixDisk
from upgradeconverter.errors import EXIT_BUSY, EXIT_DONE, EXIT_WEDGED
from upgradeconverter.journal.record import VERSION, Record, RecordKind, checksum, encode

if TYPE_CHECKING:
    from collections.abc import Iterator

INSIDE = f"{PREPARED}/rootfs/etc/hostname"
OPEN = "file = os.open(sys.argv[2], os.O_RDWR)"
MAPPED = "file = os.open(sys.argv[2], os.O_RDWR)\nlibc = ctypes.CDLL(None)\nlibc.mmap.restype = ctypes.c_void_p\n"
MAPPED += "assert libc.mmap(None, ctypes.c_size_t(4), 3, 1, file, ctypes.c_long(0)) not in (None, 2**64 - 1)\nos.close(file)"
INSIDE_OF_IT = "os.chdir(sys.argv[2])"
LISTING = "folder = os.open(sys.argv[2], os.O_RDONLY | os.O_DIRECTORY)"


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """Return the old disk."""
    return Path(make_disk(tmp_path / "persist"))


def _arguments(top: Path) -> tuple[str, ...]:
    return ("-p", str(top), "--target", "latest")


def _there(top: Path) -> list[bool]:
    return [(top / path).exists() for path in TARGETS]


# --- two instances -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("record", ["begin", "staged", "done"])
def test_second_instance_is_refused_at_once(top: Path, tmp_path: Path, record: str) -> None:
    """Whatever the first one is doing, a second one says that it is busy and by whom, touches nothing, and the first goes on."""
    inside = contents(str(top))
    with instance_before(record, tmp_path / "ready", *_arguments(top)) as first:
        before = capture(str(top), engine=True)
        for command in ([], ["rollback"], ["confirm"]):
            status, text = finished(start(*command, *_arguments(top), "--output", "json"))
            document = json.loads(text)
            assert (status, document["outcome"], document["error"]["code"]) == (EXIT_BUSY, "busy", "LockHeld")
            assert str(first.pid) in document["error"]["message"]
        for words in ("plan", "status", "verify", "history"):
            assert finished(start(words, *_arguments(top)))[0] in (0, 1)
        assert diff(before, capture(str(top), engine=True)) == ""
        assert let_go(first) == EXIT_DONE
    assert all(_there(top))
    assert not inside - contents(str(top))


def test_killed_holder_holds_nothing(top: Path, tmp_path: Path) -> None:
    """The lock of an instance that was killed is free in the same moment, and the next one finishes its work."""
    inside = contents(str(top))
    for number, record in enumerate(("begin", "staged", "committed", "done")):
        with instance_before(record, tmp_path / str(number), *_arguments(top)) as first:
            first.kill()
            first.wait()
            status, text = finished(start(*_arguments(top), "--output", "json"))
        document = json.loads(text)
        assert (status, bool(document["recovered"])) == (EXIT_DONE, record != "begin")
        assert all(_there(top))
        assert not inside - contents(str(top))
        assert finished(start("rollback", *_arguments(top)))[0] == EXIT_DONE


def test_many_at_the_same_moment(top: Path) -> None:
    """Of instances that start together those that come too late say so, and what comes of it is what one alone makes."""
    inside = contents(str(top))
    together = [start(*_arguments(top)) for _ in range(5)]
    statuses = [finished(process)[0] for process in together]
    assert set(statuses) <= {EXIT_DONE, EXIT_BUSY}
    assert EXIT_DONE in statuses
    assert all(_there(top))
    assert not inside - contents(str(top))
    assert checked("verify", *_arguments(top))[0] == EXIT_DONE


# --- the configuration -------------------------------------------------------------------------------------------------

OTHER_CONFIG = response(device(app([drive(SHA1)], [ref(V2)], uuid=APP), volumes=[volume(V1), volume(V2)]))
# Puts one of two files in the place of a third, again and again, in one go; `.new` is what it works on.
REPLACING = """
pid = os.fork()
if pid == 0:
    place, contents = sys.argv[2], [open(name, "rb").read() for name in sys.argv[3:]]
    end, number = time.monotonic() + 60, 0
    while os.getppid() != 1 and time.monotonic() < end:
        number += 1
        with open(place + ".new", "wb") as new:
            new.write(contents[number % 2])
        os.rename(place + ".new", place)
    os._exit(0)
"""
# Writes the file in place, one half after the other, and keeps it open meanwhile.
IN_PLACE = REPLACING.replace(
    """        with open(place + ".new", "wb") as new:
            new.write(contents[number % 2])
        os.rename(place + ".new", place)
""",
    """        content = contents[number % 2]
        with open(place, "wb", buffering=0) as file:
            for start in range(0, len(content), 40):
                file.write(content[start : start + 40])
                time.sleep(0.0002)
        time.sleep(0.002)
""",
)


def _plans(top: Path, tmp_path: Path, deed: str) -> tuple[set[str], list[tuple[str | None, set[str]]]]:
    """Return the digests of both configurations, and digest and reasons of plans made while one replaces the other."""
    place = top / "checkpoint/lastconfig"
    versions = []
    names = []
    for number, config in enumerate((CONFIG, OTHER_CONFIG)):
        names.append(str(tmp_path / f"config {number}"))
        write(Path(names[-1]), config)
        place.write_bytes(config)
        versions.append(checked("plan", *_arguments(top))[1]["plan_digest"])
    found = []
    with somebody(tmp_path / "ready", deed, str(place), *names):
        for _ in range(40):
            status, document = checked("plan", *_arguments(top))
            assert status == 0
            found.append((document["plan_digest"], {skip["reason"] for skip in document["skipped"]}))
    assert len(set(versions)) == 2
    return set(versions), found


def test_configuration_replaced_while_it_is_read(top: Path, tmp_path: Path) -> None:
    """A configuration that is replaced by a rename is seen as it was before or after, never as anything else."""
    versions, found = _plans(top, tmp_path, REPLACING)
    assert {digest for digest, _ in found} <= versions


def test_configuration_written_in_place_while_it_is_read(top: Path, tmp_path: Path) -> None:
    """One that is written in place is seen whole, or it is said that it cannot be read."""
    versions, found = _plans(top, tmp_path, IN_PLACE)
    assert [reasons for digest, reasons in found if digest not in versions and "CheckpointUnreadable" not in reasons] == []


def test_half_written_configuration_is_looked_at_again(top: Path, tmp_path: Path) -> None:
    """While somebody has the configuration open for writing nothing is concluded from it, not by a later start either."""
    place = top / "checkpoint/lastconfig"
    with unsynced(), somebody(tmp_path / "ready", OPEN, str(place)):
        document = checked(*_arguments(top))[1]
        assert {skip["reason"] for skip in document["skipped"]} == {"CheckpointUnreadable"}
        assert not (top / TARGETS[0]).exists()
    # Nothing of it tells on the disk that it was let go.
    assert finished(start(*_arguments(top)))[0] == EXIT_DONE
    assert all(_there(top))


@pytest.mark.parametrize("name", ["journal", "ledger"])
def test_looking_while_another_instance_writes_a_record(top: Path, tmp_path: Path, name: str) -> None:
    """Who only looks is not kept off by an instance that is just writing to the engine's own files."""
    with unsynced():
        checked(*_arguments(top))
        with somebody(tmp_path / "ready", OPEN, str(top / ENGINE / name)):
            for words in ("plan", "status", "verify", "history"):
                assert checked(words, *_arguments(top))[0] == EXIT_DONE


@pytest.mark.parametrize("words", [("plan",), ("-n",), ("status",), ("verify",), ("history",), ("rollback", "-n")], ids=" ".join)
def test_who_only_looks_asks_nobody(top: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    """A dry run takes no lease either: who opens a file in that moment would have to wait, or be refused (D6)."""
    with unsynced():
        checked(*_arguments(top))
        asked: list[int] = []
        monkeypatch.setattr("upgradeconverter.disk.usage.take_lease", lambda *_: asked.append(1))
        checked(*words, *_arguments(top))
    assert asked == []


# --- users of what is to be moved --------------------------------------------------------------------------------------


@pytest.fixture
def vaulted(top: Path) -> Iterator[Path]:
    """Return the old disk, whose vault is a domain of its own, so that what goes there is copied."""
    with unsynced(), fake_vault():
        yield top


@pytest.mark.parametrize(
    ("deed", "place", "left"),
    [
        pytest.param(OPEN, IMAGE, IMAGE, id="file open for writing"),
        pytest.param("file = open(sys.argv[2])", IMAGE, IMAGE, id="file open for reading"),
        pytest.param(MAPPED, IMAGE, IMAGE, id="file mapped and closed"),
        pytest.param(OPEN, INSIDE, PREPARED, id="file in a tree open for writing"),
        pytest.param(MAPPED, INSIDE, PREPARED, id="file in a tree mapped and closed"),
        pytest.param(INSIDE_OF_IT, f"{PREPARED}/rootfs", PREPARED, id="working directory in a tree"),
        pytest.param(INSIDE_OF_IT, PREPARED, PREPARED, id="working directory is the tree"),
        pytest.param(LISTING, f"{PREPARED}/rootfs/etc", PREPARED, id="directory of a tree open"),
    ],
)
def test_what_somebody_uses_is_left(vaulted: Path, tmp_path: Path, deed: str, place: str, left: str) -> None:
    """What another process uses stays where it is, by name and reason; the others go on, and it follows once it is free."""
    before = capture(str(vaulted))
    with somebody(tmp_path / "ready", deed, str(vaulted / place)):
        status, document = checked(*_arguments(vaulted))
        assert (status, [(skip["path"], skip["reason"]) for skip in document["skipped"]]) == (EXIT_DONE, [(left, "InUse")])
        assert [path for path, entry in _kept(before, left).items() if _kept(capture(str(vaulted)), left)[path] != entry] == []
        assert sorted(_there(vaulted)) == [False, True, True]
    assert checked(*_arguments(vaulted))[1]["skipped"] == []
    assert all(_there(vaulted))
    assert not (vaulted / left).exists()


def _kept(tree: dict[str, dict[str, Any]], left: str) -> dict[str, dict[str, Any]]:
    """Return what lies at a path, without the access times, which a mapping changes."""
    return {path: {**entry, "atime": None} for path, entry in tree.items() if path.startswith(left)}


def test_reader_in_a_tree_harms_nobody(vaulted: Path, tmp_path: Path) -> None:
    """Somebody who only reads a file of a tree loses nothing: it is copied and put away."""
    with somebody(tmp_path / "ready", "file = open(sys.argv[2])", str(vaulted / INSIDE)):
        assert checked(*_arguments(vaulted))[1]["skipped"] == []
    assert all(_there(vaulted))


@pytest.mark.parametrize(("deed", "place"), [(OPEN, INSIDE), (OPEN, IMAGE), (INSIDE_OF_IT, f"{PREPARED}/rootfs")])
def test_what_is_renamed_goes_along(top: Path, tmp_path: Path, deed: str, place: str) -> None:
    """Inside one domain who uses something goes on using it under its new name, so there is nothing to refuse."""
    deed += "\nimport signal\nsignal.signal(signal.SIGUSR1, lambda *_: "
    deed += "os.write(file, b'late'))" if "O_RDWR" in deed else "open('late', 'w').close())"
    with unsynced(), somebody(tmp_path / "ready", deed, str(top / place)) as user:
        assert checked(*_arguments(top))[1]["skipped"] == []
        target = TARGETS[0] if place == IMAGE else f"{TARGETS[1]}/rootfs" + ("/etc/hostname" if place == INSIDE else "/late")
        user.send_signal(10)
        _eventually(lambda: (top / target).exists() and (place == f"{PREPARED}/rootfs" or b"late" in (top / target).read_bytes()))


def _eventually(holds: Any) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def _during(patch: pytest.MonkeyPatch, deed: str, place: Path, suffix: str) -> list[subprocess.Popen[bytes]]:
    """Let somebody come when the copying of a file of that name has begun; they are done, or wait for it, before it goes on."""
    came: list[subprocess.Popen[bytes]] = []

    def coming(fd: int, size: int) -> bool:
        found = has_no_hole(fd, size)
        if not came and os.readlink(f"/proc/self/fd/{fd}").endswith(suffix):
            came.append(subprocess.Popen((sys.executable, "-c", f"import os, sys\n{deed}", str(place))))
            time.sleep(0.5)
        return found

    patch.setattr("upgradeconverter.disk.content.has_no_hole", coming)
    return came


@pytest.mark.parametrize(("place", "left"), [(IMAGE, IMAGE), (INSIDE, PREPARED)], ids=["file", "tree"])
@pytest.mark.parametrize("keeps", [False, True], ids=["closes", "keeps it open"])
def test_writer_who_comes_during_the_copy(
    vaulted: Path, place: str, left: str, keeps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who opens a file for writing while it is copied is not kept waiting, and no mixture is published."""
    deed = "file = os.open(sys.argv[1], os.O_WRONLY); os.write(file, b'late'); " + (
        "sys.stdin.read()" if keeps else "os.close(file)"
    )
    with monkeypatch.context() as patch:
        came = _during(patch, deed, vaulted / place, os.path.basename(place))
        began = time.monotonic()
        status, document = checked(*_arguments(vaulted))
        assert time.monotonic() - began < 30
    assert (status, [(skip["path"], skip["reason"]) for skip in document["skipped"]]) == (EXIT_DONE, [(left, "ChangedMeanwhile")])
    if keeps:
        came[0].terminate()
    came[0].wait(timeout=60)
    assert (vaulted / place).read_bytes().startswith(b"late")
    assert checked(*_arguments(vaulted))[1]["skipped"] == []
    target = TARGETS[0] if place == IMAGE else f"{TARGETS[1]}/rootfs/etc/hostname"
    assert (vaulted / target).read_bytes().startswith(b"late")


def test_unnamed_file_that_gets_its_name_during_the_run(vaulted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that somebody wrote without a name and links into a tree that was copied already is not lost with the tree."""
    place = vaulted / PREPARED / "rootfs"
    rename = PosixDisk.rename
    fd, place_fd = os.open(place, os.O_TMPFILE | os.O_WRONLY), os.open(place, os.O_RDONLY)
    os.write(fd, b"late")

    def linking(disk: PosixDisk, source: str, target: str) -> None:
        if "/stage/" in source and target == TARGETS[1]:
            # Only with a descriptor of a directory it asks for the link to be followed.
            os.link(f"/proc/self/fd/{fd}", "late", dst_dir_fd=place_fd, follow_symlinks=True)
            os.close(fd)
            os.close(place_fd)
        rename(disk, source, target)

    with monkeypatch.context() as patch:
        patch.setattr(PosixDisk, "rename", linking)
        document = checked(*_arguments(vaulted))[1]
    assert [(skip["path"], skip["reason"]) for skip in document["skipped"]] == [(PREPARED, "ChangedMeanwhile")]
    assert (place / "late").read_bytes() == b"late"


@pytest.mark.parametrize(("deed", "place"), [(OPEN, INSIDE), (INSIDE_OF_IT, f"{PREPARED}/rootfs")], ids=["writer", "inside"])
def test_tree_used_just_when_it_is_put_away(
    vaulted: Path, tmp_path: Path, deed: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who comes after the copy, between the last look and the rename, finds the tree where it was."""
    rename = PosixDisk.rename
    came: list[Any] = []

    def coming(disk: PosixDisk, source: str, target: str) -> None:
        if source == PREPARED and not came:
            came.append(somebody(tmp_path / "ready", deed, str(vaulted / place)))
            came[0].__enter__()
        rename(disk, source, target)

    with monkeypatch.context() as patch:
        patch.setattr(PosixDisk, "rename", coming)
        document = checked(*_arguments(vaulted))[1]
    came[0].__exit__(None, None, None)
    assert [(skip["path"], skip["reason"]) for skip in document["skipped"]] == [(PREPARED, "InUse")]
    assert (vaulted / INSIDE).exists()


@pytest.mark.parametrize("place", [IMAGE, INSIDE], ids=["file", "tree"])
def test_written_just_before_a_power_cut_in_between(vaulted: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the machine stops after something was put away that somebody had just written to, the next start brings it back."""
    rename = PosixDisk.rename
    put_away = IMAGE if place == IMAGE else PREPARED

    def writing(disk: PosixDisk, source: str, target: str) -> None:
        if source == put_away and "/trash/" in target:
            with (vaulted / place).open("ab") as file:
                file.write(b"late")
            rename(disk, source, target)
            raise KeyboardInterrupt
        rename(disk, source, target)

    with monkeypatch.context() as patch:
        patch.setattr(PosixDisk, "rename", writing)
        with pytest.raises(KeyboardInterrupt):
            checked(*_arguments(vaulted))
    document = checked(*_arguments(vaulted))[1]
    assert (vaulted / place).read_bytes().endswith(b"late")
    assert (put_away, "ChangedMeanwhile") in [(skip["path"], skip["reason"]) for skip in document["skipped"]]


def test_opener_in_the_moment_of_the_question(tmp_path: Path) -> None:
    """Somebody who opens a file just while it is asked whether anybody has it open does no harm to who asks."""
    (tmp_path / "file").write_bytes(b"x")
    code = "import os, sys\nwhile True:\n    os.close(os.open(sys.argv[1], os.O_RDWR))"
    opener = subprocess.Popen((sys.executable, "-c", code, str(tmp_path / "file")))
    asking = (
        "import sys, time\nfrom upgradeconverter.disk.posix import PosixDisk\ndisk = PosixDisk.at(sys.argv[1])\n"
        "end = time.monotonic() + 3\nwhile time.monotonic() < end:\n    disk.is_open('file')"
    )
    try:
        asked = subprocess.run((sys.executable, "-c", asking, str(tmp_path)), timeout=60, check=False)
        assert (asked.returncode, opener.poll()) == (0, None)
    finally:
        opener.kill()
        opener.wait()


def test_file_system_without_leases(vaulted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no lease can be had nobody can be seen, and what changes is still detected by size and time."""

    def refuse(*_: Any) -> int:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr("upgradeconverter.disk.usage.fcntl.fcntl", refuse)
    assert checked(*_arguments(vaulted))[1]["skipped"] == []
    assert all(_there(vaulted))


# --- a newer engine ----------------------------------------------------------------------------------------------------


def _of_a_newer_engine(content: bytes) -> bytes:
    """Return a journal to which a newer engine has added a transaction."""
    lines = content.splitlines()
    payload = {"version": VERSION + 1, "steps": [{"unheard of": 1}]}
    previous = checksum(lines[-1])
    return content + encode(Record(sequence=len(lines), txid="new", kind=RecordKind.BEGIN, payload=payload, previous=previous))


@pytest.mark.parametrize("stop", [None, (RecordKind.STAGED, "after")], ids=["finished", "open"])
def test_journal_of_a_newer_engine(top: Path, stop: tuple[RecordKind, str] | None) -> None:
    """A journal in which a newer engine wrote is refused by every command that would act, and nothing is touched."""
    with unsynced():
        with stopping(stop):
            checked(*_arguments(top))
        journal = top / ENGINE / "journal"
        journal.write_bytes(_of_a_newer_engine(journal.read_bytes()))
        (top / "later").write_bytes(b"")
        before = capture(str(top), engine=True)
        for words in ((), ("--trial",), ("rollback",), ("rollback", "-n"), ("confirm",), ("plan",), ("status",), ("verify",)):
            status, document = checked(*words, *_arguments(top))
            assert (status, document["error"]["code"]) == (EXIT_WEDGED, "JournalTooNew"), words
            assert diff(before, capture(str(top), engine=True)) == "", words


def test_earlier_journal_of_a_newer_engine(top: Path) -> None:
    """When it is the journal of the run before that a newer engine wrote, that run is not taken back, and nothing is touched."""
    with unsynced():
        checked("-p", str(top), "--target", "design")
        checked(*_arguments(top))
        earlier = top / ENGINE / "journal.previous"
        earlier.write_bytes(_of_a_newer_engine(earlier.read_bytes()))
        assert checked("rollback", *_arguments(top))[0] == EXIT_DONE
        before = capture(str(top), engine=True)
        for words in (("rollback",), ("rollback", "-n")):
            status, document = checked(*words, *_arguments(top))
            assert (status, document["error"]["code"]) == (EXIT_WEDGED, "JournalTooNew"), words
            assert "journal.previous" in document["error"]["message"]
            assert diff(before, capture(str(top), engine=True)) == "", words
