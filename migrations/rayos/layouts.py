"""RayOS's layouts, and the places of the development root that state is taken from.

Each of these is there twice: in the root itself, which is converted where it is, and in the annex `source`.

Sources: RayOS, "Disk Layout & Persistence Spec", draft v0, section 3; "Observability and Recovery" for `boot/`; the host scripts
`run-linux-subsystem-desktop-auto.sh`, `run-linux-subsystem-alpine-iso.sh`, `run-windows-subsystem-desktop.sh` and `test-boot.sh`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec.structs import replace

from upgradeconverter.packs.api import Kind, Layout, LayoutOrder, Slot, Zone

from .images import Image
from .names import ID_PATTERN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from upgradeconverter.packs.api import DiskState, Item, Part

DEV, DATA = "dev", "data-v0"
ORDER = LayoutOrder(labels=(DEV, DATA), resolve={DEV: DEV, DATA: DATA, "latest": DATA}.get)
SOURCE = "source"
_ANYTHING = (Kind.FILE, Kind.DIRECTORY, Kind.SYMLINK, Kind.SOCKET, Kind.FIFO)
_HOST, _LINUX, _WINDOWS, _POLICY = "host", "linux machines", "windows machines", "policy"

# What only means something while the program runs that made it.
MARKS = r"\.(?:linux|windows)-desktop.*\.(?:state|inflight|ts|lockdir)|\.(?:linux|windows)-desktop[^.]*|.+\.(?:sock|pid|lock)"
TAG = ".windows-desktop-hidden.state"
BOOT_LOG = r"(?:serial-|installer).*\.log"
DESKTOP_LOG = r".+-(?:launch|control|hidden-serial)\.log"
DISK_LOG = r"e2fsck-desktop-rootfs\.log"
# What lies at the top and is no state, with the reason.
NO_STATE = {
    r"boot-fat": "it is the staging of the ESP, and goes to that partition",
    r"rayos-system-image": "it is the payload of the System partition",
    r"model\.bin|volume(?:-kv)?\.bin": "it is made anew from the sources",
    r"rayos.*\.iso|.+-usb\.img": "it is the result of a build",
    r"e2e-.+|surface-bridge-live": "it is scratch of tests",
    MARKS: "it only means something while the program runs that made it",
}
CACHES = {
    r"alpine-netboot|agent": "it is downloaded or made anew",
}
_OWN = r"linux-guest|windows-guest|policy|vm|logs|crash|boot|lost\+found"


def _dev(name: str, directory: str, owner: str, pattern: str, **more: object) -> Slot:
    known = {"kind": _ANYTHING, **more}
    return Slot(name=name, directory=directory, owner=owner, mode=0o755, zone=Zone.PLAIN, pattern=pattern, **known)  # type: ignore[arg-type]


def file_at(name: str, path: str, probe: Callable[[Part], object], *kinds: Kind, marks: bool = False) -> Slot:
    """Return a slot for one file that configuration or people name."""
    folder, _, own = path.rpartition("/")
    return _dev(name, folder, name, re.escape(own), kind=kinds, probe=probe, marks=marks, shared=True)


def _any(patterns: Iterable[str]) -> str:
    return "|".join(patterns)


TOP = _dev("top", "", _HOST, _any((_OWN, BOOT_LOG, DESKTOP_LOG, DISK_LOG, *NO_STATE)))
RUNNING = _dev("running", "", _HOST, MARKS, marks=True, shared=True)
LINUX = _dev("linux", "linux-guest", _LINUX, _any(("desktop|alpine-iso", *CACHES)))
DESKTOP = _dev(
    "desktop", "linux-guest/desktop", _LINUX, r"vm_registry\.json|.+\.(?:ext4|qcow2|img|raw)", probe=Image.of_file, marks=True
)
ALPINE = _dev("alpine", "linux-guest/alpine-iso", _LINUX, r"alpine-persist\.qcow2|[0-9][^/]*", probe=Image.of_file, marks=True)
WINDOWS = _dev("windows", "windows-guest", _WINDOWS, ID_PATTERN, kind=Kind.DIRECTORY)
MACHINE = _dev(
    "windows machine",
    "windows-guest/*",
    _WINDOWS,
    r"OVMF_VARS\.fd|tpm|.+\.(?:log|qcow2|img|raw)|.+\.(?:sock|pid|lock)",
    probe=Image.of_file,
    marks=True,
)
MACHINE_RUNNING = _dev("windows machine running", "windows-guest/*", _WINDOWS, r".+\.(?:sock|pid|lock)", marks=True, shared=True)
_TPM_MARKS = r"\.lock|.+\.(?:sock|pid|lock)|.+-sock(?:et)?"
TPM = _dev("tpm", "windows-guest/*/tpm", _WINDOWS, r"(?s:.+)", shared=True, marks=True)
TPM_RUNNING = _dev("tpm running", "windows-guest/*/tpm", _WINDOWS, _TPM_MARKS, marks=True, shared=True)
TPM_MARKS = _TPM_MARKS

_EVERYWHERE = (TOP, RUNNING, LINUX, DESKTOP, ALPINE, WINDOWS, MACHINE, MACHINE_RUNNING, TPM, TPM_RUNNING)


def _in_source(slot: Slot) -> Slot:
    return replace(slot, name=f"{SOURCE} {slot.name}", directory=f"{SOURCE}:/{slot.directory}".rstrip("/"))


DEVELOPMENT = (*_EVERYWHERE, *(_in_source(slot) for slot in _EVERYWHERE))
# For whoever looks there a second time: what nobody knows has been told by then.
DEVELOPMENT_AGAIN = tuple(replace(slot, shared=True) for slot in DEVELOPMENT)


def top_of(options: Mapping[str, str]) -> str:
    """Return what every path of the development root begins with."""
    return f"{options[SOURCE]}/" if SOURCE in options else ""


def found(state: DiskState, slot: Slot) -> tuple[Item, ...]:
    """Return what lies in a place of the development root that is converted."""
    return state.in_slot(f"{SOURCE} {slot.name}" if SOURCE in state.options else slot.name)


def _data(directory: str, owner: str, mode: int = 0o755, entry_mode: int | None = None) -> Slot:
    return Slot(
        name=directory,
        directory=directory,
        owner=owner,
        mode=mode,
        zone=Zone.PLAIN,
        entry_mode=entry_mode,
        keeps_owner=True,
    )


POLICY = _data("policy", _POLICY, entry_mode=0o644)
VM = _data("vm", _HOST, entry_mode=0o644)
LINUX_VM, WINDOWS_VM = _data("vm/linux/*", _LINUX), _data("vm/windows/*", _WINDOWS)
VM_LOGS = {"linux": _data("vm/linux/*/logs", _LINUX), "windows": _data("vm/windows/*/logs", _WINDOWS)}
VM_TPM = _data("vm/windows/*/tpm", _WINDOWS, 0o700)
LOGS, BOOT_LOGS, DESKTOP_LOGS = (_data(name, _HOST) for name in ("logs", "logs/boot", "logs/desktop"))
CRASH = tuple(_data(name, _HOST) for name in ("crash", "crash/panics", "crash/core", "crash/last-boot"))
BOOT = _data("boot", _HOST)
# Where the host scripts go on looking.
COMPAT = tuple(
    replace(_data(name, _HOST), name=f"compat {name}", entry_mode=0o644)
    for name in ("linux-guest", "linux-guest/desktop", "linux-guest/alpine-iso", "windows-guest", "windows-guest/*")
)
_SLOTS = (
    POLICY,
    VM,
    _data("vm/linux", _LINUX),
    _data("vm/windows", _WINDOWS),
    LINUX_VM,
    WINDOWS_VM,
    *VM_LOGS.values(),
    VM_TPM,
    LOGS,
    BOOT_LOGS,
    DESKTOP_LOGS,
    *CRASH,
    BOOT,
)
LAYOUTS = {DATA: Layout(label=DATA, slots=(*_SLOTS, *COMPAT))}
STATE = LAYOUTS[DATA].slots
OTHERS = (Slot(name="lost and found", directory="lost+found", owner="file system", mode=0o700, zone=Zone.PLAIN),)
