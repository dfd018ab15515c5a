"""A verified file gets the name under which the running release finds it, or is named as what it is: room to be reclaimed."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest

from migrations.eve.media_types import CONFIG, LAYER, MANIFEST, escaped
from tests.packs.eve_device import Device
from tests.packs.eve_words import T1, device, response, tree
from tests.support.olddisk import left, unsynced

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VERIFIED = "vault/verifier/verified"


@pytest.fixture(autouse=True)
def _unsynced() -> Iterator[None]:
    with unsynced():
        yield


@pytest.fixture
def made(tmp_path: Path) -> Device:
    """Return an empty device."""
    return Device.at(tmp_path)


def sha(content: bytes) -> str:
    """Return the digest of some content."""
    return hashlib.sha256(content).hexdigest()


LAYERS, SETTINGS, IMAGE, RAW, OTHER = b"\x1f\x8b layers", b'{"architecture":"amd64"}', b"QFI\xfb image", b"raw", b"anything"
OF_MANIFEST = json.dumps(
    {
        "config": {"mediaType": CONFIG, "digest": f"sha256:{sha(SETTINGS)}"},
        "layers": [{"mediaType": LAYER, "digest": f"sha256:{sha(LAYERS)}"}],
    }
).encode()
TYPES = {OF_MANIFEST: MANIFEST, SETTINGS: CONFIG, LAYERS: LAYER, IMAGE: LAYER, RAW: LAYER}


@pytest.mark.parametrize("place", ["downloads/appImg.obj/verified/{upper}/name", VERIFIED + "/{digest}"], ids=["old", "untyped"])
def test_types(made: Device, place: str) -> None:
    """Documents and what they name, disk images by their content or by the configuration; nothing else is guessed."""
    where = {content: place.format(digest=sha(content), upper=sha(content).upper()) for content in (*TYPES, OTHER)}
    for content, path in where.items():
        made.write(f"persist/{path}", content)
    made.write("persist/checkpoint/lastconfig", response(device(trees=[tree(T1, sha(RAW), "RAW")])))
    assert left(made.do(target="16.12.0")) == {where[OTHER]: "MediaTypeUnknown"}
    names = {f"{VERIFIED}/{sha(content)}.{escaped(kind)}" for content, kind in TYPES.items()}
    assert set(made.files()) == names | {where[OTHER], "checkpoint/lastconfig"}
    made.do("rollback", target="16.12.0")
    assert set(made.files()) == {*where.values(), "checkpoint/lastconfig"}


def test_image_of_a_container_is_not_guessed(made: Device) -> None:
    """What the configuration calls a container has no type from there."""
    made.write(f"persist/{VERIFIED}/{sha(OTHER)}", OTHER)
    made.write("persist/checkpoint/lastconfig", response(device(trees=[tree(T1, sha(OTHER), "CONTAINER")])))
    assert left(made.do(target="16.12.0")) == {f"{VERIFIED}/{sha(OTHER)}": "MediaTypeUnknown"}


def test_other_content_than_the_name_says(made: Device) -> None:
    """The digest is looked at on the way, whatever the type; and what is forged says nothing of others."""
    wrong, forged = sha(IMAGE), sha(b"forged")
    made.write(f"persist/{VERIFIED}/{wrong}", IMAGE + b"!")
    made.write(f"persist/{VERIFIED}/{forged}", OF_MANIFEST)
    made.write(f"persist/{VERIFIED}/{sha(LAYERS)}", LAYERS)
    assert left(made.do(target="16.12.0")) == {
        f"{VERIFIED}/{wrong}": "DigestMismatch",
        f"{VERIFIED}/{forged}": "MediaTypeUnknown",
        f"{VERIFIED}/{sha(LAYERS)}": "MediaTypeUnknown",
    }


def test_typed_already(made: Device) -> None:
    """What has its type is left as it is, without a word."""
    made.write(f"persist/{VERIFIED}/{sha(OTHER)}.{escaped(MANIFEST)}", OTHER)
    assert left(made.do(target="16.12.0")) == {}
