"""Work that is shared with forked processes: the result is the one that a single process gives, and nothing fails in silence."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import resource
import signal
import threading
import time
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.disktree import capture, diff
from upgradeconverter.disk import copying, native, workers
from upgradeconverter.disk.flushing import Flusher
from upgradeconverter.disk.port import CopyOrder, SourceChangedError, SourceInUseError
from upgradeconverter.disk.posix import PosixDisk
from upgradeconverter.disk.workers import Crew, WorkerDiedError
from upgradeconverter.model.plan import Attributes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path


def _square(_: tuple[int, ...], rows: Sequence[int]) -> list[int]:
    return [row * row for row in rows]


def _note(found: list[Any], what: Any, *_: object) -> None:
    found.append(what)


@pytest.fixture
def forking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork for the smallest of trees, on any machine."""
    monkeypatch.setattr(workers, "WORTH_FORKING", 0)
    monkeypatch.setattr(workers, "processors", lambda: 3)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[PosixDisk]:
    """Return a disk with a tree of everything that needs care when its files are handed out."""
    tree = tmp_path / "tree"
    for folder in ("a", "a/deep/er", "b", "c"):
        (tree / folder).mkdir(parents=True)
        for number in range(150):
            (tree / folder / f"{number}").write_bytes(os.urandom(number))
    (tree / "b0").write_bytes(b"between b and c")
    (tree / "a" / "hole").write_bytes(b"")
    os.truncate(tree / "a" / "hole", 3 << 20)
    (tree / "large").write_bytes(os.urandom(copying._SMALL + 1))
    (tree / "link").symlink_to("nowhere")
    (tree / os.fsdecode(b"\xff\xfe")).write_bytes(b"no text")
    os.mkfifo(tree / "c" / "pipe")
    os.link(tree / "a" / "1", tree / "c" / "one more name")
    os.setxattr(tree / "b" / "7", "user.mine", b"value")
    os.chmod(tree / "c", 0o500)
    os.utime(tree / "a", ns=(1_500_000_000_000_000_001, 1_500_000_000_000_000_002))
    disk = PosixDisk.at(str(tmp_path))
    yield disk
    disk.close()
    os.chmod(tree / "c", 0o700)


def _order(target: str, **more: Any) -> CopyOrder:
    return CopyOrder(source="tree", target=target, after=Attributes(), **more)


# --- a crew ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3])
def test_results_come_in_order(count: int) -> None:
    """Whoever does it, each result comes after those of what was given before, and so does what is to be done then."""
    found: list[Any] = []
    with closing(Crew(_square, count=count, worth=10)) as crew:
        for number in range(1000):
            crew.give((), [number], lambda _, result: found.extend(result))
            if number % 7 == 0:
                crew.after((), partial(_note, found, f"after {number}"))
        crew.finish()
    wanted: list[Any] = []
    for number in range(1000):
        wanted += [number * number, *([f"after {number}"] if number % 7 == 0 else [])]
    assert found == wanted


def test_little_is_done_without_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not worth a process costs none."""
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("forked"))
    found: list[Any] = []
    with closing(Crew(_square, count=2)) as crew:
        crew.give((), list(range(workers.WORTH_FORKING)), lambda _, result: found.extend(result))
        crew.finish()
    assert len(found) == workers.WORTH_FORKING


def test_nothing_is_forked_beside_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that another thread holds would never be free in a fork."""
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("forked"))
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    found: list[Any] = []
    try:
        with closing(Crew(_square, count=2, worth=0)) as crew:
            crew.give((), [3], lambda _, result: found.extend(result))
    finally:
        end.set()
        thread.join()
    assert found == [9]


