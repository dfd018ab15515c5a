"""Content that goes over piece by piece: whatever stops it, going on gives the same and going back gives what was, exactly."""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.disktree import Tree, capture, decode_extent, diff
from tests.support.olddisk import unsynced
from upgradeconverter.disk import manifest, native, streaming
from upgradeconverter.disk.port import CopyOrder, Place, SourceInUseError, StreamOrder
from upgradeconverter.disk.posix import PosixDisk
from upgradeconverter.disk.usage import is_used
from upgradeconverter.model.plan import Attributes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LONG_AGO, LESS_LONG_AGO = 1_594_000_000_123_456_789, 1_595_000_000_987_654_321
BLOCK = 4096
# Chunks as small as they can be here: what matters is where they end, not how much is in them.
CHUNK = 4 * BLOCK
# What a stream does to a disk, and so may die before; it may die in the middle of what writes as well.
_DEEDS = ((os, "pwrite"), (os, "ftruncate"), (os, "utime"), (os, "fsync"), (native, "punch_hole"), (native, "sync_filesystem"))


class _DiedError(BaseException):
    """The process is gone."""


@dataclass(slots=True)
class _World:
    """A disk with something old, and what a stream was told to keep of it."""

    top: Path
    disk: PosixDisk
    kept: list[Place] = field(default_factory=list)

    def hollow(self, **members: Any) -> None:
        """Make the hollow copy."""
        self.disk.copy(CopyOrder(source="old", target="new", hollow=True, after=Attributes(), **members))

    def stream(
        self,
        start: Place | None = None,
        *,
        back: bool = False,
        piece: int = CHUNK,
        apart: frozenset[str] = frozenset(),
        keep: Callable[[Place], None] = lambda _: None,
    ) -> None:
        """Take content over, from the place that was kept last if not said otherwise."""
        order = StreamOrder(source="old", target="new", piece=piece, start=start or self.last, apart=apart)

        def keep_it(place: Place) -> None:
            keep(place)
            self.kept.append(place)

        self.disk.stream(order, keep_it, back=back)

    @property
    def last(self) -> Place:
        """How far it is known to have come."""
        return self.kept[-1] if self.kept else Place()

    def tree(self, name: str) -> Tree:
        """Return what lies under a name."""
        return capture(str(self.top / name))

    def allocated(self, name: str) -> int:
        """Return the allocated bytes of everything under a name."""
        return self.disk.survey(name).allocated


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (manifest, streaming):
        monkeypatch.setattr(module, "CHUNK", CHUNK)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[_World]:
    """Return an empty disk."""
    with unsynced(), _new_world(tmp_path / "disk") as made:
        yield made


@contextmanager
def _new_world(top: Path) -> Iterator[_World]:
    top.mkdir()
    disk = PosixDisk.at(str(top))
    yield _World(top, disk)
    disk.close()
    shutil.rmtree(top)


