"""What became of a tree, as exact text: what went, what came and from where, what changed.

Must not know what the trees mean. Equal trees give an empty text. Lines are sorted by path, names are written as in the
text of a tree, directories end in a slash:

    - img/disk.raw                                removed; nothing of a removed directory is listed but its own line
    + vault/disk.raw  <= img/disk.raw             came unchanged from there: moved if that was removed, else copied
        mode 0644 -> 0600                         what did change on the way
    + vault/store/  <= store/ (12 entries)        a directory came with everything in it, and nothing of it changed
    + vault/snapshotid.txt file 0644 0:0 "x"      new
    ~ status                                      there before and after
        xattr user.note +"x"

Times of directories that gained or lost entries are not compared, and those of new entries not told. Whatever else
differs is told: holes, hard links (`links` names all paths of an inode), and every time to the nanosecond.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, TypeAlias

from tests.support.tree import ROOT, Content, Kind, escape, format_time, is_text, parent_of, quote, sort_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.support.tree import Entry, Tree

_LONGEST_TEXT = 1024
_LONGEST_BINARY = 48
_TELLING_SIZE = 32  # an unmoved file that is smaller may equal a new one by chance

_Identity: TypeAlias = tuple[object, ...]
_Block: TypeAlias = tuple[list[bytes], int, list[str]]


def diff(before: Tree, after: Tree, *, since_ns: int | None = None, atimes: bool = True) -> str:
    """Tell how `after` differs from `before`.

    Args:
        before: the old tree.
        after: the new tree.
        since_ns: new times from then on are written as `now`, so that the text does not depend on the clock.
        atimes: also compare access times.
    """
    blocks = _Comparison(before, after, since_ns, atimes=atimes).blocks()
    return "".join(f"{line}\n" for _, _, lines in sorted(blocks) for line in lines)


class _Side:
    """A tree with what a comparison looks up in it."""

    def __init__(self, tree: Tree) -> None:
        self.entries: Mapping[str, Entry] = tree.entries
        self.groups: defaultdict[str, list[str]] = defaultdict(list)
        self._children: defaultdict[str, list[str]] = defaultdict(list)
        for path, entry in self.entries.items():
            self.groups[entry.link or path].append(path)
            if path != ROOT:
                self._children[parent_of(path)].append(path)

    def group(self, path: str) -> list[str]:
        """Name all paths of the inode that has this one."""
        return self.groups[self.entries[path].link or path]

    def names(self, path: str) -> set[tuple[str, Kind]]:
        """Tell what is directly in a directory."""
        return {(os.path.basename(child), self.entries[child].kind) for child in self._children[path]}

    def below(self, path: str) -> Iterator[str]:
        """Name everything in a directory, at any depth, in order."""
        for child in self._children[path]:
            yield child
            yield from self.below(child)

    def has(self, path: str, kind: Kind) -> bool:
        """Tell if there is something of a kind."""
        return path in self.entries and self.entries[path].kind is kind


class _Comparison:
    """Where everything in one tree came from in another."""

    def __init__(self, before: Tree, after: Tree, since_ns: int | None, *, atimes: bool) -> None:
        self.before = _Side(before)
        self.after = _Side(after)
        self.since_ns = since_ns
        self.atimes = atimes
        old, new = before.entries, after.entries
        self.common = [path for path in new if path in old and old[path].kind is new[path].kind]
        self.removed = old.keys() - self.common
        self.added = [path for path in new if path not in old or old[path].kind is not new[path].kind]
        self.places: defaultdict[_Identity, list[str]] = defaultdict(list)
        for path, entry in old.items():
            self.places[_identity(entry)].append(path)
        self.used: set[str] = set()
        self.sources: dict[str, str] = {}
        for path in self.added:
            source = self._find_source(path)
            if source is not None:
                self.sources[path] = source
                self.used.add(source)

    def blocks(self) -> Iterator[_Block]:
        """Give the lines about each path with their place in the text."""
        for path in self.removed:
            if parent_of(path) not in self.removed or path == ROOT:
                count = 1 + sum(1 for _ in self.before.below(path))
                yield sort_key(path), 0, [f"- {_show(self.before, path)}{_count(count)}"]
        covered: set[str] = set()
        for path in self.added:
            if path not in covered:
                yield sort_key(path), 1, self._added_lines(path, covered)
        for path in self.common:
            changes = [f"    {change}" for change in self._changes(path, path)]
            if changes:
                yield sort_key(path), 2, [f"~ {_show(self.after, path)}", *changes]

    def _added_lines(self, path: str, covered: set[str]) -> list[str]:
        source = self.sources.get(path)
        if source is None:
            return list(_new_lines(self.after, path))
        head = f"+ {_show(self.after, path)}  <= {_show(self.before, source)}"
        moved = self._moved_whole(source, path)
        if moved:
            covered.update(moved)
            return [f"{head}{_count(len(moved))}"]
        return [head, *(f"    {change}" for change in self._changes(source, path))]

    def _moved_whole(self, source: str, path: str) -> list[str]:
        """Name what came along with a path, if all of it came unchanged; what is there besides is not named."""
        moved = []
        for old in [source, *self.before.below(source)]:
            new = path + old[len(source) :]
            if self.sources.get(new) != old or any(self._changes(old, new)):
                return []
            moved.append(new)
        return moved

    # --- sources ---

    def _find_source(self, path: str) -> str | None:
        parent = self.sources.get(parent_of(path))
        if parent is not None:
            same_place = os.path.join(parent, os.path.basename(path))
            old = self.before.entries.get(same_place)
            if old and _identity(old) == _identity(self.after.entries[path]):
                return same_place
        if self.after.has(path, Kind.DIRECTORY):
            return self._find_directory(path)
        return self._find_leaf(path)

    def _find_leaf(self, path: str) -> str | None:
        entry, name = self.after.entries[path], os.path.basename(path)
        size = entry.content.size if entry.content else 0
        candidates = [
            old
            for old in self.places[_identity(entry)]
            if os.path.basename(old) == name or (size if old in self.removed else size >= _TELLING_SIZE)
            if size or old in self.removed
        ]
        return min(candidates, key=lambda old: self._rank(old, path), default=None)

    def _find_directory(self, path: str) -> str | None:
        """Find the directory that has most of the leaves in the same places."""
        below = list(self.after.below(path))
        leaves = [leaf for leaf in below if not self.after.has(leaf, Kind.DIRECTORY)]
        if not leaves:
            return self._find_empty_directory(path, {new[len(path) :] for new in below})
        votes: Counter[str] = Counter()
        for leaf in leaves:
            rest = leaf[len(path) :]
            places = self.places[_identity(self.after.entries[leaf])]
            votes.update(old[: -len(rest)] for old in places if old.endswith(rest))
        candidates = [
            old for old, count in votes.items() if 2 * count >= len(leaves) and not f"{path}/".startswith(f"{old}/")
        ]
        return min(candidates, key=lambda old: (-votes[old], *self._rank(old, path)), default=None)

    def _find_empty_directory(self, path: str, names: set[str]) -> str | None:
        candidates = [
            old
            for old in self.removed
            if os.path.basename(old) == os.path.basename(path) and self.before.has(old, Kind.DIRECTORY)
            if {new[len(old) :] for new in self.before.below(old)} == names
        ]
        return min(candidates, key=lambda old: self._rank(old, path), default=None)

    def _rank(self, old: str, new: str) -> tuple[bool, bool, int, bool, list[bytes]]:
        differences = sum(1 for _ in self._own_changes(old, new))
        other_name = os.path.basename(old) != os.path.basename(new)
        return old not in self.removed, old in self.used, differences, other_name, sort_key(old)

    # --- changes ---

    def _changes(self, old: str, new: str) -> Iterator[str]:
        yield from self._own_changes(old, new)
        before, after = self.before.group(old), self.after.group(new)
        if sorted(self._origin(path) for path in after) != sorted(before):
            yield f"links {_links(before)} -> {_links(after)}"

    def _origin(self, path: str) -> str:
        return self.sources.get(path, path if path in self.before.entries else "")

    def _own_changes(self, old: str, new: str) -> Iterator[str]:
        before, after = self.before.entries[old], self.after.entries[new]
        if before.mode != after.mode:
            yield f"mode {before.mode:04o} -> {after.mode:04o}"
        if (before.uid, before.gid) != (after.uid, after.gid):
            yield f"owner {before.uid}:{before.gid} -> {after.uid}:{after.gid}"
        if before.target != after.target:
            yield f"target {_what(before)} -> {_what(after)}"
        if before.rdev != after.rdev:
            yield f"rdev {_what(before)} -> {_what(after)}"
        yield from _content_changes(before.content, after.content)
        yield from _xattr_changes(dict(before.xattrs), dict(after.xattrs))
        if after.kind is not Kind.DIRECTORY or self.before.names(old) == self.after.names(new):
            yield from self._time_changes(before, after)

    def _time_changes(self, before: Entry, after: Entry) -> Iterator[str]:
        if before.mtime_ns != after.mtime_ns:
            yield f"mtime {format_time(before.mtime_ns)} -> {self._time(after.mtime_ns)}"
        if self.atimes and before.atime_ns != after.atime_ns:
            yield f"atime {format_time(before.atime_ns)} -> {self._time(after.atime_ns)}"

    def _time(self, time_ns: int) -> str:
        return "now" if self.since_ns is not None and time_ns >= self.since_ns else format_time(time_ns)


def _identity(entry: Entry) -> _Identity:
    content = (entry.content.size, entry.content.sha256) if entry.content else ()
    return entry.kind, content, entry.target, entry.rdev


def _show(side: _Side, path: str) -> str:
    return f"{escape(path)}/" if side.has(path, Kind.DIRECTORY) else escape(path)


def _count(entries: int) -> str:
    return f" ({entries} entries)" if entries > 1 else ""


def _links(group: list[str]) -> str:
    return " ".join(escape(path) for path in group) if len(group) > 1 else "none"


def _new_lines(side: _Side, path: str) -> Iterator[str]:
    entry = side.entries[path]
    head = f"+ {_show(side, path)} {entry.kind} {entry.mode:04o} {entry.uid}:{entry.gid}"
    yield f"{head} {_what(entry)}".rstrip(" ")
    yield from (f"    {change}" for change in _xattr_changes({}, dict(entry.xattrs)))
    if entry.content and entry.content.extents is not None:
        yield f"    data {_layout(entry.content)}"
    if len(side.group(path)) > 1:
        yield f"    links {_links(side.group(path))}"


def _what(entry: Entry) -> str:
    if entry.target is not None:
        return escape(entry.target)
    if entry.rdev:
        return f"{entry.rdev[0]}:{entry.rdev[1]}"
    return _value(entry.content) if entry.content else ""


def _value(content: Content) -> str:
    if content.extents is None and content.size <= _LONGEST_TEXT:
        data = b"".join(part for _, part in content.parts())
        if is_text(data) or content.size <= _LONGEST_BINARY:
            return quote(data)
    return f"size={content.size} sha256={content.sha256}"


def _layout(content: Content) -> str:
    if content.extents is None:
        return "all"
    return " ".join(f"{offset}+{size}" for offset, size in content.extents) or "none"


def _content_changes(before: Content | None, after: Content | None) -> Iterator[str]:
    if before is None or after is None:
        return
    if before.sha256 != after.sha256:
        yield f"content {_value(before)} -> {_value(after)}"
    if before.extents != after.extents:
        yield f"data {_layout(before)} -> {_layout(after)}"


def _xattr_changes(before: dict[str, bytes], after: dict[str, bytes]) -> Iterator[str]:
    for name in sorted(before.keys() | after.keys()):
        label = f"xattr {escape(name)}"
        if name not in before:
            yield f"{label} +{quote(after[name])}"
        elif name not in after:
            yield f"{label} -{quote(before[name])}"
        elif before[name] != after[name]:
            yield f"{label} {quote(before[name])} -> {quote(after[name])}"
