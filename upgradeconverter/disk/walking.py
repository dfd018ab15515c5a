"""Finding and listing things below a root descriptor without ever following a symbolic link (D7), or touching access times (D6).

A path is resolved by `openat2` without any link, or, where that is missing, component by component with O_NOFOLLOW, so no name
and no link can lead out of the root. A tree is walked with few descriptors and little memory, however deep it is.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from upgradeconverter.disk import native
from upgradeconverter.model.entry import Entry, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

_KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFSOCK: Kind.SOCKET,
    stat.S_IFCHR: Kind.CHARACTER,
    stat.S_IFBLK: Kind.BLOCK,
}

# Names that are looked at together at most.
_STRETCH = 96
# Descriptors that a walk has open at most, beside the top.
_KEPT = 32
_CLOSED = -1
_NO_LABELS: Mapping[str, str] = MappingProxyType({})
# Components that no name of ours can be.
_CLIMBING = frozenset(("", ".", ".."))

# A component that is no directory, or a link, means for us: nothing is there.
ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOKEY)


class Root(int):
    """A descriptor of a root that knows annexes: directories elsewhere, which are reached as if they lay in it, as `name:`."""

    annexes: Mapping[str, int] = MappingProxyType({})

    @classmethod
    def of(cls, fd: int, annexes: Mapping[str, int]) -> Root:
        """Return a descriptor together with those of its annexes, by name."""
        root = cls(fd)
        root.annexes = annexes
        return root


def parted(root_fd: int, path: str) -> tuple[str, str]:
    """Return the directory that holds a path and its name there, which is empty for the root and for an annex."""
    if path.endswith(":") and isinstance(root_fd, Root) and path in root_fd.annexes:
        return path, ""
    above, _, name = path.rpartition("/")
    return above, name


def _open(name: str, flags: int, folder_fd: int | None) -> int:
    try:
        return os.open(name, flags | os.O_NOATIME, dir_fd=folder_fd)
    except PermissionError:
        # O_NOATIME is for the owner and root only (open(2)).
        return os.open(name, flags, dir_fd=folder_fd)


def components(path: str) -> list[str]:
    """Split a relative path; ValueError for anything that could climb out."""
    parts = path.split("/") if path else []
    if not _CLIMBING.isdisjoint(parts) or "\0" in path:
        message = f"not a path below the root: {path!r}"
        raise ValueError(message)
    return parts


@contextmanager
def folder(root_fd: int, path: str) -> Iterator[int]:
    """Open a directory below the root for reading; OSError names the whole path."""
    fd = reach(root_fd, path)
    try:
        yield fd
    finally:
        os.close(fd)


def reach(root_fd: int, path: str) -> int:
    """Return a descriptor of a directory below the root, for the caller to close; see `folder`."""
    parts, inside = components(path), path
    if parts and parts[0].endswith(":") and isinstance(root_fd, Root) and parts[0] in root_fd.annexes:
        root_fd, inside = root_fd.annexes[parts.pop(0)], path.partition("/")[2]
    if len(parts) > 1:
        beneath = native.open_beneath(root_fd, inside, _FOLDER | os.O_NOATIME)
        if beneath is not None:
            return beneath
    fd = -1
    try:
        fd = _open(parts[0] if parts else ".", _FOLDER, root_fd)
        for part in parts[1:]:
            deeper = _open(part, _FOLDER, fd)
            os.close(fd)
            fd = deeper
    except OSError as error:
        if fd >= 0:
            os.close(fd)
        raise OSError(error.errno, os.strerror(error.errno or 0), path) from error
    return fd


@contextmanager
def holder(root_fd: int, path: str) -> Iterator[tuple[int, str]]:
    """Open the directory that holds a path; yields its descriptor and the last component (`""` for the root itself).

    What fails in the body by that name, or by no name, is named by the whole path.
    """
    above, name = parted(root_fd, path)
    with folder(root_fd, above) as fd:
        try:
            yield fd, name
        except OSError as error:
            name_whole(error, fd, name, path)
            raise


def name_whole(error: OSError, fd: int, name: str, path: str) -> None:
    """Let an error that names something by its last component, or not at all, name it by its whole path."""
    said = error.filename
    # What was opened already is named by its descriptor.
    if said is None or isinstance(said, int) or os.fsdecode(said) in (name, f"/proc/self/fd/{fd}/{name}"):
        error.filename = path


def open_file(folder_fd: int, name: str) -> tuple[int, os.stat_result]:
    """Open a regular file for reading; OSError EINVAL when it is anything else. Never blocks on a FIFO or device."""
    fd = _open(name, _FILE, folder_fd)
    facts = os.fstat(fd)
    if not stat.S_ISREG(facts.st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", name)
    return fd, facts


@contextmanager
def regular_file(folder_fd: int, name: str) -> Iterator[int]:
    """Open a regular file for reading, see `open_file`, until the body is left."""
    fd, _ = open_file(folder_fd, name)
    try:
        yield fd
    finally:
        os.close(fd)


def names(folder_fd: int) -> list[str]:
    """Return the names in an open directory, sorted bytewise."""
    with os.scandir(folder_fd) as listing:
        return sorted((entry.name for entry in listing), key=os.fsencode)


def kind_of(mode: int) -> Kind:
    """Return the kind that a `st_mode` says."""
    return _KINDS[stat.S_IFMT(mode)]


def entry_of(path: str, facts: os.stat_result, labels: Mapping[str, str], *, fixed: bool | None = None) -> Entry:
    """Return a stat result in the words of the model."""
    return Entry(
        path=path,
        kind=kind_of(facts.st_mode),
        size=facts.st_size,
        allocated=facts.st_blocks * 512,
        mode=stat.S_IMODE(facts.st_mode),
        uid=facts.st_uid,
        gid=facts.st_gid,
        mtime_ns=facts.st_mtime_ns,
        atime_ns=facts.st_atime_ns,
        identity=facts.st_ino,
        ctime_ns=facts.st_ctime_ns,
        links=facts.st_nlink,
        fixed=fixed,
        labels=labels or _NO_LABELS,
    )


class Way:
    """Where one stands below an open directory: down by name and up again, with few descriptors however deep that is.

    What lies far above is closed, and reached again by `..`, which counts only when it is the directory that one came from.
    """

    __slots__ = ("_fds", "_identities", "names")

    def __init__(self, top_fd: int) -> None:
        """Start at the top, which stays open and is not closed here."""
        self._fds = [top_fd]
        self._identities = [_identity(os.fstat(top_fd))]
        self.names: list[str] = []

    @property
    def fd(self) -> int:
        """Descriptor of the directory that one stands in."""
        return self._fds[-1]

    @property
    def above(self) -> int:
        """Descriptor of the directory above it, which is opened again where that is needed."""
        if self._fds[-2] == _CLOSED:
            fd = _open("..", _FOLDER, self.fd)
            if _identity(os.fstat(fd)) != self._identities[-2]:
                os.close(fd)
                raise OSError(errno.ESTALE, "it was moved meanwhile", self.path)
            self._fds[-2] = fd
        return self._fds[-2]

    @property
    def path(self) -> str:
        """Path of that directory below the top."""
        return "/".join(self.names)

    def down(self, name: str, expected: os.stat_result | None = None) -> None:
        """Go into a directory, which has to be the expected one."""
        fd = _open(name, _FOLDER, self.fd)
        identity = _identity(os.fstat(fd))
        self._fds.append(fd)
        self._identities.append(identity)
        self.names.append(name)
        if expected is not None and identity != _identity(expected):
            raise OSError(errno.ESTALE, "something else was put in its place", self.path)
        far = len(self._fds) - 1 - _KEPT
        if far > 0 and self._fds[far] != _CLOSED:
            os.close(self._fds[far])
            self._fds[far] = _CLOSED

    def up(self) -> None:
        """Go back to the directory above."""
        _ = self.above
        os.close(self._fds.pop())
        self._identities.pop()
        self.names.pop()

    def close(self) -> None:
        """Let go of everything but the top."""
        for fd in self._fds[1:]:
            if fd != _CLOSED:
                os.close(fd)
        del self._fds[1:]


def _identity(facts: os.stat_result) -> tuple[int, int]:
    return facts.st_dev, facts.st_ino


class Visit(Struct):
    """One entry on a walk; valid until the next step.

    Attributes:
        facts: what `lstat` said.
        fd: descriptor of the directory that holds it.
        depth: 1 for what lies directly in the top.
        inside: descriptor of a directory itself.
        leaving: whether everything inside of a directory was visited.
        prune: set it to leave out what lies inside, the leaving included.
    """

    name: str
    facts: os.stat_result
    fd: int
    depth: int
    way: Way
    inside: int = _CLOSED
    leaving: bool = False
    prune: bool = False

    @property
    def path(self) -> str:
        """Path below the top: as long as the tree is deep, so for what is rare only."""
        return "/".join((*self.way.names[: self.depth - 1], self.name))

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.facts.st_mode)


class Row(NamedTuple):
    """One name in a directory, and what its list says of it: whether it is a directory, or a regular file."""

    name: str
    is_folder: bool
    is_file: bool


class Stretch(Struct):
    """Names in one directory that follow each other, and are no directories by what its list says; valid until the next step."""

    fd: int
    depth: int
    rows: list[Row]
    way: Way


def walk(top_fd: int) -> Iterator[Visit]:
    """Walk below an open directory, sorted, each directory before and once more after what lies inside."""
    for step in stretches(top_fd):
        if isinstance(step, Visit):
            yield step
            continue
        for row in step.rows:
            yield _visit(step.way, row.name, is_folder=False)


def stretches(top_fd: int) -> Iterator[Visit | Stretch]:
    """Walk like `walk`, but without looking at anything but directories: of the others come only the names, many at once."""
    way = Way(top_fd)
    try:
        pending = [_rows_at(way)]
        entered: list[os.stat_result] = []
        while pending:
            rows = pending[-1]
            if rows and rows[-1].is_folder:
                visit = _visit(way, rows.pop().name, is_folder=True)
                yield visit
                if visit.prune:
                    way.up()
                else:
                    pending.append(_rows_at(way))
                    entered.append(visit.facts)
                continue
            if rows:
                yield Stretch(way.fd, len(pending), _stretch_of(rows), way)
                continue
            pending.pop()
            if pending:
                yield Visit(way.names[-1], entered.pop(), way.above, len(pending), way, way.fd, leaving=True)
                way.up()
    finally:
        way.close()


def _stretch_of(rows: list[Row]) -> list[Row]:
    """Take the next names that belong together off the end of what is left of a directory."""
    end = len(rows)
    while len(rows) - end < _STRETCH and end and not rows[end - 1].is_folder:
        end -= 1
    found = rows[end:][::-1]
    del rows[end:]
    return found


def _visit(way: Way, name: str, *, is_folder: bool) -> Visit:
    fd, depth = way.fd, len(way.names) + 1
    try:
        visit = Visit(name, _facts_of(fd, name, is_folder=is_folder), fd, depth, way)
        if is_folder:
            way.down(name, visit.facts)
            visit.inside = way.fd
    except OSError as error:
        error.filename = "/".join((*way.names[: depth - 1], name))
        raise
    return visit


def _facts_of(fd: int, name: str, *, is_folder: bool) -> os.stat_result:
    facts = os.stat(name, dir_fd=fd, follow_symlinks=False)
    if stat.S_ISDIR(facts.st_mode) != is_folder:
        raise OSError(errno.ESTALE, "something else was put in its place", name)
    return facts


def _rows_at(way: Way) -> list[Row]:
    """Return what lies in the directory that one stands in, the last one first."""
    try:
        with os.scandir(way.fd) as listing:
            rows = [
                Row(entry.name, entry.is_dir(follow_symlinks=False), entry.is_file(follow_symlinks=False)) for entry in listing
            ]
    except OSError as error:
        error.filename = way.path
        raise
    rows.sort(key=_bytewise, reverse=True)
    return rows


def _bytewise(row: Row) -> bytes:
    return os.fsencode(row.name)
