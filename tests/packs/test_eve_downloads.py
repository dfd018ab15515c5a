"""Downloads and verifications that are under way end in the vault, with nothing in their names that tells what they are."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from tests.packs.eve_device import Device
from tests.support.olddisk import left, unsynced

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DIGEST = hashlib.sha256(b"verified").hexdigest()


@pytest.fixture(autouse=True)
def _unsynced() -> Iterator[None]:
    with unsynced():
        yield


@pytest.fixture
def device(tmp_path: Path) -> Device:
    """Return a device with something of each kind on its way."""
    made = Device.at(tmp_path)
    for kind in ("appImg", "baseOs", "cert"):
        made.write(f"persist/downloads/{kind}.obj/pending/{kind} id/part", b"downloaded")
        made.write(f"persist/downloads/{kind}.obj/verifier/{kind} id/file", b"to be verified")
        made.write(f"persist/downloads/{kind}.obj/verified/{DIGEST}/file", b"verified")
    return made


@pytest.mark.parametrize("target", ["design", "5.7.1"])
def test_nothing_stays_in_the_clear(device: Device, target: str) -> None:
    """All three kinds go, certificates as well; of what has one digest one is kept."""
    assert left(device.do(target=target)) == {}
    ids = [f"{kind} id" for kind in ("appImg", "baseOs", "cert")]
    assert sorted(path for path in device.files() if not path.startswith("config/")) == sorted(
        (
            f"vault/verifier/verified/{DIGEST}",
            *(f"vault/downloader/pending/{each}/part" for each in ids),
            *(f"vault/verifier/verifier/{each}/file" for each in ids),
        )
    )
    device.do("rollback", target=target)
    assert len([path for path in device.files() if path.startswith("downloads/")]) == 9


def test_same_id_twice(device: Device) -> None:
    """Two downloads of one name and with other content both stay whole, one of them where it was."""
    device.write("persist/downloads/baseOs.obj/pending/appImg id/part", b"something else")
    assert left(device.do()) == {"downloads/baseOs.obj/pending/appImg id": "TargetExists"}
    assert device.read("vault/downloader/pending/appImg id/part") == b"downloaded"
    assert device.read("downloads/baseOs.obj/pending/appImg id/part") == b"something else"


def test_release_without_such_directories(device: Device) -> None:
    """5.7.0 looks for them where they are."""
    before = device.files()
    device.do(target="5.7.0")
    assert [path for path in device.files() if path.startswith("downloads/")] == before
