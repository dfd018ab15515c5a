"""Small files that take another form: what is written anew, what makes way for it, and what it was made of goes aside. Pure.

Guarantees: nothing that anybody wrote is deleted; where it cannot be done nothing of it is planned.

Must not know: the disk, and what the files mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from upgradeconverter.model.entry import Kind
from upgradeconverter.model.operation import Divergence, Note
from upgradeconverter.model.outcome import Reason
from upgradeconverter.model.plan import Shape
from upgradeconverter.planning.draft import CannotError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from upgradeconverter.model.operation import Rewrite
    from upgradeconverter.model.plan import Step
    from upgradeconverter.planning.draft import Draft


def rewrite(draft: Draft, base: Step, operation: Rewrite) -> None:
    """Plan a file of its own and the way aside of what it is made of; CannotError where that cannot be."""
    source, target = operation.source, operation.target
    entry = draft.source_entry(source)
    if entry.kind is not Kind.FILE:
        raise CannotError(source, Reason.NOT_A_REGULAR_FILE, f"found a {entry.kind.value}")
    if source in draft.facts.changed:
        raise CannotError(source, Reason.CHANGED_MEANWHILE, "it was written to while the plan was made")
    if not draft.facts.same[target, target] and _takes_place(draft, base, operation):
        _write_anew(draft, base, Note(target, operation.content, operation.slot))
    write_beside(draft, base, operation.beside)
    if source == target:
        return
    aside = replace(base, operation="SetAside", divergence=operation.divergence, keeps=True)
    why = Reason.DIVERGED if operation.of_target else Reason.REWRITTEN
    draft.put_away(aside, source, twin=target, why=why.value)
    for path in operation.also_retire:
        _retire_beside(draft, base, path, (source, *operation.also_retire))


def _takes_place(draft: Draft, base: Step, operation: Rewrite) -> bool:
    """Return whether the new file takes its place, for which whatever is there makes way; CannotError where it must not."""
    source, target = operation.source, operation.target
    is_there = draft.facts.entries.get(target) is not None
    if target in draft.claimed or (is_there and source != target and operation.divergence in (Divergence.ASK, Divergence.NEWEST)):
        raise CannotError(source, Reason.TARGET_EXISTS, f"{target} has other content", rival=target)
    if is_there and source != target and operation.divergence is Divergence.TARGET:
        return False
    if is_there:
        draft.displace(base, target, Reason.REWRITTEN if source == target or operation.of_target else Reason.DIVERGED)
    return True


def write_beside(draft: Draft, base: Step, notes: Iterable[Note]) -> None:
    """Plan the files that are written together with something else; CannotError where a name is taken."""
    for note in notes:
        if note.target in draft.claimed:
            raise CannotError(note.target, Reason.TARGET_EXISTS, "the name is taken")
        if not draft.facts.same[note.target, note.target]:
            if draft.facts.entries.get(note.target) is not None:
                draft.displace(base, note.target, Reason.REWRITTEN)
            _write_anew(draft, base, note)


def _write_anew(draft: Draft, base: Step, note: Note) -> None:
    domain = draft.prepare_parent(base, note.target)
    draft.claim(note.target, "", base.group)
    why, size = draft.remember(note.content), len(note.content)
    made = replace(base, shape=Shape.CREATE, made_of="file", target=note.target, target_home=domain.home)
    draft.add(replace(made, after=draft.attributes_of_new(note.slot), why=why, size=size))


def _retire_beside(draft: Draft, base: Step, path: str, leaving: tuple[str, ...]) -> None:
    """Plan that what lies beside a source goes with it; a directory that holds anything else stays."""
    entry = draft.facts.entries.get(path)
    if entry is None:
        return
    if entry.kind is not Kind.DIRECTORY:
        draft.put_away(replace(base, operation="SetAside", keeps=True), path, twin=None, why=Reason.REWRITTEN.value)
    elif all(f"{path}/{name}" in leaving for name in draft.facts.trees[path].top_names):
        draft.retire_folder(base, path, leaving=leaving)
