"""What a copy cannot keep: refused, or said before anything happens. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from upgradeconverter.model.entry import Kind
from upgradeconverter.model.outcome import Reason
from upgradeconverter.model.plan import Shape

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from upgradeconverter.model.entry import Domain, SharedFile, TreeFacts
    from upgradeconverter.model.plan import Attributes, Step, Wave
    from upgradeconverter.planning.facts import Facts


class Refusal(NamedTuple):
    """Why something must not be copied."""

    reason: Reason
    detail: str


def refusal(tree: TreeFacts, target: Domain) -> Refusal | None:
    """Return why a tree must not be copied to a domain, or None."""
    if tree.zones:
        return Refusal(Reason.UNEXPECTED_CONTENT, f"{tree.zones[0]} has an encryption of its own, which a copy loses")
    if tree.fixed_inside:
        return Refusal(Reason.IMMUTABLE, f"{tree.fixed_inside} is immutable or append-only, and gets no further name")
    if tree.longest_link > target.longest_link:
        detail = f"a symbolic link of {tree.longest_link} bytes in it can have no more than {target.longest_link} there"
        return Refusal(Reason.UNEXPECTED_CONTENT, detail)
    return None


def losses(source: str, tree: TreeFacts, target: Domain, *, same_filesystem: bool) -> Iterator[str]:
    """Yield what a copy of a tree cannot keep in a domain, in words."""
    flags = "".join(letter for letter in tree.flags if letter not in (*target.flags, "P"))
    if flags:
        yield f"{source}: the flags {flags} (chattr) in it cannot be kept"
    if (tree.projects or "P" in tree.flags) and not _keeps_projects(tree, target, same_filesystem=same_filesystem):
        numbers = ", ".join(str(number) for number in tree.projects) or "0"
        gets = f", as all there belongs to {target.project}" if target.project is not None else ""
        yield f"{source}: that things in it belong to the quota projects {numbers} cannot be kept{gets}"
    if tree.xattrs:
        yield f"{source}: the extended attributes {', '.join(tree.xattrs)} in it cannot be kept"
    if tree.hints:
        yield f"{source}: hints for the allocator of its file system cannot be kept"


def _keeps_projects(tree: TreeFacts, target: Domain, *, same_filesystem: bool) -> bool:
    if target.project is not None:
        return tree.projects == (target.project,)
    return same_filesystem or target.any_project


def parted(waves: Iterable[Wave], facts: Facts) -> Iterator[str]:
    """Yield, in words, which copies of a file with several names become files of their own.

    Names that are copied to one domain in one transaction stay names of one file.
    """
    for wave in waves:
        steps = [step for step in wave.steps if step.shape is Shape.COPY and step.method == "copy" and step.source is not None]
        met: Counter[tuple[str, str, Attributes | None]] = Counter()
        for step in steps:
            for file in _shared(step, facts):
                met[_key(step, file, facts)] += file.inside
        for step in steps:
            alone = sum(_is_parted(step, file, met[_key(step, file, facts)], facts) for file in _shared(step, facts))
            if alone:
                yield f"{step.source}: {alone} files in it have names elsewhere too; what is copied is a file of its own"


def _shared(step: Step, facts: Facts) -> tuple[SharedFile, ...]:
    return facts.trees[step.source or ""].shared


def _key(step: Step, file: SharedFile, facts: Facts) -> tuple[str, str, Attributes | None]:
    return step.target_home, file.identity, step.after if _is_file(step, facts) else None


def _is_file(step: Step, facts: Facts) -> bool:
    entry = facts.entries.get(step.source or "")
    return entry is not None and entry.kind is not Kind.DIRECTORY


def _is_parted(step: Step, file: SharedFile, met: int, facts: Facts) -> bool:
    # What has to have a digest is read and written on its own.
    return met < file.links or (step.sha256 is not None and _is_file(step, facts))
