"""What RayOS's own files say: images of disks, registries of every shape, policies, partition tables. All without a disk."""

from __future__ import annotations

import json
import struct
import tomllib
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from migrations.rayos import policy, registry
from migrations.rayos.images import Image
from migrations.rayos.names import NotUnderstoodError, derived_id, is_id, leads_out
from migrations.rayos.partitions import ESP_TYPE, Table

if TYPE_CHECKING:
    from upgradeconverter.packs.api import Part

VOLUME = uuid.UUID("3f1f2e44-5a0c-4b55-8a39-6d2c9f2f3b01")


def parts(content: bytes) -> Part:
    """Return what the engine gives a probe."""
    return lambda start, size: content[start : start + size]


def ext4(label: bytes = b"RAYOSDESK") -> bytes:
    """Return the beginning of an ext4 file system."""
    block = bytearray(1024)
    block[56:58], block[104:120], block[120 : 120 + len(label)] = b"\x53\xef", VOLUME.bytes, label
    return bytes(1024) + bytes(block)


def qcow2(*snapshots: str, backing: str = "", version: int = 3, count: int | None = None) -> bytes:
    """Return an empty qcow2 with snapshots."""
    table = b""
    for number, name in enumerate(snapshots, start=1):
        words = str(number).encode() + name.encode()
        entry = struct.pack(">QIHHIIQII", 0, 0, len(str(number)), len(name), 0, 0, 0, 0, 8) + bytes(8) + words
        table += entry + bytes(-len(entry) % 8)
    at = 104 + len(backing)
    header = b"QFI\xfb" + struct.pack(">IQIIQ", version, 104 if backing else 0, len(backing), 16, 1 << 30) + bytes(28)
    header += struct.pack(">IQ", len(snapshots) if count is None else count, at)
    return header.ljust(104, b"\0") + backing.encode() + table


def test_images() -> None:
    """An image tells its format, what is in it, and which snapshots it has."""
    found = Image.of_file(parts(ext4()))
    assert (found.format, found.filesystem, found.label, found.volume) == ("raw", "ext4", "RAYOSDESK", str(VOLUME))
    assert Image.of_file(parts(b"")) == Image.of_file(parts(bytes(4096))) == Image()
    found = Image.of_file(parts(qcow2("hidden", "rayos-later", backing="../base.img")))
    assert (found.format, found.size, found.backing) == ("qcow2", 1 << 30, "../base.img")
    assert found.snapshots == ("1", "hidden", "2", "rayos-later")


@pytest.mark.parametrize("content", [qcow2()[:40], qcow2(version=7), qcow2(count=1 << 30)])
def test_damaged_images(content: bytes) -> None:
    """What says that it is a qcow2 and cannot be one is no image of any kind."""
    assert Image.of_file(parts(content)).problem != ""


def test_snapshots_that_are_cut_off() -> None:
    """A table of snapshots that ends too early gives those that are whole."""
    assert Image.of_file(parts(qcow2("one", count=3))).snapshots == ("1", "one")


@pytest.mark.parametrize(
    ("path", "out"),
    [
        ("vm/a", False),
        ("a", False),
        ("..", True),
        ("a/../b", True),
        ("/a", True),
        ("", True),
        ("a//b", True),
        ("a\0", True),
        (7, True),
    ],
)
def test_paths(path: object, out: bool) -> None:
    """Only a path that stays below is one of the data root."""
    assert leads_out(path) is out


def test_identities() -> None:
    """Identities are words that a directory can be called; one that is made is the same at every try, and nobody else's."""
    assert all(map(is_id, ("linux-desktop-001", "A", "a.b_c", "x" * 64, derived_id("linux", "a", "b"))))
    assert not any(map(is_id, ("", ".a", "-a", "a/b", "x" * 65, "a\n", 7, None)))
    assert derived_id("linux", "place", "volume") == derived_id("linux", "place", "volume")
    different = {
        derived_id(*words) for words in (("linux", "p", "v"), ("windows", "p", "v"), ("linux", "q", "v"), ("linux", "p", "w"))
    }
    assert len(different) == len("four")


# --- registries ----------------------------------------------------------------------------------------------------------

