"""Volumes move from `img` and `runx/pods/prepared` to the vault (or the clear area) and take the volume's name.

Before 5.7.0 a volume was named after application, image digest and purge counter. The checkpoint alone knows both that and the
volume's UUID and generation. What cannot be told for certain stays where it is, by name and reason.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from upgradeconverter.packs.api import DiskState, Item, Migration, Move, Proposal, Reason, Skip

from .claims import Claim, claims_of
from .config import DeviceConfig
from .layouts import CLEAR_VOLUMES, DESIGN, IMAGES, PREPARED, VAULT_VOLUMES, has_slot, volume_name
from .names import read_uuid

if TYPE_CHECKING:
    from collections.abc import Iterable

SNAPSHOT_FILE = "snapshotid.txt"


def plan(state: DiskState) -> Proposal:
    """Return a move for every legacy volume whose new name is certain."""
    items = (*state.in_slot(IMAGES.name), *state.in_slot(PREPARED.name))
    config = state.checkpoint.content
    if not isinstance(config, DeviceConfig):
        reason = state.checkpoint.problem or Reason.CHECKPOINT_MISSING
        skips = tuple(Skip(path=item.path, reason=reason, detail=state.checkpoint.detail) for item in items)
        return Proposal(migration=MIGRATION.id, skips=skips)
    chosen, skips = match(items, claims_of(config), {app.uuid for app in config.apps})
    moves = [_move(state, config, item, claim) for item, claim in chosen]
    twice = {target for target, count in Counter(move.target for move in moves).items() if count > 1}
    skips += tuple(
        Skip(path=move.source, reason=Reason.AMBIGUOUS_VOLUME, detail=f"more than one source for {move.target}")
        for move in moves
        if move.target in twice
    )
    return Proposal(
        migration=MIGRATION.id,
        operations=tuple(move for move in sorted(moves, key=lambda move: move.source) if move.target not in twice),
        skips=skips,
        warnings=tuple(warning for _, claim in chosen for warning in _warnings(config, claim)),
    )


def match(
    items: Iterable[Item],
    claims: tuple[Claim, ...],
    apps: set[str],
) -> tuple[tuple[tuple[Item, Claim], ...], tuple[Skip, ...]]:
    """Pair items with claims; what is left over comes back as skips."""
    groups: dict[tuple[str, str], list[Item]] = {}
    for item in items:
        key = (read_uuid(item.keys["app"]) or "", item.keys["digest"].lower())
        groups.setdefault(key, []).append(item)
    chosen: list[tuple[Item, Claim]] = []
    skips: list[Skip] = []
    for (app, digest), group in sorted(groups.items()):
        wanting = [claim for claim in claims if (claim.app, claim.digest) == (app, digest)]
        if not wanting:
            detail = "no drive has this image" if app in apps else f"application {app} is not in the configuration"
            skips += [Skip(path=i.path, reason=Reason.NO_OWNER_IN_CONFIG, detail=detail) for i in group]
            continue
        _match_group(group, wanting, chosen, skips)
    return tuple(chosen), tuple(skips)


def _match_group(group: list[Item], claims: list[Claim], chosen: list[tuple[Item, Claim]], skips: list[Skip]) -> None:
    """Resolve the purge generations of one application and image: the exact one first, then the one without a counter."""
    free = list(group)
    waiting: list[Claim] = []
    for purge in dict.fromkeys(claim.purge for claim in claims):
        rivals = [claim for claim in claims if claim.purge == purge]
        exact = [item for item in free if _purge(item) == purge]
        if exact:
            free = [item for item in free if item not in exact]
            _pair(exact, rivals, chosen, skips)
        else:
            waiting.extend(rivals)
    plain = [item for item in free if _purge(item) == 0]
    if waiting and plain:
        free = [item for item in free if item not in plain]
        _pair(plain, waiting, chosen, skips)
    current = ", ".join(str(claim.purge) for claim in claims)
    skips += [
        Skip(path=item.path, reason=Reason.STALE_GENERATION, detail=f"purge generation {_purge(item)}, in use: {current}")
        for item in free
    ]


def _pair(items: list[Item], claims: list[Claim], chosen: list[tuple[Item, Claim]], skips: list[Skip]) -> None:
    claim = claims[0]
    fitting = items
    if len(items) > 1:
        # A configured container can only be the prepared directory; two files of one kind stay undecided.
        slot = PREPARED.name if claim.form == "container" else IMAGES.name
        fitting = [item for item in items if item.slot == slot and claim.form != "fmtunknown"]
    if len(fitting) != 1 or len(claims) != 1 or claim.ambiguous:
        detail = f"{len(items)} sources and {len(claims)} drives fit"
        skips += [Skip(path=item.path, reason=Reason.AMBIGUOUS_VOLUME, detail=detail) for item in items]
        return
    skips += [
        Skip(path=item.path, reason=Reason.AMBIGUOUS_VOLUME, detail=f"the configured format is {claim.form}")
        for item in items
        if item not in fitting
    ]
    if claim.ref is None:
        detail = f"drive {claim.index} of application {claim.app} has no usable volume reference"
        skips.append(Skip(path=fitting[0].path, reason=Reason.NO_VOLUME_REFERENCE, detail=detail))
        return
    chosen.append((fitting[0], claim))


def _purge(item: Item) -> int:
    return int(item.keys.get("purge", "0"))


def _move(state: DiskState, config: DeviceConfig, item: Item, claim: Claim) -> Move:
    ref = claim.ref
    uuid, generation = (ref.volume or "", ref.generation) if ref is not None else ("", 0)
    volume = config.volumes.get(uuid)
    clear = volume is not None and volume.clear_text and has_slot(state.target, CLEAR_VOLUMES)
    slot = CLEAR_VOLUMES if clear else VAULT_VOLUMES
    container = item.slot == PREPARED.name
    form = "container" if container else item.keys["format"]
    labels = (("owner", slot.owner), ("format", form)) if state.target.label == DESIGN else (("owner", slot.owner),)
    move = Move(
        source=item.path,
        target=f"{slot.directory}/{volume_name(state.target, uuid, generation, form)}",
        slot=slot.name,
        labels=labels,
    )
    if not container:
        return move
    # EVE looks up the container's snapshot by this file's exact content: the old directory's name, no newline.
    name = item.entry.name.encode("utf-8", "surrogateescape")
    return replace(move, additions=((SNAPSHOT_FILE, name),))


def _warnings(config: DeviceConfig, claim: Claim) -> tuple[str, ...]:
    if claim.ref is None or claim.ref.volume is None:
        return ()
    volume = config.volumes.get(claim.ref.volume)
    if volume is None:
        return (f"volume {claim.ref.volume} is referenced but not configured; taken as encrypted",)
    if volume.generation != claim.ref.generation:
        return (
            f"volume {claim.ref.volume}: the reference says generation {claim.ref.generation}, "
            f"the volume {volume.generation}; the reference counts",
        )
    return ()


MIGRATION = Migration(
    id="eve-volumes",
    summary="Volumes of applications move to the vault or the clear area and take the volume's name.",
    phase="post-vault",
    reads=(IMAGES, PREPARED),
    since=DESIGN,
    plan=plan,
)
