"""The real disk: every verb of the port, relative to one root descriptor.

Calling sequence: `PosixDisk.at(path)`, verbs, `close`. See `port` for what each verb promises.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from msgspec import Struct, field
from msgspec.structs import replace

from upgradeconverter.disk import attributes as attrs
from upgradeconverter.disk import copying, flags, marks, native, streaming, trees, usage, vault
from upgradeconverter.disk.flushing import Flusher
from upgradeconverter.disk.manifest import CHUNK
from upgradeconverter.disk.mounts import mounts_at
from upgradeconverter.disk.port import ENGINE_FOLDER, CopyOrder, CopyReceipt, Keep, Progress, StreamOrder
from upgradeconverter.disk.walking import ABSENT, Root, entry_of, folder, holder, name_whole, names, parted, reach, regular_file
from upgradeconverter.errors import RootMissingError
from upgradeconverter.model.entry import Domain, Entry, Kind, Space, TreeFacts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from upgradeconverter.model.plan import Attributes

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# What is no regular file must not be waited for.
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_ALL = sys.maxsize
# How long somebody who is just writing a file in place is waited for, in seconds.
_PAUSES = (0.01, 0.03, 0.1, 0.0)


class Annexed(Struct, frozen=True, kw_only=True):
    """A directory elsewhere that is part of a disk; `only` names the one entry of it that is, empty for all."""

    folder: str
    only: str = ""


def _opened(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise RootMissingError(path, (error.strerror or "nothing").lower()) from error


def _parts(fd: int, start: int, size: int, *, part: int = CHUNK) -> Iterator[bytes]:
    """Yield what a file has from some place on, up to so many bytes, in parts of so many."""
    while size > 0 and (found := os.pread(fd, min(part, size), start)):
        yield found
        start += len(found)
        size -= len(found)


class PosixDisk(Struct, frozen=True, eq=False):
    """A directory of the running system.

    Attributes:
        annexes: the directories elsewhere that are part of it, by the name with `:` that they have in it.
        asks: whether a lease may tell if somebody else has a file open that is read; who opens it meanwhile waits that long.
    """

    root_fd: int
    root_path: str
    annexes: Mapping[str, Annexed] = field(default_factory=dict)
    asks: bool = True
    flusher: Flusher = field(default_factory=Flusher)

    @classmethod
    def at(cls, path: str, annexes: Mapping[str, Annexed] | None = None) -> PosixDisk:
        """Open a root directory and its annexes; RootMissingError when one is not there."""
        annexes = annexes or {}
        opened: dict[str, int] = {}
        try:
            for name, place in {"": path, **{name: annexed.folder for name, annexed in annexes.items()}}.items():
                opened[name] = _opened(place)
        except RootMissingError:
            for fd in opened.values():
                os.close(fd)
            raise
        root = Root.of(opened.pop(""), opened)
        return cls(root, os.path.realpath(path), annexes)

    def close(self) -> None:
        """Let the root go."""
        self.flusher.close()
        for fd in (*(self.root_fd.annexes.values() if isinstance(self.root_fd, Root) else ()), self.root_fd):
            os.close(fd)

    def place(self, path: str) -> str:
        """Return the absolute path of what lies at a path."""
        top, _, inside = path.partition("/")
        if top in self.annexes:
            return os.path.join(os.path.realpath(self.annexes[top].folder), inside).rstrip("/")
        return os.path.join(self.root_path, path).rstrip("/")

    def silent(self) -> PosixDisk:
        """See `Disk.silent`."""
        return replace(self, asks=False)

    # --- looking -------------------------------------------------------------------------------------------------------

    def find(self, path: str, *, labels: bool = False) -> Entry | None:
        """See `Disk.find`."""
        above, name = parted(self.root_fd, path)
        fd = -1
        try:
            # As `holder` does it, without what that costs: nothing is asked more often.
            fd = reach(self.root_fd, above)
            return self._entry(fd, name, path, labels=labels)
        except OSError as error:
            if error.errno in ABSENT:
                return None
            if fd >= 0:
                name_whole(error, fd, name, path)
            raise
        finally:
            if fd >= 0:
                os.close(fd)

    def _entry(self, fd: int, name: str, path: str, *, labels: bool) -> Entry:
        facts = os.stat(name, dir_fd=fd, follow_symlinks=False) if name else os.fstat(fd)
        if not labels:
            return entry_of(path, facts, {})
        return entry_of(path, facts, attrs.read_labels(fd, name), fixed=native.is_fixed(fd, name) if name else None)

    def entries(self, path: str, *, labels: bool = False) -> tuple[Entry, ...]:
        """See `Disk.entries`."""
        only = self.annexes[path].only if path in self.annexes else ""
        with folder(self.root_fd, path) as fd:
            return tuple(
                self._entry(fd, name, f"{path}/{name}" if path else name, labels=labels)
                for name in names(fd)
                if (name != ENGINE_FOLDER or self.domain(path).home != path) and only in ("", name)
            )

    def read(self, path: str, limit: int) -> bytes:
        """See `Disk.read`."""
        for pause in _PAUSES:
            with self._file(path) as fd:
                before = os.fstat(fd)
                if before.st_size > limit:
                    raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
                content = b"".join(_parts(fd, 0, _ALL, part=max(CHUNK, before.st_size)))
                # Nobody but who holds the lock writes to the engine's own, and who only looks bears half a record.
                is_own = path.startswith(f"{ENGINE_FOLDER}/")
                if is_own or (_is_settled(fd, before, len(content)) and not (self.asks and usage.is_used(fd, fcntl.F_RDLCK))):
                    return content
            time.sleep(pause)
        raise OSError(errno.EBUSY, "open for writing in another process", path)

    def part(self, path: str, start: int, size: int) -> bytes:
        """See `Disk.part`."""
        with self._file(path) as fd:
            return b"".join(_parts(fd, start, size))

    def tail(self, path: str, size: int) -> bytes:
        """See `Disk.tail`."""
        with self._file(path) as fd:
            start = max(0, os.fstat(fd).st_size - size)
            return b"".join(_parts(fd, start, _ALL))

    @contextmanager
    def _file(self, path: str) -> Iterator[int]:
        with holder(self.root_fd, path) as (above, name), regular_file(above, name) as fd:
            yield fd

    def survey(self, path: str, *, closely: bool = False, inside: bool = True) -> TreeFacts:
        """See `Disk.survey`."""
        return trees.survey(self.root_fd, path, closely=closely, inside=inside)

    def mounts(self, path: str) -> tuple[str, ...]:
        """See `Disk.mounts`."""
        # That the root itself is a mount is nothing that lies inside, and neither is that an annex is one.
        if not path:
            return tuple(sorted(mount for top in ("", *self.annexes) for mount in self._mounts_in(top, top) if mount != top))
        return self._mounts_in(path, path)

    def _mounts_in(self, path: str, name: str) -> tuple[str, ...]:
        place = self.place(path)
        return tuple(f"{name}{point[len(place) :]}".lstrip("/") for point in mounts_at(place))

    def sha256(self, path: str) -> str:
        """See `Disk.sha256`."""
        with self._file(path) as fd, os.fdopen(os.dup(fd), "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def manifest(self, path: str) -> str:
        """See `Disk.manifest`."""
        return trees.manifest(self.root_fd, path)

    def same_content(self, first: str, second: str, additions: Iterable[tuple[str, bytes]] = ()) -> bool:
        """See `Disk.same_content`."""
        one, two = self.find(first), self.find(second)
        if one is None or two is None or one.kind is not two.kind:
            return False
        return trees.same_content(self.root_fd, first, second, dict(additions))

    def domain(self, path: str) -> Domain:
        """See `Disk.domain`."""
        while (entry := self.find(path)) is None or entry.kind is not Kind.DIRECTORY:
            path = path.rpartition("/")[0]
        key, encrypted = self._domain_key(path)
        home = path
        while home:
            above = home.rpartition("/")[0]
            if home in self.annexes or self._domain_key(above)[0] != key:
                break
            home = above
        with folder(self.root_fd, home) as fd:
            return Domain(
                home=home,
                key=key,
                encrypted=encrypted,
                flags=flags.kept(fd),
                project=native.inherited_project(fd),
                any_project=flags.keeps_any_project(fd),
                longest_link=flags.longest_link(fd, encrypted=encrypted),
            )

    def _domain_key(self, path: str) -> tuple[str, bool]:
        top = path.partition("/")[0]
        with folder(self.root_fd, path) as fd:
            key, encrypted = vault.domain_key(fd)
        # Nothing is ever renamed between the root and an annex, or shared by both.
        return f"{top} {key}" if top in self.annexes else key, encrypted

    def space(self, path: str) -> Space:
        """See `Disk.space`."""
        with folder(self.root_fd, path) as fd:
            facts, device = os.fstatvfs(fd), os.fstat(fd).st_dev
        return Space(
            filesystem=f"{os.major(device)}:{os.minor(device)}",
            free=facts.f_bavail * facts.f_frsize,
            # Some file systems (btrfs) have no fixed number of inodes and say 0 of 0.
            free_inodes=facts.f_favail if facts.f_files else 1 << 40,
            block_size=facts.f_frsize,
        )

    def vault_state(self, path: str) -> str:
        """See `Disk.vault_state`."""
        entry = self.find(path)
        if entry is None:
            return "missing"
        if entry.kind is not Kind.DIRECTORY:
            return "not a directory"
        with folder(self.root_fd, path) as fd:
            return vault.state(fd)

    def is_open(self, path: str) -> bool:
        """See `Disk.is_open`."""
        with self._there(path) as (above, name, mode):
            if stat.S_ISREG(mode):
                with regular_file(above, name) as fd:
                    return usage.is_used(fd, fcntl.F_WRLCK)
            return stat.S_ISDIR(mode) and usage.is_written_inside(self.root_fd, path)

    def used_by(self, path: str) -> str:
        """See `Disk.used_by`."""
        with self._there(path) as (above, name, mode):
            if stat.S_ISDIR(mode):
                return next((used for entry in self.entries(path) if (used := self.used_by(entry.path))), "")
            return marks.used_by(above, name, mode, self.place(path))

    def lived_in(self, trees: Iterable[str], folders: Iterable[str] = ()) -> frozenset[str]:
        """See `Disk.lived_in`."""
        return usage.lived_in(self.root_fd, filter(self._is_directory, trees), filter(self._is_directory, folders))

    def _is_directory(self, path: str) -> bool:
        entry = self.find(path)
        return entry is not None and entry.kind is Kind.DIRECTORY

    def clock(self) -> str:
        """See `Disk.clock`."""
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

    def is_immutable(self, path: str) -> bool:
        """See `Disk.is_immutable`."""
        with self._there(path) as (above, name, mode):
            return trees.is_fixed(above, name, mode)

    @contextmanager
    def _there(self, path: str) -> Iterator[tuple[int, str, int]]:
        """Yield the directory that holds an entry, its name there and its mode, without opening it; mode 0 for nothing."""
        above, name = parted(self.root_fd, path)
        fd, mode = -1, 0
        try:
            try:
                fd = reach(self.root_fd, above)
                mode = os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode if name else stat.S_IFDIR
            except OSError as error:
                if error.errno not in ABSENT:
                    raise
            yield fd, name, mode
        except OSError as error:
            name_whole(error, fd, name, path)
            raise
        finally:
            if fd >= 0:
                os.close(fd)

    @contextmanager
    def _folder_or_file(self, path: str) -> Iterator[int]:
        entry = self.find(path)
        opener = folder(self.root_fd, path) if entry and entry.kind is Kind.DIRECTORY else self._file(path)
        with opener as fd:
            yield fd

    # --- acting --------------------------------------------------------------------------------------------------------

    def make_directory(self, path: str, attributes: Attributes) -> int:
        """See `Disk.make_directory`."""
        with holder(self.root_fd, path) as (fd, name):
            os.mkdir(name, 0o700, dir_fd=fd)
            attrs.remove_acls(fd, name)
            attrs.apply(fd, name, attributes)
            return os.stat(name, dir_fd=fd, follow_symlinks=False).st_ino

    def write_file(self, path: str, content: bytes, attributes: Attributes) -> int:
        """See `Disk.write_file`."""
        with holder(self.root_fd, path) as (fd, name):
            file_fd = os.open(name, _CREATE, 0o600, dir_fd=fd)
            try:
                _write_all(file_fd, content)
                identity = os.fstat(file_fd).st_ino
            finally:
                os.close(file_fd)
            attrs.apply(fd, name, attributes)
            return identity

    def make_hard_link(self, source: str, path: str) -> int:
        """See `Disk.make_hard_link`."""
        with holder(self.root_fd, source) as (from_fd, from_name), holder(self.root_fd, path) as (to_fd, to_name):
            os.link(from_name, to_name, src_dir_fd=from_fd, dst_dir_fd=to_fd, follow_symlinks=False)
            return os.stat(to_name, dir_fd=to_fd, follow_symlinks=False).st_ino

    def make_link(self, path: str, destination: str) -> int:
        """See `Disk.make_link`."""
        with holder(self.root_fd, path) as (fd, name):
            os.symlink(destination, name, dir_fd=fd)
            return os.stat(name, dir_fd=fd, follow_symlinks=False).st_ino

    def copy(self, order: CopyOrder, *, progress: Progress | None = None) -> CopyReceipt:
        """See `Disk.copy`."""
        receipt = copying.copy(self.root_fd, order, progress, self.flusher)
        if order.names is None:
            self.remove(copying.names_of(order.target))
        return receipt

    def stream(self, order: StreamOrder, keep: Keep, *, back: bool = False, progress: Progress | None = None) -> None:
        """See `Disk.stream`."""
        streaming.stream(self.root_fd, order, keep, progress, back=back)

    def rename(self, source: str, target: str) -> None:
        """See `Disk.rename`."""
        with holder(self.root_fd, source) as (from_fd, from_name), holder(self.root_fd, target) as (to_fd, to_name):
            native.rename_exclusively(from_fd, from_name, to_fd, to_name)

    def set_attributes(self, path: str, attributes: Attributes) -> None:
        """See `Disk.set_attributes`."""
        with holder(self.root_fd, path) as (fd, name):
            attrs.apply(fd, name, attributes)

    def remove(self, path: str) -> None:
        """See `Disk.remove`."""
        if self.find(path) is not None:
            trees.remove(self.root_fd, path)

    def remove_directory(self, path: str) -> bool:
        """See `Disk.remove_directory`."""
        if self.find(path) is None:
            return True
        try:
            with holder(self.root_fd, path) as (fd, name):
                os.rmdir(name, dir_fd=fd)
        except OSError as error:
            # Something else than a directory has that name, and is not ours to remove.
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                return False
            raise
        return True

    def append(self, path: str, content: bytes) -> None:
        """See `Disk.append`."""
        with holder(self.root_fd, path) as (fd, name):
            file_fd = os.open(name, _APPEND, 0o600, dir_fd=fd)
            try:
                before = os.fstat(file_fd).st_size
                try:
                    _write_all(file_fd, content)
                except OSError:
                    # Half a record would look like damage once another follows it.
                    os.ftruncate(file_fd, before)
                    raise
                os.fdatasync(file_fd)
            finally:
                os.close(file_fd)

    def truncate(self, path: str, size: int) -> None:
        """See `Disk.truncate`."""
        with holder(self.root_fd, path) as (fd, name):
            file_fd = os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd)
            try:
                os.ftruncate(file_fd, size)
                os.fsync(file_fd)
            finally:
                os.close(file_fd)

    # --- durability ----------------------------------------------------------------------------------------------------

    def sync_directory(self, path: str) -> None:
        """See `Disk.sync_directory`."""
        with folder(self.root_fd, path) as fd:
            os.fsync(fd)

    def sync_file(self, path: str) -> None:
        """See `Disk.sync_file`."""
        entry = self.find(path)
        if entry is not None and entry.kind in (Kind.FILE, Kind.DIRECTORY):
            with self._folder_or_file(path) as fd:
                os.fsync(fd)

    def sync_filesystem(self, path: str) -> None:
        """See `Disk.sync_filesystem`."""
        self.flusher.finish()
        with folder(self.root_fd, path) as fd:
            native.sync_filesystem(fd, path)


def _is_settled(fd: int, before: os.stat_result, size: int) -> bool:
    """Return whether what was read of an open file is what was in it at one moment."""
    after = os.fstat(fd)
    return (before.st_size, before.st_mtime_ns, before.st_ctime_ns) == (size, after.st_mtime_ns, after.st_ctime_ns)


def _write_all(fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
