"""What people, old programs and damaged files do to a RayOS root, each on a real directory: a machine never loses what is its."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import struct
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.packs.test_rayos_files import ext4, qcow2
from tests.support.olddisk import checked, write
from upgradeconverter.errors import EXIT_DONE, EXIT_REFUSED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DISK, REGISTRY = "linux-guest/desktop/desktop-rootfs.ext4", "linux-guest/desktop/vm_registry.json"
WINDOWS = "windows-guest/windows-desktop-001"
HOST = {"vm_id": "linux-desktop-001", "name": "Desk", "disk_path": DISK, "device_config": {"mem": 4096, "smp": 2}}


def _windows(root: Path, vm_id: str = "windows-desktop-001", *, disk: bytes | None = None) -> None:
    folder = root / "windows-guest" / vm_id
    write(folder / "OVMF_VARS.fd", b"firmware of " + vm_id.encode())
    write(folder / "tpm/tpm2-00.permall", b"tpm of " + vm_id.encode())
    if disk is not None:
        write(folder / "windows.qcow2", disk)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a root with a Linux and a Windows machine."""
    top = tmp_path / "build"
    write(top / REGISTRY, json.dumps(HOST).encode())
    write(top / DISK, ext4())
    _windows(top, disk=qcow2())
    write(top / "serial-boot.log", b"booted")
    return top


def _rayos(root: Path, *words: str) -> dict[str, Any]:
    return checked(*words, "-p", str(root), "--pack", "rayos")[1]


def _times(root: Path) -> dict[Path, int]:
    return {path: path.lstat().st_mtime_ns for path in root.rglob("*") if ".upgradeconverter" not in path.parts}


def _refused(root: Path, code: str, *words: str) -> str:
    """See that a start is refused with nothing changed; returns what it says."""
    before = _times(root)
    document = _rayos(root, *words)
    assert (document["exit_status"], document["error"]["code"]) == (EXIT_REFUSED, code)
    assert _times(root) == before
    assert _rayos(root, *words)["error"]["code"] == code
    return str(document["error"]["message"])


def _records(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / "vm/registry.json").read_bytes())["vms"]
    return found


def test_disk_of_another_machine(root: Path) -> None:
    """A disk that one machine has is given to no other one, however it is named."""
    assert _rayos(root)["outcome"] == "done"
    _windows(root, "win2")
    disk = root / _records(root)["windows-desktop-001"]["storage"]["disk"]
    assert "windows-desktop-001" in _refused(root, "DuplicateIdentity", "--windows-disk", f"win2={disk}")


@pytest.mark.parametrize("path", [DISK, f"{WINDOWS}/OVMF_VARS.fd", REGISTRY])
def test_one_file_for_two(root: Path, path: str) -> None:
    """What is a disk, firmware or the registry of something is nobody's disk besides."""
    words = ("--windows-disk", f"windows-desktop-001={root}/{path}")
    assert _rayos(root, "plan", *words)["exit_status"] == EXIT_REFUSED
    write(root / REGISTRY, json.dumps(HOST | {"disk_path": path}).encode())
    if path != DISK:
        assert _rayos(root, "plan")["exit_status"] == EXIT_REFUSED


def test_same_file_for_two_names(root: Path) -> None:
    """One file outside of the root is not taken for two machines."""
    write(root.parent / "win.qcow2", qcow2())
    _windows(root, "win2")
    words = [word for vm_id in ("win2", "windows-desktop-001") for word in ("--windows-disk", f"{vm_id}={root.parent}/win.qcow2")]
    assert _rayos(root, *words)["error"]["code"] == "BadSetting"


def test_identity_that_nobody_has(root: Path) -> None:
    """A disk for a machine that is not there is a mistake, and not passed over."""
    write(root.parent / "win.qcow2", qcow2())
    assert "windows-dsektop" in _refused(root, "Missing", "--windows-disk", f"windows-dsektop={root.parent}/win.qcow2")


@pytest.mark.parametrize("kind", ["fifo", "link"])
def test_tpm_that_cannot_go_as_a_whole(root: Path, kind: str) -> None:
    """A directory that would stay keeps its machine where it is: in what is left a new TPM would be made."""
    strange = root / WINDOWS / "tpm/strange"
    os.mkfifo(strange) if kind == "fifo" else strange.symlink_to("/x")
    document = _rayos(root)
    assert (f"{WINDOWS}/tpm/strange", "UnexpectedContent") in [(skip["path"], skip["reason"]) for skip in document["skipped"]]
    assert (root / WINDOWS / "tpm/tpm2-00.permall").exists()
    assert list(_records(root)) == ["linux-desktop-001"]


