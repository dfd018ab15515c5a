"""A small system to convert on the model of a disk: three layouts, a vault, and one of everything that a pack may ask for.

Whoever starts the program here does what the commands `run`, `confirm` and `rollback` do, with identities that depend on nothing
but the disk, so that a story told twice is the same to the byte.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from tests.support.modeldisk import ModelDisk, Symlink
from upgradeconverter.engine import ledger
from upgradeconverter.engine.confirm import confirm
from upgradeconverter.engine.convert import convert
from upgradeconverter.engine.places import ENGINE_FOLDER
from upgradeconverter.engine.report import Report
from upgradeconverter.engine.run import Run
from upgradeconverter.engine.session import Session
from upgradeconverter.engine.takeback import take_back
from upgradeconverter.errors import DiskFailedError
from upgradeconverter.model.plan import Trial
from upgradeconverter.packs.api import (
    Checkpoint,
    Copy,
    DiskState,
    Divergence,
    Kind,
    Layout,
    LayoutOrder,
    Link,
    Migration,
    Move,
    Pack,
    Phase,
    Proposal,
    Range,
    SetAttributes,
    Slot,
    Write,
    Zone,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from upgradeconverter.packs.api import Operation

DIGESTED = b"content with a digest"
DIGEST = hashlib.sha256(DIGESTED).hexdigest()
WRONG = hashlib.sha256(b"something else").hexdigest()
# Where room is so short that what is large can only go over piece by piece: a byte counts as much as a real mebibyte.
FULL = "full disk"
_ROOM, _SCALE = 40 << 20, 1 << 20
DOMAINS = {
    FULL: {"": ("plain", False, "disk"), "vault": ("vault", True, "disk")},
    "one disk": {"": ("plain", False, "disk"), "vault": ("vault", True, "disk")},
    "two disks": {"": ("plain", False, "disk"), "vault": ("vault", True, "other")},
}
TREE: dict[str, bytes | Symlink | None] = {
    "old/app.json": b"application state",
    "old/tree/a": b"first of the tree",
    "old/tree/sub/b": b"second of the tree",
    "clear/file": b"content of the file",
    "clear/box/disk.img": b"content of the disk",
    "clear/box/link": Symlink("disk.img"),
    "clear/double": b"content that is there twice",
    f"sums/{DIGEST}": DIGESTED,
    f"bad/{WRONG}": b"content that is not what its name says",
    "misc/kept": b"file that only changes its mode",
    "vault/deep/other": b"file of somebody else",
    "vault/volumes/double": b"content that is there twice",
}
_LARGE: dict[str, bytes | Symlink | None] = {
    "clear/file": b"content of the file, for which there is no room even once what goes before it has left some free",
    "clear/box/disk.img": b"content of the disk, for which there is no room either, whatever has left before this goes",
}
FORMAT = ("format", b"raw\n")
# A history of more bytes than this is put aside.
_LONG_HISTORY = 6000
# What both systems write while a trial waits.
WRITTEN = {
    "old/tree/a": b"first of the tree, by the old system",
    "new/tree/a": b"first of the tree, by the new system",
    "clear/file": b"content of the file, by the old system",
    "clear/box/disk.img": b"content of the disk, by the old system",
    "vault/volumes/box/disk.img": b"content of the disk, by the new system",
}


@dataclass(frozen=True, slots=True)
class Artifact:
    """One thing that moves: the names that it has in the three layouts, and what is added where it lies from the second on."""

    names: tuple[str, ...]
    additions: tuple[tuple[str, bytes], ...] = ()


ARTIFACTS = (
    Artifact(("old/app.json", "new/app.json", "final/app.json")),
    Artifact(("old/tree", "new/tree"), (FORMAT,)),
    Artifact(("clear/file", "vault/volumes/file", "vault/final/file")),
    Artifact(("clear/box", "vault/volumes/box"), (FORMAT,)),
    Artifact((f"sums/{DIGEST}", f"vault/sums/{DIGEST}")),
    Artifact(("misc/kept",)),
    Artifact(("vault/deep/other",)),
    Artifact(("vault/volumes/double",)),
)


def _slot(directory: str, zone: Zone = Zone.PLAIN, entry_mode: int | None = None) -> Slot:
    return Slot(
        name=directory,
        directory=directory,
        owner="root",
        mode=0o755,
        zone=zone,
        pattern=".+",
        entry_mode=entry_mode,
        children=True,
    )


OLD, CLEAR, SUMS, BAD, MISC = (_slot(name) for name in ("old", "clear", "sums", "bad", "misc"))
NEW, FINAL = _slot("new", entry_mode=0o600), _slot("final", entry_mode=0o640)
LINKS = replace(_slot("links"), kind=Kind.SYMLINK)
VOLUMES, LAST = (_slot(f"vault/{name}", Zone.VAULT, 0o600) for name in ("volumes", "final"))
GOOD = _slot("vault/sums", Zone.VAULT)


def _there(state: DiskState, *slots: Slot) -> dict[str, int]:
    return {item.path: item.entry.mode for slot in slots for item in state.in_slot(slot.name)}


def _outside(state: DiskState) -> Proposal:
    there = _there(state, OLD, MISC, NEW, LINKS)
    found: list[Operation] = []
    if "old/app.json" in there:
        found.append(Move(source="old/app.json", target="new/app.json", slot="new", labels=(("owner", "app"),)))
    if "old/tree" in there:
        found.append(Move(source="old/tree", target="new/tree", slot="new", additions=(FORMAT,), divergence=Divergence.TARGET))
    if "new/version" not in there:
        found.append(Write(target="new/version", content=b"2\n", slot="new"))
    if "links/current" not in there:
        found.append(Link(target="links/current", destination="../new/version", slot="links"))
    if "new/kept" not in there:
        found.append(Copy(source="misc/kept", target="new/kept", slot="new"))
    if there.get("misc/kept") != 0o600:
        found.append(SetAttributes(target="misc/kept", slot="new"))
    return Proposal(migration="outside", operations=tuple(found))


def _volume(name: str) -> Move:
    return Move(
        source=f"clear/{name}",
        target=f"vault/volumes/{name}",
        slot="vault/volumes",
        additions=(FORMAT,) if name == "box" else (),
        divergence=Divergence.NEWEST,
    )


def _inside(state: DiskState) -> Proposal:
    there = _there(state, CLEAR, SUMS, BAD)
    found: list[Operation] = []
    found += [_volume(name) for name in ("file", "box", "double") if f"clear/{name}" in there]
    for folder, digest in (("sums", DIGEST), ("bad", WRONG)):
        if f"{folder}/{digest}" in there:
            target = f"vault/sums/{digest}"
            source = f"{folder}/{digest}"
            found.append(Move(source=source, target=target, slot="vault/sums", sha256=digest, also_retire=(folder,)))
    return Proposal(migration="inside", operations=tuple(found))


def _onward(state: DiskState) -> Proposal:
    there = _there(state, NEW)
    moves = [Move(source="new/app.json", target="final/app.json", slot="final")] if "new/app.json" in there else []
    return Proposal(migration="onward", operations=tuple(moves))


def _onward_inside(state: DiskState) -> Proposal:
    there = _there(state, VOLUMES)
    moves = [Move(source="vault/volumes/file", target="vault/final/file", slot="vault/final")]
    return Proposal(migration="onward inside", operations=tuple(moves) if "vault/volumes/file" in there else ())


LABELS = ("one", "two", "three")
SLOTS = (OLD, MISC, NEW, LINKS, FINAL, VOLUMES, LAST, GOOD)
_ONLY_TWO, _THREE = (Range("two", "three"),), (Range("three"),)
PACK = Pack(
    name="model",
    summary="a small system",
    order=LayoutOrder(labels=LABELS, resolve=lambda word: word if word in LABELS else None),
    layouts={label: Layout(label=label, slots=SLOTS) for label in LABELS[1:]},
    phases=(Phase(name="outside", needs_vault=False), Phase(name="inside", needs_vault=True)),
    migrations=(
        Migration(
            id="outside",
            summary="",
            phase="outside",
            reads=(OLD, MISC, NEW, LINKS),
            writes=SLOTS,
            targets=_ONLY_TWO,
            plan=_outside,
        ),
        Migration(
            id="inside", summary="", phase="inside", reads=(CLEAR, SUMS, BAD), writes=SLOTS, targets=_ONLY_TWO, plan=_inside
        ),
        Migration(id="onward", summary="", phase="outside", reads=(NEW,), writes=SLOTS, targets=_THREE, plan=_onward),
        Migration(
            id="onward inside", summary="", phase="inside", reads=(VOLUMES,), writes=SLOTS, targets=_THREE, plan=_onward_inside
        ),
    ),
    default_target="two",
    inputs=(),
    read_checkpoint=lambda _, __: Checkpoint(content=None),
    vault="vault",
)


def build(where: str) -> ModelDisk:
    """Return the old disk."""
    disk = ModelDisk.build(TREE | _LARGE if where == FULL else TREE, domains=DOMAINS[where])
    if where == FULL:
        disk.free, disk.scale = _ROOM, _SCALE
    return disk


@contextmanager
def repeatable(disk: ModelDisk) -> Iterator[None]:
    """Let identities be made from how far the disk has come, so that no two are the same, and any can be made again."""
    given = 0

    def token(_size: int) -> str:
        nonlocal given
        given += 1
        return f"{disk.changes:012x}{given:04x}"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(secrets, "token_hex", token)
        patch.setattr(ledger, "LIMIT", _LONG_HISTORY)
        yield


@contextmanager
def refusing(disk: ModelDisk) -> Iterator[None]:
    """Let the disk refuse once to publish something."""
    rename = disk.rename
    refused = False

    def refuse(source: str, target: str) -> None:
        nonlocal refused
        if not refused and ENGINE_FOLDER not in target.split("/"):
            refused = True
            raise OSError(errno.EIO, os.strerror(errno.EIO), target)
        rename(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "rename", refuse)
        yield


def fall_back(disk: ModelDisk) -> None:
    """Let both systems write while a trial waits."""
    for path, content in WRITTEN.items():
        entry = disk.find(path)
        assert entry is not None
        disk._write(entry.identity, content)


def start(disk: ModelDisk, words: str) -> Report:
    """Start the program: `run LAYOUT`, `trial LAYOUT`, `confirm LAYOUT` or `rollback LAYOUT`.

    `forget LAYOUT` is no start of it: somebody removes all that it wrote for itself; nor is `fallback LAYOUT`: the old system
    goes on with a file and a tree, and the new one had written to the tree. `fail LAYOUT` is a run that has to be put back,
    since the disk refuses the first name outside of the engine's folders.
    """
    command, layout = words.split()
    if command == "fallback":
        fall_back(disk)
    if command == "forget":
        disk.remove(ENGINE_FOLDER)
    if command == "fail":
        with refusing(disk), suppress(DiskFailedError):
            return start(disk, f"run {layout}")
    trial = Trial() if command == "trial" else None
    report = Report(command=command)
    with repeatable(disk):
        run = Run(session=Session(disk=disk, pack=PACK, agents={}, asked=layout, trial=trial), report=report)
        if command in ("forget", "fail", "fallback"):
            return report
        if command == "confirm":
            confirm(run)
        elif command == "rollback":
            take_back(run)
        else:
            convert(run, "all")
    return report
