"""Verified files have their media type in their names, where a release wants that; else it downloads them again (defect 26).

What nobody can say the type of stays where it is, and its room can be reclaimed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from upgradeconverter.packs.api import DiskState, Migration, Move, Operation, Proposal, Reason, Skip

from .config import DeviceConfig
from .layouts import VERIFIED, VERIFIED_BY_TYPE_PEEKED, VERIFIED_UNTYPED
from .media_types import Sign, escaped, media_types
from .releases import Feature, layouts_with
from .verified import move_file, move_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from upgradeconverter.packs.api import Item


def plan(state: DiskState) -> Proposal:
    """Return a move, or another name, for every verified file whose type is known."""
    old = [item for slot in VERIFIED_BY_TYPE_PEEKED for item in state.in_slot(slot.name)]
    # What has its name already still tells of others, which an interrupted run may have left.
    there = state.in_slot(VERIFIED_UNTYPED.name)
    here = [item for item in there if "type" not in item.keys]
    types = _types([*old, *there], state.checkpoint.content)
    operations: list[Operation] = []
    skips: list[Skip] = []
    for wanted in (*map(move_of, old), *(move_file(item.entry, item.keys["digest"].lower()) for item in here)):
        outcome = _typed(wanted, types) if isinstance(wanted, Move) else wanted
        if isinstance(outcome, Skip):
            skips.append(outcome)
        else:
            operations.append(outcome)
    return Proposal(migration=MIGRATION.id, operations=tuple(operations), skips=tuple(skips))


def _types(items: list[Item], config: object) -> dict[str, str]:
    signs = [(item.keys["digest"].lower(), sign) for item in items for sign in item.gists.values() if isinstance(sign, Sign)]
    trees = config.content_trees.values() if isinstance(config, DeviceConfig) else ()
    images = {tree.digest for tree in trees if tree.form not in ("container", "fmtunknown")}
    return media_types(signs, images)


def _typed(move: Move, types: Mapping[str, str]) -> Move | Skip:
    kind = types.get(move.sha256 or "")
    if kind is None:
        return Skip(path=move.source, reason=Reason.MEDIA_TYPE_UNKNOWN, detail="neither it nor anything that names it says one")
    return replace(move, target=f"{move.target}.{escaped(kind)}")


MIGRATION = Migration(
    id="eve-verified-typed",
    summary="Verified files move to the verifier's directory, with the digest and the media type in their names.",
    phase="post-vault",
    reads=(*VERIFIED_BY_TYPE_PEEKED, VERIFIED_UNTYPED),
    writes=(VERIFIED,),
    targets=layouts_with(Feature.MEDIA_TYPES),
    after=("eve-volumes",),
    plan=plan,
)
