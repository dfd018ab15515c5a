"""What goes over piece by piece, because there is no room for a copy of it. Pure.

Only what leaves as much room as it takes can do so: its source lies on the same file system, has no names elsewhere, and nothing
in it forbids to be written to.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from upgradeconverter.model.entry import Kind
from upgradeconverter.model.plan import Shape, Step

if TYPE_CHECKING:
    from collections.abc import Iterable

    from upgradeconverter.model.entry import Space, TreeFacts

# Content goes over in pieces of whole chunks of this many bytes; see `disk.manifest`.
CHUNK = 1 << 20
# More at a time is not faster, and is done anew after a power cut.
_LARGEST_PIECE = 64 << 20
# What an inode and its name take without content, at the most usual (ext4 makes room for inodes in advance, xfs takes 512 bytes).
_HOLLOW = 512
# A file that must not be written to (`i`, `a`, and `V`, whose content is sealed; chattr(1)).
_SEALED = frozenset("iaV")
_KINDS = (Kind.FILE.value, Kind.DIRECTORY.value)


def room_passing(step: Step, block_size: int) -> int:
    """Return how many bytes a stream takes at its fullest moment: a piece, and all that is no content."""
    return step.piece + _room_hollow(step, block_size)


def _room_hollow(step: Step, block_size: int) -> int:
    return step.entries * _HOLLOW + (2 + len(step.additions)) * block_size


def can_go_over(step: Step, tree: TreeFacts) -> bool:
    """Return whether the content of what a step copies can be taken over piece by piece."""
    is_fit = step.shape is Shape.COPY and step.method == "copy" and step.operation != "Copy"
    is_own = not tree.shared and not tree.mounts and not tree.immutable and not _SEALED & set(tree.flags)
    return is_fit and is_own and step.expected is not None and step.expected.kind in _KINDS


def as_stream(step: Step, space: Space, usable: int) -> Step | None:
    """Return a copy as a stream in pieces that fit into `usable` bytes, or None where not even the smallest does.

    Half of it stays free: what was let go is given out anew only when the file system has written that down.
    """
    piece = min(_LARGEST_PIECE, (usable - _room_hollow(step, space.block_size)) // 2 // CHUNK * CHUNK)
    return replace(step, shape=Shape.STREAM, piece=piece) if piece >= CHUNK else None


def the_copy(group: Iterable[Step]) -> Step | None:
    """Return the one copy of a group that does nothing else but put away the directories around it, or None."""
    copies = [step for step in group if step.shape is Shape.COPY]
    rest = [step for step in group if step.shape is not Shape.COPY]
    is_simple = all(step.shape is Shape.RETIRE and step.made_of == "directory" for step in rest)
    return copies[0] if len(copies) == 1 and is_simple else None
