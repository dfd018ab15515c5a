"""The way back of one step: whatever of it has happened is put back, and what somebody went on with is kept.

Knows `Disk` verbs and one step at a time; knows no journal, no waves and no order between steps. Idempotent like the handlers of
the way forth.

Guarantees: nothing that somebody wrote to, has open or put in the place of something is deleted; what cannot go back to where it
was is set aside and told.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from upgradeconverter.engine.housekeeping import make_folder
from upgradeconverter.engine.passing import come_back
from upgradeconverter.engine.places import parent
from upgradeconverter.engine.work import StepRefusedError, Work, is_one_file, retires
from upgradeconverter.model.entry import Kind
from upgradeconverter.model.outcome import Reason
from upgradeconverter.model.plan import Attributes, Shape, Step

if TYPE_CHECKING:
    from upgradeconverter.disk.port import Disk
    from upgradeconverter.model.entry import Entry


def back(work: Work, step: Step, *, aside: str = "") -> StepRefusedError | None:
    """Undo whatever of a step has happened; the caller has seen that the table allows it.

    What was published goes to `aside` when it must be kept: see `reason_to_keep`. Returns why something did not go back to where
    it was.
    """
    disk, left = work.disk, None
    if step.shape is Shape.STREAM:
        return come_back(work, step)
    if step.shape is Shape.ADJUST:
        if disk.find(step.target or "") is not None:
            disk.set_attributes(step.target or "", step.before)
            disk.sync_file(step.target or "")
        return None
    if _comes_back(work, step):
        left = _bring_back(work, step)
    is_published = work.has_published(step)
    if is_published or aside:
        _unpublish(work, step, aside)
    source = disk.find(step.source or "", labels=True)
    is_ours = source is not None and (step.expected is None or source.identity == step.expected.identity)
    if (step.shape is Shape.RENAME or step.method == "link") and source is not None and is_ours:
        # The flip sets attributes before it renames, so they may have changed although nothing was published.
        disk.set_attributes(source.path, _still_as_set(step, source, is_half_done=not is_published))
        disk.sync_file(step.source or "")
    return left


def _comes_back(work: Work, step: Step) -> bool:
    """Return whether something of a step was put away that an undo has to bring back."""
    if step.shape is Shape.DISPLACE and work.is_committed and step.takes_back:
        # It was out of date already.
        return False
    return retires(step) and work.disk.find(work.away_path(step)) is not None


def _bring_back(work: Work, step: Step) -> StepRefusedError | None:
    disk, away, origin = work.disk, work.away_path(step), step.source or ""
    if step.shape is Shape.RENAME:
        whole = step.target if disk.find(step.target or "") is not None else step.source
        origin = f"{whole}/{step.omissions[0]}"
    told = None
    is_taken = step.shape is Shape.DISPLACE and disk.find(origin) is not None and not is_one_file(disk, away, origin)
    if is_taken or not _has_place(disk, origin):
        origin = work.aside_path(step)
        told = f"{step.source} has no place any more, since somebody put something else there; it was set aside as {origin}"
    elif disk.find(parent(origin)) is None:
        # Somebody has removed the folder that it lay in, now that it was empty.
        told = f"{parent(origin)} was removed by somebody; it was made anew, for root only"
    left = StepRefusedError(Reason.CHANGED_MEANWHILE, told) if told is not None else None
    if away == origin:
        return left
    make_folder(disk, parent(origin))
    if is_one_file(disk, away, origin):
        disk.remove(away)
    else:
        disk.rename(away, origin)
    disk.sync_directory(parent(origin))
    disk.sync_directory(parent(away))
    return left


def _has_place(disk: Disk, path: str) -> bool:
    """Return whether the folder of a path is there, or can be made: nobody has put anything else where it was."""
    folder = parent(path)
    while folder and disk.find(folder) is None:
        folder = parent(folder)
    entry = disk.find(folder)
    return entry is not None and entry.kind is Kind.DIRECTORY


def _still_as_set(step: Step, found: Entry, *, is_half_done: bool) -> Attributes:
    """Return what an undo has to set: what the flip has set, unless somebody set something else since.

    A flip changes the times of directories only.
    """
    before, after = step.before, step.after
    labels = {name: text for name, text in before.labels if found.labels.get(name, "") == dict(after.labels).get(name, text)}
    is_directory = found.kind is Kind.DIRECTORY
    # Between a change of the owner and that of the mode there is a moment without these bits (chown(2)).
    cleared = stat.S_ISUID | stat.S_ISGID if is_half_done else 0
    as_set = {mode & ~cleared for mode in (before.mode, after.mode) if mode is not None}
    return Attributes(
        mode=before.mode if found.mode & ~cleared in as_set else None,
        uid=before.uid if found.uid == after.uid else None,
        gid=before.gid if found.gid == after.gid else None,
        labels=tuple(sorted(labels.items())),
        mtime_ns=before.mtime_ns if is_directory else None,
        atime_ns=before.atime_ns if is_directory else None,
    )


def reason_to_leave(work: Work, step: Step) -> StepRefusedError | None:
    """Return why what was published cannot be moved at all, so that it stays under both names."""
    disk, target = work.disk, work.target_path(step)
    is_ours = work.has_published(step)
    if step.shape is Shape.STREAM and is_ours and (used := _reason_of_use(work, step)) is not None:
        return used
    if step.shape not in (Shape.COPY, Shape.STREAM) or not (is_ours or _is_replaced(work, step)):
        return None
    fixed = next((path for path in (target, parent(target)) if disk.is_immutable(path)), None)
    if fixed is not None:
        return StepRefusedError(Reason.IMMUTABLE, f"{fixed} is immutable or append-only, so {target} stays")
    mounts = disk.mounts(target)
    return StepRefusedError(Reason.IN_USE, f"something is mounted at {mounts[0]}, so {target} stays") if mounts else None


def _is_replaced(work: Work, step: Step) -> bool:
    """Return whether somebody has put something in the place of what a copy had published for good."""
    is_copy = work.is_committed and step.shape is Shape.COPY
    return is_copy and not work.has_published(step) and work.disk.find(work.target_path(step)) is not None


def reason_to_keep(work: Work, step: Step) -> StepRefusedError | None:
    """Return why a published copy must not go with an undo.

    Somebody wrote to it since, or may still do so, or deleted what it was made from.
    """
    who, target = work.who(step, ours_only=True), work.target_path(step)
    if "T" not in who:
        is_replaced = _is_replaced(work, step)
        return StepRefusedError(Reason.DIVERGED, f"{target} was replaced by somebody") if is_replaced else None
    if step.shape is Shape.COPY and "X" not in who and not _has_source(work, step):
        return StepRefusedError(Reason.DIVERGED, f"{target} is the only one left")
    return _reason_of_use(work, step) if step.shape is not Shape.STREAM else None


def _reason_of_use(work: Work, step: Step) -> StepRefusedError | None:
    """Return why what was published may not be what was staged any more."""
    target = work.target_path(step)
    if step.number not in work.marks:
        return None
    if work.disk.survey(target).fingerprint != work.marks[step.number]:
        return StepRefusedError(Reason.DIVERGED, f"{target} was written to")
    if work.disk.is_open(target) or work.disk.lived_in((target,)):
        return StepRefusedError(Reason.IN_USE, f"{target} is open in another process")
    return None


def _has_source(work: Work, step: Step) -> bool:
    """Return whether what a copy was made from is there, and not something else in its place; of a link, the same file."""
    source, target = work.disk.find(step.source or ""), work.disk.find(work.target_path(step))
    if source is None or (step.expected is not None and source.kind.value != step.expected.kind):
        return False
    return step.method != "link" or (target is not None and source.identity == target.identity)


def _unpublish(work: Work, step: Step, aside: str) -> None:
    disk, target = work.disk, work.target_path(step)
    origin = (step.source or "") if step.shape is Shape.RENAME else work.stage_path(step)
    if is_one_file(disk, origin, target):
        # A power cut in the middle of a rename can leave both names to one file (seen on btrfs).
        disk.remove(target)
    elif step.shape is Shape.RENAME:
        disk.rename(target, origin)
    elif step.made_of == "directory":
        # Left when someone has put something into it meanwhile; an empty directory harms nobody.
        disk.remove_directory(target)
    elif aside:
        disk.rename(target, aside)
        disk.sync_directory(parent(aside))
    elif disk.find(origin) is None:
        disk.rename(target, origin)
