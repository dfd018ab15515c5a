"""Volumes named as the design document has it take the names of the releases: `<volume>#<generation>.<format>`."""

from __future__ import annotations

from upgradeconverter.packs.api import DiskState, Item, Kind, Migration, Move, Proposal, Range, Reason, Skip

from .layouts import CLEAR_VOLUMES, VAULT_VOLUMES, has_slot
from .names import FORMATS
from .releases import AFTER_DESIGN


def plan(state: DiskState) -> Proposal:
    """Return a rename, in the same directory, for every volume whose name has no format."""
    moves: list[Move] = []
    skips: list[Skip] = []
    for slot in (VAULT_VOLUMES, CLEAR_VOLUMES):
        for item in state.in_slot(slot.name):
            if "format" in item.keys:
                continue
            form = _format_of(item)
            if form is None:
                detail = f"label format is {item.entry.labels.get('format', 'missing')!r}"
                skips.append(Skip(path=item.path, reason=Reason.FORMAT_UNKNOWN, detail=detail))
            else:
                moves.append(
                    Move(
                        source=item.path,
                        target=f"{item.path}.{form}",
                        slot=slot.name if has_slot(state.target, slot) else VAULT_VOLUMES.name,
                        labels=(("owner", slot.owner),),
                    ),
                )
    return Proposal(migration=MIGRATION.id, operations=tuple(moves), skips=tuple(skips))


def _format_of(item: Item) -> str | None:
    is_container = item.entry.kind is Kind.DIRECTORY
    form = item.entry.labels.get("format", "container" if is_container else "")
    return form if form in FORMATS and (form == "container") == is_container else None


MIGRATION = Migration(
    id="eve-design-names",
    summary="Volumes with the design document's names take those of the EVE releases.",
    phase="post-vault",
    reads=(VAULT_VOLUMES, CLEAR_VOLUMES),
    writes=(VAULT_VOLUMES, CLEAR_VOLUMES),
    targets=(Range(AFTER_DESIGN),),
    plan=plan,
)