HOST = {"vm_id": "desk", "name": "Desk", "disk_path": "a/b.ext4", "device_config": {"mem": 1}, "policy": {"autoboot": True}}
ALIENS: tuple[tuple[Any, str], ...] = (
    ([{"installer_mode": True}], "installer"),
    ({"rayos_version": "1", "bootloader_config": {}}, "installer"),
    ({"surfaces": {}, "z_order": []}, "surface bridge"),
    ("text", "no object"),
    (7, "no object"),
)


@pytest.mark.parametrize(("data", "told"), ALIENS)
def test_other_registries(data: object, told: str) -> None:
    """What is called a registry and is none is named as what it is, in either place."""
    for read in (registry.read, registry.read_host):
        with pytest.raises(NotUnderstoodError, match=told):
            read(json.dumps(data).encode())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b"{}",
        b'{"disk_path": 7}',
        b'{"disk_path": "a", "vm_id": "../b"}',
        b'{"disk_path": "a", "policy": []}',
    ],
)
def test_damaged_host_registry(content: bytes) -> None:
    """Whatever lies in the place of the host scripts' registry is understood or refused."""
    with pytest.raises(NotUnderstoodError):
        registry.read_host(content)


def test_host_registry_is_written_anew() -> None:
    """Of the host scripts' registry only path and identity change; what nobody here knows stays."""
    whole = HOST | {"future": [1, 2]}
    old = registry.read_host(json.dumps(whole).encode())
    new = json.loads(registry.for_host(old, "desk", "Desk", "vm/linux/desk/rootfs.ext4"))
    assert new == whole | {"disk_path": "vm/linux/desk/rootfs.ext4"}
    assert registry.read_host(registry.for_host(None, "desk", "", "x")).vm_id == "desk"


ABSOLUTE = {
    "id": "w",
    "name": "Windows-11",
    "type": "windows",
    "state": "suspended",
    "storage": {
        "disks": {"system": "/var/rayos/vm/win/system.qcow2", "data": "/var/rayos/vm/win/data.qcow2"},
        "ovmf_vars": "/var/rayos/vm/win/vars.fd",
        "tpm_state": "/var/rayos/vm/win/tpm",
    },
    "devices": {"vcpu": 8, "memory_mb": 8192, "network": {"enabled": True}, "tpm": {"enabled": True}},
    "policy_profile": "default-windows",
}


def test_absolute_registry() -> None:
    """The other specification's registry becomes one with relative paths, and says no more than that did."""
    found = registry.read(json.dumps({"vms": {"w": ABSOLUTE}}).encode())
    record = found.records["w"]
    assert found.is_foreign
    assert registry.paths(record) == {
        "disk": "vm/win/system.qcow2",
        "ovmf_vars": "vm/win/vars.fd",
        "tpm_state": "vm/win/tpm",
        "disk data": "vm/win/data.qcow2",
    }
    assert record["devices"] == {"smp": 8, "mem": 8192, "input": "virtio", "gpu": "virtio", "vtpm": True}
    again = registry.read(registry.written(found.records))
    assert (again.is_foreign, again.records) == (False, found.records)


@pytest.mark.parametrize(
    "change",
    [
        {"storage": {"disks": {"root": "/home/me/disk"}}},
        {"storage": {"disks": {"root": "/var/rayos/../etc/disk"}}},
        {"type": "plan9"},
        {"id": "other"},
        {"storage": []},
    ],
)
def test_absolute_registry_that_is_refused(change: dict[str, Any]) -> None:
    """A path that does not lie in the data root, or a record that is none, is refused with the whole file."""
    with pytest.raises(NotUnderstoodError):
        registry.read(json.dumps({"vms": {"w": ABSOLUTE | change}}).encode())


@pytest.mark.parametrize(
    "data",
    [
        {"version": 1, "vms": {}},
        {"version": True, "vms": {}},
        {"version": 0},
        {"version": 0, "vms": []},
        {"version": 0, "vms": {"a/b": {}}},
        {"version": 0, "vms": {"a": {"vm_id": "b", "kind": "linux", "storage": {}}}},
        {"version": 0, "vms": {"a": {"vm_id": "a", "kind": "linux"}}},
    ],
)
def test_registry_that_is_refused(data: dict[str, Any]) -> None:
    """Another version, or a record without what each must have, is refused."""
    with pytest.raises(NotUnderstoodError):
        registry.read(json.dumps(data).encode())


# --- policy --------------------------------------------------------------------------------------------------------------

POLICY = b"""# first
version = 0   # of the schema

[windows]
enabled = true

[linux.storage]
# why it is there
root_disk = 'linux-guest/desktop/desktop-rootfs.ext4'   # 4 GiB

[windows.devices]
vtpm = true
"""


