"""What the handlers of a step share: the transaction's context, who exists of a step, and the looks before anything is done.

Knows `Disk` verbs and one step at a time; changes nothing.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field
from msgspec.structs import asdict

from upgradeconverter.disk.port import Names, Place
from upgradeconverter.engine.places import parent, quarantine_path, stage_folder, trash_folder
from upgradeconverter.journal.decide import presence
from upgradeconverter.model.entry import Kind
from upgradeconverter.model.outcome import Reason
from upgradeconverter.model.plan import Precondition, Shape, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from upgradeconverter.disk.port import Disk, Progress
    from upgradeconverter.model.entry import Entry


class StepRefusedError(Exception):
    """This step, and with it its group, cannot be done; nothing of it was published."""

    def __init__(self, reason: Reason, detail: str) -> None:
        """Keep the reason for the report."""
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Work(Struct, kw_only=True):
    """One transaction's context for the handlers.

    Attributes:
        contents: bytes of small files by SHA-256.
        staged: identity of each staged copy by step number; also what a target must be to count as ours.
        names: files with several names that were copied already, by home of the target's domain.
        marks: fingerprint of each staged copy, by which it is seen whether somebody wrote to it after it was published.
        is_committed: whether what the transaction publishes is there for good, unless it is taken back.
        lived_in: directories in which somebody was at the last look, see `look_around`; None before the first one.
        digests: what is known of the content of each staged copy from making it, for the history.
        places: how far the content of each stream has gone over.
        record_piece: makes a record of that durable.
    """

    disk: Disk
    txid: str
    contents: Mapping[str, bytes] = field(default_factory=dict)
    staged: dict[int, int] = field(default_factory=dict)
    marks: dict[int, str] = field(default_factory=dict)
    names: dict[str, Names] = field(default_factory=dict)
    digests: dict[int, str] = field(default_factory=dict)
    is_committed: bool = False
    lived_in: frozenset[str] | None = None
    progress: Progress | None = None
    places: dict[int, Place] = field(default_factory=dict)
    record_piece: Callable[[dict[str, Any]], None] = field(default=lambda _: None)

    def keep(self, step: Step, place: Place) -> None:
        """Make it durable how far a stream has come (J7)."""
        self.record_piece({"step": step.number, "place": asdict(place)})
        self.places[step.number] = place

    def look_around(self, steps: Iterable[Step]) -> None:
        """Look once for all that is to be copied or put away whether somebody is in it."""
        looked = [step for step in steps if _must_be_unused(step) and is_tree(step)]
        self.lived_in = self.who_lives({step.source or "": step for step in looked})

    def who_lives(self, places: Mapping[str, Step]) -> frozenset[str]:
        """Return in which places somebody is; of what is or will be empty it is only asked for itself."""
        folders = [path for path, step in places.items() if step.made_of == "directory"]
        return self.disk.lived_in([path for path in places if places[path].made_of != "directory"], folders)

    def stage_path(self, step: Step) -> str:
        """Return where a step's copy is staged."""
        return f"{stage_folder(step.target_home, self.txid)}/{step.number}"

    def names_in(self, home: str) -> Names:
        """Return the files with several names that were copied to a domain."""
        return self.names.setdefault(home, Names(folder=f"{stage_folder(home, self.txid)}/names"))

    def target_path(self, step: Step) -> str:
        """Return where the target is, or has to go: inside a directory that was renamed already, it went along."""
        target = step.target or ""
        if step.shape is Shape.CREATE and step.twin is not None and self.disk.find(parent(target)) is None:
            return step.twin
        return target

    def trash_path(self, step: Step) -> str:
        """Return where a step's source is put away, to be deleted later or to be kept aside."""
        return self.aside_path(step) if step.keeps else f"{trash_folder(step.source_home, self.txid)}/{step.number}"

    def aside_path(self, step: Step) -> str:
        """Return where a step's source is set aside."""
        return quarantine_path(step.source_home, self.txid, step.number)

    def away_path(self, step: Step) -> str:
        """Return where what made way lies: aside as well once it was seen that somebody had gone on with it."""
        aside = self.aside_path(step)
        return aside if step.shape is Shape.DISPLACE and self.disk.find(aside) is not None else self.trash_path(step)

    def who(self, step: Step, *, ours_only: bool) -> str:
        """Return who exists, as the recovery table writes it; with `ours_only` a foreign target counts as absent."""
        has_source = step.shape in (Shape.COPY, Shape.STREAM, Shape.RENAME, Shape.RETIRE) or self._is_in_the_way(step)
        stages = step.shape in (Shape.COPY, Shape.STREAM, Shape.CREATE)
        retires = step.shape in (Shape.COPY, Shape.STREAM, Shape.RETIRE, Shape.DISPLACE)
        return presence(
            source=has_source and step.source is not None and self.disk.find(step.source) is not None,
            staged=stages and self.disk.find(self.stage_path(step)) is not None,
            target=self._has_target(step, ours_only=ours_only),
            trash=retires and self.disk.find(self.away_path(step)) is not None,
        )

    def has_published(self, step: Step) -> bool:
        """Return whether the target of a step is there, and not somebody else's."""
        return self._has_target(step, ours_only=True)

    def _has_target(self, step: Step, *, ours_only: bool) -> bool:
        target = self.disk.find(self.target_path(step)) if step.target is not None else None
        return target is not None and (not ours_only or self._is_ours(step, target))

    def _is_in_the_way(self, step: Step) -> bool:
        """Return whether what is to make way lies there still, and not what it has made way for."""
        if step.shape is not Shape.DISPLACE or self.is_committed:
            # Once it has been deleted, what lies there may even have its inode number.
            return False
        entry = self.disk.find(step.source or "")
        return entry is not None and step.expected is not None and entry.identity == step.expected.identity

    def _is_ours(self, step: Step, target: Entry) -> bool:
        if step.shape is Shape.ADJUST:
            return True
        # What was deleted gives its inode number to what is made next, of whatever kind.
        if target.kind is not _kind_of_target(step, target.kind):
            return False
        if step.shape is Shape.RENAME:
            return step.expected is None or target.identity == step.expected.identity
        known = self.staged.get(step.number)
        return known is None or target.identity == known


