"""A disk in memory that can lose power: the `Disk` port with everything that a file system may forget.

Definitions. A *point* is a primitive effect (a name made, moved or removed, the content or the attributes of an inode
changed) or one sync; power may fail before each. The *live* tree has all effects applied, the *durable* tree only those
that a sync covers; the *pending* name changes lie between the two. A *survivor* is a disk that may be found after power
failed.

The model is harsher than any real file system, so what survives here survives there:

- `sync_directory` covers the names in that directory and nothing else; a rename between two directories is sure only
  once both were synced, and until then either happened whole or did not happen.
- `sync_file` covers content and attributes of one inode, of a directory also the names in it, never its own name.
  `sync_filesystem` covers everything on its file system.
- Pending name changes survive in any combination, except that a change needs those it builds on: the making or moving
  of the directory it happens in, the change before it at the same name, and, for a directory that is removed or moved,
  whatever left it before. What left a directory, and that it had come there, is sure once the removal or move of that
  directory is.
- Content without a sync survives whole, half or not at all, attributes as the old or the new ones, each for itself. What was
  only written over, as a stream does, keeps its length.
- File systems have no mutual order.
- A sync that failed has dropped what it could not write: a later sync of the same content tells no error and saves
  nothing.

Simplifications: inode numbers are never used again, space never runs out, nothing is open or immutable.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
from dataclasses import dataclass, field, replace
from random import Random
from typing import TYPE_CHECKING, TypeAlias

from upgradeconverter.disk import manifest
from upgradeconverter.disk.port import ENGINE_FOLDER, CopyOrder, CopyReceipt, Keep, Place, Progress, StreamOrder
from upgradeconverter.model.entry import Domain, Entry, Kind, Space, TreeFacts
from upgradeconverter.model.plan import Attributes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

ROOT = 1
_START = 1_600_000_000_000_000_000
_TICK = 1_000_000
_FOLDER_SIZE = 4096

Domains: TypeAlias = "Mapping[str, tuple[str, bool, str]]"
Slot: TypeAlias = tuple[int, str]
Row: TypeAlias = tuple[str, str, bytes, int, int, int, int, tuple[tuple[str, str], ...], str]
Snapshot: TypeAlias = tuple[Row, ...]

PLAIN: Domains = {"": ("plain", False, "disk")}


class PowerCut(BaseException):
    """The power failed; nothing after this point was done."""


@dataclass(frozen=True, slots=True)
class Symlink:
    """For `ModelDisk.build`: a symbolic link."""

    destination: str


@dataclass(frozen=True, slots=True)
class HardLink:
    """For `ModelDisk.build`: one more name of a file that was named before."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Meta:
    """Attributes of an inode; `stamp` numbers the change that set the time, so that an older one cannot set it back."""

    mode: int
    mtime_ns: int
    atime_ns: int
    uid: int = 0
    gid: int = 0
    labels: tuple[tuple[str, str], ...] = ()
    stamp: int = 0

    def changed(self, attributes: Attributes, stamp: int) -> _Meta:
        """Return the attributes after a change."""
        labels = {**dict(self.labels), **dict(attributes.labels)}
        chosen = {
            name: value
            for name in ("mode", "uid", "gid", "mtime_ns", "atime_ns")
            if (value := getattr(attributes, name)) is not None
        }
        if attributes.mtime_ns is not None:
            chosen["stamp"] = stamp
        return replace(self, labels=tuple(sorted((k, v) for k, v in labels.items() if v)), **chosen)


@dataclass(frozen=True, slots=True)
class _Node:
    """An inode; `destination` is for symbolic links."""

    kind: Kind
    filesystem: str
    meta: _Meta
    content: bytes = b""
    destination: str = ""

    @property
    def size(self) -> int:
        """What `lstat` says."""
        if self.kind is Kind.DIRECTORY:
            return _FOLDER_SIZE
        return len(self.destination) if self.kind is Kind.SYMLINK else len(self.content)


