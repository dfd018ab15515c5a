"""Reads the device's saved configuration, whatever release wrote it. Pure: bytes in, plain types out.

EVE wrote a bare EdgeDevConfig before 4.6.0, a ConfigResponse until 8.8, an AuthContainer since 8.9 (and in 8.5.2 and
8.5.4). An AuthContainer also parses as a ConfigResponse whose device is empty, so it has to be tried first, with
strict criteria. A decoded configuration counts only when its device has a UUID: zero bytes decode without error
(known defect 2).

Whether the controller signed it is looked at as the option `checkpoint.signature` wants it: `require` takes nothing that is not
signed, `warn` says what is wrong with a signature (older releases saved none), `off` does not look. Certificates have to be valid
at the last contact with the controller, which is when the file was last touched: the clock of a device that has just started
may say anything. Where that time is before there was any EVE, it is nobody's.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from upgradeconverter.packs.api import Checkpoint, Document, Input, Reason

from .config import App, ContentTree, DeviceConfig, Drive, Volume, VolumeRef
from .latches import LATCH_FOLDERS, read_latches
from .names import FORMATS, read_uuid
from .signature import Finding, Material, Verdict, verify

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.message import Message

    from . import eve_pb2

    M = TypeVar("M", bound=Message)

CANDIDATES = ("checkpoint/lastconfig", "checkpoint/config", "checkpoint/lastconfig.bak", "checkpoint/config.bak")
SIGNATURE = "checkpoint.signature"
OPTIONS = {SIGNATURE: ("warn", "require", "off")}
_SIGNER = Input(path="certs/server-signing-cert.pem", limit=1 << 20)
_LISTS = tuple(Input(path=f"checkpoint/controllercerts{ending}", limit=1 << 20) for ending in ("", ".bak"))
_ROOTS = Input(path="root-certificate.pem", outside="config", limit=1 << 20)
INPUTS = (
    *(Input(path=path) for path in CANDIDATES),
    _SIGNER,
    *_LISTS,
    _ROOTS,
    *(Input(path=path, directory=True, limit=1 << 16) for path in LATCH_FOLDERS),
)

# 2018-01-01: EVE has been saving configurations since then.
_EARLIEST_NS = 1_514_764_800_000_000_000
_HASH_SIZES = (16, 32)
_HASH_ALGORITHMS = (1, 2)


def read_checkpoint(documents: Mapping[str, Document], options: Mapping[str, str] | None = None) -> Checkpoint:
    """Return the configuration from the first candidate that decodes, and is signed where that is required."""
    policy = (options or {}).get(SIGNATURE, OPTIONS[SIGNATURE][0])
    problems: list[str] = []
    reason = Reason.CHECKPOINT_UNREADABLE
    for path in CANDIDATES:
        document = documents.get(path)
        if document is None or document.problem == "missing":
            continue
        config, container = _decode(document.content) if document.content else (None, None)
        if config is None:
            problems.append(f"{path}: {_why_not(document)}")
            continue
        verdict = verify(container, _material(documents, document)) if policy != "off" else Verdict(Finding.VALID)
        if verdict.finding is not Finding.VALID and (policy == "require" or container is not None):
            problems.append(f"{path}: {verdict.finding.value}" + (f" ({verdict.detail})" if verdict.detail else ""))
        if verdict.finding is not Finding.VALID and policy == "require":
            reason = Reason.CHECKPOINT_UNTRUSTED
            continue
        latches, warnings = read_latches(documents)
        if path != CANDIDATES[0]:
            problems.append(f"the configuration was taken from {path}")
        return Checkpoint(content=_plain(config, latches), source=path, warnings=(*problems, *warnings))
    if not problems:
        return Checkpoint(content=None, problem=Reason.CHECKPOINT_MISSING, detail=f"{CANDIDATES[0]} is missing")
    return Checkpoint(content=None, problem=reason, detail="; ".join(problems))


def _material(documents: Mapping[str, Document], checkpoint: Document) -> Material:
    found = {each: documents[each.key].content or b"" if each.key in documents else b"" for each in (_SIGNER, *_LISTS, _ROOTS)}
    at = datetime.fromtimestamp(checkpoint.mtime_ns // 10**9, UTC) if checkpoint.mtime_ns >= _EARLIEST_NS else None
    lists = tuple((each.path, found[each]) for each in _LISTS if found[each])
    return Material(signer=found[_SIGNER], lists=lists, roots=found[_ROOTS], at=at)


def _why_not(document: Document) -> str:
    return document.problem or ("not a device configuration" if document.content else "empty")


def _decode(content: bytes) -> tuple[eve_pb2.EdgeDevConfig | None, eve_pb2.AuthContainer | None]:
    """Return the device configuration in some bytes, None when there is none, and the signed container that it was in."""
    from . import eve_pb2 as pb

    container = _parse(pb.AuthContainer, content)
    if container is not None and _looks_like_a_container(container, len(content)):
        device = _device_of(_parse(pb.ConfigResponse, container.protectedPayload.payload))
        # It is signed content; if that is garbage, no other reading of the same bytes can be right.
        if device is not None or _is_container(container):
            return device, container
    return _device_of(_parse(pb.ConfigResponse, content)) or _plausible(_parse(pb.EdgeDevConfig, content)), None


def _parse(message: type[M], content: bytes) -> M | None:
    from google.protobuf.message import DecodeError

    try:
        return message.FromString(content)
    except (DecodeError, ValueError):
        # The second is what protobuf says of bad UTF-8 where it has no compiled backend.
        return None


def _looks_like_a_container(container: eve_pb2.AuthContainer, size: int) -> bool:
    """Return whether it has the members of one and no others; what came twice makes a message shorter than its source."""
    from google.protobuf.unknown_fields import UnknownFieldSet

    return (
        not len(UnknownFieldSet(container))
        and container.HasField("protectedPayload")
        and not len(UnknownFieldSet(container.protectedPayload))
        and container.ByteSize() == size
        and bool(container.protectedPayload.payload)
    )


def _is_container(container: eve_pb2.AuthContainer) -> bool:
    """Return whether it cannot be anything else."""
    return container.algo in _HASH_ALGORITHMS and len(container.senderCertHash) in _HASH_SIZES and bool(container.signatureHash)


def _device_of(response: eve_pb2.ConfigResponse | None) -> eve_pb2.EdgeDevConfig | None:
    return _plausible(response.config) if response is not None else None


def _plausible(config: eve_pb2.EdgeDevConfig | None) -> eve_pb2.EdgeDevConfig | None:
    return config if config is not None and read_uuid(config.id.uuid) is not None else None


def _plain(config: eve_pb2.EdgeDevConfig, latches: Mapping[tuple[str, str, int], str]) -> DeviceConfig:
    trees = {
        uuid: ContentTree(digest=tree.sha256.lower() or latches.get(("", uuid, 0), ""), form=_form(tree.iformat))
        for uuid, tree in ((read_uuid(tree.uuid), tree) for tree in config.contentInfo)
        if uuid is not None
    }
    apps = ((read_uuid(app.uuidandversion.uuid), app) for app in config.apps)
    # Of a hundred thousand volumes each is named twice at least, and so is what it is made of: one text for both.
    volumes = _volumes(config, {uuid: uuid for uuid in trees})
    named = {uuid: uuid for uuid in volumes}
    return DeviceConfig(
        apps=tuple(_app(uuid, app, named) for uuid, app in apps if uuid is not None),
        volumes=volumes,
        content_trees=trees,
        latches=latches,
    )


def _volumes(config: eve_pb2.EdgeDevConfig, named: Mapping[str, str]) -> dict[str, Volume]:
    found: dict[str, Volume] = {}
    for volume in config.volumes:
        uuid = read_uuid(volume.uuid)
        if uuid is None:
            continue
        # Of a volume that is there twice, one word for encryption is enough: what is clear by mistake cannot be taken back.
        clear_text = volume.clear_text and (uuid not in found or found[uuid].clear_text)
        tree = read_uuid(volume.origin.downloadContentTreeID) or ""
        found[uuid] = Volume(generation=volume.generationCount, clear_text=clear_text, content_tree=named.get(tree, tree))
    return found


def _ref(ref: eve_pb2.VolumeRef, named: Mapping[str, str]) -> VolumeRef:
    """Return a reference; a generation below zero names no volume."""
    uuid = read_uuid(ref.uuid) if ref.generationCount >= 0 else None
    return VolumeRef(volume=named.get(uuid, uuid) if uuid is not None else None, generation=ref.generationCount)


def _app(uuid: str, app: eve_pb2.AppInstanceConfig, named: Mapping[str, str]) -> App:
    return App(
        uuid=uuid,
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
        refs=tuple(_ref(ref, named) for ref in app.volumeRefList),
    )


@cache
def _form(number: int) -> str:
    from . import eve_pb2 as pb

    names = {value: name.lower() for name, value in pb.Format.items()}
    name = names.get(number, "fmtunknown")
    return name if name in FORMATS else "fmtunknown"
