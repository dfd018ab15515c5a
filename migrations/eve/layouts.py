"""EVE's layouts: which places each of them has, who owns them, and behind which protection they lie.

Sources: the document "New /persist layout for volumes etc", and lf-edge/eve at the tags that `releases` names.
"""

from __future__ import annotations

from msgspec.structs import replace

from upgradeconverter.packs.api import Kind, Layout, Slot, Zone

from .media_types import Sign
from .names import CONTAINER_PATTERN, DIGEST_PATTERN, VM_PATTERN, VOLUME_PATTERN
from .releases import DESIGN, LABELS, Feature, has

IMAGES = Slot(
    name="img",
    directory="img",
    owner="volumemgr",
    mode=0o700,
    zone=Zone.PLAIN,
    pattern=VM_PATTERN,
    kind=Kind.FILE,
)
PREPARED = Slot(
    name="prepared",
    directory="runx/pods/prepared",
    owner="volumemgr",
    mode=0o700,
    zone=Zone.PLAIN,
    pattern=CONTAINER_PATTERN,
    kind=Kind.DIRECTORY,
)
OBJECT_TYPES = ("appImg", "baseOs", "cert")
VERIFIED_BY_TYPE = tuple(
    Slot(
        name=f"verified-{object_type}",
        directory=f"downloads/{object_type}.obj/verified",
        owner="verifier",
        mode=0o700,
        zone=Zone.PLAIN,
        pattern=DIGEST_PATTERN,
        kind=Kind.DIRECTORY,
        children=True,
    )
    for object_type in OBJECT_TYPES
)


def _under_way(name: str, folder: str, owner: str) -> tuple[Slot, ...]:
    return tuple(
        Slot(
            name=f"{name}-{object_type}",
            directory=f"downloads/{object_type}.obj/{folder}",
            owner=owner,
            mode=0o700,
            zone=Zone.PLAIN,
            pattern=r"(?s:.+)",
        )
        for object_type in OBJECT_TYPES
    )


# With what the beginning of each file tells it to be.
VERIFIED_BY_TYPE_PEEKED = tuple(replace(slot, name=f"{slot.name}-peeked", probe=Sign.of_file) for slot in VERIFIED_BY_TYPE)
PENDING_BY_TYPE = _under_way("pending", "pending", "downloader")
VERIFYING_BY_TYPE = _under_way("verifying", "verifier", "verifier")

# Only agents with ids of their own need anything of this: in EVE itself all are root.
_ATTACHES, _MEASURES = ("domainmgr",), ("volumemgr",)
VAULT_VOLUMES = Slot(
    name="vault-volumes",
    directory="vault/volumes",
    owner="volumemgr",
    readers=_ATTACHES,
    mode=0o700,
    zone=Zone.VAULT,
    pattern=VOLUME_PATTERN,
    labels=True,
)
CLEAR = Slot(name="clear", directory="clear", owner="volumemgr", readers=_ATTACHES, mode=0o700, zone=Zone.CLEAR)
CLEAR_VOLUMES = Slot(
    name="clear-volumes",
    directory="clear/volumes",
    owner="volumemgr",
    readers=_ATTACHES,
    mode=0o700,
    zone=Zone.CLEAR,
    pattern=VOLUME_PATTERN,
    labels=True,
)
VERIFIER = Slot(name="verifier", directory="vault/verifier", owner="verifier", readers=_MEASURES, mode=0o700, zone=Zone.VAULT)
VERIFIED_UNTYPED = Slot(
    name="verified-untyped",
    directory="vault/verifier/verified",
    owner="verifier",
    readers=_MEASURES,
    mode=0o700,
    zone=Zone.VAULT,
    pattern=rf"{DIGEST_PATTERN}(?P<type>\..+)?",
    kind=Kind.FILE,
    probe=Sign.of_file,
)
VERIFIED = Slot(
    name="verified",
    directory="vault/verifier/verified",
    owner="verifier",
    readers=_MEASURES,
    mode=0o700,
    zone=Zone.VAULT,
    entry_mode=0o400,
)
DOWNLOADING = Slot(
    name="downloading", directory="vault/downloader/pending", owner="downloader", readers=_MEASURES, mode=0o700, zone=Zone.VAULT
)
VERIFYING = Slot(
    name="verifying", directory="vault/verifier/verifier", owner="verifier", readers=_MEASURES, mode=0o700, zone=Zone.VAULT
)
DOWNLOADER = Slot(
    name="downloader", directory="vault/downloader", owner="downloader", readers=_MEASURES, mode=0o700, zone=Zone.VAULT
)


def _whole(name: str, directory: str, owner: str, mode: int, zone: Zone) -> Slot:
    """Return a directory that is one thing, with everything in it."""
    return Slot(name=name, directory=directory, owner=owner, mode=mode, zone=zone, kind=Kind.DIRECTORY, whole=True)


OLD_CONTAINERD = _whole("old-containerd", "containerd", "containerd", 0o711, Zone.PLAIN)


def _database(name: str, store: str) -> Slot:
    """Return where a store has its database, without which nobody knows what is in it."""
    return Slot(
        name=name,
        directory=f"{store}/io.containerd.metadata.v1.bolt",
        owner="containerd",
        mode=0o711,
        zone=Zone.VAULT if store.startswith("vault/") else Zone.PLAIN,
        pattern=r"(?s:.+)",
    )


