"""The containerd store moves into the vault as one tree: blobs, databases and snapshots only make sense together.

Since 7.11.0 the users' containerd keeps its state in the vault. A fallback to an older release starts an empty store under the
old name; EVE's own converter then merges that into the real one, whose snapshots nobody knows from then on (known defect 29).
Here the store in the vault counts, and the other one is set aside.
"""

from __future__ import annotations

from upgradeconverter.packs.api import DiskState, Divergence, Migration, Move, Proposal

from .layouts import CONTAINERD, OLD_CONTAINERD
from .releases import Feature, layouts_with


def plan(state: DiskState) -> Proposal:
    """Return the move of the store, if there is one."""
    moves = tuple(
        Move(
            source=item.path,
            target=CONTAINERD.directory,
            slot=CONTAINERD.name,
            labels=(("owner", CONTAINERD.owner),),
            divergence=Divergence.TARGET,
        )
        for item in state.in_slot(OLD_CONTAINERD.name)
    )
    return Proposal(migration=MIGRATION.id, operations=moves)


MIGRATION = Migration(
    id="eve-containerd",
    summary="The containerd store moves into the vault.",
    phase="post-vault",
    reads=(OLD_CONTAINERD,),
    writes=(CONTAINERD,),
    targets=layouts_with(Feature.USER_CONTAINERD),
    plan=plan,
)