@pytest.mark.parametrize("forks", [0, 1])
def test_processes_that_there_is_no_room_for(monkeypatch: pytest.MonkeyPatch, forks: int) -> None:
    """Where no more processes can be had, those that there are do it, if need be this one."""
    left, fork = [None] * forks, os.fork

    def scarce() -> int:
        if not left:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        left.pop()
        return fork()

    monkeypatch.setattr(os, "fork", scarce)
    found: list[Any] = []
    with closing(Crew(_square, count=2, worth=0)) as crew:
        for number in range(500):
            crew.give((), [number], lambda _, result: found.extend(result))
        crew.finish()
    assert found == [number * number for number in range(500)]


def _fails(error: BaseException) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "some/path"),
        SourceChangedError("it changed"),
        SourceInUseError("it is in use"),
    ],
)
def test_error_of_a_worker_is_the_same_here(error: Exception) -> None:
    """What fails in a worker fails where it is waited for, as if it had been done there."""
    with closing(Crew(_fails(error), count=2, worth=0)) as crew:
        crew.give((), [1], lambda *_: None)
        with pytest.raises(type(error)) as raised:
            crew.finish()
    assert type(raised.value) is type(error)
    assert str(raised.value) == str(error)


def test_mistake_in_a_worker_is_told() -> None:
    """What no worker should ever raise does not get lost either."""
    with closing(Crew(_fails(KeyError("oops")), count=2, worth=0)) as crew:
        crew.give((), [1], lambda *_: None)
        with pytest.raises(RuntimeError, match="KeyError in a worker: 'oops'"):
            crew.finish()


def test_death_of_a_worker_is_an_error() -> None:
    """A worker that is killed in the middle of its work has not done it."""
    with closing(Crew(lambda *_: os.kill(os.getpid(), signal.SIGKILL), count=2, worth=0)) as crew:
        crew.give((), [1], lambda *_: None)
        with pytest.raises(WorkerDiedError, match="killed by signal 9"):
            crew.finish()


def test_no_worker_outlives_its_crew() -> None:
    """Once a crew is closed nothing is done any more, also of what was given."""
    crew = Crew(lambda *_: time.sleep(100), count=2, worth=0)
    crew.give((), [1] * 100, lambda *_: None)
    pids = [worker.pid for worker in crew._workers]
    crew.close()
    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_no_worker_outlives_its_parent() -> None:
    """When the program is killed its workers go with it, so that the next start finds nobody at work."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        crew = Crew(lambda *_: time.sleep(100), count=2, worth=0)
        crew.give((), [1] * 100, lambda *_: None)
        os.write(writer, b"x")
        time.sleep(100)
    os.read(reader, 1)
    os.close(writer)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    # The end of the pipe is open in every worker as well: only once all are gone is it at its end.
    assert os.read(reader, 1) == b""
    os.close(reader)


# --- what is done by one -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("forking")
@pytest.mark.parametrize("more", [{}, {"additions": (("a/new", b"new"), ("top", b"")), "omissions": ("a/3", "b")}])
def test_copy_is_the_same(disk: PosixDisk, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]) -> None:
    """A tree that several processes copied is the one that a single one makes, and so is what is known of it."""
    shared = disk.copy(_order("shared", **more))
    monkeypatch.setattr(workers, "processors", lambda: 1)
    alone = disk.copy(_order("alone", **more))
    assert shared.manifest == alone.manifest
    # What is added comes last in its directory.
    assert sorted(shared.manifest.splitlines()) == sorted(disk.manifest("shared").splitlines())
    for path, _ in more.get("additions", ()):
        for name in ("alone", "shared"):
            os.utime(f"{disk.root_path}/{name}/{path}", ns=(1, 1))
    assert diff(*(capture(f"{disk.root_path}/{name}") for name in ("alone", "shared"))) == ""


@pytest.mark.usefixtures("forking")
def test_looks_and_removal_are_the_same(disk: PosixDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is found out by several processes is what a single one finds out; and all can be removed by them."""
    shared = disk.survey("tree", closely=True)
    with monkeypatch.context() as patch:
        patch.setattr(workers, "processors", lambda: 1)
        assert disk.survey("tree", closely=True) == shared
    assert not disk.is_open("tree")
    with open(f"{disk.root_path}/tree/c/149", "r+b"):
        pid = os.fork()
        if pid == 0:
            os._exit(disk.is_open("tree"))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    disk.remove("tree")
    assert disk.find("tree") is None
    os.makedirs(f"{disk.root_path}/tree/c")


