"""Copies a file or a tree with everything that belongs to it: content, holes, hard links, owner, mode, xattrs, ACLs, times.

Guarantees: the source is only read, and its access times stay; the target must not exist; nothing follows a symbolic link;
special files are made anew, never opened. Directory times are set last and bottom-up. Nothing is durable until the caller syncs.

Must not know: plans, journals, where stage folders lie.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import closing, suppress
from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct, field
from msgspec.structs import replace

from upgradeconverter.disk import attributes, native, usage
from upgradeconverter.disk.content import Content, write
from upgradeconverter.disk.flags import Carrier
from upgradeconverter.disk.flushing import Inline
from upgradeconverter.disk.manifest import CHUNK, add_chunk, line
from upgradeconverter.disk.port import CopyOrder, CopyReceipt, Names, SourceChangedError
from upgradeconverter.disk.walking import Stretch, Way, folder, holder, kind_of, open_file, stretches
from upgradeconverter.disk.workers import Crew
from upgradeconverter.model.plan import Attributes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from upgradeconverter.disk.flushing import Flusher
    from upgradeconverter.disk.port import Progress

_CHANGED = "%s changed while it was copied"
_MOUNTED = "another file system is mounted inside"
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# What is larger is copied by the process that all goes through, which can be asked to stop in the middle of it.
_SMALL = 4 << 20


class _Copying(Struct, kw_only=True):
    """State of one copy.

    Attributes:
        device: of the source; -1 where it may be on any.
        folder_fd: where files with several names keep one; -1 until there is such a file.
        depth: number of components of the longest path that the order names inside.
    """

    root_fd: int
    order: CopyOrder
    content: Content
    carrier: Carrier
    names: Names
    device: int = -1
    lines: list[str] = field(default_factory=list)
    folder_fd: int = -1
    depth: int = 0

    def note(self, facts: os.stat_result, crc: int, depth: int, name: str) -> None:
        """Add one line to the manifest."""
        self.lines.append(_line(facts, crc, depth, name))

    def open_names(self) -> int:
        """Return the folder where files with several names keep one, which is made when it is missing."""
        if self.folder_fd < 0:
            with holder(self.root_fd, self.names.folder) as (above, name):
                with suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=above)
                with folder(above, name) as fd:
                    self.folder_fd = os.dup(fd)
        return self.folder_fd

    def named(self, name: str) -> str:
        """Return how people are told of a file of the source."""
        path = self.order.source
        return path if path.rpartition("/")[2] == name else f"{path}: {name} in it"

    def close(self) -> None:
        """Let go of that folder."""
        if self.folder_fd >= 0:
            os.close(self.folder_fd)


def copy(root_fd: int, order: CopyOrder, progress: Progress | None, flusher: Flusher) -> CopyReceipt:
    """Carry out a copy order below a root; see `Disk.copy`. The folder of the names that it keeps stays, if it has made one."""
    paths = (*(path for path, _ in order.additions), *order.omissions)
    with holder(root_fd, order.source) as (source_fd, source), holder(root_fd, order.target) as (target_fd, target):
        run = _Copying(
            root_fd=root_fd,
            order=order,
            content=Content(flusher=flusher, progress=progress, hashes=order.sha256),
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


def _line(facts: os.stat_result, crc: int, depth: int, name: str) -> str:
    size = facts.st_size if stat.S_ISREG(facts.st_mode) else 0
    return line(kind=kind_of(facts.st_mode), size=size, mode=stat.S_IMODE(facts.st_mode), crc=crc, depth=depth, name=name)


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
            run.carrier.finish(from_fd, to_fd)
            attributes.carry(from_fd, to_fd, facts)
        _set_after(target, facts, run.order.after)
        return None
    shared = facts.st_nlink > 1 and not run.order.sha256
    own = run.order.after if shared else None
    if shared and _link(run, target, facts, own, 0, ""):
        return None
    sha256, crc = _copy_one(run, source, target, facts, is_inside=False)
    run.note(facts, crc, 0, "")
    _set_after(target, facts, run.order.after)
    if shared:
        _keep_name(run, target, facts, own, crc)
    return sha256


def _set_after(target: tuple[int, str], facts: os.stat_result, after: Attributes) -> None:
    """Give the top of a copy, which has the source's attributes, those that are its own."""
    atime_ns = facts.st_atime_ns if after.atime_ns is None else after.atime_ns
    mtime_ns = facts.st_mtime_ns if after.mtime_ns is None else after.mtime_ns
    attributes.apply(*target, replace(after, atime_ns=atime_ns, mtime_ns=mtime_ns))


