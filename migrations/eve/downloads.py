"""What is being downloaded or verified moves to its agent's own directory in the vault, and nothing in its name tells what it is.

EVE's own converter leaves it: agents throw away what they do not know when they start, and the bytes stay in the clear, for good
(known defect 27). Here what the running release would throw away goes where it does that, and what is left is nobody's.
"""

from __future__ import annotations

from upgradeconverter.packs.api import DiskState, Migration, Move, Proposal

from .layouts import DOWNLOADING, PENDING_BY_TYPE, VERIFYING, VERIFYING_BY_TYPE
from .releases import Feature, layouts_with

_PLACES = ((PENDING_BY_TYPE, DOWNLOADING), (VERIFYING_BY_TYPE, VERIFYING))


def plan(state: DiskState) -> Proposal:
    """Return a move for each download and each verification that is under way."""
    moves = tuple(
        Move(
            source=item.path,
            target=f"{slot.directory}/{item.entry.name}",
            slot=slot.name,
            labels=(("owner", slot.owner),),
        )
        for by_type, slot in _PLACES
        for old in by_type
        for item in state.in_slot(old.name)
    )
    return Proposal(migration=MIGRATION.id, operations=moves)


MIGRATION = Migration(
    id="eve-downloads",
    summary="Downloads and verifications that are under way move to their agents' directories in the vault.",
    phase="post-vault",
    reads=(*PENDING_BY_TYPE, *VERIFYING_BY_TYPE),
    writes=(DOWNLOADING, VERIFYING),
    targets=layouts_with(Feature.OWN_DIRECTORIES),
    after=("eve-verified",),
    plan=plan,
)
