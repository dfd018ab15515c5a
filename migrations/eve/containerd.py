"""The containerd store moves into the vault as one tree: blobs, databases and snapshots only make sense together.

Since 7.11.0 the users' containerd keeps its state in the vault. A fallback to an older release starts an empty store under the
old name; EVE's own converter then merges that into the real one, whose snapshots nobody knows from then on (known defect 29).
Here the store in the vault counts, and the other one is set aside, unless only that one has a database: what an interrupted move
left in the vault is no store.
"""

from __future__ import annotations

from upgradeconverter.packs.api import DiskState, Divergence, Kind, Migration, Move, Proposal

from .layouts import CASE, CONTAINERD, CONTAINERD_THERE, DATABASES, OLD_CASE, OLD_CONTAINERD
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
            divergence=_which_counts(state, item.path, slot.directory),
        )
        for old in (OLD_CASE, OLD_CONTAINERD)
        for item in state.in_slot(old.name)
        if item.path != slot.directory
    )
    return Proposal(migration=MIGRATION.id, operations=moves)


def _which_counts(state: DiskState, old: str, new: str) -> Divergence:
    is_there = any(item.path == new for slot in (CONTAINERD_THERE, OLD_CASE) for item in state.in_slot(slot.name))
    is_lost = is_there and _has_database(state, old) and not _has_database(state, new)
    return Divergence.SOURCE if is_lost else Divergence.TARGET


def _has_database(state: DiskState, store: str) -> bool:
    found = state.in_slot(DATABASES[store].name)
    return any(item.entry.name == "meta.db" and item.entry.kind is Kind.FILE and item.entry.size for item in found)


MIGRATION = Migration(
    id="eve-containerd",
    summary="The containerd store moves into the vault.",
    phase="post-vault",
    reads=(OLD_CONTAINERD, OLD_CASE),
    # Only to tell which of two stores is one.
    names=lambda _, __: (CONTAINERD_THERE, *DATABASES.values()),
    writes=(CONTAINERD, CASE),
    targets=layouts_with(Feature.USER_CONTAINERD, Feature.CASE),
    plan=plan,
)
