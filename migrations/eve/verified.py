"""Verified files move to the verifier's own directory and are named by nothing but their digest.

The digest is checked while the file is copied; EVE's own converter trusts the name (known defect 25). The emptied
directory that was named by the digest goes with its file (known defect 24).
"""

from __future__ import annotations

from msgspec.structs import replace

from upgradeconverter.packs.api import DiskState, Entry, Item, Kind, Migration, Move, Operation, Proposal, Reason, Retire, Skip

from .layouts import VERIFIED, VERIFIED_BY_TYPE
from .releases import Feature, layouts_with


def plan(state: DiskState) -> Proposal:
    """Return a move for every verified file."""
    operations: list[Operation] = []
    skips: list[Skip] = []
    for slot in VERIFIED_BY_TYPE:
        for item in state.in_slot(slot.name):
            outcome = move_of(item)
            if isinstance(outcome, Skip):
                skips.append(outcome)
            else:
                operations.append(outcome)
    return Proposal(migration=MIGRATION.id, operations=tuple(operations), skips=tuple(skips))


def move_of(item: Item) -> Move | Retire | Skip:
    """Return what becomes of a directory that is named by the digest of the one file in it."""
    if not item.children:
        return Retire(source=item.path, why="emptied")
    if len(item.children) > 1:
        detail = f"{len(item.children)} entries, expected one"
        return Skip(path=item.path, reason=Reason.UNEXPECTED_CONTENT, detail=detail)
    file = item.children[0]
    if file.kind is not Kind.FILE:
        return Skip(path=file.path, reason=Reason.NOT_A_REGULAR_FILE, detail=f"found a {file.kind.value}")
    return replace(move_file(file, item.keys["digest"].lower()), also_retire=(item.path,))


def move_file(file: Entry, digest: str) -> Move:
    """Return the move of a file that has to have a digest."""
    return Move(
        source=file.path,
        target=f"{VERIFIED.directory}/{digest}",
        slot=VERIFIED.name,
        sha256=digest,
        labels=(("owner", VERIFIED.owner),),
    )


MIGRATION = Migration(
    id="eve-verified",
    summary="Verified files move to the verifier's directory, checked against the digest in their name.",
    phase="post-vault",
    reads=VERIFIED_BY_TYPE,
    writes=(VERIFIED,),
    targets=layouts_with(Feature.OWN_DIRECTORIES, without=Feature.MEDIA_TYPES),
    after=("eve-volumes",),
    plan=plan,
)
