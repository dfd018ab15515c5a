"""Of which media type a verified blob is, told by its content, by what names it, or by the configuration. Pure.

Since 11.8.0 (9.4.11, 10.4.9 and 11.0.3 in their branches) the name of a verified file ends in the media type, escaped as in a
URL; a file without one is downloaded again. Blobs that a registry serves say themselves what they are, or are named with
their type by the manifest that needs them; a disk image that comes from anywhere else counts as a layer.

Sources: OCI image specification 1.1, "Image Manifest", "Image Index" and "Media Types"; Docker registry, "Image Manifest V 2,
Schema 2"; lf-edge/eve `pkg/pillar/cmd/volumemgr/handlecontent.go` for what is no container image; Go's `net/url`, `PathEscape`.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from msgspec import Struct

from . import gojson

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from upgradeconverter.packs.api import Part

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
_DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_OF_THEMSELVES = (INDEX, MANIFEST, _DOCKER_LIST, _DOCKER_MANIFEST)
# Beginnings of disk images: qcow and qcow2, VMDK (sparse, and as text), VHDX, dynamic VHD, squashfs (EVE's own).
_IMAGES = (b"QFI\xfb", b"KDMV", b"# Disk DescriptorFile", b"vhdxfile", b"conectix", b"hsqs")
# Documents are no longer than this.
_LONGEST = 64 << 10
# How many bytes of a file are looked at: one more, to see that a document is whole. An ISO's mark is in the 17th sector of 2 KiB.
PEEK = _LONGEST + 1
# RFC 6838, 4.2: type and subtype.
_NAME = "[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
_MEDIA_TYPE = re.compile(f"{_NAME}/{_NAME}")
_ISO = (32769, b"CD001")
_BOOT_SECTOR = (510, b"\x55\xaa")
_EXT = (1080, b"\x53\xef")


class Sign(Struct, frozen=True, kw_only=True):
    """What the beginning of a blob, `PEEK` bytes of it, tells.

    Attributes:
        is_image: whether it is that of a disk image.
        digest: of a whole document, "" where it is none.
        own: what the document says, or shows, that it is.
        named: digest and media type of all that the document names.
    """

    is_image: bool = False
    digest: str = ""
    own: str | None = None
    named: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, head: bytes) -> Sign:
        """Return what a beginning tells."""
        document = _document(head)
        if document is None:
            return _IMAGE if is_image(head) else _NOTHING
        return cls(
            is_image=is_image(head),
            digest=hashlib.sha256(head).hexdigest(),
            own=_own(document),
            named=tuple(_named_in(document)),
        )

    @classmethod
    def of_file(cls, part: Part) -> Sign:
        """Return what the beginning of a file tells."""
        return cls.of(part(0, PEEK))


# Nearly every blob has one of these.
_IMAGE, _NOTHING = Sign(is_image=True), Sign()


def media_types(signs: Iterable[tuple[str, Sign]], images: Iterable[str]) -> dict[str, str]:
    """Return the media type of each blob of which it is known, by its digest in lower case.

    Args:
        signs: what blobs tell, with the digests that they are named by; a document that has another one says nothing.
        images: digests of blobs that are disk images by the configuration.
    """
    signs = tuple(signs)
    true = [(digest, sign) for digest, sign in signs if sign.digest == digest]
    found = dict.fromkeys((*images, *(digest for digest, sign in signs if sign.is_image)), LAYER)
    found |= {digest: kind for _, sign in true for digest, kind in sign.named}
    return found | {digest: sign.own for digest, sign in true if sign.own is not None}


def is_image(head: bytes) -> bool:
    """Return whether the beginning of a file is that of a disk image."""
    at = ((offset, mark) for offset, mark in (_ISO, _BOOT_SECTOR, _EXT))
    return head.startswith(_IMAGES) or any(head[offset : offset + len(mark)] == mark for offset, mark in at)


def escaped(media_type: str) -> str:
    """Return a media type as it stands in a file's name."""
    return quote(media_type, safe="$&+=:@")


def _document(head: bytes) -> Any:
    if len(head) > _LONGEST or not head.lstrip().startswith(b"{"):
        return None
    try:
        return gojson.read(head)
    except ValueError:
        return None


def _own(document: Any) -> str | None:
    """Return what a document says, or shows, that it is."""
    said = _text(document, "mediaType")
    if said in _OF_THEMSELVES:
        return said
    if isinstance(gojson.member(document, "manifests"), list):
        return INDEX
    if isinstance(gojson.member(document, "config"), dict) and isinstance(gojson.member(document, "layers"), list):
        return MANIFEST
    return None


def _named_in(document: Any) -> Iterator[tuple[str, str]]:
    """Yield digest and media type of all that an index or a manifest names."""
    for name in ("manifests", "layers"):
        members = gojson.member(document, name)
        for each in members if isinstance(members, list) else ():
            yield from _descriptor(each)
    yield from _descriptor(gojson.member(document, "config"))


def _descriptor(found: Any) -> Iterator[tuple[str, str]]:
    algorithm, _, digest = _text(found, "digest").partition(":")
    kind = _text(found, "mediaType")
    # What is no media type becomes no part of a name.
    if algorithm == "sha256" and _MEDIA_TYPE.fullmatch(kind):
        yield digest.lower(), kind


def _text(found: Any, name: str) -> str:
    value = gojson.member(found, name)
    return value if isinstance(value, str) and not isinstance(value, gojson.Number) else ""
