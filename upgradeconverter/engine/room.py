"""Lays the steps of a way back out so that there is room for them: all at once, one by one, or piece by piece.

What was converted may have been so because it fitted just once. Looks at the disk, and changes nothing.

Must not know: the journal, and what the steps take back.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from upgradeconverter.model.plan import Shape, Step
from upgradeconverter.planning.fitting import reserve, room_taken
from upgradeconverter.planning.lowspace import as_stream, can_go_over

if TYPE_CHECKING:
    from upgradeconverter.disk.port import Disk


def laid_out(disk: Disk, steps: tuple[Step, ...]) -> tuple[tuple[Step, ...], ...]:
    """Return steps in waves: first all that fit beside each other, then each of the others, then what those have emptied."""
    first, alone = _parted(disk, steps)
    if not alone:
        return (steps,)
    emptied = tuple(step for step in first if step.shape is Shape.RETIRE and step.made_of == "directory")
    waves = (tuple(step for step in first if step not in emptied), *((step,) for step in alone), emptied)
    return tuple(wave for wave in waves if wave)


def _parted(disk: Disk, steps: tuple[Step, ...]) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """Return what fits together, and the copies that go on their own, each in the form that fits then."""
    taken: Counter[str] = Counter()
    first, alone = [], []
    for step in steps:
        if step.shape is not Shape.COPY and step.made_of != "copy":
            first.append(step)
            continue
        space = disk.space(step.target_home)
        usable, wanted = space.free - reserve(space.free), room_taken(step, space.block_size)
        if taken[space.filesystem] + wanted <= usable:
            taken[space.filesystem] += wanted
            first.append(step)
        else:
            alone.append(step if wanted <= usable else _passing(disk, step, usable))
    return tuple(first), tuple(alone)


def _passing(disk: Disk, step: Step, usable: int) -> Step:
    """Return a copy for which there is no room as a stream, where it can be one; else it is left alone by name."""
    here, there = disk.space(step.source_home), disk.space(step.target_home)
    tree = disk.survey(step.source or "", closely=True)
    if here.filesystem != there.filesystem or not can_go_over(step, tree):
        return step
    return as_stream(step, tree, there, usable) or step