def _filler(size: int, seed: int = 1) -> bytes:
    """Return bytes of which no two chunks are alike."""
    return b"".join((seed * 1_000_003 + index).to_bytes(8, "little") for index in range(-(-size // 8)))[:size]


def _write(path: Path, *extents: tuple[int, bytes], size: int = -1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        for offset, content in extents:
            stream.seek(offset)
            stream.write(content)
        if size >= 0:
            stream.truncate(size)


def _dress(top: Path) -> None:
    """Give everything times of its own, long ago."""
    for number, path in enumerate(sorted((top, *top.rglob("*")), reverse=True)):
        os.utime(path, ns=(LESS_LONG_AGO + number, LONG_AGO + number), follow_symlinks=False)


def _mixed(top: Path) -> None:
    """Make a tree with a file of each kind that there is for a stream."""
    old = top / "old"
    _write(old / "a empty")
    _write(old / "b small", (0, b"short"))
    os.setxattr(old / "b small", "user.vital", b"yes")
    os.chmod(old / "b small", 0o4700)
    _write(old / "c large", (0, _filler(2 * CHUNK + 777)))
    _write(old / "d hole", size=2 * CHUNK + 5)
    _write(old / "e sparse", (3 * BLOCK, _filler(BLOCK, 2)), (CHUNK + 8 * BLOCK, _filler(10, 3)), size=3 * CHUNK + 99)
    os.link(old / "b small", old / "f another name")
    _write(old / "g/h", (0, _filler(CHUNK // 2 + 1, 4)))
    _write(old / "g/i", (0, _filler(CHUNK, 5)))
    os.symlink("/etc", old / "g/link")
    os.mkfifo(old / "g/pipe")
    _write(old / "z last", (0, b"the end"))
    os.chmod(old / "g", 0o2700)
    _dress(old)


def _single(top: Path) -> None:
    _write(top / "old", (0, _filler(2 * CHUNK + 4321)), size=3 * CHUNK + 1)
    os.utime(top / "old", ns=(LESS_LONG_AGO, LONG_AGO))


KINDS = {"tree": _mixed, "file": _single}


@contextmanager
def _dying(at: int | None, *, torn: bool = False) -> Iterator[list[str]]:
    """Let the body die before its `at`-th deed, counted from 0, or in the middle of it; yields the deeds so far."""
    done: list[str] = []

    def dying(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if len(done) == at:
                if torn and name == "pwrite":
                    fd, content, offset = arguments
                    real(fd, bytes(content)[: len(content) // 2], offset)
                raise _DiedError
            done.append(name)
            # No power is cut here.
            return real(*arguments, **options) if "sync" not in name else None

        return call

    with pytest.MonkeyPatch.context() as patch:
        for module, name in _DEEDS:
            patch.setattr(module, name, dying(name, getattr(module, name)))
        try:
            yield done
        except _DiedError:
            done.append("died")


def _content(tree: Tree) -> dict[str, Any]:
    return {path: entry.get("data") for path, entry in tree.items() if entry["kind"] == "file"}


def _files(tree: Tree) -> dict[str, bytes]:
    """Return the content of all regular files, each under the first of its names, in the order of a walk."""
    found = {}
    for path in sorted(tree, key=lambda path: path.split("/")):
        if "data" in tree[path]:
            content = bytearray(tree[path]["size"])
            for offset, encoding, value in tree[path]["data"]:
                extent = decode_extent(encoding, value)
                content[offset : offset + len(extent)] = extent
            found[path] = bytes(content)
    return found


def _require_whole(world: _World, before: dict[str, bytes]) -> None:
    """Everything before the place kept last is in the new one, everything from it on in the old one."""
    place, is_over = world.last, bool(world.last.path)
    old, new = _files(world.tree("old")), _files(world.tree("new"))
    for path, content in before.items():
        offset = place.offset if path == place.path else len(content) if is_over else 0
        is_over = is_over and path != place.path
        assert new[path][:offset] + old[path][offset:] == content, (path, place)


@pytest.mark.parametrize("piece", [CHUNK, 2 * CHUNK, 64 * CHUNK])
@pytest.mark.parametrize("kind", KINDS)
def test_forth_and_back(world: _World, kind: str, piece: int) -> None:
    """What went over is what was there, to the hole and the nanosecond, and leaves nothing behind; so is what came back."""
    KINDS[kind](world.top)
    before = world.tree("old")
    world.hollow()
    world.stream(piece=piece)
    assert diff(before, world.tree("new")) == ""
    assert set(map(str, _content(world.tree("old")).values())) <= {"[]", "None"}
    assert _sizes(world.tree("old")) == _sizes(before)
    world.stream(back=True, piece=piece)
    assert world.last == Place()
    assert diff(before, world.tree("old")) == ""
    assert set(map(str, _content(world.tree("new")).values())) <= {"[]", "None"}


def _sizes(tree: Tree) -> dict[str, Any]:
    return {path: entry.get("size") for path, entry in tree.items()}


def _deaths(scratch: Path, kind: str, *, back: bool) -> list[str]:
    """Return what a stream does, on a disk of its own."""
    with _new_world(scratch) as world:
        KINDS[kind](world.top)
        world.hollow()
        if back:
            world.stream()
        with _dying(None) as done:
            world.stream(back=back)
        return done


@pytest.mark.parametrize("then_back", [False, True], ids=["then forth", "then back"])
@pytest.mark.parametrize("kind", KINDS)
def test_dies_anywhere_forth(tmp_path: Path, kind: str, then_back: bool) -> None:
    """Died before or in the middle of anything, also between the two cuts of a file, it goes on, or back, from the last place."""
    for at, name in enumerate(_deaths(tmp_path / "counted", kind, back=False)):
        for torn in (False, True)[: 1 + (name == "pwrite")]:
            with _new_world(tmp_path / f"{at} {torn}") as world:
                KINDS[kind](world.top)
                before, files = world.tree("old"), _files(world.tree("old"))
                world.hollow()
                with _dying(at, torn=torn) as done:
                    world.stream()
                assert done[-1] == "died"
                _require_whole(world, files)
                world.stream(back=then_back)
                found = diff(before, world.tree("old" if then_back else "new"))
                assert found == "", (at, torn, name, found)


@pytest.mark.parametrize("kind", KINDS)
def test_dies_anywhere_on_the_way_back(tmp_path: Path, kind: str) -> None:
    """Died on the way back, which began in the middle or at the end, it goes on back from the last place and gives what was."""
    for at, name in enumerate(_deaths(tmp_path / "counted", kind, back=True)):
        for torn in (False, True)[: 1 + (name == "pwrite")]:
            with _new_world(tmp_path / f"{at} {torn}") as world:
                KINDS[kind](world.top)
                before = world.tree("old")
                world.hollow()
                world.stream()
                with _dying(at, torn=torn) as done:
                    world.stream(back=True)
                assert done[-1] == "died"
                with _dying(at // 2):
                    world.stream(back=True)
                world.stream(back=True)
                found = diff(before, world.tree("old"))
                assert found == "", (at, torn, name, found)


@pytest.mark.parametrize("then_back", [False, True], ids=["then forth", "then back"])
@pytest.mark.parametrize("kind", KINDS)
def test_place_that_cannot_be_kept(tmp_path: Path, kind: str, then_back: bool) -> None:
    """Where a place cannot be kept nothing is let go, at each piece; then it goes on from the one before."""
    for at in range(64):
        with _new_world(tmp_path / str(at)) as world:
            KINDS[kind](world.top)
            before, files = world.tree("old"), _files(world.tree("old"))
            world.hollow()

            def refuse(_: Place, world: _World = world, at: int = at) -> None:
                if len(world.kept) == at:
                    raise OSError(28, os.strerror(28), "journal")

            try:
                world.stream(keep=refuse)
            except OSError:
                _require_whole(world, files)
                world.stream(back=then_back)
                assert diff(before, world.tree("old" if then_back else "new")) == "", at
            else:
                assert at > 2
                break


@pytest.mark.parametrize("piece", [CHUNK, 2 * CHUNK])
def test_no_more_than_a_piece_lies_in_both(world: _World, piece: int) -> None:
    """At no place more is allocated than at the beginning, a piece and a chunk, forth and back."""
    _mixed(world.top)
    _write(world.top / "old/large", (0, _filler(6 * CHUNK + 1, 9)))
    world.hollow()
    peaks = []
    limit = world.allocated("old") + world.allocated("new") + piece + CHUNK
    for back in (False, True):
        world.stream(back=back, piece=piece, keep=lambda _: peaks.append(world.allocated("old") + world.allocated("new")))
    assert max(peaks) <= limit


def test_going_on_lets_go_what_was_over(world: _World) -> None:
    """What a process that died did not come to let go is let go before more goes over, so that two pieces never lie in both."""
    _write(world.top / "old", (0, _filler(4 * CHUNK)))
    world.hollow()
    at = _first(world, "punch_hole", tmp="counted")
    with _dying(at):
        world.stream()
    assert world.last.offset == CHUNK
    assert world.allocated("old") + world.allocated("new") > 5 * CHUNK - BLOCK
    peaks: list[int] = []
    world.stream(keep=lambda _: peaks.append(world.allocated("old") + world.allocated("new")))
    assert max(peaks) <= 5 * CHUNK + 4 * BLOCK


def _first(world: _World, name: str, *, tmp: str) -> int:
    """Return when a stream does something for the first time, on a disk of its own."""
    with _new_world(world.top.parent / tmp) as other:
        _write(other.top / "old", (0, _filler(4 * CHUNK)))
        other.hollow()
        with _dying(None) as done:
            other.stream()
    return done.index(name)


def test_sparse_stays_sparse(world: _World) -> None:
    """No hole is filled: what was allocated is as much as before, but for a block of each extent."""
    extents = [(index * 3 * BLOCK, _filler(BLOCK, index)) for index in range(1, 300)]
    _write(world.top / "old", *extents, size=64 * CHUNK)
    allocated = world.allocated("old")
    world.hollow()
    world.stream()
    assert world.allocated("new") <= allocated + len(extents) * BLOCK // 8
    assert world.allocated("old") <= BLOCK
    world.stream(back=True)
    assert world.allocated("old") <= allocated + len(extents) * BLOCK // 8


def test_file_of_holes_only(world: _World) -> None:
    """A file without content goes over, and comes back, without a byte being written."""
    _write(world.top / "old", size=5 * CHUNK + 3)
    os.utime(world.top / "old", ns=(LESS_LONG_AGO, LONG_AGO))
    before = world.tree("old")
    world.hollow()
    with _dying(None) as done:
        world.stream()
        assert diff(before, world.tree("new")) == ""
        world.stream(back=True)
    assert "pwrite" not in done
    assert diff(before, world.tree("old")) == ""


def test_what_is_apart_is_left_alone(world: _World) -> None:
    """What only one of both has, was put inside or is left out, is neither read nor written, forth and back."""
    _write(world.top / "old/a", (0, b"goes along"))
    _write(world.top / "old/left/out", (0, b"does not"))
    _write(world.top / "old/z", (0, b"goes along as well"))
    _dress(world.top / "old")
    before = world.tree("old")
    world.hollow(additions=(("added", b"put inside"),), omissions=("left",))
    apart = frozenset(("added", "left"))
    world.stream(apart=apart)
    assert _files(world.tree("new")) == {
        "a": b"goes along",
        "added": b"put inside",
        "z": b"goes along as well",
    }
    assert _files(world.tree("old"))["left/out"] == b"does not"
    world.stream(back=True, apart=apart)
    assert diff(before, world.tree("old")) == ""
    assert _files(world.tree("new"))["added"] == b"put inside"


@pytest.mark.parametrize("path", ["old", "old/b", "old/c"])
def test_file_that_somebody_writes_to(world: _World, path: str) -> None:
    """What another process has open for writing stops the stream before anything of it is taken or let go."""
    if path == "old":
        _write(world.top / "old", (0, _filler(3 * CHUNK)))
    else:
        for number, name in enumerate("abcd"):
            _write(world.top / "old" / name, (0, _filler(CHUNK, number)))
    before = world.tree("old")
    world.hollow()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        fd = os.open(world.top / path, os.O_WRONLY)
        os.close(writing)
        os.read(reading, 1)
        os.close(fd)
        os._exit(0)
    os.close(reading)
    try:
        _wait_for_writer(world.top / path)
        with pytest.raises(SourceInUseError, match=path):
            world.stream()
    finally:
        os.close(writing)
        os.waitpid(child, 0)
    _require_whole(world, _files(before))
    world.stream(back=True)
    assert _files(world.tree("old")) == _files(before)


def _wait_for_writer(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    while not is_used(fd, fcntl.F_RDLCK):
        pass
    os.close(fd)


@pytest.mark.parametrize("at", [None, 9])
def test_deep_tree(world: _World, at: int | None) -> None:
    """A tree that is deeper than a path may be long goes over, and comes back from the middle."""
    (world.top / "old").mkdir()
    fd = os.open(world.top / "old", os.O_RDONLY)
    for depth in range(700):
        os.mkdir("folder", dir_fd=fd)
        deeper = os.open("folder", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
        if depth % 100 == 99:
            file_fd = os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=fd)
            os.write(file_fd, _filler(CHUNK // 2, depth))
            os.close(file_fd)
    os.close(fd)
    before = world.disk.manifest("old")
    world.hollow()
    with _dying(at):
        world.stream()
    if at is None:
        assert world.disk.manifest("new") == before
    world.stream(back=True)
    assert world.disk.manifest("old") == before
    for name in ("old", "new"):
        world.disk.remove(name)


def test_names_that_are_no_text(world: _World) -> None:
    """Names are bytes: one that is no UTF-8 is known again after a stop."""
    top = os.fsencode(world.top)
    os.mkdir(top + b"/old")
    for name in (b"\xff\xfe", b"a\nline", b"\x80\x80"):
        with open(top + b"/old/" + name, "wb") as stream:
            stream.write(_filler(CHUNK, name[0]))
    before = world.disk.manifest("old")
    world.hollow()
    with _dying(9):
        world.stream()
    assert world.kept
    world.stream()
    assert world.disk.manifest("new") == before
    world.stream(back=True)
    assert world.disk.manifest("old") == before


def test_many_small_files_share_their_syncs(world: _World) -> None:
    """Thousands of small files go over in as few pieces as hold them, and come back in as few."""
    piece = 64 * CHUNK
    for number in range(5000):
        _write(world.top / f"old/{number // 100}/{number}", (0, b"%d" % number))
    _dress(world.top / "old")
    before = world.tree("old")
    blocks = world.allocated("old")
    world.hollow()
    world.stream(piece=piece)
    assert diff(before, world.tree("new")) == ""
    pieces = len(world.kept)
    assert pieces <= 2 + -(-blocks // piece)
    world.stream(back=True, piece=piece)
    assert diff(before, world.tree("old")) == ""
    assert len(world.kept) - pieces <= 2 + -(-blocks // piece)


def test_small_files_fill_a_piece(world: _World) -> None:
    """The smallest piece that there is takes several small files too."""
    for number in range(32):
        _write(world.top / f"old/{number}", (0, b"small"))
    world.hollow()
    world.stream(piece=CHUNK)
    assert len(world.kept) == 32 * BLOCK // CHUNK


@pytest.mark.root
@pytest.mark.parametrize("then_back", [False, True], ids=["then forth", "then back"])
def test_capabilities_stay(tmp_path: Path, then_back: bool) -> None:
    """A program keeps its capabilities, which writing to it takes away, wherever the stream is stopped (capabilities(7))."""
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    for at in range(64):
        with _new_world(tmp_path / str(at)) as world:
            _write(world.top / "old/large", (0, _filler(2 * CHUNK + 1)))
            _write(world.top / "old/small", (0, b"small"))
            for name in ("large", "small"):
                os.setxattr(world.top / "old" / name, "security.capability", capability)
            _dress(world.top / "old")
            before = world.tree("old")
            world.hollow()
            with _dying(at) as done:
                world.stream()
            world.stream(back=then_back)
            tree = world.tree("old" if then_back else "new")
            assert diff(before, tree) == "", at
            assert all("security.capability" in tree[name]["xattrs"] for name in ("large", "small"))
            if done[-1] != "died":
                break
