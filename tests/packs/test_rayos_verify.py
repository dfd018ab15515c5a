"""What `verify` finds on a data root: each rule is broken once, on a real directory, and told with the path that it is about."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from migrations.rayos.partitions import ESP_TYPE
from tests.packs.test_rayos_files import FAT, LINUX, ext4, gpt, qcow2
from tests.support.olddisk import checked, write
from upgradeconverter.errors import EXIT_DEVIATIONS, EXIT_DONE

if TYPE_CHECKING:
    from collections.abc import Callable

RECORDS: dict[str, dict[str, Any]] = {
    "desk": {
        "vm_id": "desk",
        "kind": "linux",
        "storage": {"disk": "vm/linux/desk/rootfs.ext4", "format": "raw", "size": 2048},
        "devices": {"vtpm": False},
    },
    "win": {
        "vm_id": "win",
        "kind": "windows",
        "storage": {
            "disk": "vm/windows/win/disk.qcow2",
            "format": "qcow2",
            "ovmf_vars": "vm/windows/win/ovmf_vars.fd",
            "tpm_state": "vm/windows/win/tpm",
        },
        "devices": {"vtpm": True},
        "saved_state": {"disk": "vm/windows/win/disk.qcow2", "snapshot": "hidden"},
    },
}


def _write(top: Path, records: object) -> None:
    write(top / "vm/registry.json", json.dumps({"version": 0, "vms": records}).encode())


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """Return a data root that is as it should be."""
    root = tmp_path / "data"
    _write(root, RECORDS)
    write(root / "policy/rayos-policy.toml", b"version = 0\n")
    write(root / "vm/linux/desk/rootfs.ext4", ext4())
    write(root / "vm/windows/win/disk.qcow2", qcow2("hidden"))
    write(root / "vm/windows/win/ovmf_vars.fd", b"firmware")
    write(root / "vm/windows/win/tpm/tpm2-00.permall", b"tpm")
    return root


def _verify(top: Path, *words: str) -> list[str]:
    status, document = checked("verify", "-p", str(top), "--pack", "rayos", *words)
    found: list[str] = document["details"]["deviations"]
    assert status == (EXIT_DEVIATIONS if found else EXIT_DONE)
    return found


def _change(top: Path, vm_id: str, **change: Any) -> None:
    record = RECORDS[vm_id]
    merged = {name: {**record.get(name, {}), **new} if isinstance(new, dict) else new for name, new in change.items()}
    _write(top, RECORDS | {vm_id: record | merged})


def test_sound(top: Path) -> None:
    """Nothing is found where nothing is wrong."""
    assert _verify(top) == []


def _link(path: Path, destination: str) -> None:
    """Put a link in the place of something, which goes on elsewhere."""
    path.rename(Path(destination) if path.is_dir() else path.with_suffix(".old"))
    path.symlink_to(destination)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no disk": (lambda top: (top / "vm/linux/desk/rootfs.ext4").unlink(), "expected disk at vm/linux/desk/rootfs.ext4"),
    "link": (
        lambda top: _link(top / "vm/linux/desk/rootfs.ext4", "/etc/passwd"),
        "to be a file, found a symlink",
    ),
    "link on the way": (
        lambda top: _link(top / "vm/linux/desk", str(top.parent / "elsewhere")),
        "expected disk at vm/linux/desk/rootfs.ext4, found nothing",
    ),
    "no ext4": (lambda top: write(top / "vm/linux/desk/rootfs.ext4", bytes(4096)), "to be an ext4 file system"),
    "other format": (lambda top: write(top / "vm/windows/win/disk.qcow2", bytes(4096)), "to be qcow2, found raw"),
    "not whole": (
        lambda top: write(top / "vm/windows/win/disk.qcow2", qcow2("hidden", backing="/base.img")),
        "needs '/base.img'",
    ),
    "no snapshot": (lambda top: write(top / "vm/windows/win/disk.qcow2", qcow2()), "the saved state 'hidden'"),
    "damaged disk": (lambda top: write(top / "vm/windows/win/disk.qcow2", qcow2(version=9)), "no qcow2 can have"),
    "no firmware": (lambda top: (top / "vm/windows/win/ovmf_vars.fd").unlink(), "expected ovmf_vars at"),
    "no vTPM": (lambda top: _change(top, "win", devices={"vtpm": False}), "expected a vTPM"),
    "absolute": (
        lambda top: _change(top, "desk", storage={"disk": "/etc/passwd"}),
        "to lie in the data root, found '/etc/passwd'",
    ),
    "climbs": (lambda top: _change(top, "desk", storage={"disk": "vm/../../x"}), "to lie in the data root"),
    "other identity": (lambda top: _change(top, "desk", storage={"disk": "vm/linux/other/rootfs.ext4"}), "identity changed"),
    "mounts": (lambda top: _change(top, "desk", devices={"virtiofs": ["/home"]}), "no directory of the host, found virtiofs"),
    "network": (lambda top: _change(top, "desk", devices={"network": {"enabled": True}}), "no network, as the policy has it off"),
    "no policy": (lambda top: (top / "policy/rayos-policy.toml").unlink(), "expected a policy"),
    "policy": (lambda top: write(top / "policy/rayos-policy.toml", b"version = 0\nx = 1\n"), "found x"),
    "policy path": (
        lambda top: write(top / "policy/rayos-policy.toml", b"version = 0\n[linux.storage]\nroot_disk = '../x'\n"),
        "linux.storage.root_disk",
    ),
    "no vTPM wanted": (
        lambda top: write(top / "policy/rayos-policy.toml", b"version = 0\n[windows]\nenabled = true\n"),
        "windows.enabled needs windows.devices.vtpm",
    ),
    "registry": (lambda top: write(top / "vm/registry.json", b"[]"), "that of the installer"),
    "registry with absolute paths": (lambda top: write(top / "vm/registry.json", b'{"vms": {}}'), "with absolute paths"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken(top: Path, name: str) -> None:
    """Each rule that is broken is told."""
    breaking, told = BROKEN[name]
    breaking(top)
    assert any(told in sentence for sentence in _verify(top)), _verify(top)


def test_network_that_the_policy_allows(top: Path) -> None:
    """The policy is what decides."""
    _change(top, "desk", devices={"network": {"enabled": True}})
    write(top / "policy/rayos-policy.toml", b"version = 0\n[linux]\nnetworking = 'on'\n")
    assert _verify(top) == []


MIB = 2048
SOUND = (
    (ESP_TYPE, "esp", FAT, 512 * MIB),
    (LINUX, "system", ext4(b"RAYOS_SYSTEM"), 64),
    (LINUX, "data", ext4(b"RAYOS_VM_POOL"), 64),
)


def _image(top: Path, *wanted: tuple[str, str, bytes, int]) -> list[str]:
    image = top.parent / "disk.img"
    content = gpt(*((kind, name, content, min(length, 64)) for kind, name, content, length in wanted))
    # Nothing is there behind the table of a small file; only the table says how large a partition is.
    image.write_bytes(_grown(content, wanted))
    return _verify(top, "--image", str(image))


def _grown(content: bytes, wanted: tuple[tuple[str, str, bytes, int], ...]) -> bytes:
    image = bytearray(content)
    for number, (_, _, _, length) in enumerate(wanted):
        at = 1024 + number * 128
        first = int.from_bytes(image[at + 32 : at + 40], "little")
        image[at + 40 : at + 48] = (first + length - 1).to_bytes(8, "little")
    return bytes(image)


def test_partitions(top: Path) -> None:
    """A disk with the three partitions is sound; one that lacks any, or has it otherwise, is not."""
    assert _image(top, *SOUND) == []
    assert any("expected one partition RAYOS_VM_POOL, found 0" in each for each in _image(top, *SOUND[:2]))
    assert any("expected one ESP, found 0" in each for each in _image(top, *SOUND[1:]))
    small = (ESP_TYPE, "esp", FAT, 100 * MIB)
    assert any("expected about 512 MiB" in each for each in _image(top, small, *SOUND[1:]))
    other = (ESP_TYPE, "esp", ext4(), 512 * MIB)
    assert any("expected FAT32 on the ESP, found ext4" in each for each in _image(top, other, *SOUND[1:]))
    unknown = (LINUX, "RAYOS_SYSTEM", b"", 64)
    assert any("expected ext4 or squashfs on RAYOS_SYSTEM" in each for each in _image(top, SOUND[0], unknown, SOUND[2]))


def test_image_without_partitions(top: Path) -> None:
    """An image that has no table of partitions says so."""
    (top.parent / "disk.img").write_bytes(bytes(100_000))
    assert any("GUID partition table" in each for each in _verify(top, "--image", str(top.parent / "disk.img")))
