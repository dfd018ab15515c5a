"""Metadata of applications lies with msrv since 12.5.0, with zedrouter before.

Each file moves by itself, so that what a start before has left half done is completed; EVE's own converter takes a directory that
is there for one that is complete (known defect 12).
"""

from __future__ import annotations

from upgradeconverter.packs.api import DiskState, Migration, Move, Proposal

from .layouts import METADATA, OLD_METADATA
from .releases import Feature, layouts_with


def plan(state: DiskState) -> Proposal:
    """Return a move for each file of the topic."""
    moves = tuple(
        Move(source=item.path, target=f"{METADATA.directory}/{item.entry.name}", slot=METADATA.name)
        for item in state.in_slot(OLD_METADATA.name)
    )
    return Proposal(migration=MIGRATION.id, operations=moves)


MIGRATION = Migration(
    id="eve-metadata",
    summary="Metadata of applications moves from zedrouter to msrv.",
    phase="pre-vault",
    reads=(OLD_METADATA,),
    writes=(METADATA,),
    targets=layouts_with(Feature.METADATA_OF_MSRV),
    plan=plan,
)
