"""What a device of each EVE release has on its disk, put together from what is known of the releases, not by converting.

One device, with the same applications, settings and numbers whatever release it runs. `PLACES` say where each piece lies since
which release; `disk` puts them together. Sources are the paths in lf-edge/eve at the tags named.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from migrations.eve.media_types import CONFIG, LAYER, MANIFEST
from tests.packs import eve_words as words

if TYPE_CHECKING:
    from collections.abc import Callable

RELEASES = (
    *("5.0.0", "5.1.0", "5.3.0", "5.6.0", "design", "5.7.0", "5.7.1", "5.15.0", "6.13.0", "7.6.0", "7.11.0", "8.9.0", "11.8.0"),
    *("12.5.0", "17.1.0"),
)
LATEST = RELEASES[-1]
# The design came after 5.6.
_NUMBERS = {"design": (5, 6, 999)}

DISK, CONTAINER, CLEAR = words.V1, words.V2, "d3d3d3d3-1111-4222-8333-444444444444"
CONTAINER_APP, CLEAR_APP = words.OTHER_APP, "cccccccc-2222-4222-8333-444444444444"
NETWORK = "99999999-1111-4222-8333-444444444444"
LAYER_BLOB, CONFIG_BLOB, IMAGE_BLOB = b"\x1f\x8b\x08 layer", b'{"architecture":"amd64","os":"linux"}', b"QFI\xfb image"


def sha(content: bytes) -> str:
    """Return the digest of some content, in lower case."""
    return hashlib.sha256(content).hexdigest()


MANIFEST_BLOB = json.dumps(
    {
        "config": {"mediaType": CONFIG, "digest": f"sha256:{sha(CONFIG_BLOB)}"},
        "layers": [{"mediaType": LAYER, "digest": f"sha256:{sha(LAYER_BLOB)}"}],
    }
).encode()
BLOBS = {"image": IMAGE_BLOB, "manifest": MANIFEST_BLOB, "config": CONFIG_BLOB, "layer": LAYER_BLOB}
_TYPES = {"image": LAYER, "manifest": MANIFEST, "config": CONFIG, "layer": LAYER}
_DISK_IMAGE, _CONTAINER_IMAGE = "ab" * 32, "cd" * 32
_PAIR = {"Number": 7, "NumType": "appNumOnUnet", "CreateTime": "2021-09-01T12:00:00.5Z", "LastUseTime": "2021-11-01T12:00:00Z"}


@dataclass(frozen=True, slots=True)
class Piece:
    """One thing that a device keeps: where each release has it, and as what.

    Attributes:
        places: path since a release, or None where none has it any more; what comes first is not on older disks.
        files: what it is: one file (`""`), or a directory by the names inside; as a release has it.
    """

    name: str
    places: tuple[tuple[str, str | None], ...]
    files: Callable[[str], dict[str, bytes]]

    def place(self, release: str) -> str | None:
        """Return where a release has it."""
        found = None
        for since, path in self.places:
            if _number(since) <= _number(release) and (since == "design") <= (release == "design"):
                found = path
        return found


def _number(release: str) -> tuple[int, ...]:
    return _NUMBERS.get(release) or tuple(int(part) for part in release.split("."))


def _file(content: bytes) -> Callable[[str], dict[str, bytes]]:
    return lambda _: {"": content}


def _prepared(_: str) -> dict[str, bytes]:
    return {"image-config.json": b"{}", "mountPoints": b"", "cmdline": b"/bin/app", "environment": b"A=b"}


def _store(_: str) -> dict[str, bytes]:
    blob = f"io.containerd.content.v1.content/blobs/sha256/{sha(LAYER_BLOB)}"
    return {"io.containerd.metadata.v1.bolt/meta.db": b"snapshots", blob: LAYER_BLOB}


def _settings(release: str) -> dict[str, bytes]:
    if _number(release) < (5, 1, 0):
        return {"": json.dumps({"ConfigInterval": 61, "AllowAppVnc": True, "SshAuthorizedKeys": "ssh-ed25519 AAAA"}).encode()}
    values: dict[str, tuple[int, dict[str, object]]] = {
        "timer.config.interval": (1, {"IntValue": 61}),
        "app.allow.vnc": (2, {"BoolValue": True}),
        "debug.enable.ssh": (3, {"StrValue": "ssh-ed25519 AAAA"}),
    }
    empty: dict[str, object] = {"IntValue": 0, "StrValue": "", "BoolValue": False, "TriStateValue": 0}
    items = {key: {"Key": key, "ItemType": kind, **empty, **value} for key, (kind, value) in values.items()}
    return {"": json.dumps({"GlobalSettings": items, "AgentSettings": {}}).encode()}


def _pair(release: str) -> dict[str, bytes]:
    interface = {"IfIdx": 0} if _number(release) >= (7, 7, 0) else {}
    return {"": json.dumps({"BaseID": NETWORK, "AppID": words.APP, **interface, **_PAIR, "InUse": True}).encode()}


def _typed(name: str) -> str:
    return _TYPES[name].replace("/", "%2F")


def _blob(name: str, content: bytes) -> Piece:
    new = f"vault/verifier/verified/{sha(content)}"
    old = f"downloads/appImg.obj/verified/{sha(content).upper()}/{name}"
    typed = f"{new}.{_typed(name)}"
    return Piece(name, (("5.0.0", old), ("design", new), ("5.7.1", new), ("11.8.0", typed)), _file(content))


PIECES = (
    Piece(
        "disk",
        (
            ("5.0.0", f"img/{_DISK_IMAGE.upper()}-{words.APP}.qcow2"),
            ("5.2.0", f"img/{_DISK_IMAGE.upper()}-{words.APP}#2.qcow2"),
            ("design", f"vault/volumes/{DISK}#0"),
            ("5.7.0", f"vault/volumes/{DISK}#0.qcow2"),
        ),
        _file(b"QFI\xfb what the machine wrote"),
    ),
    Piece(
        "clear disk",
        (("design", f"clear/volumes/{CLEAR}#3"), ("5.7.1", f"clear/volumes/{CLEAR}#3.raw")),
        _file(b"what another machine wrote"),
    ),
    Piece(
        "container",
        (
            ("5.0.0", f"runx/pods/prepared/{CONTAINER_APP}"),
            ("5.4.0", f"runx/pods/prepared/{_CONTAINER_IMAGE.upper()}-{CONTAINER_APP}"),
            ("design", f"vault/volumes/{CONTAINER}#0"),
            ("5.7.0", f"vault/volumes/{CONTAINER}#0.container"),
        ),
        _prepared,
    ),
    *(_blob(name, content) for name, content in BLOBS.items()),
    Piece("store", (("5.0.0", "containerd"), ("design", "vault/case"), ("7.11.0", "vault/containerd")), _store),
    Piece(
        "settings",
        (
            ("5.0.0", "config/GlobalConfig/global.json"),
            ("5.1.0", "config/ConfigItemValueMap/global.json"),
            ("5.15.0", "status/zedagent/ConfigItemValueMap/global.json"),
            ("16.12.0", None),
        ),
        _settings,
    ),
    Piece(
        "number",
        (
            ("6.13.0", f"status/zedrouter/UUIDPairToNum/{NETWORK}-{words.APP}.json"),
            ("7.7.0", f"status/zedrouter/UUIDPairAndIfIdxToNum/{NETWORK}-{words.APP}-0.json"),
        ),
        _pair,
    ),
    Piece(
        "metadata",
        (
            ("6.12.0", f"status/zedrouter/AppInstMetaData/{words.APP}-1.json"),
            ("12.5.0", f"status/msrv/AppInstMetaData/{words.APP}-1.json"),
        ),
        _file(b'{"AppInstUUID":"' + words.APP.encode() + b'","Data":"aGVsbG8=","Type":1}'),
    ),
    Piece("ports", (("5.0.0", "status/nim/DevicePortConfigList/global.json"),), _file(b'{"CurrentIndex":0}')),
    Piece("device", (("5.0.0", "status/uuid"),), _file(words.DEVICE.encode())),
)


# What the design has in an attribute, and releases in the name.
FORMATS = {f"vault/volumes/{DISK}#0": b"qcow2", f"vault/volumes/{CONTAINER}#0": b"container", f"clear/volumes/{CLEAR}#3": b"raw"}


def checkpoint(release: str) -> bytes:
    """Return the saved configuration of the device, in the form that a release saves; `clear_text` is known since 5.7.1."""
    machine = words.app([words.drive(_DISK_IMAGE)], [words.ref(DISK)], purge=2)
    pod = words.app([words.drive(_CONTAINER_IMAGE, "CONTAINER")], [words.ref(CONTAINER)], uuid=CONTAINER_APP)
    clear = words.app([words.drive("ef" * 32, "RAW")], [words.ref(CLEAR, 3)], uuid=CLEAR_APP)
    volumes = [words.volume(DISK), words.volume(CONTAINER)]
    has_clear = _number(release) >= (5, 7, 1) or release == "design"
    config = words.device(
        *((machine, pod, clear) if has_clear else (machine, pod)),
        volumes=[*volumes, words.volume(CLEAR, generation=3, clear=True)] if has_clear else volumes,
    )
    saved = words.response(config)
    return words.container(saved) if _number(release) >= (8, 9, 0) else saved


def disk(release: str) -> dict[str, bytes]:
    """Return every file of a device that never ran another release than this one."""
    found = {"checkpoint/lastconfig": checkpoint(release)}
    for piece in PIECES:
        path = piece.place(release)
        if path is not None:
            files = piece.files(release)
            found |= {f"{path}/{name}" if name else path: content for name, content in files.items()}
    return found
