"""What is done with whole files and trees: looking them over, listing, comparing and removing them.

Time and memory grow with the number of entries, not with how deep they lie: nothing here keeps a path for each.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from contextlib import closing, suppress
from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, TypeAlias

from msgspec import Struct, field
from msgspec.structs import replace

from upgradeconverter.disk import attributes, native, vault
from upgradeconverter.disk.flags import has_hints, letters
from upgradeconverter.disk.manifest import file_crc, line
from upgradeconverter.disk.walking import Stretch, folder, holder, kind_of, names, open_file, regular_file, stretches, walk
from upgradeconverter.disk.workers import Crew
from upgradeconverter.model.entry import SharedFile, TreeFacts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from upgradeconverter.disk.walking import Visit

# Of so many things of one kind people are told; more names help nobody.
_TOLD = 8

Row: TypeAlias = tuple[int, str, str, str, str, dict[bytes, bytes]]


class _Closer(Struct):
    """What only open files and directories tell; plain data, so that it can come from another process."""

    bits: int = 0
    hints: bool = False
    projects: set[int] = field(default_factory=set)
    xattrs: set[str] = field(default_factory=set)

    def look(self, fd: int) -> int:
        """Take note of one; returns its flags."""
        bits = native.inode_flags(fd)
        extended, project = native.extended_flags(fd)
        self.add((bits, has_hints(extended), {project} if project else set(), set()))
        with suppress(OSError):
            self.xattrs.update(name for name in os.listxattr(fd) if os.fsencode(name) in attributes.NOT_OURS)
        return bits

    def add(self, other: tuple[int, bool, set[int], set[str]]) -> None:
        """Add what was found elsewhere."""
        self.bits |= other[0]
        self.hints = self.hints or other[1]
        self.projects |= other[2]
        self.xattrs |= other[3]

    def data(self) -> tuple[int, bool, set[int], set[str]]:
        """Return all of it."""
        return self.bits, self.hints, self.projects, self.xattrs

    def facts(self) -> dict[str, Any]:
        """Return it in the words of the model."""
        if not (self.bits or self.hints or self.projects or self.xattrs):
            return {}
        return {
            "flags": letters(self.bits),
            "projects": tuple(sorted(self.projects)),
            "hints": self.hints,
            "xattrs": tuple(sorted(self.xattrs)),
        }


_NOT_CLOSELY = _Closer()


class _Survey(Struct):
    """What a walk has found so far."""

    path: str
    closely: bool
    digest: hashlib._Hash
    entries: int = 0
    size: int = 0
    allocated: int = 0
    bare: int = 0
    tops: list[str] = field(default_factory=list)
    policies: list[bytes] = field(default_factory=list)
    zones: list[str] = field(default_factory=list)
    names_of: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    longest_link: int = 0
    fixed_inside: str = ""
    closer: _Closer = field(default_factory=_Closer)

    def add(self, facts: os.stat_result, fingerprint: bytes) -> None:
        """Take note of one entry for itself."""
        self.digest.update(fingerprint)
        self.entries += 1
        if facts.st_nlink > 1 and not stat.S_ISDIR(facts.st_mode):
            size = facts.st_size if stat.S_ISREG(facts.st_mode) else 0
            self._add_shared((facts.st_dev, facts.st_ino), facts.st_nlink, size, facts.st_blocks)
            return
        self.size += facts.st_size if stat.S_ISREG(facts.st_mode) else 0
        self.allocated += facts.st_blocks * 512
        self.bare += 0 if stat.S_ISREG(facts.st_mode) else facts.st_blocks * 512

    def _add_shared(self, key: tuple[int, int], links: int, size: int, blocks: int) -> None:
        known = self.names_of.get(key, (0, 0))[0]
        self.names_of[key] = known + 1, links
        if not known:
            self.size += size
            self.allocated += blocks * 512

    def enter(self, crew: Crew, visit: Visit) -> None:
        """Take note of a directory inside, in its turn."""
        facts = visit.facts
        fingerprint = _fingerprint(visit.depth, visit.name, facts, changed=True)
        crew.after((), lambda _: self.add(facts, fingerprint))
        if visit.depth == 1:
            self.tops.append(visit.name)
        policy = native.encryption_policy(visit.inside)
        del self.policies[visit.depth :]
        if policy != self.policies[-1] and len(self.zones) < _TOLD:
            self.zones.append(f"{self.path}/{visit.path}")
        self.policies.append(policy)
        if self.closely:
            self.closer.look(visit.inside)

    def give(self, crew: Crew, step: Stretch) -> None:
        """Have what is no directory looked at."""
        if step.depth == 1:
            self.tops.extend(row.name for row in step.rows)
        above = f"{self.path}/{step.way.path}".rstrip("/") if self.closely and not self.fixed_inside else ""
        crew.give((step.fd,), [(step.depth, row.name, row.is_file) for row in step.rows], partial(self._take, above))

    def _take(self, above: str, _: tuple[int, ...], found: tuple[Any, ...]) -> None:
        prints, entries, size, allocated, bare, shared, longest, fixed, closer = found
        self.digest.update(prints)
        self.entries += entries
        self.size += size
        self.allocated += allocated
        self.bare += bare
        for key, links, bytes_of, blocks in shared:
            self._add_shared(key, links, bytes_of, blocks)
        self.longest_link = max(self.longest_link, longest)
        if fixed and not self.fixed_inside:
            self.fixed_inside = f"{above}/{fixed}"
        self.closer.add(closer)

    def facts(self) -> TreeFacts:
        """Return it in the words of the model."""
        shared = tuple(
            SharedFile(identity=f"{device}:{inode}", inside=inside, links=links)
            for (device, inode), (inside, links) in self.names_of.items()
            if inside < links
        )
        return TreeFacts(
            entries=self.entries,
            size=self.size,
            allocated=self.allocated,
            bare=self.bare,
            fingerprint=self.digest.hexdigest(),
            top_names=tuple(self.tops),
            zones=tuple(self.zones),
            shared=shared,
            longest_link=self.longest_link,
            fixed_inside=self.fixed_inside,
            **self.closer.facts(),
        )


def survey(root_fd: int, path: str, *, closely: bool, inside: bool = True) -> TreeFacts:
    """See `Disk.survey`."""
    with holder(root_fd, path) as (above, name):
        top = os.stat(name, dir_fd=above, follow_symlinks=False)
        if stat.S_ISREG(top.st_mode):
            return _survey_file((above, name), path, top, closely=closely)
        found = _Survey(path, closely, hashlib.sha256())
        found.add(top, _fingerprint(0, "", top, changed=False))
        if stat.S_ISDIR(top.st_mode):
            with folder(above, name) as top_fd:
                (_survey_inside if inside else _survey_top)(found, top_fd)
        elif stat.S_ISLNK(top.st_mode):
            found.longest_link = top.st_size
        return replace(found.facts(), immutable=(path,) if is_fixed(above, name, top.st_mode) else ())


def is_fixed(folder_fd: int, name: str, mode: int) -> bool:
    """Return whether an entry of an open directory, or that itself (`""`), is immutable or append-only."""
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        # What is neither has no such flags, and may do something when it is opened.
        return False
    known = native.is_fixed(folder_fd, name) if name else None
    if known is not None:
        return known
    with (folder if stat.S_ISDIR(mode) else regular_file)(folder_fd, name) as fd:
        return native.has_fixed_flag(fd)


def _survey_file(place: tuple[int, str], path: str, facts: os.stat_result, *, closely: bool) -> TreeFacts:
    """Return what a survey of one file tells: nothing is surveyed more often."""
    if closely:
        closer = _Closer()
        with regular_file(*place) as fd:
            fixed = native.forbids_changes(closer.look(fd))
    else:
        closer, fixed = _NOT_CLOSELY, is_fixed(*place, facts.st_mode)
    identity = f"{facts.st_dev}:{facts.st_ino}"
    return TreeFacts(
        entries=1,
        size=facts.st_size,
        allocated=facts.st_blocks * 512,
        fingerprint=hashlib.sha256(_fingerprint(0, "", facts, changed=False)).hexdigest(),
        immutable=(path,) if fixed else (),
        shared=(SharedFile(identity=identity, inside=1, links=facts.st_nlink),) if facts.st_nlink > 1 else (),
        **closer.facts(),
    )


def _survey_top(found: _Survey, top_fd: int) -> None:
    if found.closely:
        found.closer.look(top_fd)
    found.tops = names(top_fd)


def _survey_inside(found: _Survey, top_fd: int) -> None:
    found.policies.append(native.encryption_policy(top_fd))
    if found.closely:
        found.closer.look(top_fd)
    # Without opening anything it takes no longer than to hand it out.
    with closing(Crew(partial(_look_at, closely=found.closely), count=None if found.closely else 1)) as crew:
        for step in stretches(top_fd):
            if isinstance(step, Stretch):
                found.give(crew, step)
            elif not step.leaving:
                found.enter(crew, step)
        crew.finish()


def _look_at(fds: tuple[int, ...], rows: Sequence[tuple[int, str, bool]], *, closely: bool) -> tuple[Any, ...]:
    """Return what there is to know of entries of an open directory that are no directories."""
    prints = bytearray()
    size = allocated = bare = longest = 0
    shared: list[tuple[Any, ...]] = []
    fixed, closer = "", _Closer()
    for depth, name, is_file in rows:
        if closely and is_file:
            fd, facts = open_file(fds[0], name)
            try:
                bits = closer.look(fd)
            finally:
                os.close(fd)
            if facts.st_nlink > 1 and not fixed and native.forbids_changes(bits):
                fixed = name
        else:
            facts = os.stat(name, dir_fd=fds[0], follow_symlinks=False)
        mode = facts.st_mode
        prints += _fingerprint(depth, name, facts, changed=True)
        if stat.S_ISLNK(mode):
            longest = max(longest, facts.st_size)
        if facts.st_nlink > 1:
            bytes_of = facts.st_size if stat.S_ISREG(mode) else 0
            shared.append(((facts.st_dev, facts.st_ino), facts.st_nlink, bytes_of, facts.st_blocks))
        else:
            size += facts.st_size if stat.S_ISREG(mode) else 0
            allocated += facts.st_blocks * 512
            bare += 0 if stat.S_ISREG(mode) else facts.st_blocks * 512
    return bytes(prints), len(rows), size, allocated, bare, shared, longest, fixed, closer.data()


def _fingerprint(depth: int, name: str, facts: os.stat_result, *, changed: bool) -> bytes:
    """Return what must stay the same of one entry; in the order of a walk, depth and name say where it lies."""
    mode = facts.st_mode
    is_folder = stat.S_ISDIR(mode)
    # A directory's own size and time may change by nothing more than being listed or emptied by fsck; its names are in here.
    own = "" if is_folder else f"{facts.st_size}:{facts.st_mtime_ns}"
    # What has several names changes when another of them is moved.
    when = facts.st_ctime_ns if changed and (is_folder or facts.st_nlink == 1) else ""
    return os.fsencode(f"{depth}\0{name}\0{mode:o}:{facts.st_uid}:{facts.st_gid}:{own}:{facts.st_ino}:{when}\n")


def manifest(root_fd: int, path: str) -> str:
    """See `Disk.manifest`."""
    with holder(root_fd, path) as (above, name):
        top = os.stat(name, dir_fd=above, follow_symlinks=False)
        lines = [_manifest_line(0, "", (above, name), top)]
        if stat.S_ISDIR(top.st_mode):
            with folder(above, name) as fd:
                lines.extend(
                    _manifest_line(visit.depth, visit.name, (visit.fd, visit.name), visit.facts)
                    for visit in walk(fd)
                    if not visit.leaving
                )
    return "".join(lines)


def _manifest_line(depth: int, name: str, where: tuple[int, str], facts: os.stat_result) -> str:
    crc, size = 0, 0
    if stat.S_ISREG(facts.st_mode):
        size = facts.st_size
        with regular_file(*where) as fd:
            crc = file_crc(fd, size)
    return line(kind=kind_of(facts.st_mode), size=size, mode=stat.S_IMODE(facts.st_mode), crc=crc, depth=depth, name=name)


def same_content(root_fd: int, first: str, second: str, additions: Mapping[str, bytes]) -> bool:
    """Return whether two things of the same kind have the same content; see `Disk.same_content`."""
    with holder(root_fd, first) as one, holder(root_fd, second) as two:
        if attributes.foreign_xattrs(*one) != attributes.foreign_xattrs(*two):
            return False
        facts = [os.stat(name, dir_fd=fd, follow_symlinks=False) for fd, name in (one, two)]
        if not stat.S_ISDIR(facts[0].st_mode):
            return facts[0].st_size == facts[1].st_size and _content(*one, facts[0]) == _content(*two, facts[1])
        with folder(*one) as one_fd, folder(*two) as two_fd:
            missing = {path: hashlib.sha256(content).hexdigest() for path, content in additions.items()}
            equal = all(mine == other for mine, other in zip_longest(_rows(one_fd, {}), _rows(two_fd, missing)))
            return equal and not missing


def _rows(top_fd: int, added: dict[str, str]) -> Iterator[Row]:
    """Yield place, kind, content, owner with mode, and xattrs of everything below a directory.

    A file whose content has the digest that `added` names for its path is taken out of there instead.
    """
    depth = max((path.count("/") + 1 for path in added), default=0)
    for visit in walk(top_fd):
        if visit.leaving:
            continue
        facts = visit.facts
        content = _content(visit.fd, visit.name, facts)
        if visit.depth <= depth and added.get(visit.path) == content:
            del added[visit.path]
            continue
        owner = f"{facts.st_mode:o} {facts.st_uid}:{facts.st_gid}"
        xattrs = attributes.foreign_xattrs(visit.fd, visit.name)
        yield visit.depth, visit.name, kind_of(facts.st_mode), content, owner, xattrs


def _content(fd: int, name: str, facts: os.stat_result) -> str:
    if stat.S_ISREG(facts.st_mode):
        with regular_file(fd, name) as file_fd, os.fdopen(os.dup(file_fd), "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    if stat.S_ISLNK(facts.st_mode):
        return os.readlink(name, dir_fd=fd)
    return str(facts.st_rdev)


def remove(root_fd: int, path: str) -> None:
    """Remove what lies at a path."""
    with holder(root_fd, path) as (above, name):
        facts = os.stat(name, dir_fd=above, follow_symlinks=False)
        if not stat.S_ISDIR(facts.st_mode):
            os.unlink(name, dir_fd=above)
            return
        with folder(above, name) as top, closing(Crew(_unlink)) as crew:
            mount = vault.mount_id(top)
            for step in stretches(top):
                if isinstance(step, Stretch):
                    crew.give((step.fd,), [row.name for row in step.rows], _done)
                elif step.leaving:
                    crew.after((step.fd,), partial(_remove_folder, step.name))
                elif vault.mount_id(step.inside) != mount:
                    # What is mounted there was never ours to delete.
                    raise OSError(errno.EBUSY, "something is mounted there", f"{path}/{step.path}")
            crew.finish()
        os.rmdir(name, dir_fd=above)


def _unlink(fds: tuple[int, ...], names: Sequence[str]) -> None:
    for name in names:
        _delete(name, fds[0], os.unlink)


def _done(_: tuple[int, ...], __: None) -> None:
    """Take no note of what was done."""


def _remove_folder(name: str, fds: tuple[int, ...]) -> None:
    _delete(name, fds[0], os.rmdir)


def _delete(name: str, fd: int, act: Callable[..., None]) -> None:
    """Delete an entry of an open directory; a flag on it or on the directory that forbids this is cleared."""
    try:
        act(name, dir_fd=fd)
    except PermissionError:
        native.clear_fixed_flag(fd)
        with (folder if act is os.rmdir else regular_file)(fd, name) as inner:
            native.clear_fixed_flag(inner)
        act(name, dir_fd=fd)
