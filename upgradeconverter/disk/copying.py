"""Copies a file or a tree with everything that belongs to it: content, holes, hard links, owner, mode, xattrs, ACLs, times.

Guarantees: the source is only read, and its access times stay; the target must not exist; nothing follows a symbolic link;
special files are made anew, never opened. Directory times are set last and bottom-up. Nothing is durable until the caller syncs.

Must not know: plans, journals, where stage folders lie.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from upgradeconverter.disk import attributes, native
from upgradeconverter.disk.flags import Carrier
from upgradeconverter.disk.manifest import CHUNK, add_chunk, data_chunks, line
from upgradeconverter.disk.port import CopyOrder, CopyReceipt, Names, SourceChangedError
from upgradeconverter.disk.usage import unwritten
from upgradeconverter.disk.walking import Way, folder, holder, kind_of, regular_file, walk
from upgradeconverter.model.plan import Attributes

if TYPE_CHECKING:
    import hashlib
    from collections.abc import Callable

    from upgradeconverter.disk.port import Progress
    from upgradeconverter.disk.walking import Visit

_CHANGED = "%s changed while it was copied"
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(slots=True, kw_only=True)
class _Copying:
    """State of one copy.

    Attributes:
        folder_fd: where files with several names keep one; -1 until there is such a file.
        depth: number of components of the longest path that the order names inside.
        fixed: flags of the last file that forbid changes.
    """

    root_fd: int
    order: CopyOrder
    progress: Progress | None
    carrier: Carrier
    names: Names
    lines: list[str] = field(default_factory=list)
    folder_fd: int = -1
    depth: int = 0
    fixed: int = 0

    def note(self, facts: os.stat_result, crc: int, depth: int, name: str) -> None:
        """Add one line to the manifest."""
        size = facts.st_size if stat.S_ISREG(facts.st_mode) else 0
        mode = stat.S_IMODE(facts.st_mode)
        self.lines.append(line(kind=kind_of(facts.st_mode), size=size, mode=mode, crc=crc, depth=depth, name=name))

    def open_names(self) -> int:
        """Return the folder where files with several names keep one, which is made when it is missing."""
        if self.folder_fd < 0:
            with holder(self.root_fd, self.names.folder) as (above, name):
                with suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=above)
                with folder(above, name) as fd:
                    self.folder_fd = os.dup(fd)
        return self.folder_fd

    def close(self) -> None:
        """Let go of that folder."""
        if self.folder_fd >= 0:
            os.close(self.folder_fd)


def copy(root_fd: int, order: CopyOrder, progress: Progress | None) -> CopyReceipt:
    """Carry out a copy order below a root; see `Disk.copy`. The folder of the names that it keeps stays, if it has made one."""
    paths = (*(path for path, _ in order.additions), *order.omissions)
    with holder(root_fd, order.source) as (source_fd, source), holder(root_fd, order.target) as (target_fd, target):
        run = _Copying(
            root_fd=root_fd,
            order=order,
            progress=progress,
            carrier=Carrier.between(source_fd, target_fd),
            names=order.names or Names(folder=names_of(order.target)),
            depth=max((path.count("/") + 1 for path in paths), default=0),
        )
        try:
            sha256 = _copy_top(run, (source_fd, source), (target_fd, target))
        except OSError as error:
            if error.errno == errno.ESTALE:
                raise SourceChangedError(order.source) from error
            raise
        finally:
            run.close()
        identity = os.stat(target, dir_fd=target_fd, follow_symlinks=False).st_ino
    return CopyReceipt(identity=identity, manifest="".join(run.lines), sha256=sha256)


def names_of(target: str) -> str:
    """Return where a copy that stands for itself keeps names."""
    return f"{target}.names"


def _copy_top(run: _Copying, source: tuple[int, str], target: tuple[int, str]) -> str | None:
    (source_fd, source_name), (target_fd, target_name) = source, target
    facts = os.stat(source_name, dir_fd=source_fd, follow_symlinks=False)
    sha256 = None
    if stat.S_ISDIR(facts.st_mode):
        run.note(facts, 0, 0, "")
        os.mkdir(target_name, 0o700, dir_fd=target_fd)
        with folder(source_fd, source_name) as from_fd, folder(target_fd, target_name) as to_fd:
            _copy_tree(run, from_fd, to_fd)
            _finish(target_fd, target_name, source_fd, source_name, facts, run.order.after)
            run.carrier.finish(from_fd, to_fd)
        return None
    shared = facts.st_nlink > 1 and not run.order.sha256
    own = run.order.after if shared else None
    if not (shared and _link(run, target, facts, own, 0, "")):
        sha256, crc = _copy_entry(run, source, target, facts)
        run.note(facts, crc, 0, "")
        _finish(target_fd, target_name, source_fd, source_name, facts, run.order.after)
        if shared:
            _keep_name(run, target, facts, own, crc)
    return sha256


def _finish(target_fd: int, target: str, source_fd: int, source: str, facts: os.stat_result, after: Attributes) -> None:
    """Give the top of a copy the source's attributes, save those that `after` sets."""
    _take_attributes(target_fd, target, source_fd, source, facts)
    attributes.apply(
        target_fd,
        target,
        Attributes(
            mode=after.mode,
            uid=after.uid,
            gid=after.gid,
            labels=after.labels,
            atime_ns=facts.st_atime_ns if after.atime_ns is None else after.atime_ns,
            mtime_ns=facts.st_mtime_ns if after.mtime_ns is None else after.mtime_ns,
        ),
    )


