"""Pairs legacy files with the claims of the configuration. Pure.

Per application and digest: first the file of exactly the purge generation that a claim expects, then, for claims that
found none, the file without a counter (known defects 6 and 7). A container's directory that is named by its application alone is
the one container which that has, unless a later release has made another directory for it. What fits twice is never guessed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from upgradeconverter.packs.api import Item, Reason, Skip

from .layouts import IMAGES, PREPARED
from .names import read_uuid

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .claims import Claim

Pair = tuple[Item, "Claim"]


def match(items: Iterable[Item], claims: Iterable[Claim], apps: Iterable[str]) -> tuple[list[Pair], list[Skip]]:
    """Return items with the claim that each satisfies, and a skip for every other item.

    Args:
        items: what lies in the legacy slots, in any order.
        claims: what the configuration expects.
        apps: UUIDs of all applications of the configuration.
    """
    known = set(apps)
    wanted: dict[tuple[str, str], list[Claim]] = {}
    claims = tuple(claims)
    for claim in claims:
        if claim.digest:
            wanted.setdefault((claim.app, claim.digest), []).append(claim)
    groups: dict[tuple[str, str], list[Item]] = {}
    by_app: list[Item] = []
    for item in items:
        if "digest" not in item.keys:
            by_app.append(item)
            continue
        groups.setdefault((read_uuid(item.keys["app"]) or "", item.keys["digest"].lower()), []).append(item)
    pairs: list[Pair] = []
    skips: list[Skip] = []
    for key, group in groups.items():
        if key in wanted:
            _match_group(group, wanted[key], pairs, skips)
        else:
            app = group[0].keys["app"]
            unowned = f"application {app} has no drive with this image"
            detail = unowned if key[0] in known else f"application {app} is not in the configuration"
            skips += _skip(group, Reason.NO_OWNER_IN_CONFIG, detail)
    if by_app:
        _match_all_by_app(by_app, claims, pairs, skips)
    return pairs, skips


def _match_all_by_app(items: Iterable[Item], claims: Iterable[Claim], pairs: list[Pair], skips: list[Skip]) -> None:
    containers: dict[str | None, list[Claim]] = {}
    for claim in claims:
        if claim.form == "container":
            containers.setdefault(claim.app, []).append(claim)
    taken = {claim: item for item, claim in pairs}
    for item in items:
        _match_by_app(item, containers.get(read_uuid(item.keys["app"]), []), taken, pairs, skips)


def _match_by_app(item: Item, claims: Sequence[Claim], taken: dict[Claim, Item], pairs: list[Pair], skips: list[Skip]) -> None:
    """Resolve a directory that says nothing but whose it is."""
    if not claims:
        detail = f"application {item.keys['app']} has no container in the configuration"
        skips += _skip([item], Reason.NO_OWNER_IN_CONFIG, detail)
    elif len(claims) == 1 and claims[0] in taken:
        skips += _skip([item], Reason.STALE_GENERATION, f"a later release has made {taken[claims[0]].path} for it")
    else:
        _pair([item], claims, pairs, skips)


def _match_group(group: list[Item], claims: list[Claim], pairs: list[Pair], skips: list[Skip]) -> None:
    """Resolve the purge generations of one application and image: exact ones first, then the one without a counter."""
    free: dict[int, list[Item]] = {}
    for item in group:
        free.setdefault(_purge(item), []).append(item)
    waiting: list[Claim] = []
    for purge in dict.fromkeys(claim.purge for claim in claims):
        rivals = [claim for claim in claims if claim.purge == purge]
        if purge in free:
            _pair(free.pop(purge), rivals, pairs, skips)
        else:
            waiting.extend(rivals)
    if waiting and 0 in free:
        _pair(free.pop(0), waiting, pairs, skips)
    current = ", ".join(str(purge) for purge in sorted({claim.purge for claim in claims})) if free else ""
    for purge, stale in free.items():
        skips += _skip(stale, Reason.STALE_GENERATION, f"purge generation {purge}, in use: {current}")


def _pair(items: list[Item], claims: Sequence[Claim], pairs: list[Pair], skips: list[Skip]) -> None:
    """Decide between items that fit the same claims: one of each or, unless the format tells them apart, nothing."""
    claim = claims[0]
    fitting = items if len(items) == 1 else [item for item in items if item.slot == _slot_of(claim.form)]
    if len(claims) != 1 or claim.ambiguous or len(fitting) != 1:
        skips += _skip(items, Reason.AMBIGUOUS_VOLUME, _why_ambiguous(items, claims))
        return
    others = [item for item in items if item is not fitting[0]]
    skips += _skip(others, Reason.AMBIGUOUS_VOLUME, f"the configured format is {claim.form}")
    if claim.ref is None:
        detail = f"drive {claim.index} of application {claim.app} has no usable volume reference"
        skips += _skip(fitting, Reason.NO_VOLUME_REFERENCE, detail)
    else:
        pairs.append((fitting[0], claim))


def _slot_of(form: str) -> str:
    """Return where the configured format lies: a container can only be the prepared directory."""
    if form == "fmtunknown":
        return ""
    return PREPARED.name if form == "container" else IMAGES.name


def _why_ambiguous(items: Sequence[Item], claims: Sequence[Claim]) -> str:
    if len(items) == len(claims) == 1:
        return f"drive {claims[0].index} and the volume reference at its position have different images"
    return f"sources that fit: {len(items)}; drives that they fit: {len(claims)}"


def _purge(item: Item) -> int:
    return int(item.keys.get("purge", "0"))


def _skip(items: Iterable[Item], reason: Reason, detail: str) -> list[Skip]:
    return [Skip(path=item.path, reason=reason, detail=detail) for item in items]
