"""Proposals and facts become a plan: order, preconditions, shapes, groups, waves, space. Pure (D9).

Guarantees: no step of the plan replaces anything; every path it names was looked at; what cannot be done is a skip with a reason;
the same input gives the same plan, whatever order the disk listed things in.

Must not know: the disk, the clock, any pack.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from msgspec.structs import replace

from upgradeconverter.model.entry import Kind
from upgradeconverter.model.operation import (
    Copy,
    Divergence,
    EnsureDirectory,
    Link,
    Move,
    Operation,
    Proposal,
    Relocate,
    Retire,
    Rewrite,
    SetAttributes,
    Skip,
    Write,
)
from upgradeconverter.model.outcome import Reason
from upgradeconverter.model.plan import Attributes, Plan, Shape, Step, Trial
from upgradeconverter.planning.conflict import Resolution, resolve
from upgradeconverter.planning.draft import CannotError, Draft, check_name
from upgradeconverter.planning.facts import Facts, above, attributes_of
from upgradeconverter.planning.fitting import fit
from upgradeconverter.planning.losses import losses, parted, refusal
from upgradeconverter.planning.refusing import refused_by
from upgradeconverter.planning.rewriting import rewrite, write_beside

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from upgradeconverter.model.entry import Domain, Entry
    from upgradeconverter.model.layout import Layout


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
    """Return the plan that carries out the proposals; StateRefusedError where one that is whole cannot be carried out.

    Agents without (uid, gid) are root; `found` are the skips of the scan; without `may_rename` everything is copied; with a
    `trial` sources stay until it is confirmed; `pending` are sources that wait for that already.
    """
    draft = Draft(
        facts=facts,
        layout=layout,
        agents=agents,
        may_rename=may_rename,
        trial=trial is not None,
        at_once=trial.at_once if trial is not None else frozenset(),
        pending=pending,
    )
    warnings += _take_in(draft, proposals)
    draft.skips.extend(_strangers(draft, found))
    fitting = fit(draft.steps, draft.facts, trial)
    if draft.whole & fitting.left_out:
        # Half of what only makes sense as a whole helps nobody.
        raise refused_by(fitting.short or (Skip(path="", reason=Reason.NO_SPACE, detail="there is no room for what is made"),))
    # What waits for a trial to be confirmed is in nobody's way, whatever became of it.
    left = (skip for skip in (*found, *draft.skips, *fitting.short) if skip.path not in pending)
    skips = sorted(left, key=lambda skip: (os.fsencode(skip.path), skip.reason))
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


def _take_in(draft: Draft, proposals: Iterable[Proposal]) -> tuple[str, ...]:
    """Make steps of all operations, and keep none of these; returns the warnings."""
    warnings: tuple[str, ...] = ()
    for proposal in proposals:
        draft.skips.extend(proposal.skips)
        warnings += proposal.warnings
        if proposal.whole:
            draft.begin()
            draft.whole.add(draft.group)
            for operation in proposal.operations:
                if problem := _add_operation(draft, proposal.migration, operation):
                    raise refused_by((problem,))
            continue
        for operation in proposal.operations:
            mark = draft.begin()
            if problem := _add_operation(draft, proposal.migration, operation):
                draft.take_back(mark)
                draft.skips.append(problem)
    return warnings


def _add_operation(draft: Draft, migration: str, operation: Operation) -> Skip | None:
    """Add an operation to the open group; returns why it cannot be carried out."""
    if _waits(draft, operation):
        return None
    base = Step(number=0, group=draft.group, migration=migration, operation=type(operation).__name__, shape=Shape.RENAME)
    try:
        check_name(getattr(operation, "target", None) or "")
        _lower(draft, base, operation)
    except CannotError as cannot:
        return _named_by_source(operation, cannot.skip)
    return None


def _waits(draft: Draft, operation: Operation) -> bool:
    """Return whether what an operation takes waits for a trial to be confirmed."""
    is_once_empty = isinstance(operation, Retire) and operation.once_empty
    return getattr(operation, "source", None) in draft.pending and not is_once_empty


def _named_by_source(operation: Operation, skip: Skip) -> Skip:
    """Report what stays behind under the name that it has, not the one that it was to get."""
    source = getattr(operation, "source", None)
    if source is None or skip.path == source:
        return skip
    return replace(skip, path=source, detail=f"{skip.path}: {skip.detail}", rival=skip.rival or skip.path)


# --- one function per operation ----------------------------------------------------------------------------------------


def _move(draft: Draft, base: Step, operation: Move) -> None:
    draft.take(operation.source)
    entry = draft.source_entry(operation.source)
    rival = draft.claimed.get(operation.target)
    at_target = draft.facts.entries.get(operation.target)
    other = operation.target if at_target is not None else rival[0] if rival else None
    same = other is not None and draft.facts.same.get((operation.source, other), False)
    verdict = resolve(occupied=other is not None, same=same)
    if verdict is Resolution.LEAVE and at_target is not None and operation.divergence is Divergence.TARGET:
        draft.set_aside(base, operation.source)
    elif verdict is Resolution.LEAVE and at_target is not None and operation.divergence is Divergence.SOURCE:
        draft.displace(base, operation.target, Reason.DIVERGED)
        _transfer(draft, base, operation, entry)
    elif verdict is Resolution.LEAVE:
        if (operation.source, other) in draft.facts.misnamed:
            detail = f"neither it nor {other}, which is like it, has SHA-256 {operation.sha256}"
            raise CannotError(operation.source, Reason.DIGEST_MISMATCH, detail, rival=other or "")
        detail = f"{other} has other content" if at_target is not None else f"{other} is to get the same name"
        raise CannotError(operation.source, Reason.TARGET_EXISTS, f"{operation.target}: {detail}", rival=other or "")
    elif verdict is Resolution.RETIRE_SOURCE:
        if rival is not None and at_target is None:
            base = replace(base, group=rival[1])
        added = tuple((name, hashlib.sha256(content).hexdigest()) for name, content in operation.additions)
        retiring = replace(base, operation="Retire", additions=added, divergence=operation.divergence, sha256=operation.sha256)
        draft.put_away(retiring, operation.source, twin=operation.target, why="duplicate")
    else:
        _transfer(draft, base, operation, entry)
    for folder in operation.also_retire:
        draft.retire_folder(base, folder, leaving=(operation.source,))


def _transfer(draft: Draft, base: Step, operation: Move, entry: Entry) -> None:
    target_domain = draft.prepare_parent(base, operation.target)
    source_domain = draft.facts.domains[above(operation.source)]
    rename = draft.may_rename and source_domain.key == target_domain.key
    step = draft.from_source(
        base,
        operation.source,
        target=operation.target,
        target_home=target_domain.home,
        after=draft.attributes_in_slot(operation.slot, entry, operation.labels),
        sha256=operation.sha256,
        divergence=operation.divergence,
        shape=Shape.RENAME if rename else Shape.COPY,
    )
    if rename and draft.trial and operation.source not in draft.at_once:
        # Both names have to be there until the trial is confirmed.
        rename = False
        shares = entry.kind is Kind.FILE and _stays_readable(entry, step.after)
        step = replace(step, shape=Shape.COPY, method="link" if shares else "copy")
    if not rename and step.method == "copy":
        _check_copy(draft, operation.source, source_domain, target_domain)
    _check_additions(draft, operation)
    if rename:
        for name, content in operation.additions:
            _add_file_inside(draft, base, operation, name, content)
    else:
        step = replace(step, additions=tuple((n, draft.remember(c)) for n, c in operation.additions))
    draft.claim(operation.target, operation.source, base.group)
    draft.add(step)


def _stays_readable(entry: Entry, after: Attributes) -> bool:
    """Return whether who reads a file of the old layout still can when it has got the attributes of the new one."""
    is_given_away = after.uid not in (None, entry.uid) or after.gid not in (None, entry.gid)
    return not is_given_away and (after.mode is None or not entry.mode & 0o444 & ~after.mode)


def _check_copy(draft: Draft, source: str, source_domain: Domain, target_domain: Domain) -> None:
    """Refuse what a copy would lose, and say what it cannot keep."""
    tree = draft.facts.trees[source]
    refused = refusal(tree, target_domain)
    if refused is not None:
        raise CannotError(source, refused.reason, refused.detail)
    spaces = draft.facts.spaces
    same = spaces[source_domain.home].filesystem == spaces[target_domain.home].filesystem
    draft.warnings.extend(losses(source, tree, target_domain, same_filesystem=same))


def _check_additions(draft: Draft, operation: Move) -> None:
    for name, _ in operation.additions:
        if draft.facts.entries.get(f"{operation.source}/{name}") is not None:
            raise CannotError(operation.source, Reason.UNEXPECTED_CONTENT, f"it already has a {name}")


def _add_file_inside(draft: Draft, base: Step, operation: Move, name: str, content: bytes) -> None:
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
            why=draft.remember(content),
            size=len(content),
        ),
    )


def _copy(draft: Draft, base: Step, operation: Copy) -> None:
    entry = draft.source_entry(operation.source)
    draft.check_free(operation.target)
    domain = draft.prepare_parent(base, operation.target)
    draft.claim(operation.target, operation.source, base.group)
    draft.add(
        replace(
            draft.from_source(base, operation.source),
            shape=Shape.CREATE,
            made_of="copy",
            target=operation.target,
            target_home=domain.home,
            after=draft.attributes_in_slot(operation.slot, entry),
        ),
    )


def _relocate(draft: Draft, base: Step, operation: Relocate) -> None:
    entry = draft.source_entry(operation.source)
    draft.check_free(operation.target)
    domain = draft.prepare_parent(base, operation.target)
    _check_copy(draft, operation.source, draft.facts.domains[above(operation.source)], domain)
    copied = replace(draft.from_source(base, operation.source), shape=Shape.CREATE, made_of="copy", target=operation.target)
    after = draft.attributes_in_slot(operation.slot, entry)
    draft.add(replace(copied, target_home=domain.home, after=after))
    draft.displace(base, operation.source, Reason.REWRITTEN)
    link = replace(base, shape=Shape.CREATE, made_of="symlink", target=operation.source, why=operation.destination)
    draft.add(replace(link, target_home=draft.facts.domains[above(operation.source)].home, after=Attributes()))
    draft.claim(operation.target, operation.source, base.group)
    draft.claim(operation.source, "", base.group)


def _create(draft: Draft, base: Step, target: str, made_of: str, why: str, after: Attributes) -> None:
    draft.check_free(target)
    domain = draft.prepare_parent(base, target)
    draft.claim(target, "", base.group)
    draft.add(
        replace(base, shape=Shape.CREATE, made_of=made_of, target=target, target_home=domain.home, after=after, why=why),
    )


def _write(draft: Draft, base: Step, operation: Write) -> None:
    after = draft.attributes_of_new(operation.slot)
    _create(draft, base, operation.target, "file", draft.remember(operation.content), after)
    write_beside(draft, base, operation.beside)


def _link(draft: Draft, base: Step, operation: Link) -> None:
    if operation.leads_out:
        raise CannotError(operation.target, Reason.UNEXPECTED_CONTENT, f"{operation.destination} leads out of the root")
    _create(draft, base, operation.target, "symlink", operation.destination, Attributes())


def _ensure_directory(draft: Draft, base: Step, operation: EnsureDirectory) -> None:
    entry = draft.facts.entries.get(operation.target)
    if entry is None and operation.target not in draft.made:
        _create(draft, base, operation.target, "directory", "", draft.folder_attributes(operation.target))
        draft.note_made(operation.target, draft.prepare_parent(base, operation.target))
    elif entry is not None and entry.kind is not Kind.DIRECTORY:
        raise CannotError(operation.target, Reason.NOT_A_DIRECTORY, f"found a {entry.kind.value}")


def _retire(draft: Draft, base: Step, operation: Retire) -> None:
    if operation.once_empty:
        _retire_once_empty(draft, base, operation.source)
        return
    entry = draft.source_entry(operation.source)
    if entry.kind is Kind.DIRECTORY and not operation.whole:
        draft.retire_folder(base, operation.source, leaving=())
    elif operation.keeps:
        aside = replace(base, operation="SetAside", keeps=True)
        draft.put_away(aside, operation.source, twin=None, why=Reason.NO_READER.value)
    else:
        draft.put_away(base, operation.source, twin=None, why=operation.why)


def _strangers(draft: Draft, found: Iterable[Skip]) -> list[Skip]:
    """Return a skip for each entry that keeps a directory from being emptied, and that nobody has said anything about."""
    told = {skip.path for skip in (*found, *draft.skips)}
    known: set[str] = set()
    for path in (*told, *(step.source or "" for step in draft.steps), *draft.pending, *draft.once_empty):
        # What lies in a directory speaks for that as well.
        while path and path not in known:
            known.add(path)
            path = above(path)  # noqa: PLW2901 - goes up from each
    strangers = []
    for folder in draft.once_empty:
        tree = draft.facts.trees.get(folder)
        is_told = any(f"{folder}/".startswith(f"{path}/") for path in told)
        inside = [f"{folder}/{name}" for name in tree.top_names] if tree is not None and not is_told else []
        unknown = (path for path in inside if path not in known)
        strangers += [Skip(path=path, reason=Reason.NAME_NOT_RECOGNISED, detail=f"it keeps {folder}") for path in unknown]
    return strangers


def _retire_once_empty(draft: Draft, base: Step, folder: str) -> None:
    draft.once_empty.append(folder)
    entry = draft.facts.entries.get(folder)
    if entry is None or entry.kind is not Kind.DIRECTORY:
        return
    if folder in draft.facts.unreadable:
        draft.skips.append(Skip(path=folder, reason=Reason.DISK_FAILED, detail=draft.facts.unreadable[folder]))
        return
    goes = {step.source or "" for step in draft.steps if step.operation != "Copy" and step.shape is not Shape.CREATE}
    if folder in goes:
        return
    leaving = {f"{folder}/{name}" for name in draft.facts.trees[folder].top_names}
    # What waits to be confirmed goes with what it was planned for, unless something in it is converted anew.
    is_wanted = folder not in draft.pending or any(path.startswith(f"{folder}/") for path in goes)
    if is_wanted and leaving <= goes | draft.pending:
        # It may be a mount point, or immutable; then it simply stays.
        with suppress(CannotError):
            draft.retire_folder(replace(base, once_empty=True), folder, leaving=leaving)


def _set_attributes(draft: Draft, base: Step, operation: SetAttributes) -> None:
    entry = draft.source_entry(operation.target)
    after = draft.attributes_in_slot(operation.slot, entry)
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


def _lower(draft: Draft, base: Step, operation: Operation) -> None:  # noqa: C901 - one case for each operation
    """Turn one operation into steps; the type checker sees to it that none is forgotten."""
    match operation:
        case Move():
            _move(draft, base, operation)
        case Copy():
            _copy(draft, base, operation)
        case Write():
            _write(draft, base, operation)
        case Rewrite():
            rewrite(draft, base, operation)
        case Relocate():
            _relocate(draft, base, operation)
        case Link():
            _link(draft, base, operation)
        case EnsureDirectory():
            _ensure_directory(draft, base, operation)
        case Retire():
            _retire(draft, base, operation)
        case SetAttributes():
            _set_attributes(draft, base, operation)