def _kind_of_target(step: Step, found: Kind) -> Kind:
    """Return what kind of thing a step publishes; what was found where nothing tells."""
    if step.shape is Shape.CREATE and step.made_of != "copy":
        return Kind(step.made_of)
    return Kind(step.expected.kind) if step.expected is not None else found


def check_source(disk: Disk, step: Step, *, deep: bool) -> None:
    """Raise StepRefusedError unless the source is still what the plan saw; `deep` walks a tree."""
    expected = step.expected
    if expected is None or step.source is None:
        return
    entry = disk.find(step.source)
    if entry is None:
        raise StepRefusedError(Reason.CHANGED_MEANWHILE, f"{step.source} is gone")
    if is_changed(expected, entry):
        raise StepRefusedError(Reason.CHANGED_MEANWHILE, f"{step.source} is not what was planned for")
    if deep and expected.fingerprint and disk.survey(step.source).fingerprint != expected.fingerprint:
        raise StepRefusedError(Reason.CHANGED_MEANWHILE, f"{step.source} changed inside")


def check_identity(step: Step, found: Entry) -> None:
    """Raise OSError ESTALE unless what was found is what a step was planned for."""
    if step.expected is not None and found.identity != step.expected.identity:
        message = "something else was put in its place"
        raise OSError(errno.ESTALE, message, step.source)


def is_changed(expected: Precondition, entry: Entry) -> bool:
    """Return whether facts differ from a precondition; a directory's own size and time change with its entries."""
    if entry.identity != expected.identity or expected.changed_ns not in (None, entry.ctime_ns):
        return True
    return entry.kind is not Kind.DIRECTORY and (entry.size, entry.mtime_ns) != (expected.size, expected.mtime_ns)


def check_unused(work: Work, step: Step) -> None:
    """Raise StepRefusedError when somebody has the source open that is to be copied or put away, and may still write to it.

    What is open inside a tree is seen while that is copied, and once more when it was put away. Whether somebody is in one was
    seen at the last look around.
    """
    source = step.source or ""
    if not _must_be_unused(step):
        return
    if step.shape is Shape.DISPLACE and is_open_below(work.disk, source):
        raise StepRefusedError(Reason.IN_USE, f"something in {source} is open in another process")
    if is_tree(step):
        is_used = source in (work.disk.lived_in((source,)) if work.lived_in is None else work.lived_in)
    else:
        is_used = work.disk.is_open(source)
    if is_used:
        raise StepRefusedError(Reason.IN_USE, f"{source} is open in another process")


def _must_be_unused(step: Step) -> bool:
    return step.shape in (Shape.COPY, Shape.STREAM, Shape.RETIRE, Shape.DISPLACE) and step.method != "link"


def is_tree(step: Step) -> bool:
    """Return whether a step is about a directory."""
    return step.expected is not None and step.expected.kind == Kind.DIRECTORY.value


def check_displaced(work: Work, step: Step) -> None:
    """Raise StepRefusedError when what is to make way is not what it was when that was decided, or is in use."""
    check_source(work.disk, step, deep=True)
    check_unused(work, step)
    if mounts := work.disk.mounts(step.source or ""):
        raise StepRefusedError(Reason.IN_USE, f"something is mounted at {mounts[0]}")


def is_open_below(disk: Disk, path: str) -> bool:
    """Return whether somebody has a file open there, or in a directory there."""
    entry = disk.find(path)
    if entry is None or entry.kind is not Kind.DIRECTORY:
        return disk.is_open(path)
    folders = [path]
    while folders:
        for inner in disk.entries(folders.pop()):
            if inner.kind is Kind.DIRECTORY:
                folders.append(inner.path)
            elif inner.kind is Kind.FILE and disk.is_open(inner.path):
                return True
    return False


def is_one_file(disk: Disk, one: str, other: str) -> bool:
    """Return whether two names lead to one file, as a power cut in the middle of a rename can leave them (seen on btrfs)."""
    first, second = disk.find(one), disk.find(other)
    is_file = first is not None and first.kind is not Kind.DIRECTORY
    return is_file and first is not None and second is not None and first.identity == second.identity


def retires(step: Step) -> bool:
    """Return whether a step puts something into the trash: its source, or a file left out of a renamed directory."""
    return step.shape in (Shape.COPY, Shape.RETIRE, Shape.DISPLACE) or (step.shape is Shape.RENAME and bool(step.omissions))