def _copy_tree(run: _Copying, from_fd: int, to_fd: int) -> None:
    run.device = os.fstat(from_fd).st_dev
    way = Way(to_fd)
    crew = Crew(lambda fds, rows: _copy_rows(run, fds, rows), prepare=lambda: _become_worker(run))
    with closing(way), closing(crew):
        for step in stretches(from_fd):
            if isinstance(step, Stretch):
                _give(run, crew, way, step)
            elif step.leaving:
                _add_here(run, crew, way)
                crew.after((step.inside, way.fd), partial(_leave, run, step.facts))
                way.up()
            elif step.depth <= run.depth and step.path in run.order.omissions:
                step.prune = True
            elif step.facts.st_dev != run.device:
                raise OSError(errno.EXDEV, _MOUNTED, step.path)
            else:
                crew.after((), partial(_note, run, _line(step.facts, 0, step.depth, step.name)))
                os.mkdir(step.name, 0o700, dir_fd=way.fd)
                way.down(step.name)
        _add_here(run, crew, way)
        crew.finish()


def _become_worker(run: _Copying) -> None:
    """Write back at once in a process that copies for another one; who waits for it is told there of what was done."""
    usage.ignore_breaks()
    run.content = Content(flusher=Inline(), hashes=run.order.sha256, shares=run.content.shares)


def _give(run: _Copying, crew: Crew, way: Way, step: Stretch) -> None:
    """Have entries copied, and then, here, those that have to be known to all or can take long."""
    rows = [(step.depth, row.name, row.is_file) for row in step.rows]
    if step.depth <= run.depth:
        inside = "".join(f"{name}/" for name in way.names)
        rows = [row for row in rows if f"{inside}{row[1]}" not in run.order.omissions]

    def take(fds: tuple[int, ...], done: tuple[int, list[str | None]]) -> None:
        size, lines = done
        if size and run.content.progress is not None:
            run.content.progress(size)
        for (depth, name, _), text in zip(rows, lines, strict=True):
            if text is None:
                _copy_here(run, (fds[0], name), (fds[1], name), depth)
            else:
                run.lines.append(text)

    crew.give((step.fd, way.fd), rows, take)


def _copy_rows(run: _Copying, fds: tuple[int, ...], rows: Sequence[tuple[int, str, bool]]) -> tuple[int, list[str | None]]:
    """Copy entries of an open directory to another one; returns bytes to tell of, and manifest lines, None for what is left."""
    size = 0
    lines: list[str | None] = []
    for depth, name, is_file in rows:
        text, copied = (_copy_small if is_file else _copy_odd)(run, fds, depth, name)
        lines.append(text)
        size += copied
    return size if run.content.progress is None else 0, lines


def _copy_small(run: _Copying, fds: tuple[int, ...], depth: int, name: str) -> tuple[str | None, int]:
    """Copy a file, unless it has several names or many bytes; returns line and bytes."""
    from_fd, facts = open_file(fds[0], name)
    try:
        _check_device(run, facts, name)
        if facts.st_size > _SMALL or facts.st_nlink > 1:
            return None, 0
        _, crc = _copy_opened(run, (from_fd, facts), name, (fds[1], name))
    finally:
        os.close(from_fd)
    return _line(facts, crc, depth, name), facts.st_size


def _copy_odd(run: _Copying, fds: tuple[int, ...], depth: int, name: str) -> tuple[str | None, int]:
    """Copy what was no file when its directory was listed."""
    facts = os.stat(name, dir_fd=fds[0], follow_symlinks=False)
    if facts.st_nlink > 1 or stat.S_ISREG(facts.st_mode):
        return None, 0
    _copy_special(run, (fds[0], name), (fds[1], name), facts)
    return _line(facts, 0, depth, name), 0


def _copy_here(run: _Copying, source: tuple[int, str], target: tuple[int, str], depth: int) -> None:
    facts = os.stat(source[1], dir_fd=source[0], follow_symlinks=False)
    shared = facts.st_nlink > 1
    if shared and _link(run, target, facts, None, depth, target[1]):
        return
    _, crc = _copy_one(run, source, target, facts, is_inside=True)
    run.note(facts, crc, depth, target[1])
    if shared:
        _keep_name(run, target, facts, None, crc)


def _note(run: _Copying, text: str, _: tuple[int, ...]) -> None:
    run.lines.append(text)


def _leave(run: _Copying, facts: os.stat_result, fds: tuple[int, ...]) -> None:
    """Finish a directory once all is in it: a default ACL would be handed on, and times change with every name."""
    source, target = fds
    fixed = run.carrier.finish(source, target)
    attributes.carry(source, target, facts)
    run.carrier.fix(target, fixed)


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


