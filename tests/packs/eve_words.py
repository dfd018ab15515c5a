"""Short words for the tests of the EVE pack: configurations, items of slots, and states, all built by hand."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from migrations.eve import PACK
from migrations.eve import eve_pb2 as pb
from migrations.eve.checkpoint import read_checkpoint
from migrations.eve.layouts import IMAGES, PREPARED
from upgradeconverter.packs.api import Checkpoint, DiskState, Document, Entry, Inventory, Item, Kind, Slot

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DEVICE = "00000000-1111-4222-8333-444444444444"
APP = "aaaaaaaa-1111-4222-8333-444444444444"
OTHER_APP = "bbbbbbbb-1111-4222-8333-444444444444"
IMAGE = "cccccccc-1111-4222-8333-444444444444"
V1 = "d1d1d1d1-1111-4222-8333-444444444444"
V2 = "d2d2d2d2-1111-4222-8333-444444444444"
T1 = "e1e1e1e1-1111-4222-8333-444444444444"
T2 = "e2e2e2e2-1111-4222-8333-444444444444"
NIL = "00000000-0000-0000-0000-000000000000"
SHA1, SHA2 = "ab" * 32, "cd" * 32


def drive(sha: str = SHA1, form: str = "QCOW2", image: str = IMAGE) -> pb.Drive:
    """Return a drive that is made from an image."""
    return pb.Drive(
        image=pb.Image(uuidandversion=pb.UUIDandVersion(uuid=image), sha256=sha, iformat=form),
    )


def ref(volume: str = V1, generation: int = 0) -> pb.VolumeRef:
    """Return a reference to a volume."""
    return pb.VolumeRef(uuid=volume, generationCount=generation)


def app(
    drives: Iterable[pb.Drive] = (),
    refs: Iterable[pb.VolumeRef] = (),
    *,
    purge: int = 0,
    uuid: str = APP,
) -> pb.AppInstanceConfig:
    """Return an application."""
    return pb.AppInstanceConfig(
        uuidandversion=pb.UUIDandVersion(uuid=uuid),
        drives=drives,
        purge=pb.InstanceOpsCmd(counter=purge),
        volumeRefList=refs,
    )


def volume(uuid: str = V1, tree: str = "", generation: int = 0, *, clear: bool = False) -> pb.Volume:
    """Return a volume of the configuration."""
    origin = pb.VolumeContentOrigin(downloadContentTreeID=tree)
    return pb.Volume(uuid=uuid, origin=origin, generationCount=generation, clear_text=clear)


def tree(uuid: str = T1, sha: str = SHA1, form: str = "QCOW2") -> pb.ContentTree:
    """Return a content tree."""
    return pb.ContentTree(uuid=uuid, sha256=sha, iformat=form)


def device(
    *apps: pb.AppInstanceConfig,
    volumes: Iterable[pb.Volume] = (),
    trees: Iterable[pb.ContentTree] = (),
    uuid: str = DEVICE,
) -> pb.EdgeDevConfig:
    """Return a whole configuration."""
    return pb.EdgeDevConfig(id=pb.UUIDandVersion(uuid=uuid), apps=apps, volumes=volumes, contentInfo=trees)


def response(config: pb.EdgeDevConfig) -> bytes:
    """Return a configuration as EVE 4.6 to 8.8 saved it."""
    return pb.ConfigResponse(config=config, configHash="c29tZSBoYXNo").SerializeToString()


def container(payload: bytes, *, algo: int = 2, sender: int = 32, signature: bytes = b"s" * 64) -> bytes:
    """Return a payload as EVE since 8.9 saves it."""
    return pb.AuthContainer(
        protectedPayload=pb.AuthBody(payload=payload),
        algo=algo,
        senderCertHash=b"h" * sender,
        signatureHash=signature,
    ).SerializeToString()


def documents(files: Mapping[str, bytes]) -> dict[str, Document]:
    """Return files as the engine hands them to the pack."""
    return {path: Document(path=path, content=content) for path, content in files.items()}


def saved(config: pb.EdgeDevConfig, files: Mapping[str, bytes] | None = None) -> Checkpoint:
    """Return what the pack reads from a saved configuration and other files."""
    return read_checkpoint(documents({"checkpoint/lastconfig": response(config), **(files or {})}))


def entry(path: str, kind: Kind = Kind.FILE, labels: Mapping[str, str] | None = None) -> Entry:
    """Return an entry whose facts do not matter."""
    return Entry(
        path=path,
        kind=kind,
        size=1,
        allocated=4096,
        mode=0o644,
        uid=0,
        gid=0,
        mtime_ns=0,
        atime_ns=0,
        identity=1,
        labels=labels or {},
    )


def item(slot: Slot, name: str, *, children: Iterable[Entry] = (), labels: Mapping[str, str] | None = None) -> Item:
    """Return what the scan makes of a name that the slot recognises."""
    match = re.fullmatch(slot.pattern or "", name)
    assert match is not None, f"{name} is a stranger in {slot.name}"
    keys = {key: value for key, value in match.groupdict().items() if value is not None}
    facts = entry(f"{slot.directory}/{name}", slot.kinds[0], labels)
    return Item(slot=slot.name, entry=facts, keys=keys, children=tuple(children))


def legacy(*names: str) -> tuple[Item, ...]:
    """Return items of `img`, or of the prepared directories for names without a format."""
    return tuple(item(IMAGES if "." in name else PREPARED, name) for name in names)


def state(checkpoint: Checkpoint, items: Iterable[Item], target: str = "design") -> DiskState:
    """Return all that a migration gets."""
    return DiskState(target=PACK.layouts[target], checkpoint=checkpoint, inventory=Inventory(items=tuple(items)))
