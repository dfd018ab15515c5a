"""LF-Edge EVE: legacy `/persist` to the layout with vault, clear area and one owner agent per directory."""

from upgradeconverter.packs.api import Pack, Phase

from . import (
    containerd,
    design_names,
    downloads,
    emptied,
    metadata,
    pairs,
    settings,
    stale_topics,
    typed,
    unsealed,
    verified,
    volumes,
)
from .checkpoint import INPUTS, OPTIONS, read_checkpoint
from .layouts import LAYOUTS
from .places import OTHERS
from .releases import DESIGN, ORDER

PACK = Pack(
    name="eve",
    summary="LF-Edge EVE's /persist.",
    order=ORDER,
    layouts=LAYOUTS,
    phases=(Phase(name="pre-vault", needs_vault=False, moves_trees=False), Phase(name="post-vault", needs_vault=True)),
    migrations=(
        *settings.MIGRATIONS,
        pairs.MIGRATION,
        metadata.MIGRATION,
        stale_topics.MIGRATION,
        unsealed.MIGRATION,
        *emptied.MIGRATIONS,
        volumes.MIGRATION,
        verified.MIGRATION,
        typed.MIGRATION,
        downloads.MIGRATION,
        containerd.MIGRATION,
        design_names.MIGRATION,
    ),
    others=OTHERS,
    options={**OPTIONS, **unsealed.OPTIONS},
    outside={"config": "/config", "eve": "/opt/zededa/etc"},
    default_target=DESIGN,
    inputs=INPUTS,
    read_checkpoint=read_checkpoint,
    release_files=("/run/eve-release", "/etc/eve-release"),
    vault="vault",
)
