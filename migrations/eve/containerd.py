"""The containerd store moves into the vault as one tree: blobs, databases and snapshots only make sense together.

Since 7.11.0 the users' containerd keeps its state in the vault. A fallback to an older release starts an empty store under the
old name; EVE's own converter then merges that into the real one, whose snapshots nobody knows from then on (known defect 29).
Here the store in the vault counts, and the other one is set aside.
"""

from __future__ import annotations

from upgradeconverter.packs.api import DiskState, Divergence, Migration, Move, Proposal

from .layouts import CASE, CONTAINERD, OLD_CASE, OLD_CONTAINERD
from .releases import Feature, has, layouts_with


def plan(state: DiskState) -> Proposal:
    """Return the move of the store, if there is one: the design's own place is on the way to that of the releases."""
    slot = CASE if has(state.target.label, Feature.CASE) else CONTAINERD
    moves = tuple(
        Move(
            source=item.path,
            target=slot.directory,
            slot=slot.name,
            labels=(("owner", slot.owner),),
            divergence=Divergence.TARGET,
        )
        for old in (OLD_CASE, OLD_CONTAINERD)
        for item in state.in_slot(old.name)
        if item.path != slot.directory
    )
    return Proposal(migration=MIGRATION.id, operations=moves)


MIGRATION = Migration(
    id="eve-containerd",
    summary="The containerd store moves into the vault.",
    phase="post-vault",
    reads=(OLD_CONTAINERD, OLD_CASE),
    writes=(CONTAINERD, CASE),
    targets=layouts_with(Feature.USER_CONTAINERD, Feature.CASE),
    plan=plan,
)
