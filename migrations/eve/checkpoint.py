"""Reads the device's saved configuration, whatever release wrote it. Pure: bytes in, plain types out.

EVE wrote a bare EdgeDevConfig before 4.6.0, a ConfigResponse until 8.8, an AuthContainer since 8.9 (and in 8.5.2 and 8.5.4). An
AuthContainer also parses as a ConfigResponse whose device is empty, so it has to be tried first, with strict criteria. A
decoded configuration counts only when its device has a UUID: zero bytes decode without error (known defect 2).

Signatures are not checked here.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from upgradeconverter.packs.api import Checkpoint, Document, Input, Reason

from .config import App, ContentTree, DeviceConfig, Drive, Volume, VolumeRef
from .names import FORMATS, read_uuid

if TYPE_CHECKING:
    from collections.abc import Mapping

CANDIDATES = ("checkpoint/lastconfig", "checkpoint/config", "checkpoint/lastconfig.bak", "checkpoint/config.bak")
LATCH_FOLDERS = ("status/zedmanager/AppAndImageToHash", "status/volumemgr/AppAndImageToHash")
INPUTS = (
    *(Input(path=path) for path in CANDIDATES),
    *(Input(path=path, directory=True, limit=1 << 16) for path in LATCH_FOLDERS),
)

_HASH_SIZES = (16, 32)
_HASH_ALGORITHMS = (1, 2)


def read_checkpoint(documents: Mapping[str, Document]) -> Checkpoint:
    """Return the configuration from the first candidate that decodes."""
    problems: list[str] = []
    present = False
    for path in CANDIDATES:
        document = documents.get(path)
        if document is None or document.problem == "missing":
            continue
        present = True
        config = _decode(document.content) if document.content else None
        if config is None:
            problems.append(f"{path}: {document.problem or _why_not(document.content)}")
            continue
        latches, warnings = _read_latches(documents)
        if path != CANDIDATES[0]:
            warnings = [f"configuration taken from {path}", *warnings]
        content = _plain(config, latches)
        return Checkpoint(content=content, source=path, warnings=(*problems, *warnings))
    if not present:
        return Checkpoint(content=None, problem=Reason.CHECKPOINT_MISSING, detail=f"{CANDIDATES[0]} is missing")
    return Checkpoint(
        content=None,
        problem=Reason.CHECKPOINT_UNREADABLE,
        detail="; ".join(problems),
        warnings=tuple(problems),
    )


def _why_not(content: bytes | None) -> str:
    return "empty" if not content else "not a device configuration"


def _decode(content: bytes) -> Any | None:
    """Return the EdgeDevConfig in some bytes, None when there is none."""
    from . import eve_pb2 as pb

    container = _parse(pb.AuthContainer, content)
    if container is not None and _is_container(container):
        # It is signed content; if that is garbage, no other reading of the same bytes can be right.
        return _config_of(_parse(pb.ConfigResponse, container.protectedPayload.payload))
    return _config_of(_parse(pb.ConfigResponse, content)) or _plausible(_parse(pb.EdgeDevConfig, content))


def _parse(message: Any, content: bytes) -> Any | None:
    from google.protobuf.message import DecodeError

    try:
        return message.FromString(content)
    except DecodeError:
        return None


def _is_container(container: Any) -> bool:
    from google.protobuf.unknown_fields import UnknownFieldSet

    return (
        not len(UnknownFieldSet(container))
        and container.HasField("protectedPayload")
        and not len(UnknownFieldSet(container.protectedPayload))
        and bool(container.protectedPayload.payload)
        and container.algo in _HASH_ALGORITHMS
        and len(container.senderCertHash) in _HASH_SIZES
        and bool(container.signatureHash)
    )


def _config_of(response: Any | None) -> Any | None:
    return _plausible(response.config) if response is not None else None


def _plausible(config: Any | None) -> Any | None:
    return config if config is not None and read_uuid(config.id.uuid) is not None else None


def _plain(config: Any, latches: dict[tuple[str, str, int], str]) -> DeviceConfig:
    return DeviceConfig(
        apps=tuple(_app(app) for app in config.apps if read_uuid(app.uuidandversion.uuid) is not None),
        volumes={
            uuid: Volume(
                generation=volume.generationCount,
                clear_text=volume.clear_text,
                content_tree=read_uuid(volume.origin.downloadContentTreeID) or "",
            )
            for volume in config.volumes
            if (uuid := read_uuid(volume.uuid)) is not None
        },
        content_trees={
            uuid: ContentTree(digest=tree.sha256.lower(), form=_form(tree.iformat))
            for tree in config.contentInfo
            if (uuid := read_uuid(tree.uuid)) is not None
        },
        latches=latches,
    )


def _app(app: Any) -> App:
    return App(
        uuid=read_uuid(app.uuidandversion.uuid) or "",
        name=app.displayname,
        purge=app.purge.counter,
        drives=tuple(
            Drive(
                has_image=drive.HasField("image"),
                image=read_uuid(drive.image.uuidandversion.uuid) or "",
                digest=drive.image.sha256.lower(),
                form=_form(drive.image.iformat),
            )
            for drive in app.drives
        ),
        refs=tuple(VolumeRef(volume=read_uuid(ref.uuid), generation=ref.generationCount) for ref in app.volumeRefList),
    )


def _form(number: int) -> str:
    from . import eve_pb2 as pb

    names = {value: name.lower() for name, value in pb.Format.items()}
    name = names.get(number, "fmtunknown")
    return name if name in FORMATS else "fmtunknown"


def _read_latches(documents: Mapping[str, Document]) -> tuple[dict[tuple[str, str, int], str], list[str]]:
    found: dict[tuple[str, str, int], str] = {}
    warnings: list[str] = []
    main = {path for path in documents if path.endswith(".json") and path.rpartition("/")[0] in LATCH_FOLDERS}
    only_backup = {path.removesuffix(".bak") for path in documents if path.endswith(".json.bak")}
    for path in sorted(main | {p for p in only_backup if p.rpartition("/")[0] in LATCH_FOLDERS}):
        document = documents.get(path)
        if document is None or not document.content:
            document = documents.get(f"{path}.bak", document)
        latch = _latch(document.content) if document is not None and document.content else None
        if latch is None:
            warnings.append(f"{path}: not a digest latch, ignored")
        else:
            found[latch[0]] = latch[1]
    return found, warnings


def _latch(content: bytes) -> tuple[tuple[str, str, int], str] | None:
    try:
        data = json.loads(content)
        app, image = read_uuid(data["AppUUID"]), read_uuid(data["ImageID"])
        digest, purge = data["Hash"], data.get("PurgeCounter", 0)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if image is None or not isinstance(digest, str) or type(purge) is not int:
        return None
    return (app or "", image, purge), digest.lower()
