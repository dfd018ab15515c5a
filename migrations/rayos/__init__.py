"""RayOS: the development root `build/` becomes the data root `/var/rayos` of an installed system."""

from upgradeconverter.packs.api import Annex, Pack, Phase

from . import compat, invariants, leftovers, machines
from .device import INPUTS, read_device
from .layouts import DATA, LAYOUTS, ORDER, OTHERS

PACK = Pack(
    name="rayos",
    summary="RayOS's data root.",
    order=ORDER,
    layouts=LAYOUTS,
    # Names for the host scripts are free only once what had them lies at its new place.
    phases=(Phase(name="state", needs_vault=False), Phase(name="rest", needs_vault=False)),
    migrations=(machines.MIGRATION, leftovers.NO_STATE_HERE, leftovers.MIGRATION, compat.MIGRATION),
    checks=(invariants.CHECK, invariants.PARTITIONS),
    others=OTHERS,
    options={compat.OPTION: ("on", "off")},
    annexes={
        "source": Annex(summary="development root to take the state from; it stays as it is until `confirm`", keeps=True),
        "windows-disk": Annex(summary="disk of a Windows machine that lies elsewhere; it is copied", is_file=True, each=True),
        "image": Annex(summary="verify: image of a whole disk, whose partitions are looked at", is_file=True),
    },
    default_target=DATA,
    inputs=INPUTS,
    read_checkpoint=read_device,
    default_persist="/var/rayos",
)
