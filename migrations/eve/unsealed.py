"""The network configuration can be kept in the vault that is unlocked before a device is attested; off unless it is asked for.

The design document proposes `/persist/unsealed-vault` for what a boot after an update needs, nim's list of port configurations
first of all. No release of EVE has it, so whoever sets the option on has made that directory, with a key that is there early. nim
goes on finding the list under its name: a relative link is left there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from upgradeconverter.packs.api import DiskState, Kind, Migration, Proposal, Relocate

from .layouts import PORTS, UNSEALED, UNSEALED_NIM
from .releases import Feature, layouts_with

if TYPE_CHECKING:
    from collections.abc import Mapping

OPTION = "unsealed-vault"
OPTIONS: Mapping[str, tuple[str, ...]] = {OPTION: ("off", "on")}


def plan(state: DiskState) -> Proposal:
    """Return where the list goes, if that is wanted and the vault is there and open."""
    found = [item for item in state.in_slot(PORTS.name) if item.entry.kind is Kind.DIRECTORY]
    if state.options[OPTION] == "off" or not state.in_slot(UNSEALED.name) or not found:
        return Proposal(migration=MIGRATION.id)
    name = PORTS.directory.rpartition("/")[2]
    moved = Relocate(source=PORTS.directory, target=f"{UNSEALED_NIM.directory}/{name}", slot=UNSEALED_NIM.name)
    return Proposal(migration=MIGRATION.id, operations=(moved,))


MIGRATION = Migration(
    id="eve-unsealed",
    summary="The network configuration moves to the unsealed vault, where that is wanted.",
    phase="pre-vault",
    # Not state of an older layout: it lies where it is wanted, unless somebody wants it there.
    reads=(),
    names=lambda _, __: (PORTS, UNSEALED),
    writes=(UNSEALED_NIM,),
    targets=layouts_with(Feature.VAULT_VOLUMES),
    after=("eve-stale-topics",),
    plan=plan,
)