@contextmanager
def _running(path: Path, lock: int | None) -> Iterator[None]:
    """Have another process that has a disk open, perhaps with a lock of a part of it, as an emulator does."""
    ready = path.parent / "ready"
    child = os.fork()
    if child == 0:
        fd = os.open(path, os.O_RDWR)
        if lock is not None:
            fcntl.fcntl(fd, lock, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 100, 1, 0))
        os.close(os.open(ready, os.O_CREAT))
        time.sleep(60)
        os._exit(0)
    try:
        while not ready.exists():
            time.sleep(0.01)
        ready.unlink()
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.parametrize("lock", [fcntl.F_OFD_SETLK, None])
def test_disk_that_is_open(root: Path, lock: int | None) -> None:
    """A machine runs where its disk is open, also when nothing else tells of it."""
    with _running(root / DISK, lock):
        _refused(root, "InUse")
    assert _rayos(root)["outcome"] == "done"


@pytest.mark.parametrize("path", [DISK, f"{WINDOWS}/windows.qcow2", ".windows-desktop.lock"])
def test_machine_that_runs_when_it_is_confirmed(root: Path, path: str) -> None:
    """To confirm is refused while one of what goes together is used in the source: the rest of it stays with that."""
    data = root.parent / "data"
    data.mkdir()
    write(root / ".windows-desktop.lock", b"")
    _rayos(data, "--source", str(root))
    with _running(root / path, None):
        assert _rayos(data, "confirm")["error"]["code"] == "InUse"
        assert (root / WINDOWS / "tpm/tpm2-00.permall").exists()
    assert _rayos(data, "confirm")["outcome"] == "done"
    assert not (root / DISK).exists()


def test_linux_disk_replaced_on_trial(root: Path) -> None:
    """In place, too, a disk that the old system has replaced comes anew, although the registry names the new place by then."""
    _rayos(root, "--trial")
    write(root / "new", ext4(b"LATER"))
    (root / "new").rename(root / DISK)
    assert _rayos(root, "--trial")["outcome"] == "done"
    assert _rayos(root, "confirm")["outcome"] == "done"
    assert (root / "vm/linux/linux-desktop-001/rootfs.ext4").read_bytes() == ext4(b"LATER")
    _rayos(root)
    assert (root / DISK).is_symlink()


def test_registry_edited_on_trial(root: Path) -> None:
    """What people change in the host scripts' registry while a trial waits reaches the new one with the next start."""
    data = root.parent / "data"
    data.mkdir()
    _rayos(data, "--source", str(root))
    write(root / REGISTRY, json.dumps(HOST | {"device_config": {"mem": 8192, "smp": 2}}).encode())
    assert _rayos(data, "--trial")["error"] is None
    assert _records(data)["linux-desktop-001"]["devices"]["mem"] == 8192
    assert json.loads((data / REGISTRY).read_bytes())["device_config"]["mem"] == 8192
    assert _rayos(data, "confirm")["error"] is None


@pytest.mark.parametrize("command", ["confirm", "rollback"])
def test_folder_of_a_disk_elsewhere_is_gone(root: Path, command: str) -> None:
    """What was copied from is needed for nothing, also when all around it is gone."""
    data, folder = root.parent / "data", root.parent / "elsewhere"
    data.mkdir()
    folder.mkdir()
    (root / WINDOWS / "windows.qcow2").rename(folder / "win.qcow2")
    _rayos(data, "--source", str(root), "--windows-disk", f"windows-desktop-001={folder}/win.qcow2")
    (folder / "win.qcow2").unlink()
    folder.rmdir()
    assert _rayos(data, command)["error"] is None
    assert (data / "vm").exists() == (command == "confirm")


def test_log_of_the_desktop_disk(root: Path) -> None:
    """A log goes to the machine that it is about, whatever others are called."""
    write(root / "linux-guest/alpine-iso/alpine-persist.qcow2", qcow2())
    write(root / "e2fsck-desktop-rootfs.log", b"clean")
    _rayos(root)
    assert (root / "vm/linux/linux-desktop-001/logs/e2fsck-desktop-rootfs.log").exists()


def test_links_after_a_trial(root: Path) -> None:
    """Who confirms is told that there is more to do, and the next start does it."""
    _rayos(root, "--trial")
    assert any("only be done now" in warning for warning in _rayos(root, "confirm")["warnings"])
    assert not (root / DISK).is_symlink()
    _rayos(root)
    assert (root / DISK).is_symlink()
    assert (root / WINDOWS / "tpm").is_symlink()


def test_all_or_nothing(root: Path) -> None:
    """Where a disk cannot move nothing does, logs neither, and the root is not taken for converted."""
    write(root / "vm/linux/linux-desktop-001/rootfs.ext4", b"another one")
    _refused(root, "TargetExists")
    assert _rayos(root, "status")["details"]["carries layout"] == "dev"
    assert any("expected a registry" in each for each in _rayos(root, "verify")["details"]["deviations"])


