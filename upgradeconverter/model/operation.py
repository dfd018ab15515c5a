"""The closed set of operations. Each is pure data and knows the paths it reads and writes; packs yield them, never act.

Adding one is a decision of its own: planner, stage, flip, undo, recovery rows and model-disk tests.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct, field

if TYPE_CHECKING:
    from upgradeconverter.model.outcome import Reason


class Divergence(StrEnum):
    """What becomes of two versions of one artifact, under its old and its new name, that both count for something.

    ASK: both stay where they are, and are named. TARGET: the new one stays, the old one is set aside. SOURCE: the old one is
    converted, the new one is set aside. NEWEST: the one that was
    written to last stays, where that is known, and the other one is set aside; else as ASK. Clocks do not tell: what the old
    system writes after a trial began is newer than what the new one wrote before, since each start looks for that first.
    """

    ASK = "ask"
    TARGET = "target"
    SOURCE = "source"
    NEWEST = "newest"


class Move(Struct, frozen=True, kw_only=True):
    """Take what lies at `source` to `target`.

    Attributes:
        sha256: digest that the name claims; content that does not have it is set aside, never published.
        additions: small files (path inside, content) that must be in a directory before it is published.
        labels: our own xattrs to set, by name without prefix.
        slot: slot of the target layout that says owner and mode.
        also_retire: directories that are empty once the source has gone, to be put away with it.
        divergence: what becomes of source and target where both are there with different content.
    """

    source: str
    target: str
    slot: str
    sha256: str | None = None
    additions: tuple[tuple[str, bytes], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    also_retire: tuple[str, ...] = ()
    divergence: Divergence = Divergence.ASK


class Copy(Struct, frozen=True, kw_only=True):
    """Make `target` like `source` and keep the source."""

    source: str
    target: str
    slot: str


class Note(Struct, frozen=True):
    """A small file that is written together with another one, in the place of whatever lies there."""

    target: str
    content: bytes
    slot: str


class Write(Struct, frozen=True, kw_only=True):
    """Make a small new file.

    Attributes:
        beside: see `Rewrite`.
    """

    target: str
    content: bytes
    slot: str
    beside: tuple[Note, ...] = ()


class Rewrite(Struct, frozen=True, kw_only=True):
    """Make a small file of what another one says, and set that aside; `target` may be the very same place.

    Attributes:
        basis: SHA-256 of what the source said when this was decided.
        divergence: what becomes of source and target where another file is at the target.
        of_target: whether the content is made of what is at the target, so that the source is what does not count.
        also_retire: see `Move`; files are set aside as well.
        beside: what is written with it, or not at all.
    """

    source: str
    target: str
    content: bytes
    basis: str
    slot: str
    divergence: Divergence = Divergence.ASK
    of_target: bool = False
    also_retire: tuple[str, ...] = ()
    beside: tuple[Note, ...] = ()


class Relocate(Struct, frozen=True, kw_only=True):
    """Copy a directory to another place, set it aside, and leave a relative link for readers that know no other name."""

    source: str
    target: str
    slot: str

    @property
    def destination(self) -> str:
        """What the link says."""
        return "../" * self.source.count("/") + self.target


class Link(Struct, frozen=True, kw_only=True):
    """Make a symbolic link; the destination is relative and stays inside the root."""

    target: str
    destination: str
    slot: str

    @property
    def leads_out(self) -> bool:
        """Whether the destination is absolute or climbs above the root."""
        depth = self.target.count("/")
        for part in self.destination.split("/"):
            depth += -1 if part == ".." else 1
            if depth < 0:
                return True
        return self.destination.startswith("/")


class EnsureDirectory(Struct, frozen=True, kw_only=True):
    """Make a slot's directory where it is missing."""

    target: str
    slot: str


class Retire(Struct, frozen=True, kw_only=True):
    """Put away what the new layout does not need: an emptied directory, a leftover.

    Attributes:
        whole: whether a directory goes with everything in it; else only an empty one goes.
        keeps: whether it is set aside, where a rollback finds it, since only the running system does not read it.
        once_empty: whether it is a directory that goes where all that is in it does, and stays else, without a word.
    """

    source: str
    why: str
    whole: bool = False
    keeps: bool = False
    once_empty: bool = False


class SetAttributes(Struct, frozen=True, kw_only=True):
    """Give an existing path the owner and mode that its slot declares."""

    target: str
    slot: str


Operation = Move | Copy | Write | Rewrite | Relocate | Link | EnsureDirectory | Retire | SetAttributes


class Skip(Struct, frozen=True, kw_only=True):
    """Something stays where it is, and why; `rival` is another path on which that depends."""

    path: str
    reason: Reason
    detail: str = ""
    rival: str = ""


class Proposal(Struct, frozen=True, kw_only=True):
    """What one migration wants, in the pack's order.

    Attributes:
        skips: what stays where it is, and why.
        refusals: why nothing at all may be converted, by any migration.
        warnings: for the report.
        whole: whether the operations only make sense together: all are carried out in one transaction, or none.
    """

    migration: str
    operations: tuple[Operation, ...] = ()
    skips: tuple[Skip, ...] = ()
    refusals: tuple[Skip, ...] = ()
    warnings: tuple[str, ...] = field(default=())
    whole: bool = False
