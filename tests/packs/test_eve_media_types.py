"""A blob's media type is what the blob says, what names it says, or what every disk image has; nothing is guessed."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrations.eve.media_types import CONFIG, INDEX, LAYER, MANIFEST, PEEK, Sign, escaped, is_image, media_types

DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
BLOB, OTHER = "ab" * 32, "cd" * 32


def blobs(*documents: Any) -> dict[str, Sign]:
    """Return what documents tell, by digest."""
    written = [json.dumps(each).encode() for each in documents]
    return {hashlib.sha256(each).hexdigest(): Sign.of(each) for each in written}


def types(signs: dict[str, Sign], *images: str) -> dict[str, str]:
    """Return the media types of blobs."""
    return media_types(signs.items(), images)


def descriptor(digest: str, kind: str) -> dict[str, Any]:
    """Return how a manifest names a blob."""
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": 7}


@pytest.mark.parametrize(
    ("document", "kind"),
    [
        pytest.param({"mediaType": INDEX}, INDEX, id="index that says so"),
        pytest.param({"manifests": []}, INDEX, id="index that shows it"),
        pytest.param({"config": {}, "layers": []}, MANIFEST, id="manifest that shows it"),
        pytest.param({"mediaType": DOCKER_LIST, "manifests": []}, DOCKER_LIST, id="of Docker's"),
    ],
)
def test_documents(document: Any, kind: str) -> None:
    """Indexes and manifests say or show what they are."""
    (digest,) = found = blobs(document)
    assert types(found) == {digest: kind}


@pytest.mark.parametrize(
    "document",
    [
        pytest.param({"architecture": "amd64", "rootfs": {}}, id="configuration that nobody names"),
        pytest.param({"mediaType": "text/plain"}, id="some other type"),
        pytest.param({"mediaType": 7, "manifests": {}}, id="wrong types"),
        pytest.param([], id="a list"),
    ],
)
def test_what_is_not_known(document: Any) -> None:
    """Nobody knows what a document is that neither says it nor is named."""
    assert types(blobs(document)) == {}


def test_named() -> None:
    """Layers and configuration are what the manifest calls them, in either spelling of a digest."""
    manifest = {"config": descriptor(BLOB, CONFIG), "layers": [descriptor(OTHER.upper(), DOCKER_LAYER)]}
    (digest,) = found = blobs(manifest)
    assert types(found) == {digest: MANIFEST, BLOB: CONFIG, OTHER: DOCKER_LAYER}


@pytest.mark.parametrize("kind", ["", "text", "\ud800/x", "a/b c", f"a/{'b' * 128}", "a/b\n", "../../x", "a/.b", "é/x"])
def test_named_as_what_is_no_media_type(kind: str) -> None:
    """What nobody may call a media type (RFC 6838) becomes no part of a name, and stops nothing else."""
    manifest = {"layers": [descriptor(OTHER, kind), descriptor(BLOB, LAYER)]}
    assert types(blobs(manifest)) == {BLOB: LAYER}


def test_forged() -> None:
    """A document that has not the digest of its name says nothing about others."""
    assert types({BLOB: Sign.of(json.dumps({"layers": [descriptor(OTHER, LAYER)]}).encode())}) == {}


def test_images() -> None:
    """A disk image counts as a layer."""
    assert types({}, BLOB) == {BLOB: LAYER}


@pytest.mark.parametrize(
    ("head", "known"),
    [
        (b"QFI\xfb\0\0\0\x03", True),
        (b"KDMV", True),
        (b"vhdxfile", True),
        (b"conectix", True),
        (b"hsqs", True),
        (bytes(510) + b"\x55\xaa", True),
        (bytes(1080) + b"\x53\xef", True),
        (bytes(32769) + b"CD001", True),
        (b"\x1f\x8b\x08", False),
        (b"", False),
        (bytes(PEEK), False),
    ],
)
def test_beginnings(head: bytes, *, known: bool) -> None:
    """Disk images are known by their first bytes."""
    assert is_image(head[:PEEK]) == known


def test_escaped() -> None:
    """As Go's PathEscape does it."""
    assert escaped(MANIFEST) == "application%2Fvnd.oci.image.manifest.v1+json"
    assert escaped("a b;c=d:e@f$g&h~%") == "a%20b%3Bc=d:e@f$g&h~%25"


@given(st.dictionaries(st.sampled_from((BLOB, OTHER)), st.binary()))
def test_anything(found: dict[str, bytes]) -> None:
    """Whatever lies there, the answer is one."""
    assert set(types({digest: Sign.of(content) for digest, content in found.items()}).values()) <= {LAYER}


def test_only_whole_documents() -> None:
    """What may go on behind the bytes that were read is no document."""
    content = json.dumps({"mediaType": INDEX}).encode()
    whole, cut = content.ljust(PEEK - 1), content.ljust(PEEK)
    assert len(whole) == 64 << 10
    assert (Sign.of(whole).own, Sign.of(cut)) == (INDEX, Sign())