def test_host_scripts_write_their_registry_again(root: Path) -> None:
    """A registry with the old path is right as long as the link leads to the disk."""
    _rayos(root)
    write(root / REGISTRY, json.dumps(HOST).encode())
    assert _rayos(root)["error"] is None
    assert _rayos(root, "verify")["details"]["deviations"] == []


def test_compat_comes_back(root: Path) -> None:
    """Who wants host scripts to work again gets links and registry, without which they would make a new disk."""
    _rayos(root, "--no-compat")
    assert not (root / REGISTRY).exists()
    _rayos(root)
    assert json.loads((root / REGISTRY).read_bytes())["disk_path"] == "vm/linux/linux-desktop-001/rootfs.ext4"
    assert (root / DISK).is_symlink()


def test_new_tpm_under_the_old_name(root: Path) -> None:
    """What somebody makes in the place of a link is named as what it is."""
    _rayos(root)
    (root / WINDOWS / "tpm").unlink()
    write(root / WINDOWS / "tpm/tpm2-00.permall", b"a new one")
    assert (f"{WINDOWS}/tpm", "DuplicateIdentity") in [(skip["path"], skip["reason"]) for skip in _rayos(root)["skipped"]]


@pytest.mark.parametrize(
    "change",
    [
        {"name": "\ud800x"},
        {"disk_path": "\ud800/x"},
        {"device_config": {"mem": float("nan")}},
        {"device_config": {"smp": float("inf")}},
        {"device_config": {"mem": -3}},
        {"device_config": {"mem": 10**30}},
        {"device_config": {"mem": "much"}},
        {"policy": {"networking": "yes"}},
        {"name": 7},
    ],
)
def test_registry_that_nobody_could_read(root: Path, change: dict[str, Any]) -> None:
    """Nothing is written that others cannot read: what is no JSON, no Unicode or no number is refused."""
    write(root / REGISTRY, json.dumps(HOST | change).encode())
    _refused(root, "ConfigurationUnknown")


def test_name_twice(root: Path) -> None:
    """A registry that says one thing twice is refused."""
    write(root / REGISTRY, b'{"vm_id": "a", "vm_id": "b", "disk_path": "x"}')
    _refused(root, "ConfigurationUnknown")


@pytest.mark.parametrize("at", [8, 64])
def test_offsets_that_no_file_has(root: Path, at: int) -> None:
    """An image whose header leads nowhere is damaged, and one that nobody uses is in nobody's way."""
    damaged = bytearray(qcow2("one"))
    damaged[at : at + 8], damaged[16:20] = b"\xff" * 8, b"\0\0\0\x0a"
    write(root / "linux-guest/desktop/old.qcow2", bytes(damaged))
    assert _rayos(root)["outcome"] == "done"
    write(root / "vm/windows/windows-desktop-001/disk.qcow2", bytes(damaged))
    assert _rayos(root, "verify")["error"] is None


@pytest.mark.parametrize("said", [["a"], "a", 7, {"x": ["a"]}, {"../x": "vm/linux/linux-desktop-001/rootfs.ext4"}])
def test_host_paths_that_lie(root: Path, said: object) -> None:
    """What a registry says of old names is believed only where it is one of its own paths, and lies in the root."""
    _rayos(root)
    whole = json.loads((root / "vm/registry.json").read_bytes())
    whole["vms"]["linux-desktop-001"]["host_paths"] = said
    write(root / "vm/registry.json", json.dumps(whole).encode())
    assert _rayos(root)["error"] is None
    assert not (root.parent / "x").is_symlink()


def test_policy_of_a_disk_that_nobody_has(root: Path) -> None:
    """A policy that names another disk than the registry is told at once, and by `verify`."""
    write(root / "policy/rayos-policy.toml", b"version = 0\n[linux.storage]\nroot_disk = 'linux-guest/other.ext4'\n")
    assert any("linux.storage.root_disk" in warning for warning in _rayos(root)["warnings"])
    assert any("linux.storage.root_disk" in each for each in _rayos(root, "verify")["details"]["deviations"])


def test_paths_that_say_the_same(root: Path) -> None:
    """A dot or a slash more changes nothing."""
    text = f"version = 0\n[linux.storage]\nroot_disk = './{DISK}'\n[windows.storage]\nvtpm_state_dir = '{WINDOWS}/tpm/'\n"
    write(root / "policy/rayos-policy.toml", text.encode())
    assert _rayos(root)["outcome"] == "done"
    new = (root / "policy/rayos-policy.toml").read_text(encoding="utf-8")
    assert "vm/linux/linux-desktop-001/rootfs.ext4" in new
    assert "vm/windows/windows-desktop-001/tpm" in new


