"""Collects the facts that the planner needs about the paths which proposals name. Looks only.

What is only renamed takes along all that is in it, so nobody looks inside: a tree costs what a file does, however large it is.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from msgspec.structs import replace

from upgradeconverter.model.entry import Kind
from upgradeconverter.model.operation import Copy, Divergence, Move, Relocate, Retire, Rewrite, Write
from upgradeconverter.planning.facts import Facts, above, glance

if TYPE_CHECKING:
    from collections.abc import Iterable

    from upgradeconverter.disk.port import Disk
    from upgradeconverter.model.entry import Entry
    from upgradeconverter.model.operation import Operation
    from upgradeconverter.model.plan import Step


def survey(disk: Disk, operations: Iterable[Operation], *, copies: bool = False, leaving: Iterable[Step] = ()) -> Facts:
    """Return the facts about all paths of the operations; `copies` says that nothing will be renamed.

    What is to be copied is looked at closely, which takes longer. The sources of the steps `leaving` count as put away already.
    """
    going = frozenset(step.source for step in leaving)
    facts = Facts(mounts=disk.mounts(""))
    planned: dict[str, str] = {}
    _learn(disk, facts, "")
    for operation in operations:
        source = getattr(operation, "source", None)
        target = getattr(operation, "target", None)
        if source is not None:
            facts.entries.pop(source, None)
            _learn(disk, facts, source, labels=True)
        if target is not None:
            _learn(disk, facts, target)
            if target in going:
                # It is free; the room that it takes is so only later.
                facts.entries[target] = None
                facts.fixed.discard(target)
        if isinstance(operation, Move):
            _look_at_move(disk, facts, operation, planned, copies=copies)
        else:
            _look_at(disk, facts, operation)
    return facts


def _look_at_move(disk: Disk, facts: Facts, operation: Move, planned: dict[str, str], *, copies: bool) -> None:
    for path in operation.also_retire:
        _look_at_folder(disk, facts, path)
    for name, _ in operation.additions:
        _learn(disk, facts, f"{operation.source}/{name}")
    rival = operation.target if facts.entries[operation.target] is not None else planned.get(operation.target)
    planned.setdefault(operation.target, operation.source)
    closely = copies or not _is_one_domain(facts, operation)
    entry = facts.entries[operation.source]
    if closely or rival is not None:
        _walk(disk, facts, operation.source, closely=closely)
    elif entry is not None:
        _glance(disk, facts, entry)
    if operation.divergence is Divergence.SOURCE:
        _walk(disk, facts, operation.target)
    if rival is not None and operation.source not in facts.unreadable:
        _compare(disk, facts, operation, rival)


def _look_at(disk: Disk, facts: Facts, operation: Operation) -> None:
    """Learn what is inside the source of an operation, and of what goes with it."""
    if isinstance(operation, Rewrite):
        for path in operation.also_retire:
            _look_at_folder(disk, facts, path)
    if isinstance(operation, Retire) and not operation.whole:
        _look_at_folder(disk, facts, operation.source)
    elif isinstance(operation, Copy | Retire | Rewrite | Relocate):
        _walk(disk, facts, operation.source)
    if isinstance(operation, Rewrite):
        _check_basis(disk, facts, operation)
    if isinstance(operation, Rewrite | Write):
        for target, content in (
            (operation.target, operation.content),
            *((note.target, note.content) for note in operation.beside),
        ):
            _learn(disk, facts, target)
            _walk(disk, facts, target)
            facts.same[target, target] = _says(disk, facts, target, content)


def _learn(disk: Disk, facts: Facts, path: str, *, labels: bool = False) -> None:
    """Learn about a path and every directory above it; `""` is the root."""
    if path in facts.entries:
        return
    if path:
        _learn(disk, facts, above(path))
        holder = facts.entries[above(path)]
        if holder is None or holder.kind is not Kind.DIRECTORY:
            facts.entries[path] = None
            return
    facts.entries[path] = entry = disk.find(path, labels=labels)
    if entry is None:
        return
    if entry.kind is Kind.DIRECTORY:
        facts.domains[path] = domain = disk.domain(path)
        if domain.home not in facts.spaces:
            facts.spaces[domain.home] = disk.space(domain.home)
    if entry.kind in (Kind.FILE, Kind.DIRECTORY) and (disk.is_immutable(path) if entry.fixed is None else entry.fixed):
        facts.fixed.add(path)


def _is_one_domain(facts: Facts, operation: Move) -> bool:
    return _domain_key(facts, above(operation.source)) == _domain_key(facts, above(operation.target))


def _domain_key(facts: Facts, folder: str) -> str:
    while folder not in facts.domains:
        folder = above(folder)
    return facts.domains[folder].key


def _glance(disk: Disk, facts: Facts, entry: Entry) -> None:
    """Learn of what is going to be renamed no more than what it is itself, and whether anything is mounted inside."""
    mounts = _mounts_at(facts, entry.path)
    if entry.kind is not Kind.DIRECTORY and entry.links > 1:
        # Its own time of change may be that of another name.
        _walk(disk, facts, entry.path)
    elif entry.kind is Kind.DIRECTORY or mounts:
        facts.trees[entry.path] = glance(entry, mounts)


def _mounts_at(facts: Facts, path: str) -> tuple[str, ...]:
    """Return where something is mounted at a path or inside."""
    if not facts.mounts:
        return ()
    start = f"{path}/"
    first = bisect_left(facts.mounts, start)
    last = first
    while last < len(facts.mounts) and facts.mounts[last].startswith(start):
        last += 1
    here = bisect_left(facts.mounts, path)
    own = facts.mounts[here : here + 1] if path in facts.mounts[here : here + 1] else ()
    return (*own, *facts.mounts[first:last])


def _look_at_folder(disk: Disk, facts: Facts, path: str) -> None:
    """Learn of a directory that is to go once it is empty what is directly in it; of anything else, all."""
    _learn(disk, facts, path)
    entry = facts.entries[path]
    _walk(disk, facts, path, inside=entry is None or entry.kind is not Kind.DIRECTORY)


def _walk(disk: Disk, facts: Facts, path: str, *, closely: bool = False, inside: bool = True) -> None:
    if facts.entries.get(path) is None:
        return
    try:
        tree = disk.survey(path, closely=closely, inside=inside)
        mounts = _mounts_at(facts, path)
        facts.trees[path] = replace(tree, mounts=mounts) if mounts else tree
    except OSError as error:
        facts.unreadable[path] = error.strerror or str(error)


def _check_basis(disk: Disk, facts: Facts, operation: Rewrite) -> None:
    """Learn whether a source still says what the rewriting is based on."""
    entry = facts.entries[operation.source]
    try:
        if entry is not None and entry.kind is Kind.FILE and disk.sha256(operation.source) != operation.basis:
            facts.changed.add(operation.source)
    except OSError as error:
        facts.unreadable[operation.source] = error.strerror or str(error)


def _says(disk: Disk, facts: Facts, path: str, content: bytes) -> bool:
    entry = facts.entries[path]
    try:
        is_like = entry is not None and entry.kind is Kind.FILE and entry.size == len(content)
        return is_like and disk.read(path, len(content)) == content
    except OSError as error:
        facts.unreadable[path] = error.strerror or str(error)
        return False


def _compare(disk: Disk, facts: Facts, operation: Move, rival: str) -> None:
    try:
        additions = operation.additions if rival == operation.target else ()
        equal = disk.same_content(operation.source, rival, additions)
        if equal and operation.sha256 is not None and disk.sha256(operation.source) != operation.sha256:
            facts.misnamed.add((operation.source, rival))
            equal = False
    except OSError:
        equal = False
    facts.same[operation.source, rival] = equal