@dataclass(slots=True)
class _Change:
    """A pending name change: an inode leaves the slot `take`, comes to the slot `put`, or both at once.

    Attributes:
        needs: numbers of the pending changes without which this one cannot have happened.
        left: those of them by which something left the directory that this change removes or moves, or had come there.
        waits: directories whose sync is still missing.
    """

    number: int
    filesystem: str
    inode: int
    take: Slot | None
    put: Slot | None
    time: int
    needs: frozenset[int]
    left: frozenset[int]
    waits: set[int]

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Both slots, where there are two."""
        return tuple(slot for slot in (self.take, self.put) if slot is not None)


@dataclass(slots=True)
class _Tree:
    """Inodes and, for each directory, its names."""

    nodes: dict[int, _Node] = field(default_factory=dict)
    names: dict[int, dict[str, int]] = field(default_factory=dict)

    def copy(self) -> _Tree:
        """Return a tree that can be changed on its own."""
        return _Tree(dict(self.nodes), {inode: dict(names) for inode, names in self.names.items()})

    def apply(self, change: _Change) -> None:
        """Carry out a name change, the times of the directories included."""
        if change.take is not None:
            del self.names[change.take[0]][change.take[1]]
        if change.put is not None:
            self.names[change.put[0]][change.put[1]] = change.inode
        for folder, _ in change.slots:
            node = self.nodes[folder]
            if node.meta.stamp < change.number:
                meta = replace(node.meta, mtime_ns=change.time, stamp=change.number)
                self.nodes[folder] = replace(node, meta=meta)

    def prune(self) -> None:
        """Forget the inodes that no name leads to."""
        reached = {ROOT}
        pending = [ROOT]
        while pending:
            inodes = self.names.get(pending.pop(), {}).values()
            pending.extend(set(inodes) - reached)
            reached.update(inodes)
        self.nodes = {inode: node for inode, node in self.nodes.items() if inode in reached}
        self.names = {inode: names for inode, names in self.names.items() if inode in reached}

    def walk(self, inode: int, path: str) -> Iterator[tuple[str, int]]:
        """Yield (path, inode) of everything below, parents first, sorted."""
        for name, child in sorted(self.names.get(inode, {}).items()):
            below = f"{path}/{name}" if path else name
            yield below, child
            yield from self.walk(child, below)


def _error(code: int, path: str) -> OSError:
    return OSError(code, os.strerror(code), path)


def _split(path: str) -> tuple[str, str]:
    above, _, name = path.rpartition("/")
    return above, name


def _inside(top: str, path: str) -> str:
    return f"{top}/{path}" if path else top


def _parts_over(parts: list[tuple[str, int]], start: Place, chunk: int) -> int:
    """Return how many parts lie before a place."""
    if not start.offset and not start.path:
        return 0
    first = next(number for number, (path, _) in enumerate(parts) if path == start.path)
    return first + -(-start.offset // chunk)


def remains(durable: bytes, live: bytes) -> tuple[bytes, ...]:
    """Return what may be left of content that was changed without a sync: all of the change, half of it, nothing.

    Where something else was written in the place of what was cut off, the old end may stay behind the new beginning.
    """
    if live.startswith(durable):
        half = len(durable) + (len(live) - len(durable)) // 2
        return tuple(dict.fromkeys((live, live[:half], durable)))
    if durable.startswith(live):
        return live, durable
    kept = next(index for index, (old, new) in enumerate(zip(durable, live, strict=False)) if old != new)
    half = kept + (len(live) - kept) // 2
    return tuple(dict.fromkeys((live, live[:half], durable, live[:kept], live[:half] + durable[half:])))


class ModelDisk:
    """A root directory in memory with the verbs of the `Disk` port.

    Attributes:
        points: how many points were passed.
        calls: how many verbs that act were called; inside `copy` and `remove` every primitive counts.
        watch: called before every point, with its number.
        chunk: bytes that a stream takes over at once; a piece is as much, whatever was ordered.
        scale: how many bytes of a real disk one byte here stands for, where room is counted.
        free: bytes that are free, whatever is done.
    """

    chunk = 16
    scale = 1
    free = 1 << 40

    def __init__(
        self,
        *,
        domains: Domains = PLAIN,
        crash_at: int | None = None,
        fail_at: int | None = None,
        fail_errno: int = errno.EIO,
        fail_on: bool = False,
        fail_late: bool = False,
    ) -> None:
        """Make an empty disk.

        Args:
            domains: by home: key, whether it is encrypted, and the name of the file system it is on.
            crash_at: number of the point instead of which, and of all that follow, PowerCut is raised.
            fail_at: number of the call that fails with `fail_errno`; with `fail_on` so do all that follow.
            fail_errno: the error.
            fail_on: whether the failure lasts.
            fail_late: whether what `append` or `truncate` could not sync has reached the disk nevertheless.
        """
        self.domains = domains
        self.crash_at, self.fail_at, self.fail_errno, self.fail_on = crash_at, fail_at, fail_errno, fail_on
        self.fail_late = fail_late
        self.points = 0
        self.calls = 0
        self.watch: Callable[[int], None] | None = None
        self._clock = _START
        self._number = 0
        self._next_inode = ROOT
        self._live = _Tree()
        self._durable = _Tree()
        self._pending: list[_Change] = []
        self._dropped: set[int] = set()
        self._overwritten: set[int] = set()
        self._new_node(Kind.DIRECTORY, "", 0o755)

    @property
    def changes(self) -> int:
        """How many effects there were since the disk was built, those that a power cut took included."""
        return self._number

    @property
    def has_dropped(self) -> bool:
        """Whether a sync failed, and what it could not write is there for who reads only."""
        return bool(self._dropped)

    # --- building ----------------------------------------------------------------------------------------------------

    @classmethod
    def build(cls, tree: Mapping[str, bytes | Symlink | HardLink | None], *, domains: Domains = PLAIN) -> ModelDisk:
        """Make a disk with all of this durable: bytes are a file, None is a directory; what lies above is made too."""
        disk = cls(domains=domains)
        for path, what in tree.items():
            above, _ = _split(path)
            for folder in (*disk._above(above), *([path] if what is None else [])):
                if disk._inode(folder) is None:
                    disk._create(folder, Kind.DIRECTORY, 0o755)
            if isinstance(what, Symlink):
                disk._create(path, Kind.SYMLINK, 0o777, destination=what.destination)
            elif isinstance(what, HardLink):
                disk._name(disk._need(what.path), put=disk._free_slot(path))
            elif what is not None:
                disk._write(disk._create(path, Kind.FILE, 0o644), what)
        disk.settle()
        return disk

    @staticmethod
    def _above(path: str) -> list[str]:
        return list(itertools.accumulate(path.split("/"), lambda a, b: f"{a}/{b}")) if path else []

    def settle(self) -> None:
        """Make everything durable and begin to count anew."""
        for change in self._pending:
            self._durable.apply(change)
        self._pending.clear()
        self._dropped.clear()
        self._overwritten.clear()
        self._durable.nodes = dict(self._live.nodes)
        self.points = self.calls = 0

    def clone(self, *, crash_at: int | None = None) -> ModelDisk:
        """Return a plain disk with the live tree of this one, all of it durable, that counts from nothing."""
        return self._reborn(ModelDisk(domains=self.domains, crash_at=crash_at), self._live.copy())

    def become(self, other: ModelDisk) -> None:
        """Take over the live tree of another disk, all of it durable."""
        other._reborn(self, other._live.copy())

    def take_over(self, other: ModelDisk) -> None:
        """Take over another disk as it is, what is not durable included; nothing is counted yet, nothing cut or failing."""
        self.domains, self.scale, self.free = other.domains, other.scale, other.free
        self._live, self._durable = other._live.copy(), other._durable.copy()
        self._pending = [replace(change, waits=set(change.waits)) for change in other._pending]
        self._dropped, self._overwritten = set(other._dropped), set(other._overwritten)
        self._clock, self._number, self._next_inode = other._clock, other._number, other._next_inode
        self.points = self.calls = 0
        self.crash_at = self.fail_at = self.watch = None

    def _reborn(self, disk: ModelDisk, tree: _Tree) -> ModelDisk:
        tree.prune()
        disk.domains, disk.scale, disk.free = self.domains, self.scale, self.free
        disk._live, disk._durable = tree, tree.copy()
        disk._pending, disk._dropped, disk._overwritten = [], set(), set()
        disk._clock, disk._number, disk._next_inode = self._clock, self._number, self._next_inode
        disk.points = disk.calls = 0
        return disk

    # --- primitives --------------------------------------------------------------------------------------------------

    def _point(self) -> None:
        if self.crash_at is not None and self.points >= self.crash_at:
            raise PowerCut
        if self.watch is not None:
            self.watch(self.points)
        self.points += 1

    def _call(self, path: str) -> None:
        number = self.calls
        self.calls += 1
        if self.fail_at is not None and (number == self.fail_at or (self.fail_on and number > self.fail_at)):
            raise _error(self.fail_errno, path)

    def _tick(self) -> int:
        self._clock += _TICK
        return self._clock

    def _new_node(self, kind: Kind, path: str, mode: int, destination: str = "") -> int:
        inode = self._next_inode
        self._next_inode += 1
        now = self._tick()
        meta = _Meta(mode=mode, mtime_ns=now, atime_ns=now)
        node = _Node(kind, self._filesystem(path), meta, destination=destination)
        for tree in (self._live, self._durable):
            tree.nodes[inode] = node
            if kind is Kind.DIRECTORY:
                tree.names[inode] = {}
        return inode

    def _create(self, path: str, kind: Kind, mode: int, *, destination: str = "") -> int:
        slot = self._free_slot(path)
        self._point()
        inode = self._new_node(kind, path, mode, destination)
        self._log(inode, put=slot)
        return inode

    def _name(self, inode: int, *, take: Slot | None = None, put: Slot | None = None) -> None:
        self._point()
        self._log(inode, take=take, put=put)

    def _log(self, inode: int, *, take: Slot | None = None, put: Slot | None = None) -> None:
        self._number += 1
        slots = [slot for slot in (take, put) if slot is not None]
        folders = {folder for folder, _ in slots}
        gone = {c.take for c in self._pending if c.take is not None and c.take[0] == inode}
        left = frozenset(c.number for c in self._pending if c.take in gone or c.put in gone)
        change = _Change(
            number=self._number,
            filesystem=self._live.nodes[slots[0][0]].filesystem,
            inode=inode,
            take=take,
            put=put,
            time=self._tick(),
            needs=frozenset(c.number for c in self._pending if self._builds_on(c, slots)) | left,
            left=left,
            waits=folders,
        )
        self._pending.append(change)
        self._live.apply(change)

    @staticmethod
    def _builds_on(earlier: _Change, slots: list[Slot]) -> bool:
        return any(slot in earlier.slots or slot[0] == earlier.inode for slot in slots)

    def _write(self, inode: int, content: bytes) -> None:
        self._overwritten.discard(inode)
        self._put(inode, content)

    def _put(self, inode: int, content: bytes) -> None:
        self._point()
        node = self._live.nodes[inode]
        self._number += 1
        meta = replace(node.meta, mtime_ns=self._tick(), stamp=self._number)
        self._live.nodes[inode] = replace(node, content=content, meta=meta)
        self._dropped.discard(inode)

    def _set(self, inode: int, attributes: Attributes) -> None:
        node = self._live.nodes[inode]
        self._number += 1
        meta = node.meta.changed(attributes, self._number)
        # An unchanged time is no new stamp, and nothing changed is no effect.
        if replace(meta, stamp=node.meta.stamp) == node.meta:
            return
        self._point()
        self._live.nodes[inode] = replace(node, meta=meta)

    def _overwrite(self, inode: int, offset: int, part: bytes) -> None:
        """Write into a file, which stays as long as it was."""
        if self._live.nodes[inode].content == self._durable.nodes[inode].content:
            self._overwritten.add(inode)
        content = self._live.nodes[inode].content
        self._put(inode, content[:offset] + part + content[offset + len(part) :])

    def _keep_inode(self, inode: int) -> None:
        if inode in self._dropped:
            self._durable.nodes[inode] = replace(self._live.nodes[inode], content=self._durable.nodes[inode].content)
        else:
            self._durable.nodes[inode] = self._live.nodes[inode]

    def _keep_names(self) -> None:
        for change in reversed(self._pending):
            for earlier in self._pending if not change.waits else ():
                if earlier.number in change.left:
                    earlier.waits.clear()
        pending: list[_Change] = []
        waiting: set[int] = set()
        for change in self._pending:
            if change.waits or change.needs & waiting:
                waiting.add(change.number)
                pending.append(change)
            else:
                self._durable.apply(change)
        self._pending = pending

    # --- finding -----------------------------------------------------------------------------------------------------

    def _inode(self, path: str) -> int | None:
        inode = ROOT
        for part in path.split("/") if path else ():
            if part in ("", ".", ".."):
                message = f"not a path below the root: {path!r}"
                raise ValueError(message)
            found = self._live.names.get(inode, {}).get(part)
            if found is None:
                return None
            inode = found
        return inode

    def _need(self, path: str, kind: Kind | None = None) -> int:
        inode = self._inode(path)
        if inode is None:
            raise _error(errno.ENOENT, path)
        if kind is not None and self._live.nodes[inode].kind is not kind:
            raise _error(errno.ENOTDIR if kind is Kind.DIRECTORY else errno.EINVAL, path)
        return inode

    def _slot(self, path: str) -> Slot:
        above, name = _split(path)
        return self._need(above, Kind.DIRECTORY), name

    def _free_slot(self, path: str) -> Slot:
        if self._inode(path) is not None:
            raise _error(errno.EEXIST, path)
        return self._slot(path)

    def _home(self, path: str) -> str:
        homes = (home for home in self.domains if not home or path == home or path.startswith(home + "/"))
        return max(homes, key=len)

    def _filesystem(self, path: str) -> str:
        return self.domains[self._home(path)][2]

    def _entry(self, path: str, inode: int, *, labels: bool) -> Entry:
        node = self._live.nodes[inode]
        count = sum(i == inode for names in self._live.names.values() for i in names.values())
        return Entry(
            path=path,
            kind=node.kind,
            size=node.size,
            allocated=node.size,
            mode=node.meta.mode,
            uid=node.meta.uid,
            gid=node.meta.gid,
            mtime_ns=node.meta.mtime_ns,
            atime_ns=node.meta.atime_ns,
            identity=inode,
            links=count if node.kind is not Kind.DIRECTORY else 1,
            labels=dict(node.meta.labels) if labels else {},
        )

    # --- looking -----------------------------------------------------------------------------------------------------

    def find(self, path: str, *, labels: bool = False) -> Entry | None:
        """See `Disk`."""
        inode = self._inode(path)
        return None if inode is None else self._entry(path, inode, labels=labels)

    def entries(self, path: str, *, labels: bool = False) -> tuple[Entry, ...]:
        """See `Disk`."""
        names = self._live.names[self._need(path, Kind.DIRECTORY)]
        return tuple(
            self._entry(f"{path}/{name}" if path else name, inode, labels=labels)
            for name, inode in sorted(names.items())
            if name != ENGINE_FOLDER or self.domain(path).home != path
        )

    def read(self, path: str, limit: int) -> bytes:
        """See `Disk`."""
        content = self._live.nodes[self._need(path, Kind.FILE)].content
        if len(content) > limit:
            raise _error(errno.EFBIG, path)
        return content

    def part(self, path: str, start: int, size: int) -> bytes:
        """See `Disk`."""
        return self._live.nodes[self._need(path, Kind.FILE)].content[start : start + size]

    def used_by(self, path: str) -> str:
        """See `Disk`."""
        del path
        return ""

    def tail(self, path: str, size: int) -> bytes:
        """See `Disk`."""
        return self._live.nodes[self._need(path, Kind.FILE)].content[-size:]

    def _tree(self, path: str) -> list[tuple[str, int]]:
        """Return (path inside, inode) of a file or tree, the top as `""`."""
        top = self._need(path)
        return [("", top), *self._live.walk(top, "")]

    def survey(self, path: str, *, closely: bool = False, inside: bool = True) -> TreeFacts:
        """See `Disk`; there is nothing here that only a close look tells."""
        del closely
        found = self._tree(path)[: None if inside else 1]
        digest = hashlib.sha256()
        for place, inode in found:
            node = self._live.nodes[inode]
            # As on the real disk: of a directory neither size nor time, its names are in here.
            own = () if node.kind is Kind.DIRECTORY else (node.size, node.meta.mtime_ns)
            facts = (place, node.kind.value, *own, node.meta.mode, node.meta.uid, node.meta.gid, inode)
            digest.update(repr(facts).encode())
        nodes = [(inode, self._live.nodes[inode]) for _, inode in found]
        return TreeFacts(
            entries=len(found),
            size=sum(len(node.content) for _, node in nodes),
            allocated=sum(len(node.content) for node in dict(nodes).values()) * self.scale,
            fingerprint=digest.hexdigest(),
            top_names=tuple(sorted(self._live.names.get(found[0][1], {}))),
        )

    def sha256(self, path: str) -> str:
        """See `Disk`."""
        return hashlib.sha256(self._live.nodes[self._need(path, Kind.FILE)].content).hexdigest()

    def manifest(self, path: str) -> str:
        """See `Disk`."""
        lines = []
        for inside, inode in sorted(self._tree(path)):
            node = self._live.nodes[inode]
            crc = 0
            for index in range(-(-len(node.content) // manifest.CHUNK)):
                start = index * manifest.CHUNK
                crc = manifest.add_chunk(crc, index, node.content[start : start + manifest.CHUNK])
            size = 0 if node.kind is Kind.DIRECTORY else node.size
            depth, name = len(inside.split("/")) if inside else 0, inside.rpartition("/")[2]
            lines.append(manifest.line(kind=node.kind, size=size, mode=node.meta.mode, crc=crc, depth=depth, name=name))
        return "".join(lines)

    def same_content(self, first: str, second: str, additions: Iterable[tuple[str, bytes]] = ()) -> bool:
        """See `Disk`."""
        added = dict(additions)
        theirs = {inside: self._live.nodes[inode] for inside, inode in self._tree(second)}
        for inside, content in added.items():
            node = theirs.pop(inside, None)
            if node is None or node.kind is not Kind.FILE or node.content != content:
                return False
        ours = {inside: self._live.nodes[inode] for inside, inode in self._tree(first) if inside not in added}
        return ours.keys() == theirs.keys() and all(
            (mine.kind, mine.content, mine.destination) == (other.kind, other.content, other.destination)
            and (
                not inside or (mine.meta.mode, mine.meta.uid, mine.meta.gid) == (other.meta.mode, other.meta.uid, other.meta.gid)
            )
            for inside, mine in ours.items()
            for other in (theirs[inside],)
        )

    def domain(self, path: str) -> Domain:
        """See `Disk`."""
        home = self._home(path)
        key, encrypted, _ = self.domains[home]
        return Domain(home=home, key=key, encrypted=encrypted)

    def space(self, path: str) -> Space:
        """See `Disk`."""
        return Space(filesystem=self._filesystem(path), free=self.free, free_inodes=1 << 30, block_size=4096)

    def vault_state(self, path: str) -> str:
        """See `Disk`."""
        entry = self.find(path)
        if entry is None:
            return "missing"
        if entry.kind is not Kind.DIRECTORY:
            return "not a directory"
        return "usable" if self.domain(path).encrypted else "plain"

    def is_open(self, path: str) -> bool:
        """See `Disk`; nothing ever is."""
        self._need(path)
        return False

    def mounts(self, path: str) -> tuple[str, ...]:
        """See `Disk`; there is one file system."""
        del path
        return ()

    def lived_in(self, trees: Iterable[str], folders: Iterable[str] = ()) -> frozenset[str]:
        """See `Disk`; nobody is there."""
        del trees, folders
        return frozenset()

    def silent(self) -> ModelDisk:
        """Nobody else is there to notice anything."""
        return self

    def clock(self) -> str:
        """Nobody knows the time."""
        return "1970-01-01T00:00:00Z"

    def is_immutable(self, path: str) -> bool:
        """See `Disk`; nothing ever is."""
        del path
        return False

    # --- acting ------------------------------------------------------------------------------------------------------

    def make_directory(self, path: str, attributes: Attributes) -> int:
        """See `Disk`."""
        self._call(path)
        inode = self._create(path, Kind.DIRECTORY, 0o700)
        self._set(inode, attributes)
        return inode

    def write_file(self, path: str, content: bytes, attributes: Attributes) -> int:
        """See `Disk`."""
        self._call(path)
        inode = self._create(path, Kind.FILE, 0o600)
        self._write(inode, content)
        self._set(inode, attributes)
        return inode

    def make_hard_link(self, source: str, path: str) -> int:
        """See `Disk`."""
        self._call(path)
        inode = self._need(source)
        put = self._free_slot(path)
        if self._home(_split(source)[0]) != self._home(_split(path)[0]):
            raise _error(errno.EXDEV, path)
        self._name(inode, put=put)
        return inode

    def make_link(self, path: str, destination: str) -> int:
        """See `Disk`."""
        self._call(path)
        return self._create(path, Kind.SYMLINK, 0o777, destination=destination)

    def copy(self, order: CopyOrder, *, progress: Progress | None = None) -> CopyReceipt:
        """See `Disk`."""
        source = self._tree(order.source)
        left_out = {
            inside
            for inside, _ in source
            if any(inside == omitted or inside.startswith(omitted + "/") for omitted in order.omissions)
        }
        made: dict[int, str] = {}
        folders: list[tuple[int, int]] = []
        for inside, inode in source:
            if inside in left_out:
                continue
            target = f"{order.target}/{inside}" if inside else order.target
            own = order.after if not inside else None
            copied = self._linked(order, inode, target, own) if not (order.sha256 and not inside) else None
            if copied is None:
                copied = self._copy_one(inode, target, made, hollow=order.hollow)
                self._keep_name(order, inode, target, own)
            node = self._live.nodes[inode]
            if node.kind is Kind.DIRECTORY:
                folders.append((inode, copied))
            if progress is not None:
                progress(len(node.content))
        for inside, content in order.additions:
            self._call(order.target)
            added = self._create(f"{order.target}/{inside}", Kind.FILE, 0o600)
            self._write(added, content)
            self._set(added, Attributes(mode=0o644))
        for inode, copied in reversed(folders):
            self._carry_over(inode, copied)
        top = self._need(order.target)
        self._call(order.target)
        self._set(top, order.after)
        digest = self.sha256(order.target) if order.sha256 else None
        return CopyReceipt(identity=top, manifest=self.manifest(order.target), sha256=digest)

    def _copy_one(self, inode: int, target: str, made: dict[int, str], *, hollow: bool) -> int:
        self._call(target)
        node = self._live.nodes[inode]
        if inode in made:
            self._name(self._need(made[inode]), put=self._free_slot(target))
            return self._need(target)
        copied = self._create(
            target,
            node.kind,
            0o700 if node.kind is Kind.DIRECTORY else 0o600,
            destination=node.destination,
        )
        if node.kind is not Kind.DIRECTORY:
            made[inode] = target
            if node.content:
                self._call(target)
                self._write(copied, bytes(len(node.content)) if hollow else node.content)
            self._carry_over(inode, copied)
        return copied

    def _linked(self, order: CopyOrder, inode: int, target: str, own: Attributes | None) -> int | None:
        """Give what an earlier copy made of an inode one more name; None when there was none."""
        known = order.names.known.get((0, inode, own)) if order.names else None
        if order.names is None or known is None:
            return None
        self._call(target)
        self._name(self._need(f"{order.names.folder}/{known[0]}"), put=self._free_slot(target))
        return self._need(target)

    def _keep_name(self, order: CopyOrder, inode: int, target: str, own: Attributes | None) -> None:
        """Keep a name of the copy of an inode that has other names."""
        if (
            order.names is None
            or self._live.nodes[inode].kind is Kind.DIRECTORY
            or self._entry("", inode, labels=False).links < 2
        ):
            return
        if self.find(order.names.folder) is None:
            self._call(order.names.folder)
            self._create(order.names.folder, Kind.DIRECTORY, 0o700)
        order.names.count += 1
        self._call(order.names.folder)
        self._name(self._need(target), put=self._free_slot(f"{order.names.folder}/{order.names.count}"))
        order.names.known[0, inode, own] = (order.names.count, 0, 0)

    def _carry_over(self, inode: int, copied: int) -> None:
        """Give a copy the attributes of its source."""
        node = self._live.nodes[copied]
        self._point()
        self._number += 1
        meta = replace(self._live.nodes[inode].meta, stamp=self._number)
        self._live.nodes[copied] = replace(node, meta=meta)

    def stream(self, order: StreamOrder, keep: Keep, *, back: bool = False, progress: Progress | None = None) -> None:
        """See `Disk`."""
        giving, taking = (order.target, order.source) if back else (order.source, order.target)
        parts = self._parts(giving, order.apart)
        over = _parts_over(parts, order.start, self.chunk)
        for path, offset in parts[over:] if back else parts[:over]:
            # What was to be let go before the power failed.
            self._let_go(_inside(giving, path), offset)
        times: dict[str, Attributes] = {}
        if order.start.offset:
            times[order.start.path] = Attributes(mtime_ns=order.start.mtime_ns, atime_ns=order.start.atime_ns)
        for number in range(over - 1, -1, -1) if back else range(over, len(parts)):
            path, offset = parts[number]
            given = self._live.nodes[self._need(_inside(giving, path))]
            kept = times.setdefault(path, Attributes(mtime_ns=given.meta.mtime_ns, atime_ns=given.meta.atime_ns))
            self._pass_on(_inside(taking, path), given.content, offset, kept)
            end = offset if back else min(offset + self.chunk, len(given.content))
            is_begun = not back or number > 0
            keep(Place(path=path, offset=end, mtime_ns=kept.mtime_ns or 0, atime_ns=kept.atime_ns or 0) if is_begun else Place())
            self._let_go(_inside(giving, path), offset)
            if progress is not None:
                progress(self.chunk)

    def _parts(self, top: str, apart: frozenset[str]) -> list[tuple[str, int]]:
        """Return the chunks of each file, under its first name, as path inside and offset."""
        known: set[int] = set()
        found: list[tuple[str, int]] = []
        for inside, inode in self._tree(top):
            node = self._live.nodes[inode]
            is_apart = any(inside == path or inside.startswith(f"{path}/") for path in apart)
            if node.kind is Kind.FILE and inode not in known and not is_apart:
                known.add(inode)
                found += [(inside, offset) for offset in range(0, len(node.content), self.chunk)]
        return found

    def _pass_on(self, path: str, content: bytes, offset: int, times: Attributes) -> None:
        """Write one chunk where it goes to, with the times that the file has, and make that durable."""
        self._call(path)
        inode = self._need(path)
        if (there := self._live.nodes[inode].content) != there.ljust(len(content), b"\0"):
            self._write(inode, there.ljust(len(content), b"\0"))
        self._overwrite(inode, offset, content[offset : offset + self.chunk])
        self._set(inode, times)
        self._call(path)
        self._point()
        self._keep_inode(inode)

    def _let_go(self, path: str, offset: int) -> None:
        """Let a chunk go where it came from."""
        inode = self._need(path)
        part = self._live.nodes[inode].content[offset : offset + self.chunk]
        if part.strip(b"\0"):
            self._call(path)
            self._overwrite(inode, offset, bytes(len(part)))

    def rename(self, source: str, target: str) -> None:
        """See `Disk`."""
        self._call(target)
        inode = self._need(source)
        if target == source or target.startswith(source + "/"):
            raise _error(errno.EINVAL, target)
        put = self._free_slot(target)
        if self._home(_split(source)[0]) != self._home(_split(target)[0]):
            raise _error(errno.EXDEV, target)
        self._name(inode, take=self._slot(source), put=put)

    def set_attributes(self, path: str, attributes: Attributes) -> None:
        """See `Disk`."""
        self._call(path)
        self._set(self._need(path), attributes)

    def remove(self, path: str) -> None:
        """See `Disk`."""
        if self._inode(path) is None:
            return
        for inside, inode in reversed(self._tree(path)):
            where = f"{path}/{inside}" if inside else path
            self._call(where)
            self._name(inode, take=self._slot(where))

    def remove_directory(self, path: str) -> bool:
        """See `Disk`."""
        self._call(path)
        inode = self._inode(path)
        if inode is None:
            return True
        if self._live.nodes[inode].kind is not Kind.DIRECTORY or self._live.names[inode]:
            return False
        self._name(inode, take=self._slot(path))
        return True

    def append(self, path: str, content: bytes) -> None:
        """See `Disk`."""
        self._call(path)
        inode = self._inode(path)
        if inode is None:
            inode = self._create(path, Kind.FILE, 0o600)
        self._write(inode, self._live.nodes[inode].content + content)
        self._keep_content(path, inode)

    def truncate(self, path: str, size: int) -> None:
        """See `Disk`."""
        self._call(path)
        inode = self._need(path, Kind.FILE)
        self._write(inode, self._live.nodes[inode].content[:size])
        self._keep_content(path, inode)

    def _keep_content(self, path: str, inode: int) -> None:
        """Sync what `append` or `truncate` changed; when that fails the change is there for who reads, and not durable."""
        try:
            self._call(path)
        except OSError:
            if self.fail_late:
                self._keep_inode(inode)
            else:
                self._drop([inode])
            raise
        self._point()
        self._keep_inode(inode)

    # --- durability --------------------------------------------------------------------------------------------------

    def sync_directory(self, path: str) -> None:
        """See `Disk`."""
        self._call(path)
        inode = self._need(path, Kind.DIRECTORY)
        self._point()
        self._settle_names(inode)

    def _settle_names(self, inode: int) -> None:
        for change in self._pending:
            change.waits.discard(inode)
        self._keep_names()

    def sync_file(self, path: str) -> None:
        """See `Disk`."""
        inode = self._need(path)
        try:
            self._call(path)
        except OSError:
            self._drop([inode])
            raise
        self._point()
        self._keep_inode(inode)
        if self._live.nodes[inode].kind is Kind.DIRECTORY:
            # fsync(2) of a directory is one call, whatever it is made for.
            self._settle_names(inode)

    def sync_filesystem(self, path: str) -> None:
        """See `Disk`."""
        here = self._live.nodes[self._need(path, Kind.DIRECTORY)].filesystem
        inodes = [inode for inode, node in self._live.nodes.items() if node.filesystem == here]
        try:
            self._call(path)
        except OSError:
            self._drop(inodes)
            raise
        self._point()
        for inode in inodes:
            self._keep_inode(inode)
        for change in self._pending:
            if change.filesystem == here:
                change.waits.clear()
        self._keep_names()

    def _drop(self, inodes: Iterable[int]) -> None:
        nodes = self._live.nodes
        self._dropped.update(i for i in inodes if nodes[i].content != self._durable.nodes[i].content)

    # --- after a power cut -------------------------------------------------------------------------------------------

    def survivors(self, limit: int = 64, seed: int = 0) -> Iterator[ModelDisk]:
        """Yield the distinct disks that may be found after the power fails now, at most `limit`.

        First everything and nothing of what is pending; then every prefix of the name changes of one file system, the
        others having kept all or nothing; then every name change lost alone; then random choices. Each with content
        whole, half and lost, and attributes new and old. Where that is more than `limit`, `seed` draws from it.
        """
        random = Random(seed)  # noqa: S311 - repeatable, not secret
        cases = list(itertools.product(self._systematic(), *self._inode_choices()))
        extremes, rest = cases[:12], cases[12:]
        if len(cases) > limit:
            rest = random.sample(rest, k=max(0, limit - len(extremes)))
        seen: set[object] = set()
        drawn = (self._drawn(random) for _ in range(limit)) if self._is_dirty() else iter(())
        fixed = ((kept, self._uniform(content, meta)) for kept, content, meta in itertools.chain(extremes, rest))
        for kept, inodes in itertools.chain(fixed, drawn):
            tree = self._survivor(kept, inodes)
            key = _full_snapshot(tree)
            if key not in seen:
                seen.add(key)
                yield self._reborn(ModelDisk(domains=self.domains), tree)
            if len(seen) >= limit:
                return

    def _is_dirty(self) -> bool:
        return bool(self._pending or self._dirty_contents() or self._dirty_metas())

    def _dirty_contents(self) -> list[int]:
        durable = self._durable.nodes
        return [i for i, node in self._live.nodes.items() if node.content != durable[i].content]

    def _dirty_metas(self) -> list[int]:
        durable = self._durable.nodes
        return [i for i, node in self._live.nodes.items() if node.meta != durable[i].meta]

    def _inode_choices(self) -> tuple[tuple[int, ...], tuple[bool, ...]]:
        contents = range(max((len(self._contents(i)) for i in self._dirty_contents()), default=1))
        return tuple(contents), (True, False) if self._dirty_metas() else (True,)

    def _contents(self, inode: int) -> tuple[bytes, ...]:
        durable, live = self._durable.nodes[inode].content, self._live.nodes[inode].content
        left = remains(durable, live)
        return tuple(content for content in left if len(content) == len(live)) if inode in self._overwritten else left

    def _systematic(self) -> list[frozenset[int]]:
        everything = [change.number for change in self._pending]
        kept = [frozenset(everything), frozenset[int]()]
        for filesystem in sorted({change.filesystem for change in self._pending}):
            here = [change.number for change in self._pending if change.filesystem == filesystem]
            others = frozenset(everything) - frozenset(here)
            for size in range(len(here) + 1):
                kept += [frozenset(here[:size]) | others, frozenset(here[:size])]
        kept += [frozenset(everything) - {number} for number in everything]
        return list(dict.fromkeys(self._closed(numbers) for numbers in kept))

    def _closed(self, numbers: frozenset[int]) -> frozenset[int]:
        """Return those changes whose needs are met as well."""
        pending = {change.number for change in self._pending}
        kept: set[int] = set()
        for change in self._pending:
            if change.number in numbers and all(need in kept or need not in pending for need in change.needs):
                kept.add(change.number)
        return frozenset(kept)

    def _uniform(self, content: int, meta: bool) -> dict[int, _Node]:
        nodes = {}
        for inode in {*self._dirty_contents(), *self._dirty_metas()}:
            left = self._contents(inode)
            chosen = self._live.nodes[inode] if meta else self._durable.nodes[inode]
            nodes[inode] = replace(chosen, content=left[min(content, len(left) - 1)])
        return nodes

    def _drawn(self, random: Random) -> tuple[frozenset[int], dict[int, _Node]]:
        likely = random.choice((0.2, 0.5, 0.8, 0.95))
        kept = frozenset(change.number for change in self._pending if random.random() < likely)
        nodes = {}
        for inode in sorted({*self._dirty_contents(), *self._dirty_metas()}):
            chosen = random.choice((self._live, self._durable)).nodes[inode]
            nodes[inode] = replace(chosen, content=random.choice(self._contents(inode)))
        return self._closed(kept), nodes

    def _survivor(self, kept: frozenset[int], nodes: Mapping[int, _Node]) -> _Tree:
        tree = self._durable.copy()
        tree.nodes.update(nodes)
        for change in self._pending:
            if change.number in kept:
                tree.apply(change)
        tree.prune()
        return tree

    # --- comparing ---------------------------------------------------------------------------------------------------

    def snapshot(self, *, engine: bool = True, folder_times: bool = True) -> Snapshot:
        """Return the live tree in a form that can be compared: one row for each path, sorted.

        Args:
            engine: whether the engine's own folders count.
            folder_times: whether the times of directories count.
        """
        rows = []
        for path, inode in [("", ROOT), *self._live.walk(ROOT, "")]:
            if not engine and ENGINE_FOLDER in path.split("/"):
                continue
            rows.append(_row(path, self._live.nodes[inode], folder_times=folder_times))
        return tuple(rows)

    def whole(self) -> object:
        """Return the live tree with inode numbers, to tell whether two disks are the same in every respect."""
        return _full_snapshot(self._live)


def _row(path: str, node: _Node, *, folder_times: bool) -> Row:
    meta = node.meta
    time = meta.mtime_ns if folder_times or node.kind is not Kind.DIRECTORY else 0
    return path, node.kind.value, node.content, meta.mode, meta.uid, meta.gid, time, meta.labels, node.destination


def _full_snapshot(tree: _Tree) -> tuple[tuple[int, Row], ...]:
    found = [("", ROOT), *tree.walk(ROOT, "")]
    return tuple((inode, _row(path, tree.nodes[inode], folder_times=True)) for path, inode in found)