DATABASES = {store: _database(f"database of {store}", store) for store in ("containerd", "vault/case", "vault/containerd")}
# The document wants the naming convention of containerd, and asks whether all of its store goes there: it only makes sense whole.
CASE = Slot(name="case", directory="vault/case", owner="containerd", mode=0o711, zone=Zone.VAULT)
OLD_CASE = _whole("old-case", "vault/case", "containerd", 0o711, Zone.VAULT)
CONTAINERD = Slot(name="containerd", directory="vault/containerd", owner="containerd", mode=0o711, zone=Zone.VAULT)
CONTAINERD_THERE = replace(CONTAINERD, name="containerd-there", kind=Kind.DIRECTORY, whole=True)

OLD_CONFIG = _whole("old-config", "config/GlobalConfig", "zedagent", 0o700, Zone.PLAIN)
OLD_CONFIG_MAP = _whole("old-config-map", "config/ConfigItemValueMap", "zedagent", 0o700, Zone.PLAIN)
CONFIG_MAP = Slot(
    name="config-map", directory="config/ConfigItemValueMap", owner="zedagent", mode=0o700, zone=Zone.PLAIN, entry_mode=0o644
)
CONFIG_MAP_IN_STATUS = Slot(
    name="config-map-in-status",
    directory="status/zedagent/ConfigItemValueMap",
    owner="zedagent",
    mode=0o700,
    zone=Zone.PLAIN,
    entry_mode=0o600,
)
INGESTED = Slot(name="ingested", directory="ingested", owner="upgradeconverter", mode=0o755, zone=Zone.PLAIN, entry_mode=0o600)
INGESTED_CONFIG = Slot(
    name="ingested-config",
    directory="ingested/GlobalConfig",
    owner="upgradeconverter",
    mode=0o755,
    zone=Zone.PLAIN,
    entry_mode=0o600,
)
# Items are known by what the files say.
PAIRS = Slot(
    name="pairs",
    directory="status/zedrouter/UUIDPairToNum",
    owner="zedrouter",
    mode=0o700,
    zone=Zone.PLAIN,
    pattern=r".+\.json(?:\.bak)?|restarted|tmp[0-9]+",
    kind=Kind.FILE,
)
PAIRS_WITH_INTERFACE = Slot(
    name="pairs-with-interface",
    directory="status/zedrouter/UUIDPairAndIfIdxToNum",
    owner="zedrouter",
    mode=0o700,
    zone=Zone.PLAIN,
    entry_mode=0o600,
)
OLD_METADATA = Slot(
    name="old-metadata",
    directory="status/zedrouter/AppInstMetaData",
    owner="zedrouter",
    mode=0o700,
    zone=Zone.PLAIN,
    pattern=r".+\.json(?:\.bak)?|restarted",
    kind=Kind.FILE,
)
METADATA = Slot(
    name="metadata", directory="status/msrv/AppInstMetaData", owner="msrv", mode=0o700, zone=Zone.PLAIN, entry_mode=0o600
)

# Where the state lies that is needed after an update before the device is attested, as the design document has it.
PORTS = Slot(
    name="ports",
    directory="status/nim/DevicePortConfigList",
    owner="nim",
    mode=0o700,
    zone=Zone.PLAIN,
    whole=True,
)
UNSEALED = _whole("unsealed", "unsealed-vault", "vaultmgr", 0o700, Zone.UNSEALED)
UNSEALED_NIM = Slot(name="unsealed-nim", directory="unsealed-vault/nim", owner="nim", mode=0o700, zone=Zone.UNSEALED)

_SLOTS = {
    Feature.CONFIG_MAP: (CONFIG_MAP,),
    Feature.CONFIG_MAP_IN_STATUS: (CONFIG_MAP_IN_STATUS, CONFIG_MAP),
    # Before 8.8.0 EVE deletes what it has imported; from here that partition can only be read.
    Feature.CONFIG_IMPORT: (INGESTED, INGESTED_CONFIG),
    Feature.PAIRS_WITH_INTERFACE: (PAIRS_WITH_INTERFACE,),
    Feature.METADATA_OF_MSRV: (METADATA,),
    Feature.VAULT_VOLUMES: (VAULT_VOLUMES,),
    Feature.CLEAR_VOLUMES: (CLEAR, CLEAR_VOLUMES),
    Feature.OWN_DIRECTORIES: (VERIFIER, VERIFIED, VERIFYING, DOWNLOADER, DOWNLOADING),
    Feature.CASE: (CASE,),
    Feature.USER_CONTAINERD: (CONTAINERD,),
}

LAYOUTS = {
    label: Layout(
        label=label,
        slots=(UNSEALED_NIM, *(slot for feature, slots in _SLOTS.items() if has(label, feature) for slot in slots)),
    )
    for label in LABELS
}


def has_slot(layout: Layout, slot: Slot) -> bool:
    """Return whether a layout knows a slot."""
    return slot in layout.slots


def volume_name(layout: Layout, volume: str, generation: int, form: str) -> str:
    """Return how a layout calls a volume; the design keeps the format in an xattr instead of the name."""
    return f"{volume}#{generation}" if layout.label == DESIGN else f"{volume}#{generation}.{form}"