def _add_here(run: _Copying, crew: Crew, way: Way) -> None:
    """Add the files of the order that belong into the directory where one stands."""
    if len(way.names) >= run.depth:
        return
    for path, content in run.order.additions:
        above, _, name = path.rpartition("/")
        if above == way.path:
            crew.after((way.fd,), partial(_add, run, len(way.names) + 1, name, content))


def _add(run: _Copying, depth: int, name: str, content: bytes, fds: tuple[int, ...]) -> None:
    fd = os.open(name, _CREATE, 0o600, dir_fd=fds[0])
    try:
        write(fd, memoryview(content), 0)
        os.fchmod(fd, 0o644)
        facts = os.fstat(fd)
    finally:
        os.close(fd)
    run.note(facts, add_chunk(0, 0, content), depth, name)


def _copy_one(
    run: _Copying,
    source: tuple[int, str],
    target: tuple[int, str],
    facts: os.stat_result,
    *,
    is_inside: bool,
) -> tuple[str | None, int]:
    """Copy anything but a directory, with its attributes; returns the SHA-256 of a file when asked for, and the checksum."""
    if not stat.S_ISREG(facts.st_mode):
        _copy_special(run, source, target, facts)
        return None, 0
    from_fd, now = open_file(*source)
    try:
        if (now.st_ino, now.st_dev) != (facts.st_ino, facts.st_dev):
            raise SourceChangedError(_CHANGED % run.named(source[1]))
        _check_device(run, now, source[1])
        return _copy_opened(run, (from_fd, now), source[1], target, is_inside=is_inside)
    finally:
        os.close(from_fd)


def _copy_special(
    run: _Copying,
    source: tuple[int, str],
    target: tuple[int, str],
    facts: os.stat_result,
) -> None:
    """Make a symbolic link, or what else is no file, anew; it is never opened."""
    (source_fd, source_name), (target_fd, target_name) = source, target
    _check_device(run, facts, source_name)
    if stat.S_ISLNK(facts.st_mode):
        os.symlink(os.readlink(source_name, dir_fd=source_fd), target_name, dir_fd=target_fd)
    else:
        os.mknod(target_name, stat.S_IFMT(facts.st_mode) | 0o600, facts.st_rdev, dir_fd=target_fd)
    os.chown(target_name, facts.st_uid, facts.st_gid, dir_fd=target_fd, follow_symlinks=False)
    if not stat.S_ISLNK(facts.st_mode):
        attributes.apply(target_fd, target_name, Attributes(mode=stat.S_IMODE(facts.st_mode)))
    attributes.write_xattrs(target_fd, target_name, attributes.read_xattrs(source_fd, source_name))
    times = (facts.st_atime_ns, facts.st_mtime_ns)
    os.utime(target_name, ns=times, dir_fd=target_fd, follow_symlinks=False)


def _check_device(run: _Copying, facts: os.stat_result, name: str) -> None:
    if run.device not in (-1, facts.st_dev):
        raise OSError(errno.EXDEV, _MOUNTED, name)


def _copy_opened(
    run: _Copying,
    opened: tuple[int, os.stat_result],
    name: str,
    target: tuple[int, str],
    *,
    is_inside: bool = True,
) -> tuple[str | None, int]:
    """Copy an open regular file of that name with its attributes; returns SHA-256 and checksum."""
    from_fd, now = opened
    guard = usage.Unwritten(from_fd, lambda: run.named(name))
    to_fd = os.open(target[1], _CREATE, now.st_mode & 0o777, dir_fd=target[0])
    try:
        run.carrier.prepare(from_fd, to_fd)
        sha256, crc = _copy_content(run, from_fd, to_fd, now.st_size, guard)
        fixed = run.carrier.finish(from_fd, to_fd)
        attributes.carry(from_fd, to_fd, now)
        if is_inside and now.st_nlink == 1:
            run.carrier.fix(to_fd, fixed)
    finally:
        os.close(to_fd)
    after = os.fstat(from_fd)
    if (after.st_size, after.st_mtime_ns, after.st_ctime_ns) != (now.st_size, now.st_mtime_ns, now.st_ctime_ns):
        raise SourceChangedError(_CHANGED % run.named(name))
    guard.check()
    return sha256, crc


def _copy_content(run: _Copying, from_fd: int, to_fd: int, size: int, guard: usage.Unwritten) -> tuple[str | None, int]:
    """Copy what is in an open file, or make the other one as long; returns SHA-256 and checksum."""
    if not run.order.hollow:
        return run.content.copy(from_fd, to_fd, size, guard.check)
    os.ftruncate(to_fd, size)
    if size > CHUNK:
        try:
            native.punch_hole(to_fd, 0, CHUNK)
        except OSError as error:
            raise OSError(errno.ENOSPC, "no room for a copy, and its file system cannot free parts of a file") from error
    return None, 0
