"""Topics that are not persistent any more go, last of all, so that no agent starts with what an older one kept.

Which these are is listed by the running release itself, since 17.1.0; without that list nothing goes. Only directories go that
are named there, in full; a link or a file of such a name stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from upgradeconverter.packs.api import DiskState, Input, Kind, Migration, Proposal, Retire, Slot, Zone

from .layouts import LAYOUTS
from .releases import LATEST, Feature, layouts_with

if TYPE_CHECKING:
    from collections.abc import Mapping

    from upgradeconverter.packs.api import Document

_LIST = Input(path="non-persistent-pubsub-topics", outside="eve", limit=1 << 20)
_NAME = "stale topic"
# `agent/topic`, or `agent/scope/topic`.
_DEPTHS = (2, 3)


def name(documents: Mapping[str, Document], _: Mapping[str, str]) -> tuple[Slot, ...]:
    """Return the places that the list names, an agent's topic or one of a scope of an agent each."""
    content = documents[_LIST.key].content or b""
    lines = dict.fromkeys(line.strip() for line in content.decode("utf-8", errors="surrogateescape").splitlines())
    parts = [line.split("/") for line in lines]
    return tuple(
        Slot(
            name=f"{_NAME} {'/'.join(each)}",
            directory="/".join(("status", *each)),
            owner=each[0],
            mode=0o700,
            zone=Zone.PLAIN,
            kind=Kind.DIRECTORY,
            whole=True,
        )
        for each in parts
        if len(each) in _DEPTHS and not {"", ".", ".."} & set(each) and not _is_kept("/".join(("status", *each)))
    )


def _is_kept(directory: str) -> bool:
    """Return whether the newest layout has something there: a list that says otherwise is mistaken."""
    return any(f"{slot.directory}/".startswith(f"{directory}/") for slot in LAYOUTS[LATEST].slots)


def plan(state: DiskState) -> Proposal:
    """Return what goes of what the list names."""
    stale = (item.path for item in state.inventory.items if item.slot.startswith(_NAME))
    retired = tuple(Retire(source=path, why="not persistent any more", whole=True, keeps=True) for path in stale)
    return Proposal(migration=MIGRATION.id, operations=retired)


MIGRATION = Migration(
    id="eve-stale-topics",
    summary="Topics that the release does not keep any more are set aside.",
    phase="pre-vault",
    reads=(),
    names=name,
    inputs=(_LIST,),
    targets=layouts_with(Feature.STALE_TOPICS),
    after=("eve-config-defaults", "eve-pairs", "eve-metadata"),
    plan=plan,
)
