"""The plan that takes a finished run back: every step of its journal turned round, newest first.

A run that is `done` has no trash any more, so this is a conversion of its own, with its own journal and its own undo. What was
written to the new place since then goes back with it. Content, owner, mode, xattrs and times come back as they were recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from upgradeconverter.engine.places import parent, quarantine_path
from upgradeconverter.engine.room import laid_out
from upgradeconverter.journal.record import RecordKind
from upgradeconverter.model.entry import Kind
from upgradeconverter.model.operation import Skip
from upgradeconverter.model.outcome import Reason
from upgradeconverter.model.plan import Attributes, Plan, Precondition, Shape, Step, Wave
from upgradeconverter.planning.facts import glance
from upgradeconverter.planning.losses import refusal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from upgradeconverter.disk.port import Disk
    from upgradeconverter.journal.log import Transaction


_RELOCATE = "Relocate"


def backward_plan(
    disk: Disk, transaction: Transaction, forward: tuple[Step, ...], *, pack: str, arriving: frozenset[str] = frozenset()
) -> Plan:
    """Return the plan that undoes a finished transaction, of which some steps still stand, as far as it is not undone yet.

    `arriving` are paths that are not there now, but will be once later transactions are undone.
    """
    begin = transaction.payload(RecordKind.BEGIN) or {}
    about: dict[str, Any] = begin.get("run", {})
    steps: list[Step] = []
    skips: list[Skip] = []
    later: list[Step] = []
    inner: set[str | None] = {step.source for step in forward if step.source is not None}
    returning = arriving | {s.source or "" for s in forward if s.shape is Shape.RETIRE and s.made_of == "directory"}
    for step in reversed(forward):
        if _has_come_back(disk, step, forward, transaction.txid):
            continue
        moved = _as_moved(step, transaction.txid)
        turned = _only_form(disk, step, forward, transaction.txid) or _turn(disk, moved, forward, inner, returning)
        if isinstance(turned, Step) and step.operation == _RELOCATE and step.made_of == "copy":
            turned = _unless_unchanged(disk, turned, step, forward, transaction.txid)
        if isinstance(turned, Skip) and turned.path not in arriving:
            skips.append(turned)
        elif isinstance(turned, Step):
            # What made way for something comes back once that has gone.
            (later if step.shape is Shape.DISPLACE else steps).append(turned)
    numbered = tuple(replace(step, number=number) for number, step in enumerate((*_in_order(steps), *later)))
    first, second = numbered[: len(steps)], numbered[len(steps) :]
    times = tuple((path, atime, mtime) for path, atime, mtime in begin.get("touched", []))
    restore = times + tuple(_times_of(step) for step in forward if _has_times(step))
    parts = (*laid_out(disk, first), second)
    waves = tuple(Wave(steps=part, touched=_now(disk, part), restore=restore) for part in parts if part)
    return Plan(
        pack=pack,
        source=str(about.get("target", "")),
        target=str(about.get("source", "")),
        waves=waves,
        skips=tuple(skips),
    )


def _in_order(steps: list[Step]) -> list[Step]:
    """Put directories that come back before what goes into them; everything else keeps its order."""
    folders = [s for s in steps if s.shape is Shape.CREATE and s.made_of == "directory"]
    folders.sort(key=lambda s: (s.target or "").count("/"))
    return [*folders, *(s for s in steps if s.shape is not Shape.CREATE or s.made_of != "directory")]


def _has_times(step: Step) -> bool:
    is_directory = step.expected is not None and step.expected.kind == Kind.DIRECTORY.value
    return is_directory and step.before.mtime_ns is not None


def _times_of(step: Step) -> tuple[str, int, int]:
    return step.source or "", step.before.atime_ns or 0, step.before.mtime_ns or 0


def _turn(
    disk: Disk, step: Step, forward: tuple[Step, ...], inner: set[str | None], returning: frozenset[str]
) -> Step | Skip | None:
    """Return the step that undoes one step, None when there is nothing to do, or why it cannot be done."""
    if step.shape in (Shape.RENAME, Shape.COPY, Shape.STREAM):
        return _move_back(disk, step, forward, returning)
    if step.shape is Shape.RETIRE:
        return _bring_back(disk, step, returning)
    if step.shape is Shape.ADJUST:
        if disk.find(step.target or "") is None:
            return Skip(path=step.target or "", reason=Reason.CHANGED_MEANWHILE, detail="it is gone, so it cannot be set back")
        return replace(step, after=step.before.without_times(), before=step.after)
    if step.shape is Shape.DISPLACE or (step.target is not None and parent(step.target) in inner):
        # It was out of date. A file that was put inside something before its rename is left out when that goes
        # back: see `_move_back`.
        return None
    return _drop_new(disk, step)


def _unless_unchanged(disk: Disk, turned: Step, step: Step, forward: tuple[Step, ...], txid: str) -> Step:
    """Return the step that sets a copy aside, or lets it go if it still is what the one that was kept is."""
    kept = (other for other in forward if other.group == step.group and other.shape is Shape.DISPLACE and other.keeps)
    asides = [_aside(other, txid) for other in kept]
    is_same = any(disk.find(aside) is not None and disk.same_content(aside, step.target or "") for aside in asides)
    return replace(turned, operation="Retire", keeps=False, why="made by the run") if is_same else turned


def _has_come_back(disk: Disk, step: Step, forward: tuple[Step, ...], txid: str) -> bool:
    """Return whether an earlier rollback, which did not come to its end, has put back what made way for something new."""
    if step.shape is not Shape.CREATE or _is_as_made(disk, step) or disk.find(step.target or "") is None:
        return False
    made_way = (other for other in forward if other.group == step.group and other.shape is Shape.DISPLACE and other.keeps)
    asides = [_aside(other, txid) for other in made_way if other.source == step.target]
    return any(disk.find(aside) is None for aside in asides)


def _is_as_made(disk: Disk, step: Step) -> bool:
    """Return whether what was made lies where it was made, and says what it said."""
    found = disk.find(step.target or "")
    if found is None or _kind_made(step) not in (None, found.kind):
        return False
    return step.made_of != "file" or disk.sha256(step.target or "") == step.why


def _only_form(disk: Disk, step: Step, forward: tuple[Step, ...], txid: str) -> Skip | None:
    """Return why what was written anew stays: what it was made of is no longer kept, so nothing else says what it does (D1)."""
    if step.shape is not Shape.CREATE or step.made_of not in ("file", "copy", "symlink"):
        return None
    if not _is_as_made(disk, step):
        return None
    kept = [other for other in forward if other.group == step.group and other.keeps and not other.takes_back]
    made_of = [other for other in kept if other.shape is Shape.RETIRE and other.twin == step.target]
    made_of = made_of or [other for other in kept if other.shape is Shape.DISPLACE and other.source in (step.target, step.source)]
    for other in made_of:
        aside = _aside(other, txid)
        is_back = other.source != step.target and disk.find(other.source or "") is not None
        if disk.find(aside) is None and not is_back:
            detail = f"{aside}, of which it was made, is gone, so it stays"
            return Skip(path=step.target or "", reason=Reason.CHANGED_MEANWHILE, detail=detail)
    return None


def _aside(step: Step, txid: str) -> str:
    return quarantine_path(step.source_home, txid, step.number)


def _as_moved(step: Step, txid: str) -> Step:
    """Return what was set aside as what it is now: something that lies elsewhere."""
    if not step.keeps or step.takes_back:
        return step
    aside = _aside(step, txid)
    return replace(step, shape=Shape.RENAME, target=aside, target_home=step.source_home, keeps=False)


def _move_back(disk: Disk, step: Step, forward: tuple[Step, ...], returning: frozenset[str]) -> Step | Skip | None:
    target, source = step.target or "", step.source or ""
    entry = disk.find(target)
    if entry is None and disk.find(source) is not None:
        # An earlier rollback that did not come to its end has done this already.
        return None
    obstacle = _obstacle(disk, step, forward, returning)
    if obstacle is not None or entry is None:
        return obstacle
    here, there = disk.domain(parent(target)), disk.domain(parent(source))
    inside = [
        (s.target.rpartition("/")[2], s.why) for s in forward if s.target and parent(s.target) == source and s.made_of == "file"
    ]
    added = tuple(name for name, digest in (*step.additions, *inside) if _is(disk, f"{target}/{name}", digest))
    shape = Shape.RENAME if here.key == there.key and len(added) <= 1 else Shape.COPY
    # What is only renamed takes along all that is in it; of a file with other names the time of change tells less.
    is_read = shape is Shape.COPY or (entry.kind is not Kind.DIRECTORY and entry.links > 1)
    tree = disk.survey(target, closely=shape is Shape.COPY) if is_read else glance(entry, ())
    refused = refusal(tree, there) if shape is Shape.COPY else None
    if refused is not None:
        return Skip(path=target, reason=refused.reason, detail=refused.detail)
    return replace(
        step,
        operation="Move",
        shape=shape,
        source=target,
        target=source,
        source_home=here.home,
        target_home=there.home,
        after=step.before.without_times() if entry.kind is not Kind.DIRECTORY else step.before,
        before=Attributes(mode=entry.mode, uid=entry.uid, gid=entry.gid, labels=step.after.labels),
        expected=Precondition.of(entry, tree.fingerprint),
        sha256=None,
        piece=0,
        hollow=0,
        # A copy leaves them out at once; what is renamed has to know them again when it takes them out.
        additions=tuple((n, digest) for n, digest in (*step.additions, *inside) if n in added) if shape is Shape.RENAME else (),
        omissions=added,
        size=tree.size,
        allocated=tree.allocated,
        entries=tree.entries,
    )


def _obstacle(disk: Disk, step: Step, forward: tuple[Step, ...], returning: frozenset[str]) -> Skip | None:
    """Return why something cannot go back to where it was, or None."""
    target, source = step.target or "", step.source or ""
    if disk.find(target) is None:
        return Skip(path=target, reason=Reason.CHANGED_MEANWHILE, detail="it is gone, so it cannot go back")
    if _is_another(disk, step):
        detail = "something of another kind was put in its place, so it does not go back"
        return Skip(path=target, reason=Reason.CHANGED_MEANWHILE, detail=detail)
    if disk.find(source) is not None and not any(each.target == source for each in forward):
        return Skip(path=target, reason=Reason.TARGET_EXISTS, detail=f"{source} exists again")
    if not _has_place(disk, source, returning):
        return Skip(path=target, reason=Reason.CHANGED_MEANWHILE, detail=f"{parent(source)} is gone, so it cannot go back there")
    fixed = next((path for path in (target, parent(target), parent(source)) if disk.is_immutable(path)), None)
    if fixed is not None:
        return Skip(path=target, reason=Reason.IMMUTABLE, detail=f"{fixed} is immutable or append-only", rival=fixed)
    return None


def _is_another(disk: Disk, step: Step) -> bool:
    entry = disk.find(step.target or "")
    return entry is not None and step.expected is not None and entry.kind.value != step.expected.kind


def _has_place(disk: Disk, path: str, returning: frozenset[str]) -> bool:
    """Return whether the folder that is to hold a path is there, or is among those that come back."""
    folder = parent(path)
    entry = disk.find(folder)
    if entry is not None:
        return entry.kind is Kind.DIRECTORY
    return folder in returning and _has_place(disk, folder, returning)


def _is(disk: Disk, path: str, digest: str) -> bool:
    entry = disk.find(path)
    return entry is not None and entry.kind is Kind.FILE and disk.sha256(path) == digest


def _bring_back(disk: Disk, step: Step, returning: frozenset[str]) -> Step | Skip | None:
    source = step.source or ""
    if disk.find(source) is not None:
        return None
    if not _has_place(disk, source, returning):
        return Skip(
            path=source, reason=Reason.CHANGED_MEANWHILE, detail=f"{parent(source)} is gone, so it cannot come back there"
        )
    home = disk.domain(parent(source)).home
    base = replace(step, shape=Shape.CREATE, target=source, target_home=home, source=None, expected=None, twin=None)
    if step.made_of == "directory":
        return replace(base, operation="EnsureDirectory", after=step.before, why="", once_empty=False)
    if step.twin is not None and disk.find(step.twin) is not None:
        added = tuple(name for name, digest in step.additions if _is(disk, f"{step.twin}/{name}", digest))
        after, source = step.before, step.twin
        return replace(base, operation="Copy", made_of="copy", source=source, after=after, why="", additions=(), omissions=added)
    detail = "what it was a duplicate of is gone" if step.twin is not None else "it was not needed, and was deleted"
    return Skip(path=source, reason=Reason.CHANGED_MEANWHILE, detail=detail)


def _drop_new(disk: Disk, step: Step) -> Step | Skip | None:
    target = step.target or ""
    entry = disk.find(target)
    if entry is None:
        return None
    if _kind_made(step) not in (None, entry.kind):
        detail = f"expected the {step.made_of} that was made there, found a {entry.kind.value}"
        return Skip(path=target, reason=Reason.CHANGED_MEANWHILE, detail=detail)
    home = disk.domain(parent(target)).home
    base = replace(
        step,
        operation="Retire",
        shape=Shape.RETIRE,
        source=target,
        source_home=home,
        target=None,
        why="made by the run",
    )
    is_changed = step.made_of == "file" and step.why and entry.kind is Kind.FILE and disk.sha256(target) != step.why
    if is_changed or (step.operation == _RELOCATE and step.made_of == "copy"):
        # Somebody has gone on with it, or may have, by the link.
        base = replace(base, operation="SetAside", keeps=True, why=Reason.DIVERGED.value)
    identity = Precondition(
        identity=entry.identity, kind=entry.kind.value, size=entry.size, mtime_ns=entry.mtime_ns, fingerprint=""
    )
    return replace(base, expected=identity, before=Attributes(mode=entry.mode, uid=entry.uid, gid=entry.gid))


def _kind_made(step: Step) -> Kind | None:
    return {"directory": Kind.DIRECTORY, "file": Kind.FILE, "symlink": Kind.SYMLINK}.get(step.made_of)


def _now(disk: Disk, steps: Iterable[Step]) -> tuple[tuple[str, int, int], ...]:
    folders: dict[str, None] = {"": None}
    for step in steps:
        for path in (step.source_home, step.target_home, *(parent(p) for p in (step.source, step.target) if p)):
            folders[path] = None
    found = []
    for path in folders:
        entry = disk.find(path)
        if entry is not None:
            found.append((path, entry.atime_ns, entry.mtime_ns))
    return tuple(found)
