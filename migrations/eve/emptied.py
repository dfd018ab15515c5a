"""Directories of older releases go once nothing is in them any more; what nobody knows keeps its directory."""

from __future__ import annotations

from upgradeconverter.packs.api import DiskState, Migration, Proposal, Retire

from .layouts import (
    IMAGES,
    OBJECT_TYPES,
    OLD_CONFIG,
    OLD_CONFIG_MAP,
    OLD_METADATA,
    PAIRS,
    PENDING_BY_TYPE,
    PREPARED,
    VERIFIED_BY_TYPE,
    VERIFYING_BY_TYPE,
)
from .releases import Feature, layouts_with

_OF_VOLUMES = (IMAGES.directory, PREPARED.directory, "runx/pods", "runx")
_OF_DOWNLOADS = (
    *(slot.directory for slots in (PENDING_BY_TYPE, VERIFYING_BY_TYPE, VERIFIED_BY_TYPE) for slot in slots),
    *(f"downloads/{each}.obj" for each in OBJECT_TYPES),
    "downloads",
)


def _migration(
    name: str, phase: str, directories: tuple[str, ...], features: tuple[Feature, ...], after: tuple[str, ...]
) -> Migration:
    def plan(_: DiskState) -> Proposal:
        retired = tuple(Retire(source=each, why="emptied", once_empty=True) for each in directories)
        return Proposal(migration=name, operations=retired)

    return Migration(
        id=name,
        summary="Directories that older releases used go once they are empty.",
        phase=phase,
        reads=(),
        targets=layouts_with(*features),
        after=after,
        plan=plan,
    )


MIGRATIONS = (
    _migration(
        "eve-emptied-configuration",
        "pre-vault",
        (OLD_CONFIG.directory,),
        (Feature.CONFIG_MAP, Feature.CONFIG_MAP_IN_STATUS),
        ("eve-global-config",),
    ),
    _migration(
        "eve-emptied-settings",
        "pre-vault",
        (OLD_CONFIG_MAP.directory, "config"),
        (Feature.CONFIG_MAP_IN_STATUS,),
        ("eve-config-defaults", "eve-emptied-configuration"),
    ),
    _migration("eve-emptied-pairs", "pre-vault", (PAIRS.directory,), (Feature.PAIRS_WITH_INTERFACE,), ("eve-pairs",)),
    _migration("eve-emptied-metadata", "pre-vault", (OLD_METADATA.directory,), (Feature.METADATA_OF_MSRV,), ("eve-metadata",)),
    _migration("eve-emptied-volumes", "post-vault", _OF_VOLUMES, (Feature.VAULT_VOLUMES,), ("eve-volumes",)),
    _migration(
        "eve-emptied-downloads", "post-vault", _OF_DOWNLOADS, (Feature.OWN_DIRECTORIES,), ("eve-downloads", "eve-verified-typed")
    ),
)
