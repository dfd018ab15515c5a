"""The handlers of a staged step on its way forth, flip and retire; those of the way back are in `undo`.

Each is idempotent: it looks at who exists and does what is left.

Knows `Disk` verbs and one step at a time; knows no journal, no waves and no order between steps.

Guarantees: no handler replaces or removes anything that is not the step's own staged copy, and nothing here is durable before
the caller has synced the folders that `folders_of_flip` and its siblings name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from upgradeconverter.engine.housekeeping import sync_folders
from upgradeconverter.engine.places import parent
from upgradeconverter.engine.work import (
    StepRefusedError,
    Work,
    check_identity,
    check_source,
    check_unused,
    is_changed,
    is_one_file,
    is_open_below,
    is_tree,
    retires,
)
from upgradeconverter.model.entry import Kind
from upgradeconverter.model.operation import Divergence
from upgradeconverter.model.outcome import Reason
from upgradeconverter.model.plan import Shape, Step

if TYPE_CHECKING:
    from collections.abc import Iterator


def flip(work: Work, step: Step) -> None:
    """Publish: bring the target to its name. FileExistsError when someone else has the name."""
    target = step.target or ""
    if step.shape is Shape.RENAME:
        if (source := work.disk.find(step.source or "")) is not None:
            check_identity(step, source)
            work.disk.set_attributes(source.path, step.after)
            _rename_what_was_planned(work, step)
        else:
            # The rename may have become durable without the attributes that were set before it.
            work.disk.set_attributes(target, step.after)
    elif step.shape in (Shape.COPY, Shape.CREATE):
        _publish_staged(work, step)
    elif step.shape is Shape.DISPLACE and "S" in work.who(step, ours_only=True):
        _make_way(work, step)
    elif step.shape is Shape.ADJUST:
        work.disk.set_attributes(target, step.after)


def _make_way(work: Work, step: Step) -> None:
    source, away = step.source or "", work.away_path(step)
    if is_one_file(work.disk, away, source):
        # A power cut in the middle of a rename can leave both names to one file (seen on btrfs).
        work.disk.remove(source)
    else:
        work.disk.rename(source, away)


def keep_what_changed(work: Work, step: Step) -> StepRefusedError | None:
    """Look once more at what made way, and set it aside if somebody went on with it; returns what is to be told of that.

    The caller has made the folder that it is set aside in, and calls this before what took its place counts for good.
    """
    trash, aside = work.trash_path(step), work.aside_path(step)
    if step.keeps:
        return None
    if work.disk.find(aside) is None:
        changed = changed_since(work, step)
        if changed is None:
            return None
        work.disk.rename(trash, aside)
        sync_folders(work.disk, (parent(aside), parent(trash)))
    return StepRefusedError(Reason.DIVERGED, f"{step.source} was written to, or is in use; it was set aside as {aside}")


def _publish_staged(work: Work, step: Step) -> None:
    staged = work.stage_path(step)
    if step.method == "link":
        # The attributes are those of the old name too, so they change only once the journal knows what they were.
        is_published = work.disk.find(staged) is None
        work.disk.set_attributes((step.target or "") if is_published else staged, step.after)
    if work.disk.find(staged) is not None:
        work.disk.rename(staged, work.target_path(step))
    if step.twin is not None:
        # D2: the directory around it is published by its own rename, which must not become durable before this.
        work.disk.sync_directory(parent(work.target_path(step)))
        work.disk.sync_directory(parent(staged))


def _rename_what_was_planned(work: Work, step: Step) -> None:
    """Rename the source; what somebody put in its place since it was looked at goes back at once."""
    source, target = step.source or "", step.target or ""
    work.disk.rename(source, target)
    moved = work.disk.find(target)
    try:
        if moved is not None:
            check_identity(step, moved)
    except OSError:
        work.disk.rename(target, source)
        raise


def retire(work: Work, step: Step) -> StepRefusedError | None:
    """Put the source away; returns why it was left where it is, when it changed since the plan."""
    if step.shape is Shape.RENAME and step.omissions and work.disk.find(work.trash_path(step)) is None:
        refused = _retire_addition(work, step)
        if refused is not None:
            return refused
    if step.shape not in (Shape.COPY, Shape.RETIRE, Shape.RENAME) or work.disk.find(step.source or "") is None:
        return _look_again(work, step)
    if step.shape is not Shape.RENAME and is_one_file(work.disk, work.trash_path(step), step.source or ""):
        work.disk.remove(step.source or "")
        return None
    if step.shape is Shape.RENAME or work.disk.find(work.trash_path(step)) is not None:
        return StepRefusedError(Reason.DIVERGED, f"{step.source} appeared anew")
    if step.operation == "Copy":
        return None
    return _retire_name(work, step) if step.method == "link" else _retire_source(work, step)


def _look_again(work: Work, step: Step) -> StepRefusedError | None:
    """Look at what was put away by a start that may have stopped before its own second look."""
    # The directory that held it is put away only after that look.
    is_seen = step.method == "link" or work.disk.find(parent(step.source or "")) is None
    return None if is_seen or step.shape not in (Shape.COPY, Shape.RETIRE) else _bring_back_what_changed(work, step)


def _retire_source(work: Work, step: Step) -> StepRefusedError | None:
    try:
        _check_published(work, step)
        check_source(work.disk, step, deep=True)
        _check_emptied(work, step)
        check_unused(work, step)
    except StepRefusedError as refused:
        return refused
    work.disk.rename(step.source or "", work.trash_path(step))
    return _bring_back_what_changed(work, step)


def _retire_name(work: Work, step: Step) -> StepRefusedError | None:
    """Put the old name of a file away, unless it is another file by now; whoever has it open goes on with the new name."""
    old, new = work.disk.find(step.source or ""), work.disk.find(step.target or "")
    if old is None or new is None or old.identity != new.identity:
        return StepRefusedError(Reason.DIVERGED, f"{step.source} is no longer the same file as {step.target}")
    work.disk.rename(step.source or "", work.trash_path(step))
    return None


def is_to_be_set_aside(work: Work, step: Step, refused: StepRefusedError) -> bool:
    """Return whether a source that was not put away, because it changed, gives way to what was made of it before."""
    is_other = refused.reason in (Reason.CHANGED_MEANWHILE, Reason.DIVERGED) and step.shape is Shape.COPY
    return is_other and step.divergence is Divergence.TARGET and work.disk.find(step.target or "") is not None


def set_aside(work: Work, step: Step) -> StepRefusedError:
    """Keep a source aside that went a way of its own while a trial waited; returns what is to be told of it."""
    source, aside = step.source or "", work.aside_path(step)
    work.disk.rename(source, aside)
    work.disk.sync_directory(parent(aside))
    return StepRefusedError(Reason.DIVERGED, f"{source} was written to on its own; it was set aside as {aside}")


def _retire_addition(work: Work, step: Step) -> StepRefusedError | None:
    """Take out what was added inside, unless somebody wrote to it since; nobody may be quicker than the second look."""
    inside, trash = f"{step.target}/{step.omissions[0]}", work.trash_path(step)
    if work.disk.find(inside) is None:
        return None
    digest = next((digest for name, digest in step.additions if name == step.omissions[0]), None)
    if digest is None or _is(work, inside, digest):
        work.disk.rename(inside, trash)
        if digest is None or (_is(work, trash, digest) and not work.disk.is_open(trash)):
            return None
        work.disk.rename(trash, inside)
    return StepRefusedError(Reason.CHANGED_MEANWHILE, f"{inside} was written to, so it stays")


def _is(work: Work, path: str, digest: str) -> bool:
    entry = work.disk.find(path)
    return entry is not None and entry.kind is Kind.FILE and work.disk.sha256(path) == digest


def _bring_back_what_changed(work: Work, step: Step) -> StepRefusedError | None:
    """Look once more at what was put away: somebody may have been quicker, and goes on finding it where it was."""
    refused = changed_since(work, step)
    if refused is not None:
        work.disk.rename(work.trash_path(step), step.source or "")
    return refused


def changed_since(work: Work, step: Step) -> StepRefusedError | None:
    """Return why what was put away must not be deleted."""
    disk, trash, expected = work.disk, work.disk.find(work.trash_path(step)), step.expected
    if trash is None or expected is None:
        return None
    changed = is_changed(replace(expected, changed_ns=None), trash)
    if trash.kind is Kind.DIRECTORY and expected.fingerprint:
        changed = changed or disk.survey(trash.path).fingerprint != expected.fingerprint
    if changed:
        return StepRefusedError(Reason.CHANGED_MEANWHILE, f"{step.source} was written to while it was put away")
    is_open = is_open_below(disk, trash.path) if step.shape is Shape.DISPLACE else disk.is_open(trash.path)
    if is_open or (step.shape in (Shape.DISPLACE, Shape.STREAM) and disk.lived_in((trash.path,))):
        return StepRefusedError(Reason.IN_USE, f"{step.source} is in use by another process, so it stays")
    return None


def bring_back_lived_in(work: Work, steps: tuple[Step, ...]) -> dict[int, StepRefusedError]:
    """Look once more for all directories that were put away: who is in one goes on finding it where it was.

    One look for all of them, since it takes long; what held one that comes back was put away after it, and comes back before it.
    Returns why each stays, by the number of its step.
    """
    away = {work.trash_path(step): step for step in steps if _is_directory_put_away(step)}
    used = work.who_lives(away)
    needed = {folder for path in used for folder in _holders(away[path].source or "")}
    refused = {}
    for trash, step in reversed(away.items()):
        source = step.source or ""
        if (trash not in used and source not in needed) or work.disk.find(trash) is None:
            continue
        if work.disk.find(parent(source)) is not None:
            work.disk.rename(trash, source)
            why, detail = Reason.IN_USE, f"{source} is in use by another process, so it stays"
            if trash not in used:
                why, detail = Reason.UNEXPECTED_CONTENT, f"{source} is not empty"
            refused[step.number] = StepRefusedError(why, detail)
    return refused


def _is_directory_put_away(step: Step) -> bool:
    return is_tree(step) and step.shape in (Shape.COPY, Shape.RETIRE) and step.method != "link"


def _holders(path: str) -> Iterator[str]:
    while path := parent(path):
        yield path


def _check_published(work: Work, step: Step) -> None:
    """Raise StepRefusedError when the source is the only one there is by now (D3)."""
    if step.shape is not Shape.COPY and step.twin is None:
        return
    new = step.target or step.twin or ""
    if not is_still_published(work, step):
        detail = f"{new} was deleted by somebody, or replaced by something else, so {step.source} stays"
        raise StepRefusedError(Reason.CHANGED_MEANWHILE, detail)
    is_ours = work.has_published(step)
    if step.sha256 is not None and not is_ours and not _is(work, new, step.sha256):
        detail = f"{new} was replaced by something without SHA-256 {step.sha256}, so {step.source} stays"
        raise StepRefusedError(Reason.CHANGED_MEANWHILE, detail)


def is_still_published(work: Work, step: Step) -> bool:
    """Return whether under its new name there still is something of the kind that was published."""
    target, expected = work.disk.find(step.target or step.twin or ""), step.expected
    is_alike = step.shape in (Shape.COPY, Shape.RETIRE) and expected is not None
    return target is not None and (not is_alike or expected is None or target.kind.value == expected.kind)


def _check_emptied(work: Work, step: Step) -> None:
    if step.shape is Shape.RETIRE and step.made_of == "directory" and work.disk.entries(step.source or ""):
        raise StepRefusedError(Reason.UNEXPECTED_CONTENT, f"{step.source} is not empty")


def folders_of_flip(work: Work, step: Step) -> tuple[str, ...]:
    """Return the folders whose names a flip changes."""
    if step.shape is Shape.RENAME:
        return parent(step.source or ""), parent(step.target or "")
    put_away: tuple[str, ...] = ()
    if step.shape in (Shape.DISPLACE, Shape.STREAM):
        put_away = parent(step.source or ""), parent(work.trash_path(step))
    if step.shape in (Shape.COPY, Shape.STREAM, Shape.CREATE):
        return parent(work.stage_path(step)), parent(work.target_path(step)), *put_away
    return put_away


def folders_of_retire(work: Work, step: Step) -> tuple[str, ...]:
    """Return the folders whose names a retirement changes."""
    if not retires(step) or step.shape is Shape.DISPLACE:
        return ()
    changed = step.target or "" if step.shape is Shape.RENAME else parent(step.source or "")
    return changed, parent(work.trash_path(step))
