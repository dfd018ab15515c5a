"""Proposals and facts become a plan: order, preconditions, shapes, groups, waves, space. Pure (D9).

Guarantees: no step of the plan replaces anything; every path it names was looked at; what cannot be done is a skip with a reason;
the same input gives the same plan, whatever order the disk listed things in.

Must not know: the disk, the clock, any pack.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from upgradeconverter.model.entry import Kind
from upgradeconverter.model.operation import (
    Copy,
    Divergence,
    EnsureDirectory,
    Link,
    Move,
    Operation,
    Proposal,
    Retire,
    SetAttributes,
    Skip,
    Write,
)
from upgradeconverter.model.outcome import Reason
from upgradeconverter.model.plan import Attributes, Plan, Precondition, Shape, Step, Trial
from upgradeconverter.planning.conflict import Resolution, resolve
from upgradeconverter.planning.facts import Facts, above, attributes_of
from upgradeconverter.planning.fitting import fit
from upgradeconverter.planning.losses import losses, parted, refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from upgradeconverter.model.entry import Domain, Entry
    from upgradeconverter.model.layout import Layout

_DEFAULT_FOLDER_MODE = 0o700


class _CannotError(Exception):
    """One operation cannot be planned; becomes a skip."""

    def __init__(self, path: str, reason: Reason, detail: str, rival: str = "") -> None:
        super().__init__(detail)
        self.skip = Skip(path=path, reason=reason, detail=detail, rival=rival)


@dataclass(slots=True)
class _Draft:
    """The plan while it is made."""

    facts: Facts
    layout: Layout
    agents: Mapping[str, tuple[int, int]]
    steps: list[Step] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    contents: dict[str, bytes] = field(default_factory=dict)
    claimed: dict[str, tuple[str, int]] = field(default_factory=dict)
    made: dict[str, Domain] = field(default_factory=dict)
    group: int = 0
    warnings: list[str] = field(default_factory=list)
    may_rename: bool = True
    trial: bool = False
    pending: frozenset[str] = frozenset()

    def add(self, step: Step) -> None:
        """Number a step and append it."""
        self.steps.append(replace(step, number=len(self.steps)))


def plan(
    proposals: Iterable[Proposal],
    facts: Facts,
    layout: Layout,
    *,
    pack: str,
    source: str,
    agents: Mapping[str, tuple[int, int]],
    found: tuple[Skip, ...] = (),
    warnings: tuple[str, ...] = (),
    may_rename: bool = True,
    trial: Trial | None = None,
    pending: frozenset[str] = frozenset(),
) -> Plan:
    """Return the plan that carries out the proposals.

    Agents without (uid, gid) are root; `found` are the skips of the scan; without `may_rename` everything is copied; with a
    `trial` sources stay until it is confirmed; `pending` are sources that wait for that already.
    """
    draft = _Draft(facts=facts, layout=layout, agents=agents, may_rename=may_rename, trial=trial is not None, pending=pending)
    for proposal in proposals:
        draft.skips.extend(proposal.skips)
        warnings += proposal.warnings
        for operation in proposal.operations:
            _add_operation(draft, proposal.migration, operation)
    fitting = fit(draft.steps, draft.facts, trial)
    skips = sorted((*found, *draft.skips, *fitting.short), key=lambda skip: (os.fsencode(skip.path), skip.reason))
    return Plan(
        pack=pack,
        source=source,
        target=layout.label,
        waves=fitting.waves,
        skips=tuple(dict.fromkeys(skips)),
        warnings=tuple(dict.fromkeys((*warnings, *draft.warnings, *parted(fitting.waves, facts)))),
        space=fitting.needs,
        contents=tuple(sorted(draft.contents.items())),
    )


def _add_operation(draft: _Draft, migration: str, operation: Operation) -> None:
    if getattr(operation, "source", None) in draft.pending:
        return
    draft.group += 1
    mark, contents = len(draft.steps), dict(draft.contents)
    made, claimed = dict(draft.made), dict(draft.claimed)
    base = Step(number=0, group=draft.group, migration=migration, operation=type(operation).__name__, shape=Shape.RENAME)
    try:
        _lower(draft, base, operation)
    except _CannotError as cannot:
        del draft.steps[mark:]
        draft.contents, draft.made, draft.claimed = contents, made, claimed
        draft.skips.append(_named_by_source(operation, cannot.skip))


def _named_by_source(operation: Operation, skip: Skip) -> Skip:
    """Report what stays behind under the name that it has, not the one that it was to get."""
    source = getattr(operation, "source", None)
    if source is None or skip.path == source:
        return skip
    return replace(skip, path=source, detail=f"{skip.path}: {skip.detail}", rival=skip.rival or skip.path)


# --- one function per operation ----------------------------------------------------------------------------------------


def _move(draft: _Draft, base: Step, operation: Move) -> None:
    entry = _source_entry(draft, operation.source)
    rival = draft.claimed.get(operation.target)
    at_target = draft.facts.entries.get(operation.target)
    other = operation.target if at_target is not None else rival[0] if rival else None
    same = other is not None and draft.facts.same.get((operation.source, other), False)
    verdict = resolve(occupied=other is not None, same=same)
    if verdict is Resolution.LEAVE and at_target is not None and operation.divergence is Divergence.TARGET:
        _set_aside(draft, base, operation.source)
    elif verdict is Resolution.LEAVE:
        detail = f"{other} has other content" if at_target is not None else f"{other} is to get the same name"
        raise _CannotError(operation.source, Reason.TARGET_EXISTS, f"{operation.target}: {detail}", rival=other or "")
    elif verdict is Resolution.RETIRE_SOURCE:
        if rival is not None and at_target is None:
            base = replace(base, group=rival[1])
        added = tuple((name, hashlib.sha256(content).hexdigest()) for name, content in operation.additions)
        retiring = replace(base, operation="Retire", additions=added)
        _put_away(draft, retiring, operation.source, twin=operation.target, why="duplicate")
    else:
        _transfer(draft, base, operation, entry)
    for folder in operation.also_retire:
        _retire_folder(draft, base, folder, leaving=operation.source)


def _transfer(draft: _Draft, base: Step, operation: Move, entry: Entry) -> None:
    target_domain = _prepare_parent(draft, base, operation.target)
    source_domain = draft.facts.domains[above(operation.source)]
    rename = draft.may_rename and source_domain.key == target_domain.key
    step = replace(
        _from_source(draft, base, operation.source),
        target=operation.target,
        target_home=target_domain.home,
        after=_attributes_in_slot(draft, operation.slot, entry.kind, operation.labels),
        sha256=operation.sha256,
        divergence=operation.divergence,
        shape=Shape.RENAME if rename else Shape.COPY,
    )
    if rename and draft.trial:
        # Both names have to be there until the trial is confirmed.
        rename = False
        step = replace(step, shape=Shape.COPY, method="link" if entry.kind is Kind.FILE else "copy")
    if not rename and step.method == "copy":
        _check_copy(draft, operation.source, source_domain, target_domain)
    _check_additions(draft, operation)
    if rename:
        for name, content in operation.additions:
            _add_file_inside(draft, base, operation, name, content)
    else:
        step = replace(step, additions=tuple((n, _remember(draft, c)) for n, c in operation.additions))
    draft.claimed[operation.target] = (operation.source, base.group)
    draft.add(step)


def _check_copy(draft: _Draft, source: str, source_domain: Domain, target_domain: Domain) -> None:
    """Refuse what a copy would lose, and say what it cannot keep."""
    tree = draft.facts.trees[source]
    refused = refusal(tree, target_domain)
    if refused is not None:
        raise _CannotError(source, refused.reason, refused.detail)
    spaces = draft.facts.spaces
    same = spaces[source_domain.home].filesystem == spaces[target_domain.home].filesystem
    draft.warnings.extend(losses(source, tree, target_domain, same_filesystem=same))


def _check_additions(draft: _Draft, operation: Move) -> None:
    there = draft.facts.trees[operation.source].top_names
    for name, _ in operation.additions:
        if name in there:
            raise _CannotError(operation.source, Reason.UNEXPECTED_CONTENT, f"it already has a {name}")


def _add_file_inside(draft: _Draft, base: Step, operation: Move, name: str, content: bytes) -> None:
    """Plan a file that goes into the source directory just before that is renamed as a whole."""
    path = f"{operation.source}/{name}"
    draft.add(
        replace(
            base,
            operation="Write",
            shape=Shape.CREATE,
            made_of="file",
            target=path,
            twin=f"{operation.target}/{name}",
            target_home=draft.facts.domains[above(path)].home,
            after=Attributes(mode=0o644, uid=0, gid=0),
            why=_remember(draft, content),
            size=len(content),
        ),
    )


def _copy(draft: _Draft, base: Step, operation: Copy) -> None:
    entry = _source_entry(draft, operation.source)
    _check_free(draft, operation.target)
    domain = _prepare_parent(draft, base, operation.target)
    draft.claimed[operation.target] = (operation.source, base.group)
    draft.add(
        replace(
            _from_source(draft, base, operation.source),
            shape=Shape.CREATE,
            made_of="copy",
            target=operation.target,
            target_home=domain.home,
            after=_attributes_in_slot(draft, operation.slot, entry.kind, ()),
        ),
    )


def _create(draft: _Draft, base: Step, target: str, made_of: str, why: str, after: Attributes) -> None:
    _check_free(draft, target)
    domain = _prepare_parent(draft, base, target)
    draft.claimed[target] = ("", base.group)
    draft.add(
        replace(base, shape=Shape.CREATE, made_of=made_of, target=target, target_home=domain.home, after=after, why=why),
    )


def _write(draft: _Draft, base: Step, operation: Write) -> None:
    after = _attributes_in_slot(draft, operation.slot, Kind.FILE, ())
    after = replace(after, mode=0o600 if after.mode is None else after.mode)
    _create(draft, base, operation.target, "file", _remember(draft, operation.content), after)


def _link(draft: _Draft, base: Step, operation: Link) -> None:
    if operation.leads_out:
        raise _CannotError(operation.target, Reason.UNEXPECTED_CONTENT, f"{operation.destination} leads out of the root")
    _create(draft, base, operation.target, "symlink", operation.destination, Attributes())


def _ensure_directory(draft: _Draft, base: Step, operation: EnsureDirectory) -> None:
    entry = draft.facts.entries.get(operation.target)
    if entry is None and operation.target not in draft.made:
        _create(draft, base, operation.target, "directory", "", _folder_attributes(draft, operation.target))
        draft.made[operation.target] = _prepare_parent(draft, base, operation.target)
    elif entry is not None and entry.kind is not Kind.DIRECTORY:
        raise _CannotError(operation.target, Reason.NOT_A_DIRECTORY, f"found a {entry.kind.value}")


def _retire(draft: _Draft, base: Step, operation: Retire) -> None:
    entry = _source_entry(draft, operation.source)
    if entry.kind is Kind.DIRECTORY:
        _retire_folder(draft, base, operation.source, leaving="")
    else:
        _put_away(draft, base, operation.source, twin=None, why=operation.why)


def _set_attributes(draft: _Draft, base: Step, operation: SetAttributes) -> None:
    entry = _source_entry(draft, operation.target)
    after = _attributes_in_slot(draft, operation.slot, entry.kind, ())
    domain = draft.facts.domains[above(operation.target)]
    draft.add(
        replace(
            base,
            shape=Shape.ADJUST,
            target=operation.target,
            target_home=domain.home,
            after=after,
            before=attributes_of(entry, after),
        ),
    )


def _lower(draft: _Draft, base: Step, operation: Operation) -> None:
    """Turn one operation into steps; the type checker sees to it that none is forgotten."""
    match operation:
        case Move():
            _move(draft, base, operation)
        case Copy():
            _copy(draft, base, operation)
        case Write():
            _write(draft, base, operation)
        case Link():
            _link(draft, base, operation)
        case EnsureDirectory():
            _ensure_directory(draft, base, operation)
        case Retire():
            _retire(draft, base, operation)
        case SetAttributes():
            _set_attributes(draft, base, operation)


# --- what they share ---------------------------------------------------------------------------------------------------


def _source_entry(draft: _Draft, path: str) -> Entry:
    """Return the facts of a source that can be worked with; otherwise say why not."""
    entry = draft.facts.entries.get(path)
    if entry is None:
        raise _CannotError(path, Reason.CHANGED_MEANWHILE, "it is gone")
    if path in draft.facts.unreadable:
        raise _CannotError(path, Reason.DISK_FAILED, draft.facts.unreadable[path])
    tree = draft.facts.trees.get(path)
    if tree is not None and tree.mounts:
        raise _CannotError(path, Reason.IN_USE, f"{tree.mounts[0]} is a mount point")
    fixed = [p for p in (path, above(path)) if p in draft.facts.fixed] + list(tree.immutable if tree else ())
    if fixed:
        raise _CannotError(path, Reason.IMMUTABLE, f"{fixed[0]} is immutable or append-only", rival=fixed[0])
    return entry


def _check_free(draft: _Draft, target: str) -> None:
    if draft.facts.entries.get(target) is not None or target in draft.claimed:
        raise _CannotError(target, Reason.TARGET_EXISTS, "the name is taken")


def _from_source(draft: _Draft, base: Step, source: str) -> Step:
    entry, tree = _source_entry(draft, source), draft.facts.trees[source]
    return replace(
        base,
        source=source,
        source_home=draft.facts.domains[above(source)].home,
        before=attributes_of(entry, None),
        expected=Precondition.of(entry, tree.fingerprint),
        size=tree.size,
        allocated=tree.allocated,
        entries=tree.entries,
    )


def _put_away(draft: _Draft, base: Step, source: str, *, twin: str | None, why: str) -> None:
    step = _from_source(draft, base, source)
    entry = draft.facts.entries[source]
    made_of = "directory" if entry is not None and entry.kind is Kind.DIRECTORY else "file"
    made_of = "copy" if twin is not None else made_of
    draft.add(replace(step, shape=Shape.RETIRE, twin=twin, why=why, made_of=made_of))


def _set_aside(draft: _Draft, base: Step, source: str) -> None:
    """Plan to keep a source aside, because what lies at its target counts."""
    step = _from_source(draft, replace(base, operation="SetAside"), source)
    draft.add(replace(step, shape=Shape.RETIRE, keeps=True, why=Reason.DIVERGED.value))


def _retire_folder(draft: _Draft, base: Step, folder: str, *, leaving: str) -> None:
    """Plan to put away a directory that is, or will be once `leaving` has gone, empty."""
    entry = _source_entry(draft, folder)
    inside = draft.facts.trees[folder].top_names
    if any(f"{folder}/{name}" != leaving for name in inside):
        raise _CannotError(folder, Reason.UNEXPECTED_CONTENT, "it is not empty")
    step = _from_source(draft, replace(base, operation="Retire"), folder)
    # Its inside changes on the way, so only the directory itself is what must stay the same.
    expected = Precondition(identity=entry.identity, kind=entry.kind.value, size=0, mtime_ns=0, fingerprint="")
    draft.add(replace(step, shape=Shape.RETIRE, made_of="directory", why="emptied", expected=expected, size=0, allocated=0))


def _prepare_parent(draft: _Draft, base: Step, target: str) -> Domain:
    """Plan every missing directory above a target; returns the domain in which the target will lie."""
    missing, folder = [], above(target)
    while folder not in draft.made and draft.facts.entries.get(folder) is None:
        missing.append(folder)
        folder = above(folder)
    if folder in draft.made:
        domain = draft.made[folder]
    else:
        _check_folder(draft, target, folder)
        domain = draft.facts.domains[folder]
    for path in reversed(missing):
        step = replace(base, operation="EnsureDirectory", shape=Shape.CREATE, made_of="directory", target=path)
        draft.add(replace(step, target_home=domain.home, after=_folder_attributes(draft, path), source=None, group=0))
        draft.made[path] = domain
    return domain


def _check_folder(draft: _Draft, target: str, folder: str) -> None:
    entry = draft.facts.entries[folder]
    if entry is not None and entry.kind is not Kind.DIRECTORY:
        raise _CannotError(target, Reason.NOT_A_DIRECTORY, f"{folder} is a {entry.kind.value}", rival=folder)
    if folder in draft.facts.fixed:
        raise _CannotError(target, Reason.IMMUTABLE, f"{folder} is immutable or append-only", rival=folder)


def _folder_attributes(draft: _Draft, path: str) -> Attributes:
    slot = next((s for s in draft.layout.slots if s.directory == path), None)
    owner = slot or draft.layout.owner_of(path)
    uid, gid = draft.agents.get(owner.owner if owner else "", (0, 0))
    mode = slot.mode if slot else _DEFAULT_FOLDER_MODE
    return Attributes(mode=mode, uid=uid, gid=gid)


def _attributes_in_slot(draft: _Draft, name: str, kind: Kind, labels: tuple[tuple[str, str], ...]) -> Attributes:
    slot = draft.layout.slot(name)
    uid, gid = draft.agents.get(slot.owner, (0, 0))
    mode = slot.entry_mode if kind is not Kind.DIRECTORY else None
    return Attributes(mode=mode, uid=uid, gid=gid, labels=labels)


def _remember(draft: _Draft, content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    draft.contents[digest] = content
    return digest