def test_policy_keeps_all_but_its_paths() -> None:
    """Comments, blanks and order stay, to the byte; the value alone is another one."""
    new = policy.moved(POLICY, {"linux-guest/desktop/desktop-rootfs.ext4": "vm/linux/a/rootfs.ext4"})
    assert new == POLICY.replace(b"'linux-guest/desktop/desktop-rootfs.ext4'", b'"vm/linux/a/rootfs.ext4"')
    assert policy.moved(POLICY, {"other": "x"}) == POLICY


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "version"),
        (b"version = 1", "version 0, found 1"),
        (b"version = false", "version"),
        (b"version = 0\nfuture = 1", "found future"),
        (b"version = 0\n[linux]\nvirtiofs = 1", "linux.virtiofs"),
        (b"version = 0\n[linux]\nnetworking = 'maybe'", "off or on or provisioning_only"),
        (b"version = 0\n[windows]\nnetworking = 'provisioning_only'", "windows.networking"),
        (b"version = 0\n[linux.limits]\ncpus = true", "linux.limits.cpus"),
        (b"version = 0\nlinux = 1", "a table"),
        (b"version = ", "TOML"),
        (b"\xff", "TOML"),
    ],
)
def test_policy_that_is_refused(content: bytes, told: str) -> None:
    """What version 0 does not have is refused by its name."""
    with pytest.raises(NotUnderstoodError, match=told):
        policy.read(content)


def test_policy_that_is_made() -> None:
    """A policy that is made is one of version 0, with networks off and no way out of the data root."""
    wants = {
        "linux": {"": {"enabled": True, "vm_id": "a", "networking": "off"}, "storage": {"root_disk": "vm/linux/a/rootfs.ext4"}}
    }
    data = policy.read(policy.default(wants))
    assert not policy.allows_networking(data, "linux")
    assert not policy.allows_networking(data, "windows")
    assert (policy.strays(data), policy.violations(data)) == ((), ())
    assert data == tomllib.loads(policy.default(wants).decode())
    assert policy.violations({"windows": {"enabled": True}}) != ()
    assert policy.strays({"windows": {"storage": {"disk": "../x"}}}) == ("windows.storage.disk",)
    assert policy.allows_networking({"defaults": {"networking": "on"}}, "linux")


# --- partitions ----------------------------------------------------------------------------------------------------------


def gpt(*wanted: tuple[str, str, bytes, int], sector: int = 512) -> bytes:
    """Return an image with partitions of a type, a name, a beginning and so many sectors."""
    image = bytearray(sector * 256)
    image[sector : sector + 8] = b"EFI PART"
    image[sector + 72 : sector + 88] = struct.pack("<QII", 2, len(wanted), 128)
    start = 64
    for number, (kind, name, content, length) in enumerate(wanted):
        entry = uuid.UUID(kind).bytes_le + uuid.uuid4().bytes_le + struct.pack("<QQQ", start, start + length - 1, 0)
        at = 2 * sector + number * 128
        image[at : at + 128] = (entry + name.encode("utf-16-le")).ljust(128, b"\0")
        image[start * sector : start * sector + len(content)] = content
        start += max(min(64, length), 8)
    return bytes(image)


LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"
FAT = bytes(71) + b"RAYOS_ESP  " + b"FAT32   "


@pytest.mark.parametrize("sector", [512, 4096])
def test_partitions(sector: int) -> None:
    """A table tells of each partition its type, name, file system, label and size."""
    found = Table.of_file(parts(gpt((ESP_TYPE, "esp", FAT, 16), (LINUX, "system", ext4(b"RAYOS_SYSTEM"), 16), sector=sector)))
    assert found.problem == ""
    esp, system = found.partitions
    assert (esp.type, esp.filesystem, esp.label, esp.size) == (ESP_TYPE, "fat32", "RAYOS_ESP", 16 * sector)
    assert (system.name, system.filesystem, system.label) == ("system", "ext4", "RAYOS_SYSTEM")


@pytest.mark.parametrize("content", [b"", bytes(100_000), gpt()[: 512 + 60], gpt()[: 512 + 80] + b"\xff" * 100])
def test_no_partitions(content: bytes) -> None:
    """An image without a table of partitions, or with one that is damaged, says so."""
    assert Table.of_file(parts(content)).problem != ""
