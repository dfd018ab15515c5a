"""The handler of what goes over piece by piece, forth and back: where both do not fit, neither place has all of it meanwhile.

The source is put away first, so that nobody takes a part of it for the whole; its content then goes into the hollow copy that was
staged, and that becomes the target. The way back is the same, the other way round. Idempotent like all handlers: it looks at who
exists and at the last place that the journal knows of.

Knows `Disk` verbs and one step at a time, and how to record a place; knows no waves and no order between steps.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from upgradeconverter.disk.port import Place, SourceInUseError, StreamOrder
from upgradeconverter.engine.housekeeping import free_path, make_folder, sync_folders
from upgradeconverter.engine.places import parent, quarantine_path
from upgradeconverter.engine.steps import changed_since
from upgradeconverter.engine.work import StepRefusedError, Work, check_identity, is_one_file
from upgradeconverter.errors import InterruptedRunError, PausedError
from upgradeconverter.model.entry import Kind
from upgradeconverter.model.outcome import Reason

if TYPE_CHECKING:
    from upgradeconverter.model.plan import Step


def go_over(work: Work, step: Step) -> None:
    """Take the content over, and publish what it went into.

    Raises:
        PausedError: somebody asked the run to stop, or there is no time left; the next start goes on from there.
        OSError: the disk refused something, or the source is in use or not what was planned for.
    """
    if work.has_published(step):
        return
    _put_away(work, step)
    _stream(work, step, back=False)
    staged = work.stage_path(step)
    if step.sha256 is not None and work.disk.sha256(staged) != step.sha256:
        raise OSError(errno.EIO, "what went over reads back differently", staged)
    work.marks[step.number] = work.disk.survey(staged).fingerprint
    work.disk.rename(staged, step.target or "")


def _stream(work: Work, step: Step, *, back: bool) -> None:
    def keep(place: Place) -> None:
        work.keep(step, place)

    try:
        work.disk.stream(_order(work, step), keep, back=back, progress=work.progress)
    except InterruptedRunError as stop:
        raise PausedError(step.source or "", "somebody asked for that") from stop
    except StepRefusedError as late:
        raise PausedError(step.source or "", late.detail) from late
    except SourceInUseError as error:
        raise OSError(errno.ETXTBSY, str(error), step.source) from error


def _order(work: Work, step: Step) -> StreamOrder:
    apart = frozenset((*step.omissions, *(name for name, _ in step.additions)))
    start = work.places.get(step.number, Place())
    return StreamOrder(source=work.trash_path(step), target=work.stage_path(step), piece=step.piece, start=start, apart=apart)


def _put_away(work: Work, step: Step) -> None:
    """Put the source away, unless it is not what was planned for any more."""
    disk, source, away = work.disk, step.source or "", work.trash_path(step)
    if is_one_file(disk, away, source):
        # A power cut in the middle of a rename can leave both names to one file (seen on btrfs).
        disk.remove(source)
    elif disk.find(away) is None:
        found = disk.find(source)
        if found is not None:
            check_identity(step, found)
        disk.rename(source, away)
        refused = changed_since(work, step)
        if refused is not None:
            disk.rename(away, source)
            raise OSError(errno.EBUSY, refused.detail, source)
    # Nobody may find under the old name what has lost a part of its content.
    disk.sync_directory(parent(source))
    disk.sync_directory(parent(away))


def come_back(work: Work, step: Step) -> StepRefusedError | None:
    """Bring the content back, and the source to its name; returns why something is not where it was.

    The caller makes the name durable, as `folders_of_flip` has it.

    Raises:
        PausedError, OSError: as `go_over` does.
    """
    disk, source, away = work.disk, step.source or "", work.trash_path(step)
    _unpublish(work, step)
    if disk.find(away) is None:
        return _keep_part(work, step)
    if disk.find(work.stage_path(step)) is not None:
        _stream(work, step, back=True)
    elif work.places.get(step.number, Place()) != Place():
        return _set_aside(work, step, away, f"{source} lost what had gone over already, since somebody deleted that")
    if is_one_file(disk, away, source):
        disk.remove(away)
    elif disk.find(source) is None and _has_place(work, source):
        disk.rename(away, source)
    else:
        return _set_aside(work, step, away, f"{source} has no place any more, since somebody put something else there")
    return None


def _unpublish(work: Work, step: Step) -> None:
    staged, target = work.stage_path(step), step.target or ""
    if is_one_file(work.disk, staged, target):
        # A power cut in the middle of a rename can leave both names to one file (seen on btrfs).
        work.disk.remove(target)
    elif work.has_published(step):
        work.disk.rename(target, staged)
    else:
        return
    # Nobody may find under the new name what gives its content back.
    work.disk.sync_directory(parent(target))
    work.disk.sync_directory(parent(staged))


def _has_place(work: Work, path: str) -> bool:
    entry = work.disk.find(parent(path))
    return entry is not None and entry.kind is Kind.DIRECTORY


def _keep_part(work: Work, step: Step) -> StepRefusedError | None:
    """Set aside what went over, where what it came from was deleted."""
    staged = work.stage_path(step)
    if work.disk.find(staged) is None or work.places.get(step.number, Place()) == Place():
        return None
    return _set_aside(work, step, staged, f"what {step.source} was left of was deleted by somebody")


def _set_aside(work: Work, step: Step, path: str, why: str) -> StepRefusedError:
    home = step.source_home if path == work.trash_path(step) else step.target_home
    aside = free_path(work.disk, quarantine_path(home, work.txid, step.number))
    make_folder(work.disk, parent(aside))
    work.disk.rename(path, aside)
    sync_folders(work.disk, (parent(aside), parent(path)))
    return StepRefusedError(Reason.CHANGED_MEANWHILE, f"{why}; it was set aside as {aside}")
