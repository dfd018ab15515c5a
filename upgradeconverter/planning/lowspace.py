"""What goes over piece by piece, because there is no room for a copy of it. Pure.

Only what leaves as much room as it takes can do so: its source lies on the same file system, has no names elsewhere, and nothing
in it forbids to be written to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

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
_INODE = 512
# What is written down of each piece, in which there are so many files at the most; see `disk.streaming`.
_RECORD, _FILES = 512, 4096
# A file that must not be written to (`i`, `a`, and `V`, whose content is sealed; chattr(1)).
_SEALED = frozenset("iaV")
_KINDS = (Kind.FILE.value, Kind.DIRECTORY.value)


def can_go_over(step: Step, tree: TreeFacts) -> bool:
    """Return whether the content of what a step copies can be taken over piece by piece."""
    is_fit = step.shape is Shape.COPY and step.method == "copy" and step.operation != "Copy"
    is_own = not tree.shared and not tree.mounts and not tree.immutable and not _SEALED & set(tree.flags)
    return is_fit and is_own and step.expected is not None and step.expected.kind in _KINDS


def as_stream(step: Step, tree: TreeFacts, space: Space, usable: int) -> Step | None:
    """Return a copy as a stream in pieces that fit into `usable` bytes, or None where not even the smallest does.

    Room for a second piece stays free: what was let go is given out anew only when the file system has written that down.
    """
    bare = tree.bare + step.entries * _INODE + (2 + len(step.additions)) * space.block_size
    for piece in range(min(_LARGEST_PIECE, (usable - bare) // 2 // CHUNK * CHUNK), 0, -CHUNK):
        hollow = bare + _RECORD * (2 + step.allocated // piece + step.entries // _FILES)
        if hollow + 2 * piece <= usable:
            return replace(step, shape=Shape.STREAM, piece=piece, hollow=hollow)
    return None


def the_copy(group: Iterable[Step]) -> Step | None:
    """Return the one copy of a group that does nothing else but put away the directories around it, or None."""
    copies = [step for step in group if step.shape is Shape.COPY]
    rest = [step for step in group if step.shape is not Shape.COPY]
    is_simple = all(step.shape is Shape.RETIRE and step.made_of == "directory" for step in rest)
    return copies[0] if len(copies) == 1 and is_simple else None
