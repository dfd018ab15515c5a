"""Collects the facts that the planner needs about the paths which proposals name. Looks only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from upgradeconverter.model.entry import Kind
from upgradeconverter.model.operation import Copy, Divergence, Move, Relocate, Retire, Rewrite, Write
from upgradeconverter.planning.facts import Facts, above

if TYPE_CHECKING:
    from collections.abc import Iterable

    from upgradeconverter.disk.port import Disk
    from upgradeconverter.model.operation import Operation
    from upgradeconverter.model.plan import Step


def survey(disk: Disk, operations: Iterable[Operation], *, copies: bool = False, leaving: Iterable[Step] = ()) -> Facts:
    """Return the facts about all paths of the operations; `copies` says that nothing will be renamed.

    What is to be copied is looked at closely, which takes longer. The sources of the steps `leaving` count as put away already.
    """
    leaving = tuple(leaving)
    facts = Facts()
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
            _take_away(facts, target, leaving)
        _look_at(disk, facts, operation, copies=copies)
        if isinstance(operation, Move):
            _compare(disk, facts, operation, planned)
    return facts


def _look_at(disk: Disk, facts: Facts, operation: Operation, *, copies: bool) -> None:
    """Learn what is inside the source of an operation, and of what goes with it."""
    if isinstance(operation, Move | Rewrite):
        for path in operation.also_retire:
            _learn(disk, facts, path)
            _walk(disk, facts, path)
    if isinstance(operation, Move | Copy | Retire | Rewrite | Relocate):
        closely = isinstance(operation, Move) and (copies or not _is_one_domain(facts, operation))
        _walk(disk, facts, operation.source, closely=closely)
    if isinstance(operation, Move) and operation.divergence is Divergence.SOURCE:
        _walk(disk, facts, operation.target)
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


def _take_away(facts: Facts, path: str, leaving: Iterable[Step]) -> None:
    """Let a path be free that a step puts away; the room that it takes is free only later."""
    if any(step.source == path for step in leaving):
        facts.entries[path] = None
        facts.fixed.discard(path)


def _learn(disk: Disk, facts: Facts, path: str, *, labels: bool = False) -> None:
    """Learn about a path and every directory above it; `""` is the root."""
    while path not in facts.entries:
        entry = disk.find(path, labels=labels)
        facts.entries[path], labels = entry, False
        if entry is not None and entry.kind is Kind.DIRECTORY:
            domain = disk.domain(path)
            facts.domains[path] = domain
            if domain.home not in facts.spaces:
                facts.spaces[domain.home] = disk.space(domain.home)
        if entry is not None and disk.is_immutable(path):
            facts.fixed.add(path)
        path = above(path)


def _is_one_domain(facts: Facts, operation: Move) -> bool:
    domains = []
    for path in (operation.source, operation.target):
        folder = above(path)
        while folder and folder not in facts.domains:
            folder = above(folder)
        domains.append(facts.domains[folder].key)
    return domains[0] == domains[1]


def _walk(disk: Disk, facts: Facts, path: str, *, closely: bool = False) -> None:
    if facts.entries.get(path) is None:
        return
    try:
        facts.trees[path] = disk.survey(path, closely=closely)
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


def _compare(disk: Disk, facts: Facts, operation: Move, planned: dict[str, str]) -> None:
    rival = operation.target if facts.entries[operation.target] is not None else planned.get(operation.target)
    planned.setdefault(operation.target, operation.source)
    if rival is None or operation.source in facts.unreadable:
        return
    try:
        additions = operation.additions if rival == operation.target else ()
        equal = disk.same_content(operation.source, rival, additions)
        if equal and operation.sha256 is not None and disk.sha256(operation.source) != operation.sha256:
            facts.misnamed.add((operation.source, rival))
            equal = False
    except OSError:
        equal = False
    facts.same[operation.source, rival] = equal