def _take_attributes(target_fd: int, target: str, source_fd: int, source: str, facts: os.stat_result) -> None:
    """Give an entry the owner, mode and xattrs of another. Owner first: chown drops setuid bits and capabilities."""
    os.chown(target, facts.st_uid, facts.st_gid, dir_fd=target_fd, follow_symlinks=False)
    if not stat.S_ISLNK(facts.st_mode):
        attributes.apply(target_fd, target, Attributes(mode=stat.S_IMODE(facts.st_mode)))
    attributes.write_xattrs(target_fd, target, attributes.read_xattrs(source_fd, source))


def _take_all(target_fd: int, target: str, source_fd: int, source: str, facts: os.stat_result) -> None:
    _take_attributes(target_fd, target, source_fd, source, facts)
    os.utime(target, ns=(facts.st_atime_ns, facts.st_mtime_ns), dir_fd=target_fd, follow_symlinks=False)


def _copy_tree(run: _Copying, from_fd: int, to_fd: int) -> None:
    device = os.fstat(from_fd).st_dev
    way = Way(to_fd)
    try:
        for visit in walk(from_fd):
            if visit.leaving:
                _leave(run, way, visit)
            elif visit.depth <= run.depth and visit.path in run.order.omissions:
                visit.prune = True
            elif visit.facts.st_dev != device:
                raise OSError(errno.EXDEV, "another file system is mounted inside", visit.path)
            elif visit.is_directory:
                run.note(visit.facts, 0, visit.depth, visit.name)
                os.mkdir(visit.name, 0o700, dir_fd=way.fd)
                way.down(visit.name)
            else:
                _copy_visited(run, way.fd, visit)
        _add_here(run, way)
    finally:
        way.close()


def _leave(run: _Copying, way: Way, visit: Visit) -> None:
    """Finish a directory once all is in it: a default ACL would be handed on, and times change with every name."""
    _add_here(run, way)
    run.carrier.finish(visit.inside, way.fd)
    _take_all(way.above, visit.name, visit.fd, visit.name, visit.facts)
    run.carrier.fix(way.fd, run.carrier.fixed(visit.inside))
    way.up()


def _copy_visited(run: _Copying, target_fd: int, visit: Visit) -> None:
    source, target = (visit.fd, visit.name), (target_fd, visit.name)
    shared = visit.facts.st_nlink > 1
    if shared and _link(run, target, visit.facts, None, visit.depth, visit.name):
        return
    _, crc = _copy_entry(run, source, target, visit.facts)
    run.note(visit.facts, crc, visit.depth, visit.name)
    _take_all(*target, *source, visit.facts)
    if shared:
        _keep_name(run, target, visit.facts, None, crc)
    elif run.fixed and stat.S_ISREG(visit.facts.st_mode):
        with regular_file(*target) as fd:
            run.carrier.fix(fd, run.fixed)


def _link(
    run: _Copying,
    target: tuple[int, str],
    facts: os.stat_result,
    own: Attributes | None,
    depth: int,
    name: str,
) -> bool:
    """Give the copy of an inode that was copied before one more name; False when this is its first."""
    key = (facts.st_dev, facts.st_ino, own)
    known = run.names.known.get(key)
    if known is None:
        return False
    number, crc, left = known
    if left > 1:
        os.link(str(number), target[1], src_dir_fd=run.open_names(), dst_dir_fd=target[0], follow_symlinks=False)
        run.names.known[key] = (number, crc, left - 1)
    else:
        # The last one takes the name that was kept: a file system may allow no more names than there are.
        os.rename(str(number), target[1], src_dir_fd=run.open_names(), dst_dir_fd=target[0])
        del run.names.known[key]
    run.note(facts, crc, depth, name)
    return True


def _keep_name(run: _Copying, target: tuple[int, str], facts: os.stat_result, own: Attributes | None, crc: int) -> None:
    """Keep a name of a copied file of which more names may come."""
    run.names.count += 1
    os.link(target[1], str(run.names.count), src_dir_fd=target[0], dst_dir_fd=run.open_names(), follow_symlinks=False)
    run.names.known[facts.st_dev, facts.st_ino, own] = (run.names.count, crc, facts.st_nlink - 1)


