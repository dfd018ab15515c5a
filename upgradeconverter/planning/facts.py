"""What is known of the paths that proposals name: the planner's only source, filled by `survey`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from upgradeconverter.model.plan import Attributes

if TYPE_CHECKING:
    from upgradeconverter.model.entry import Domain, Entry, Space, TreeFacts


@dataclass(slots=True)
class Facts:
    """What is known of the paths of a set of operations.

    Attributes:
        entries: facts by path for sources, targets and every directory above them; None where nothing is.
        trees: walks of the sources.
        domains: by directory path.
        spaces: by home of a domain.
        same: whether a source equals what lies at a target, or the source of an earlier operation for the same target; for a path
            and itself, whether it says already what is to be written there.
        misnamed: source and target that are the same, and both not what the name claims.
        fixed: paths that are immutable or append-only.
        unreadable: sources that could not be walked, with the system's words.
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


def above(path: str) -> str:
    """Return the directory that holds a path."""
    return path.rpartition("/")[0]


def attributes_of(entry: Entry, like: Attributes | None) -> Attributes:
    """Return what an undo has to restore."""
    names = dict(like.labels) if like is not None else {"owner": "", "format": ""}
    return Attributes(
        mode=entry.mode,
        uid=entry.uid,
        gid=entry.gid,
        labels=tuple((name, entry.labels.get(name, "")) for name in sorted({*names, *entry.labels})),
        mtime_ns=entry.mtime_ns,
        atime_ns=entry.atime_ns,
    )