def test_machine_that_comes_later(root: Path) -> None:
    """A policy says nothing of a machine that is added; that is told, and left to people."""
    (root / WINDOWS / "windows.qcow2").rename(root.parent / "win.qcow2")
    _rayos(root)
    document = _rayos(root, "--windows-disk", f"windows-desktop-001={root.parent}/win.qcow2")
    assert document["outcome"] == "done"
    assert sorted(_records(root)) == ["linux-desktop-001", "windows-desktop-001"]
    assert document["exit_status"] == EXIT_DONE


def test_source_that_is_none(root: Path) -> None:
    """A directory that is no development root is refused."""
    (root.parent / "data").mkdir()
    (root.parent / "other").mkdir()
    _refused(root.parent / "data", "Missing", "--source", str(root.parent / "other"))


def test_another_source_while_one_waits(root: Path) -> None:
    """What waits was made of one source; another one is not mixed with it, nor an empty directory under its name."""
    data = root.parent / "data"
    data.mkdir()
    assert _rayos(data, "--source", str(root))["outcome"] == "done"
    os.rename(root, root.parent / "other")
    root.mkdir()
    assert _rayos(data, "confirm")["error"]["code"] == "AnnexMissing"
    assert _rayos(data, "--source", str(root))["error"]["code"] == "AnnexMissing"
    assert _rayos(data, "confirm", "--source", str(root.parent / "other"))["outcome"] == "done"


def test_disk_elsewhere_changes_while_it_waits(root: Path) -> None:
    """What the old system wrote to a disk that was copied is not forgotten: it is copied anew."""
    data, disk = root.parent / "data", root.parent / "win.qcow2"
    data.mkdir()
    (root / WINDOWS / "windows.qcow2").rename(disk)
    words = ("--source", str(root), "--windows-disk", f"windows-desktop-001={disk}")
    assert _rayos(data, *words)["outcome"] == "done"
    with open(disk, "ab") as stream:
        stream.write(b"written by the old system")
    assert _rayos(data, "confirm")["error"]["code"] == "TrialOvertaken"
    assert _rayos(data, *words)["outcome"] == "done"
    assert _rayos(data, "confirm")["outcome"] == "done"
    assert (data / "vm/windows/windows-desktop-001/disk.qcow2").read_bytes() == disk.read_bytes()


def test_disk_elsewhere_is_gone(root: Path) -> None:
    """What was copied is needed for nothing any more."""
    data, disk = root.parent / "data", root.parent / "win.qcow2"
    data.mkdir()
    (root / WINDOWS / "windows.qcow2").rename(disk)
    _rayos(data, "--source", str(root), "--windows-disk", f"windows-desktop-001={disk}")
    disk.unlink()
    assert _rayos(data, "confirm")["outcome"] == "done"
    assert (data / "vm/windows/windows-desktop-001/disk.qcow2").exists()


@pytest.mark.parametrize("mode", ["in place", "taken over"])
def test_host_scripts_find_their_disk(root: Path, mode: str) -> None:
    """What a host script does finds the very disk: by its registry, and by the usual name where it has none."""
    data = root
    if mode == "taken over":
        data = root.parent / "data"
        data.mkdir()
        _rayos(data, "--source", str(root))
        _rayos(data, "confirm")
    else:
        _rayos(data)
    known = json.loads((data / REGISTRY).read_bytes())
    assert (known["vm_id"], known["name"]) == ("linux-desktop-001", "Desk")
    assert (data / known["disk_path"]).read_bytes() == ext4()
    assert (data / DISK).samefile(data / known["disk_path"])
    assert (data / WINDOWS / "tpm/tpm2-00.permall").read_bytes() == b"tpm of windows-desktop-001"
    assert (data / WINDOWS / "OVMF_VARS.fd").read_bytes() == b"firmware of windows-desktop-001"


def test_machine_that_comes_while_a_trial_waits(root: Path) -> None:
    """A registry that is written once more before anything is confirmed is the right one afterwards."""
    _rayos(root, "--trial")
    _windows(root, "win9", disk=qcow2())
    _rayos(root, "--trial")
    _rayos(root, "confirm")
    _rayos(root)
    assert sorted(_records(root)) == ["linux-desktop-001", "win9", "windows-desktop-001"]
    assert _rayos(root, "verify")["details"]["deviations"] == []


def test_host_registry_has_gone_before_the_disk(root: Path) -> None:
    """Where only a part of a trial was confirmed when the power failed, a disk without registry is still that machine's."""
    _rayos(root, "--trial", "--no-compat")
    before = (root / "vm/registry.json").read_bytes()
    (root / REGISTRY).unlink()
    assert _rayos(root, "--trial", "--no-compat")["error"] is None
    assert (root / "vm/registry.json").read_bytes() == before
    assert [path.name for path in (root / "vm/linux").iterdir()] == ["linux-desktop-001"]