@pytest.mark.usefixtures("forking")
def test_many_folders_hold_few_descriptors(tmp_path: Path) -> None:
    """What waits for its turn is bounded, whatever a tree is made of."""
    for number in range(1500):
        (tmp_path / "tree" / f"{number:04}").mkdir(parents=True)
    (tmp_path / "tree" / "0000" / "file").write_bytes(b"content")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    disk = PosixDisk.at(str(tmp_path))
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        receipt = disk.copy(_order("copy"))
        disk.remove("tree")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert receipt.manifest == disk.manifest("copy")
    disk.close()


@pytest.mark.usefixtures("forking")
def test_copy_fails_with_its_worker(disk: PosixDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of which a part could not be made is no copy."""
    here, real = os.getpid(), native.write_back

    def die(fd: int, start: int, size: int) -> None:
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        real(fd, start, size)

    monkeypatch.setattr(native, "write_back", die)
    with pytest.raises(WorkerDiedError):
        disk.copy(_order("copy"))


# --- writing back early ------------------------------------------------------------------------------------------------


def test_hints_make_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was copied with early write-back is what is copied without it."""
    monkeypatch.setattr("upgradeconverter.disk.flushing.WORTH_HINTING", 1)
    monkeypatch.setattr("upgradeconverter.disk.flushing._WORTH_TELLING", 1)
    monkeypatch.setattr("upgradeconverter.disk.flushing.processors", lambda: 2)
    content = os.urandom(20 << 20)
    (tmp_path / "file").write_bytes(content)
    disk = PosixDisk.at(str(tmp_path))
    forked: list[int] = []
    real = workers.Crew.fork

    def fork(crew: Crew) -> bool:
        is_forked = real(crew)
        forked.append(len(crew._workers))
        return is_forked

    monkeypatch.setattr(workers.Crew, "fork", fork)
    disk.copy(CopyOrder(source="file", target="copy", after=Attributes(), sha256=True))
    disk.sync_filesystem("")
    disk.close()
    assert max(forked) == 2
    assert (tmp_path / "copy").read_bytes() == content


@pytest.mark.parametrize("advice", [True, False], ids=["advised", "no advice"])
def test_holes_and_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, advice: bool) -> None:
    """Holes stay holes, the digest covers them, and it does not matter whether the page cache takes advice."""
    if not advice:
        monkeypatch.setattr(os, "posix_fadvise", _fails(OSError(errno.EINVAL, "Invalid argument")))
    data = os.urandom(5_000_000)
    with open(tmp_path / "file", "wb") as stream:
        stream.seek(7 << 20)
        stream.write(data)
        stream.truncate(40 << 20)
    disk = PosixDisk.at(str(tmp_path))
    receipt = disk.copy(CopyOrder(source="file", target="copy", after=Attributes(), sha256=True))
    content = bytes(7 << 20) + data
    content += bytes((40 << 20) - len(content))
    assert receipt.sha256 == hashlib.sha256(content).hexdigest()
    assert (tmp_path / "copy").read_bytes() == content
    assert receipt.manifest == disk.manifest("file")
    disk.sync_filesystem("")
    assert os.stat(tmp_path / "copy").st_blocks * 512 <= len(data) * 1.01
    disk.close()


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_what_is_lost_on_the_way_is_told_by_the_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Content that the disk refused when it was written back early is missed at the latest by the sync that is to cover it."""
    monkeypatch.setattr("upgradeconverter.disk.flushing.WORTH_HINTING", 1)
    monkeypatch.setattr("upgradeconverter.disk.flushing._WORTH_TELLING", 1)
    monkeypatch.setattr("upgradeconverter.disk.flushing.processors", lambda: 2)
    monkeypatch.setattr(native, "write_back", _fails(OSError(code, os.strerror(code))))
    (tmp_path / "file").write_bytes(b"content")
    disk = PosixDisk.at(str(tmp_path))
    disk.copy(CopyOrder(source="file", target="copy", after=Attributes()))
    with pytest.raises(OSError, match=os.strerror(code)) as raised:
        disk.sync_filesystem("")
    assert raised.value.errno == code
    disk.sync_filesystem("")
    disk.close()


def test_flusher_that_dies_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a flusher that was killed nobody knows what it had seen."""
    monkeypatch.setattr("upgradeconverter.disk.flushing.WORTH_HINTING", 1)
    monkeypatch.setattr("upgradeconverter.disk.flushing._WORTH_TELLING", 1)
    monkeypatch.setattr("upgradeconverter.disk.flushing.processors", lambda: 2)
    monkeypatch.setattr(native, "write_back", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with closing(Flusher()) as flusher, open(tmp_path / "file", "wb") as stream:
        flusher.written(stream.fileno(), 0, 1)
        with pytest.raises(WorkerDiedError):
            flusher.finish()


def test_hint_that_cannot_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That there are no more descriptors for a hint says nothing about what was written."""
    monkeypatch.setattr("upgradeconverter.disk.flushing.WORTH_HINTING", 1)
    monkeypatch.setattr("upgradeconverter.disk.flushing._WORTH_TELLING", 1)
    monkeypatch.setattr("upgradeconverter.disk.flushing.processors", lambda: 2)

    def refuse(_: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with closing(Flusher()) as flusher, open(tmp_path / "file", "wb") as stream:
        flusher.expect(1)
        with monkeypatch.context() as patch:
            patch.setattr(os, "dup", refuse)
            flusher.written(stream.fileno(), 0, 1)
        flusher.finish()


# --- sharing content ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY])
def test_content_that_cannot_be_shared_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Whatever a file system says to sharing content, the copy is made."""
    ioctl = fcntl.ioctl

    def refuse(fd: int, request: int, *rest: Any) -> Any:
        if request == native._FICLONE:
            raise OSError(code, os.strerror(code))
        return ioctl(fd, request, *rest)

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    (tmp_path / "file").write_bytes(b"content")
    disk = PosixDisk.at(str(tmp_path))
    disk.copy(CopyOrder(source="file", target="copy", after=Attributes()))
    disk.close()
    assert (tmp_path / "copy").read_bytes() == b"content"


@pytest.mark.root
@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_content_is_shared_where_that_works(tmp_path: Path, kind: str) -> None:
    """On a file system that can, a copy takes no room, and is known by the same checksum and digest as any other."""
    from tests.support.vaults import mounted

    with mounted(str(tmp_path / "image"), str(tmp_path / "top"), kind=kind) as top:
        content = os.urandom(30 << 20)
        with open(f"{top}/file", "wb") as stream:
            stream.write(content)
            os.fsync(stream.fileno())
        disk = PosixDisk.at(top)
        before = disk.space("").free
        receipt = disk.copy(CopyOrder(source="file", target="copy", after=Attributes(), sha256=True))
        disk.sync_filesystem("")
        assert before - disk.space("").free < 5 << 20
        assert receipt.sha256 == disk.sha256("file")
        assert receipt.manifest == disk.manifest("file")
        with open(f"{top}/copy", "rb") as stream:
            assert stream.read() == content
        disk.close()


def test_no_worker_holds_a_lock(tmp_path: Path) -> None:
    """What locked something and is gone holds it no more once its workers have begun, although they are still there."""
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with closing(Crew(lambda _, rows: len(rows), worth=0, count=2)) as crew:
        assert crew.fork()
        os.close(lock)
        again = os.open(tmp_path / "lock", os.O_RDWR)
        try:
            assert any(_is_free(again) for _ in range(1000))
        finally:
            os.close(again)


def _is_free(fd: int) -> bool:
    """Return whether a lock can be had; else wait a moment for who has just been forked."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(0.01)
        return False
    return True
