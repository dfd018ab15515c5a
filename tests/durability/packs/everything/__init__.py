"""A made-up system whose one conversion takes every operation, in as few entries as will do."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from upgradeconverter.packs.api import (
    Checkpoint,
    Copy,
    DiskState,
    Divergence,
    Document,
    EnsureDirectory,
    Item,
    Kind,
    Layout,
    LayoutOrder,
    Link,
    Migration,
    Move,
    Operation,
    Pack,
    Phase,
    Proposal,
    Range,
    Relocate,
    Retire,
    Rewrite,
    SetAttributes,
    Slot,
    Write,
    Zone,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LEGACY, NEXT = "legacy", "next"
ADDED = (("added", b"put inside before anybody sees it\n"),)
# What has these names has not the digest (of nothing) that it claims, or has it.
OLD_SETTINGS, SETTINGS = b"old settings", b"settings in another form"
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def _slot(name: str, directory: str, kind: Kind | None = None, entry_mode: int | None = None, zone: Zone = Zone.PLAIN) -> Slot:
    return Slot(
        name=name,
        directory=directory,
        owner="nobody in particular",
        mode=0o700,
        zone=zone,
        pattern=r"(?P<name>[a-z0-9]+)",
        kind=kind,
        entry_mode=entry_mode,
    )


OLD, EMPTIED, CLAIMS = _slot("old", "old"), _slot("emptied", "emptied", Kind.DIRECTORY), _slot("claims", "claims")
SECRET = _slot("secret", "vault/new", entry_mode=0o600, zone=Zone.VAULT)
LINKS = _slot("links", "links", Kind.SYMLINK)
PLAIN = _slot("plain", "plain", entry_mode=0o640)
_READ = (OLD, EMPTIED, CLAIMS, SECRET, LINKS, PLAIN)
_LABELS = (("owner", "somebody"),)


def plan(state: DiskState) -> Proposal:
    """Return what is left to do of everything that there is."""
    operations = (*_moves(state), *_new(state), *_rewritten(state), *_other(state))
    return Proposal(migration=MIGRATION.id, operations=operations)


def _old(state: DiskState) -> dict[str, Item]:
    return {item.keys["name"]: item for item in state.in_slot(OLD.name)}


def _moves(state: DiskState) -> Iterator[Operation]:
    for name, item in _old(state).items():
        slot = {"file": SECRET, "tree": SECRET, "twin": SECRET, "near": PLAIN, "grove": PLAIN}.get(name)
        if slot is not None:
            yield Move(
                source=item.path,
                target=f"{slot.directory}/{name}",
                slot=slot.name,
                additions=ADDED if item.entry.kind is Kind.DIRECTORY else (),
                labels=_LABELS,
                divergence=Divergence.NEWEST,
            )
    for item in state.in_slot(CLAIMS.name):
        target = f"vault/new/{item.keys['name']}"
        source = f"{item.path}/{EMPTY}"
        yield Move(source=source, target=target, slot=SECRET.name, sha256=EMPTY, also_retire=(item.path,))


def _new(state: DiskState) -> Iterator[Operation]:
    old, new = _old(state), {item.keys["name"] for item in state.in_slot(SECRET.name)}
    if "kept" in old and "copied" not in new:
        yield Copy(source=old["kept"].path, target="vault/new/copied", slot=SECRET.name)
    if "written" not in new:
        yield Write(target="vault/new/written", content=b"by the new system\n", slot=SECRET.name)
    if not state.in_slot(LINKS.name):
        yield Link(target="links/link", destination="../vault/new/file", slot=LINKS.name)
    if "made" not in new:
        yield EnsureDirectory(target="vault/new/made", slot=SECRET.name)


def _rewritten(state: DiskState) -> Iterator[Operation]:
    old, plain = _old(state), {item.keys["name"]: item for item in state.in_slot(PLAIN.name)}
    if "settings" in old:
        yield Rewrite(
            source=old["settings"].path,
            target="plain/settings",
            content=SETTINGS,
            basis=hashlib.sha256(OLD_SETTINGS).hexdigest(),
            slot=PLAIN.name,
            divergence=Divergence.SOURCE,
        )
    if "inplace" in plain and plain["inplace"].entry.size == len(OLD_SETTINGS):
        path = plain["inplace"].path
        basis = hashlib.sha256(OLD_SETTINGS).hexdigest()
        yield Rewrite(source=path, target=path, content=SETTINGS, basis=basis, slot=PLAIN.name)
    if "relocated" in old and old["relocated"].entry.kind is Kind.DIRECTORY:
        yield Relocate(source=old["relocated"].path, target="vault/new/relocated", slot=SECRET.name)


def _other(state: DiskState) -> Iterator[Operation]:
    old = _old(state)
    if "adjusted" in old and old["adjusted"].entry.mode != PLAIN.entry_mode:
        yield SetAttributes(target=old["adjusted"].path, slot=PLAIN.name)
    for item in state.in_slot(EMPTIED.name):
        yield Retire(source=item.path, why="not needed")
    if "unneeded" in old:
        yield Retire(source=old["unneeded"].path, why="not needed")


def read_checkpoint(_: Mapping[str, Document], __: Mapping[str, str]) -> Checkpoint:
    """Return nothing: all that there is to know lies in the slots."""
    return Checkpoint(content=None)


MIGRATION = Migration(
    id="everything",
    summary="Every operation.",
    phase="all-at-once",
    reads=_READ,
    writes=(SECRET, LINKS, PLAIN),
    targets=(Range(NEXT),),
    plan=plan,
)

PACK = Pack(
    name="everything",
    summary="A made-up system.",
    order=LayoutOrder(labels=(LEGACY, NEXT), resolve={LEGACY: LEGACY, NEXT: NEXT, "latest": NEXT}.get),
    layouts={NEXT: Layout(label=NEXT, slots=(SECRET, LINKS, PLAIN))},
    phases=(Phase(name="all-at-once", needs_vault=True),),
    migrations=(MIGRATION,),
    default_target=NEXT,
    inputs=(),
    read_checkpoint=read_checkpoint,
    vault="vault",
)
