"""Which of the planned steps fit on the disk, and which share a transaction. Pure.

A group that does not fit beside its copy is left out by name. Waves are bounded, and so is the work that a power cut costs.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from upgradeconverter.model.operation import Skip
from upgradeconverter.model.outcome import Reason
from upgradeconverter.model.plan import Need, Shape, Step, Wave
from upgradeconverter.planning.facts import Facts, above

if TYPE_CHECKING:
    from collections.abc import Iterable

    from upgradeconverter.model.entry import Space

# One transaction is bounded so that a power cut costs at most this much repeated work (bytes) and a short journal line.
WAVE_BYTES = 4 << 30
WAVE_STEPS = 1000


def _reserve(free: int) -> int:
    """Return the bytes that are never planned with: journal, directories, and what others write meanwhile."""
    return max(1 << 20, min(16 << 20, free // 50))


def _needed(step: Step, block: int) -> int:
    """Return the bytes that a step takes while its source is still there."""
    if step.shape is Shape.COPY or step.made_of == "copy":
        return step.allocated + step.entries * block
    return block if step.shape is Shape.CREATE else 0


def fit(planned: Iterable[Step], facts: Facts) -> tuple[tuple[Step, ...], tuple[Skip, ...], tuple[Need, ...]]:
    """Leave out the groups that do not fit beside what is planned before them, and say what the rest needs."""
    planned = tuple(planned)
    bytes_needed: Counter[str] = Counter()
    inodes_needed: Counter[str] = Counter()
    short: list[Skip] = []
    dropped: set[int] = set()
    spaces = facts.spaces
    for group in dict.fromkeys(step.group for step in planned):
        steps = [step for step in planned if step.group == group]
        wanted: Counter[str] = Counter()
        inodes: Counter[str] = Counter()
        for step in steps:
            space = spaces[step.target_home]
            wanted[space.filesystem] += _needed(step, space.block_size)
            inodes[space.filesystem] += step.entries if _needed(step, space.block_size) else 0
        problem = _shortage(spaces.values(), bytes_needed + wanted, inodes_needed + inodes, set(+wanted))
        if problem and group != 0:
            dropped.add(group)
            short.extend(Skip(path=s.source, reason=Reason.NO_SPACE, detail=problem) for s in steps if s.source and s.target)
            continue
        bytes_needed, inodes_needed = bytes_needed + wanted, inodes_needed + inodes
    needs = {
        s.filesystem: Need(
            filesystem=s.filesystem,
            free=s.free,
            needed=bytes_needed[s.filesystem],
            reserve=_reserve(s.free),
            free_inodes=s.free_inodes,
            needed_inodes=inodes_needed[s.filesystem],
        )
        for s in spaces.values()
        if bytes_needed[s.filesystem]
    }
    kept = tuple(step for step in planned if step.group not in dropped)
    return _without_idle_folders(kept), tuple(short), tuple(needs[name] for name in sorted(needs))


def _shortage(spaces: Iterable[Space], wanted: Counter[str], inodes: Counter[str], where: set[str]) -> str:
    for space in spaces:
        if space.filesystem not in where:
            continue
        usable = space.free - _reserve(space.free)
        if wanted[space.filesystem] > usable:
            return f"file system {space.filesystem}: needs {wanted[space.filesystem]} bytes, {max(usable, 0)} usable"
        if inodes[space.filesystem] > space.free_inodes:
            return f"file system {space.filesystem}: needs {inodes[space.filesystem]} inodes, {space.free_inodes} free"
    return ""


def _without_idle_folders(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Leave out new directories into which nothing goes any more, and number the rest anew."""
    wanted: set[str] = set()
    kept: list[Step] = []
    for step in reversed(steps):
        if step.group == 0 and step.target not in wanted:
            continue
        if step.target is not None:
            wanted.add(above(step.target))
        kept.append(step)
    return tuple(replace(step, number=number) for number, step in enumerate(reversed(kept)))


def waves_of(steps: tuple[Step, ...], facts: Facts) -> tuple[Wave, ...]:
    """Return the steps bundled into transactions, new directories first, groups never torn apart."""
    waves: list[Wave] = []
    current: list[Step] = []
    size = 0
    groups = dict.fromkeys(step.group for step in steps)
    bundles = [[s for s in steps if s.group == g] for g in groups if g != 0]
    folders = [step for step in steps if step.group == 0]
    current.extend(folders)
    for bundle in bundles:
        weight = sum(s.allocated for s in bundle if s.shape is Shape.COPY)
        if current and (size + weight > WAVE_BYTES or len(current) + len(bundle) > WAVE_STEPS) and size:
            waves.append(_wave(current, facts))
            current, size = [], 0
        current.extend(bundle)
        size += weight or 1
    if current:
        waves.append(_wave(current, facts))
    return tuple(waves)


def _wave(steps: list[Step], facts: Facts) -> Wave:
    holders = dict.fromkeys(above(p) for step in steps for p in (step.source, step.target) if p)
    homes = dict.fromkeys(home for step in steps for home in (step.source_home, step.target_home, ""))
    touched = _times(facts, (*homes, *holders))
    # Where only the engine's own folder came and went, nothing shall tell of it.
    unchanged = _times(facts, (home for home in homes if home not in holders))
    return Wave(steps=tuple(steps), touched=touched, restore=unchanged + _inner_times(steps, facts))


def _times(facts: Facts, paths: Iterable[str]) -> tuple[tuple[str, int, int], ...]:
    found = ((path, facts.entries.get(path)) for path in dict.fromkeys(paths))
    return tuple((path, entry.atime_ns, entry.mtime_ns) for path, entry in found if entry is not None)


def _inner_times(steps: list[Step], facts: Facts) -> tuple[tuple[str, int, int], ...]:
    """Return the times of directories that get a file inside before they are renamed, under their new names."""
    grown = {above(s.target) for s in steps if s.shape is Shape.CREATE and s.target is not None}
    found = []
    for step in steps:
        entry = facts.entries.get(step.source) if step.source is not None else None
        if step.shape is Shape.RENAME and step.source in grown and entry is not None and step.target is not None:
            found.append((step.target, entry.atime_ns, entry.mtime_ns))
    return tuple(found)
