"""What is done with whole files and trees: looking them over, listing, comparing and removing them.

Time and memory grow with the number of entries, not with how deep they lie: nothing here keeps a path for each.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING, TypeAlias

from upgradeconverter.disk import attributes, native, vault
from upgradeconverter.disk.flags import has_hints, letters
from upgradeconverter.disk.manifest import file_crc, line
from upgradeconverter.disk.walking import folder, holder, kind_of, regular_file, walk
from upgradeconverter.model.entry import SharedFile, TreeFacts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from upgradeconverter.disk.walking import Visit

# Of so many things of one kind people are told; more names help nobody.
_TOLD = 8

Row: TypeAlias = tuple[int, str, str, str, str, dict[bytes, bytes]]


@dataclass(slots=True)
class _Survey:
    """What a walk has found so far."""

    path: str
    closely: bool
    digest: hashlib._Hash
    entries: int = 0
    size: int = 0
    allocated: int = 0
    tops: list[str] = field(default_factory=list)
    policies: list[bytes] = field(default_factory=list)
    zones: list[str] = field(default_factory=list)
    names_of: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    longest_link: int = 0
    fixed_inside: str = ""
    bits: int = 0
    projects: set[int] = field(default_factory=set)
    hints: bool = False
    xattrs: set[str] = field(default_factory=set)

    def add(self, depth: int, name: str, facts: os.stat_result) -> None:
        """Take note of one entry."""
        self.digest.update(_fingerprint(depth, name, facts, changed=depth > 0))
        self.entries += 1
        if stat.S_ISLNK(facts.st_mode):
            self.longest_link = max(self.longest_link, facts.st_size)
        if facts.st_nlink > 1 and not stat.S_ISDIR(facts.st_mode):
            key = facts.st_dev, facts.st_ino
            known = self.names_of.get(key, (0, 0))[0]
            self.names_of[key] = known + 1, facts.st_nlink
            if known:
                return
        self.size += facts.st_size if stat.S_ISREG(facts.st_mode) else 0
        self.allocated += facts.st_blocks * 512

    def visit(self, visit: Visit) -> None:
        """Take note of one entry inside."""
        self.add(visit.depth, visit.name, visit.facts)
        if visit.depth == 1:
            self.tops.append(visit.name)
        if visit.is_directory:
            self._look_at_policy(visit)
            if self.closely:
                self.look(visit.inside, visit)
        elif self.closely and stat.S_ISREG(visit.facts.st_mode):
            with regular_file(visit.fd, visit.name) as fd:
                self.look(fd, visit)

    def _look_at_policy(self, visit: Visit) -> None:
        policy = native.encryption_policy(visit.inside)
        del self.policies[visit.depth :]
        if policy != self.policies[-1] and len(self.zones) < _TOLD:
            self.zones.append(f"{self.path}/{visit.path}")
        self.policies.append(policy)

    def look(self, fd: int, visit: Visit | None) -> None:
        """Take note of what only an open file or directory tells."""
        bits = native.inode_flags(fd)
        extended, project = native.extended_flags(fd)
        self.bits |= bits
        self.hints = self.hints or has_hints(extended)
        with suppress(OSError):
            self.xattrs.update(name for name in os.listxattr(fd) if os.fsencode(name) in attributes.NOT_OURS)
        if project:
            self.projects.add(project)
        several = visit is not None and not visit.is_directory and visit.facts.st_nlink > 1
        if visit is not None and several and not self.fixed_inside and native.has_fixed_flag(fd):
            self.fixed_inside = f"{self.path}/{visit.path}"

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
            fingerprint=self.digest.hexdigest(),
            top_names=tuple(self.tops),
            zones=tuple(self.zones),
            shared=shared,
            longest_link=self.longest_link,
            fixed_inside=self.fixed_inside,
            flags=letters(self.bits),
            projects=tuple(sorted(self.projects)),
            hints=self.hints,
            xattrs=tuple(sorted(self.xattrs)),
        )


def survey(root_fd: int, path: str, *, closely: bool) -> TreeFacts:
    """See `Disk.survey`; without mount points and the flags of the top, which are the caller's to add."""
    found = _Survey(path, closely, hashlib.sha256())
    with holder(root_fd, path) as (above, name):
        top = os.stat(name, dir_fd=above, follow_symlinks=False)
        found.add(0, "", top)
        if stat.S_ISDIR(top.st_mode):
            with folder(above, name) as top_fd:
                found.policies.append(native.encryption_policy(top_fd))
                if closely:
                    found.look(top_fd, None)
                for visit in walk(top_fd):
                    if not visit.leaving:
                        found.visit(visit)
        elif closely and stat.S_ISREG(top.st_mode):
            with regular_file(above, name) as fd:
                found.look(fd, None)
    return found.facts()


def _fingerprint(depth: int, name: str, facts: os.stat_result, *, changed: bool) -> bytes:
    """Return what must stay the same of one entry; in the order of a walk, depth and name say where it lies."""
    mode, owner = facts.st_mode, f"{facts.st_uid}:{facts.st_gid}"
    # A directory's own size and time may change by nothing more than being listed or emptied by fsck; its names are in here.
    own = "" if stat.S_ISDIR(mode) else f"{facts.st_size}:{facts.st_mtime_ns}"
    # What has several names changes when another of them is moved.
    when = facts.st_ctime_ns if changed and (facts.st_nlink == 1 or stat.S_ISDIR(mode)) else ""
    return os.fsencode(f"{depth}\0{name}\0{mode:o}:{owner}:{own}:{facts.st_ino}:{when}\n")


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
        with folder(above, name) as top:
            mount = vault.mount_id(top)
            for visit in walk(top):
                if visit.is_directory and not visit.leaving and vault.mount_id(visit.inside) != mount:
                    # What is mounted there was never ours to delete.
                    raise OSError(errno.EBUSY, "something is mounted there", f"{path}/{visit.path}")
                if visit.leaving:
                    _delete(visit.name, visit.fd, os.rmdir)
                elif not visit.is_directory:
                    _delete(visit.name, visit.fd, os.unlink)
        os.rmdir(name, dir_fd=above)


def _delete(name: str, fd: int, act: Callable[..., None]) -> None:
    """Delete an entry of an open directory; a flag on it or on the directory that forbids this is cleared."""
    try:
        act(name, dir_fd=fd)
    except PermissionError:
        native.clear_fixed_flag(fd)
        with (folder if act is os.rmdir else regular_file)(fd, name) as inner:
            native.clear_fixed_flag(inner)
        act(name, dir_fd=fd)
