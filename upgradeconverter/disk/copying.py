"""Copies a file or a tree with everything that belongs to it: content, holes, hard links, owner, mode, xattrs, ACLs, times.

Guarantees: the source is only read, and its access times stay; the target must not exist; nothing follows a symbolic link;
special files are made anew, never opened. Directory times are set last and bottom-up. Nothing is durable until the caller syncs.

Must not know: plans, journals, where stage folders lie.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from upgradeconverter.disk import attributes
from upgradeconverter.disk.manifest import CHUNK, add_chunk, data_chunks, line
from upgradeconverter.disk.port import CopyOrder, CopyReceipt, SourceChangedError
from upgradeconverter.disk.usage import unwritten
from upgradeconverter.disk.walking import folder, holder, kind_of, regular_file, walk
from upgradeconverter.model.plan import Attributes

if TYPE_CHECKING:
    import hashlib
    from collections.abc import Callable

    from upgradeconverter.disk.port import Progress

_CHANGED = "%s changed while it was copied"
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(slots=True, kw_only=True)
class _Copying:
    """State of one copy: where it goes, what was linked already, what the manifest says so far."""

    order: CopyOrder
    progress: Progress | None
    links: dict[tuple[int, int], str] = field(default_factory=dict)
    lines: list[tuple[str, str]] = field(default_factory=list)
    crcs: dict[str, int] = field(default_factory=dict)
    folders: list[tuple[str, os.stat_result]] = field(default_factory=list)

    def note(self, path: str, facts: os.stat_result, crc: int) -> None:
        """Add one line to the manifest."""
        size = facts.st_size if stat.S_ISREG(facts.st_mode) else 0
        text = line(kind=kind_of(facts.st_mode), size=size, mode=stat.S_IMODE(facts.st_mode), crc=crc, path=path)
        self.lines.append((path, text))
        if facts.st_nlink > 1:
            self.crcs[path] = crc


def copy(root_fd: int, order: CopyOrder, progress: Progress | None) -> CopyReceipt:
    """Carry out a copy order below a root; see `Disk.copy`."""
    run = _Copying(order=order, progress=progress)
    sha256 = None
    with holder(root_fd, order.source) as (source_fd, source), holder(root_fd, order.target) as (target_fd, target):
        facts = os.stat(source, dir_fd=source_fd, follow_symlinks=False)
        if stat.S_ISDIR(facts.st_mode):
            os.mkdir(target, 0o700, dir_fd=target_fd)
            with folder(source_fd, source) as from_fd, folder(target_fd, target) as to_fd:
                _copy_tree(run, from_fd, to_fd)
            run.note("", facts, 0)
        else:
            sha256 = _copy_entry(run, (source_fd, source), (target_fd, target), "", facts)
        _finish(target_fd, target, source_fd, source, facts, order.after)
        identity = os.stat(target, dir_fd=target_fd, follow_symlinks=False).st_ino
    manifest = "".join(text for _, text in sorted(run.lines))
    return CopyReceipt(identity=identity, manifest=manifest, sha256=sha256)


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


def _copy_tree(run: _Copying, from_fd: int, to_fd: int) -> None:
    omitted = run.order.omissions
    device = os.fstat(from_fd).st_dev
    for path, source_fd, name, facts in walk(from_fd):
        if path in omitted or any(path.startswith(f"{gone}/") for gone in omitted):
            continue
        if facts.st_dev != device:
            raise OSError(errno.EXDEV, "another file system is mounted inside", path)
        with holder(to_fd, path) as (target_fd, _):
            if stat.S_ISDIR(facts.st_mode):
                os.mkdir(name, 0o700, dir_fd=target_fd)
                _take_attributes(target_fd, name, source_fd, name, facts)
                run.folders.append((path, facts))
                run.note(path, facts, 0)
                continue
            if facts.st_nlink > 1 and _link(run, to_fd, target_fd, path, name, facts):
                continue
            _copy_entry(run, (source_fd, name), (target_fd, name), path, facts)
            _take_attributes(target_fd, name, source_fd, name, facts)
            os.utime(name, ns=(facts.st_atime_ns, facts.st_mtime_ns), dir_fd=target_fd, follow_symlinks=False)
    for path, content in run.order.additions:
        _add(to_fd, path, content, run)
    for path, facts in reversed(run.folders):
        with holder(to_fd, path) as (target_fd, name):
            os.utime(name, ns=(facts.st_atime_ns, facts.st_mtime_ns), dir_fd=target_fd, follow_symlinks=False)


def _link(run: _Copying, to_fd: int, target_fd: int, path: str, name: str, facts: os.stat_result) -> bool:
    """Link to the copy of an inode that was copied before; False when this is its first name."""
    key = (facts.st_dev, facts.st_ino)
    first = run.links.setdefault(key, path)
    if first == path:
        return False
    with holder(to_fd, first) as (first_fd, first_name):
        os.link(first_name, name, src_dir_fd=first_fd, dst_dir_fd=target_fd, follow_symlinks=False)
    run.note(path, facts, run.crcs[first])
    return True


def _add(to_fd: int, path: str, content: bytes, run: _Copying) -> None:
    with holder(to_fd, path) as (target_fd, name):
        fd = os.open(name, _CREATE, 0o600, dir_fd=target_fd)
        try:
            _write(fd, memoryview(content), 0)
            os.fchmod(fd, 0o644)
            facts = os.fstat(fd)
        finally:
            os.close(fd)
    run.note(path, facts, add_chunk(0, 0, content))


def _copy_entry(
    run: _Copying,
    source: tuple[int, str],
    target: tuple[int, str],
    path: str,
    facts: os.stat_result,
) -> str | None:
    """Copy anything but a directory, without attributes; returns the SHA-256 of a regular file when asked for."""
    (source_fd, source_name), (target_fd, target_name) = source, target
    crc, sha256 = 0, None
    if stat.S_ISREG(facts.st_mode):
        crc, sha256 = _copy_file(run, source, target, facts, "/".join(filter(None, (run.order.source, path))))
    elif stat.S_ISLNK(facts.st_mode):
        os.symlink(os.readlink(source_name, dir_fd=source_fd), target_name, dir_fd=target_fd)
    else:
        os.mknod(target_name, stat.S_IFMT(facts.st_mode) | 0o600, facts.st_rdev, dir_fd=target_fd)
    run.note(path, facts, crc)
    return sha256


def _copy_file(
    run: _Copying,
    source: tuple[int, str],
    target: tuple[int, str],
    facts: os.stat_result,
    path: str,
) -> tuple[int, str | None]:
    with regular_file(*source) as from_fd:
        now = os.fstat(from_fd)
        if (now.st_ino, now.st_dev) != (facts.st_ino, facts.st_dev):
            raise SourceChangedError(_CHANGED % path)
        to_fd = os.open(target[1], _CREATE, 0o600, dir_fd=target[0])
        try:
            with unwritten(from_fd, path) as check:
                result = _copy_content(run, from_fd, to_fd, now.st_size, check)
        finally:
            os.close(to_fd)
        after = os.fstat(from_fd)
        if (after.st_size, after.st_mtime_ns, after.st_ctime_ns) != (now.st_size, now.st_mtime_ns, now.st_ctime_ns):
            raise SourceChangedError(_CHANGED % path)
    return result


def _copy_content(run: _Copying, from_fd: int, to_fd: int, size: int, check: Callable[[], None]) -> tuple[int, str | None]:
    """Copy the data extents of an open file; holes stay holes. Returns checksum and, when asked for, SHA-256.

    `check` raises when somebody wants to write to it; asked often, it does not keep them waiting.
    """
    digest = None
    if run.order.sha256:
        import hashlib

        digest = hashlib.sha256()
    os.ftruncate(to_fd, size)
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
        return crc, None
    _hash_zeros(digest, size - hashed)
    return crc, digest.hexdigest()


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