def _add_here(run: _Copying, way: Way) -> None:
    """Add the files of the order that belong into the directory where one stands."""
    if len(way.names) >= run.depth:
        return
    for path, content in run.order.additions:
        above, _, name = path.rpartition("/")
        if above != way.path:
            continue
        fd = os.open(name, _CREATE, 0o600, dir_fd=way.fd)
        try:
            _write(fd, memoryview(content), 0)
            os.fchmod(fd, 0o644)
            facts = os.fstat(fd)
        finally:
            os.close(fd)
        run.note(facts, add_chunk(0, 0, content), len(way.names) + 1, name)


def _copy_entry(
    run: _Copying,
    source: tuple[int, str],
    target: tuple[int, str],
    facts: os.stat_result,
) -> tuple[str | None, int]:
    """Copy anything but a directory, without attributes; returns the SHA-256 of a file when asked for, and the checksum."""
    (source_fd, source_name), (target_fd, target_name) = source, target
    if stat.S_ISREG(facts.st_mode):
        return _copy_file(run, source, target, facts)
    if stat.S_ISLNK(facts.st_mode):
        os.symlink(os.readlink(source_name, dir_fd=source_fd), target_name, dir_fd=target_fd)
    else:
        os.mknod(target_name, stat.S_IFMT(facts.st_mode) | 0o600, facts.st_rdev, dir_fd=target_fd)
    return None, 0


def _copy_file(
    run: _Copying,
    source: tuple[int, str],
    target: tuple[int, str],
    facts: os.stat_result,
) -> tuple[str | None, int]:
    path = run.order.source
    if path.rpartition("/")[2] != source[1]:
        path = f"{path}: {source[1]} in it"
    with regular_file(*source) as from_fd:
        now = os.fstat(from_fd)
        if (now.st_ino, now.st_dev) != (facts.st_ino, facts.st_dev):
            raise SourceChangedError(_CHANGED % path)
        to_fd = os.open(target[1], _CREATE, 0o600, dir_fd=target[0])
        try:
            run.carrier.prepare(from_fd, to_fd)
            with unwritten(from_fd, path) as check:
                result = _copy_content(run, from_fd, to_fd, now.st_size, check)
            run.carrier.finish(from_fd, to_fd)
            run.fixed = run.carrier.fixed(from_fd)
        finally:
            os.close(to_fd)
        after = os.fstat(from_fd)
        if (after.st_size, after.st_mtime_ns, after.st_ctime_ns) != (now.st_size, now.st_mtime_ns, now.st_ctime_ns):
            raise SourceChangedError(_CHANGED % path)
    return result


def _copy_content(run: _Copying, from_fd: int, to_fd: int, size: int, check: Callable[[], None]) -> tuple[str | None, int]:
    """Copy the data extents of an open file; holes stay holes. Returns SHA-256, when asked for, and checksum.

    `check` raises when somebody wants to write to it; asked often, it does not keep them waiting.
    """
    digest = None
    if run.order.sha256:
        import hashlib

        digest = hashlib.sha256()
    os.ftruncate(to_fd, size)
    if run.order.hollow:
        _check_hollow(to_fd, size)
        return None, 0
    buffer = memoryview(bytearray(min(CHUNK, max(size, 1))))
    crc, hashed = 0, 0
    for index in data_chunks(from_fd, size):
        start = index * CHUNK
        length = os.preadv(from_fd, [buffer], start)
        chunk = buffer[:length]
        _write_data(from_fd, to_fd, chunk, start)
        crc = add_chunk(crc, index, chunk)
        if digest is not None:
            _hash_zeros(digest, start - hashed)
            digest.update(chunk)
            hashed = start + length
        check()
        if run.progress is not None:
            run.progress(length)
    if digest is None:
        return None, crc
    _hash_zeros(digest, size - hashed)
    return digest.hexdigest(), crc


def _check_hollow(fd: int, size: int) -> None:
    """Raise OSError where a file system cannot give back parts of what a file takes: more than a chunk needs that."""
    if size > CHUNK:
        try:
            native.punch_hole(fd, 0, CHUNK)
        except OSError as error:
            raise OSError(errno.ENOSPC, "no room for a copy, and its file system cannot free parts of a file") from error


def _hash_zeros(digest: hashlib._Hash, count: int) -> None:
    zeros = bytes(CHUNK)
    while count > 0:
        digest.update(zeros[: min(count, CHUNK)])
        count -= CHUNK


def _write_data(from_fd: int, to_fd: int, chunk: memoryview, start: int) -> None:
    """Write the parts of a chunk that are data in the source."""
    end = start + len(chunk)
    position = start
    while position < end:
        try:
            first = os.lseek(from_fd, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        if first >= end:
            return
        last = min(os.lseek(from_fd, first, os.SEEK_HOLE), end)
        _write(to_fd, chunk[first - start : last - start], first)
        position = last


def _write(fd: int, content: memoryview, offset: int) -> None:
    while content:
        count = os.pwrite(fd, content, offset)
        content, offset = content[count:], offset + count
