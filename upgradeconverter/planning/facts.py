"""What is known of the paths that proposals name: the planner's only source, filled by `survey`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

from upgradeconverter.model.entry import Kind, TreeFacts
from upgradeconverter.model.plan import Attributes

if TYPE_CHECKING:
    from upgradeconverter.model.entry import Domain, Entry, Space

_OUR_LABELS = ("format", "owner")
_UNLABELLED = tuple((name, "") for name in _OUR_LABELS)


class Facts(Struct):
    """What is known of the paths of a set of operations.

    Attributes:
        entries: facts by path for sources, targets and every directory above them; None where nothing is.
        trees: what is in the sources; of what is only going to be renamed nothing was counted.
        domains: by directory path.
        spaces: by home of a domain.
        same: whether a source equals what lies at a target, or the source of an earlier operation for the same target; for a path
            and itself, whether it says already what is to be written there.
        misnamed: source and target that are the same, and both not what the name claims.
        fixed: paths that are immutable or append-only.
        unreadable: sources that could not be walked, with the system's words.
        mounts: every place inside the root at which something is mounted, sorted.
        changed: sources that say something else than when it was decided what to make of them.
    """

    entries: dict[str, Entry | None] = field(default_factory=dict)
    trees: dict[str, TreeFacts] = field(default_factory=dict)
    domains: dict[str, Domain] = field(default_factory=dict)
    spaces: dict[str, Space] = field(default_factory=dict)
    same: dict[tuple[str, str], bool] = field(default_factory=dict)
    misnamed: set[tuple[str, str]] = field(default_factory=set)
    fixed: set[str] = field(default_factory=set)
    unreadable: dict[str, str] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    mounts: tuple[str, ...] = ()

    def tree(self, path: str) -> TreeFacts:
        """Return what is in a source; of a file that is only renamed nothing is kept but what it is itself."""
        found, entry = self.trees.get(path), self.entries.get(path)
        return glance(entry, ()) if found is None and entry is not None else self.trees[path]


def glance(entry: Entry, mounts: tuple[str, ...]) -> TreeFacts:
    """Return what is known of something without a look inside."""
    if entry.kind is Kind.DIRECTORY:
        return TreeFacts(entries=0, size=0, allocated=0, fingerprint="", mounts=mounts)
    return TreeFacts(entries=1, size=entry.size, allocated=entry.allocated, fingerprint="", mounts=mounts)


def above(path: str) -> str:
    """Return the directory that holds a path."""
    return path.rpartition("/")[0]


def attributes_of(entry: Entry, like: Attributes | None) -> Attributes:
    """Return what an undo has to restore."""
    names = dict(like.labels) if like is not None else _OUR_LABELS
    return Attributes(
        mode=entry.mode,
        uid=entry.uid,
        gid=entry.gid,
        labels=tuple((name, entry.labels.get(name, "")) for name in sorted({*names, *entry.labels}))
        if entry.labels or like is not None
        else _UNLABELLED,
        mtime_ns=entry.mtime_ns,
        atime_ns=entry.atime_ns,
    )
