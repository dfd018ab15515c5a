"""Volumes move from `img` and `runx/pods/prepared` to the vault (or the clear area) and take the volume's name.

Before 5.7.0 a volume was named after application, image digest and purge counter. The checkpoint alone knows both that
and the volume's UUID and generation. What cannot be told for certain stays where it is, by name and reason.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

from upgradeconverter.packs.api import DiskState, Divergence, Item, Migration, Move, Proposal, Reason, Skip

from .claims import claims_of
from .config import DeviceConfig
from .layouts import CLEAR_VOLUMES, IMAGES, PREPARED, VAULT_VOLUMES, has_slot, volume_name
from .matching import match
from .releases import DESIGN, Feature, layouts_with

if TYPE_CHECKING:
    from .claims import Claim
    from .config import VolumeRef

SNAPSHOT_FILE = "snapshotid.txt"
_OWNERS = {slot.name: (("owner", slot.owner),) for slot in (VAULT_VOLUMES, CLEAR_VOLUMES)}


def plan(state: DiskState) -> Proposal:
    """Return a move for every legacy volume whose new name is certain, and a skip for every other one."""
    items = (*state.in_slot(IMAGES.name), *state.in_slot(PREPARED.name))
    config = state.checkpoint.content
    if not isinstance(config, DeviceConfig):
        reason = state.checkpoint.problem or Reason.CHECKPOINT_MISSING
        kept = tuple(Skip(path=item.path, reason=reason, detail=state.checkpoint.detail) for item in items)
        return Proposal(migration=MIGRATION.id, skips=kept)
    pairs, skips = match(items, claims_of(config), (app.uuid for app in config.apps))
    # A volume takes one source, whatever its format: a release that finds two cannot tell which one is right.
    takers = Counter(_key(claim) for _, claim in pairs)
    moves: list[Move] = []
    warnings: list[str] = []
    for item, claim in sorted(pairs, key=lambda pair: pair[0].path):
        if claim.ref is None or takers[_key(claim)] > 1:
            detail = "more than one source for the same volume"
            skips.append(Skip(path=item.path, reason=Reason.AMBIGUOUS_VOLUME, detail=detail))
            continue
        moves.append(_move(state, config, item, claim.ref))
        warnings += _warnings(config, claim.ref)
    return Proposal(
        migration=MIGRATION.id,
        operations=tuple(moves),
        skips=tuple(sorted(skips, key=lambda skip: skip.path)),
        warnings=tuple(warnings),
    )


def _key(claim: Claim) -> tuple[str, int]:
    return (claim.ref.volume or "", claim.ref.generation) if claim.ref is not None else ("", 0)


def _move(state: DiskState, config: DeviceConfig, item: Item, ref: VolumeRef) -> Move:
    volume = config.volumes.get(ref.volume or "")
    clear = volume is not None and volume.clear_text and has_slot(state.target, CLEAR_VOLUMES)
    slot = CLEAR_VOLUMES if clear else VAULT_VOLUMES
    container = item.slot == PREPARED.name
    # The extension on the disk counts, not the configured format: releases open what they find by its name.
    form = "container" if container else item.keys["format"]
    owner = _OWNERS[slot.name]
    return Move(
        source=item.path,
        target=f"{slot.directory}/{volume_name(state.target, ref.volume or '', ref.generation, form)}",
        slot=slot.name,
        # EVE looks up the container's snapshot by this file's exact content: the old directory's name, no newline.
        additions=((SNAPSHOT_FILE, os.fsencode(item.entry.name)),) if container else (),
        labels=(*owner, ("format", form)) if state.target.label == DESIGN else owner,
        # A device that fell back went on with the old volume: that is the machine as its owner last saw it.
        divergence=Divergence.NEWEST,
    )


def _warnings(config: DeviceConfig, ref: VolumeRef) -> list[str]:
    volume = config.volumes.get(ref.volume or "")
    if volume is None:
        return [f"volume {ref.volume} is referenced but not configured; taken as encrypted"]
    if volume.generation != ref.generation:
        found = f"the reference says generation {ref.generation}, the volume {volume.generation}"
        return [f"volume {ref.volume}: {found}; the reference counts"]
    return []


MIGRATION = Migration(
    id="eve-volumes",
    summary="Volumes of applications move to the vault or the clear area and take the volume's name.",
    phase="post-vault",
    reads=(IMAGES, PREPARED),
    writes=(VAULT_VOLUMES, CLEAR_VOLUMES),
    targets=layouts_with(Feature.VAULT_VOLUMES),
    plan=plan,
)
