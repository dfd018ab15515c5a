"""Verified files are named by their digest alone, and anything unusual beside them stays."""

from __future__ import annotations

import importlib

import pytest

from upgradeconverter.packs.api import Checkpoint, DiskState, Entry, Inventory, Item, Kind, Move, Proposal, Reason, Retire
from upgradeconverter.packs.find import load
from upgradeconverter.planning.chain import chain

PACK = load("eve")
verified = importlib.import_module("upgradeconverter_pack_eve.verified")
DIGEST = "a1" * 32


def entry(path: str, kind: Kind) -> Entry:
    """Return the facts of a path."""
    return Entry(path=path, kind=kind, size=1, allocated=1, mode=0o600, uid=0, gid=0, mtime_ns=0, atime_ns=0, identity=1)


def item(children: dict[str, Kind], object_type: str = "appImg", digest: str = DIGEST) -> Item:
    """Return a directory named by a digest with what lies inside."""
    path = f"downloads/{object_type}.obj/verified/{digest}"
    return Item(
        slot=f"verified-{object_type}",
        entry=entry(path, Kind.DIRECTORY),
        keys={"digest": digest},
        children=tuple(entry(f"{path}/{name}", kind) for name, kind in children.items()),
    )


def planned(*items: Item, target: str = "5.7.1") -> Proposal:
    """Return what the migration proposes, without a configuration."""
    state = DiskState(
        target=PACK.layouts[target],
        checkpoint=Checkpoint(content=None, problem=Reason.CHECKPOINT_MISSING),
        inventory=Inventory(items=items),
    )
    proposal: Proposal = verified.plan(state)
    return proposal


@pytest.mark.parametrize("object_type", ["appImg", "baseOs"])
@pytest.mark.parametrize("target", ["design", "5.7.1"])
@pytest.mark.parametrize("digest", [pytest.param(DIGEST, id="lower"), pytest.param(DIGEST.upper(), id="upper")])
def test_one_file(object_type: str, target: str, digest: str) -> None:
    """The file goes to the verifier, to be checked against its digest, and the emptied directory goes with it."""
    source = item({"image.qcow2": Kind.FILE}, object_type, digest)
    proposal = planned(source, target=target)
    assert proposal.skips == ()
    assert proposal.operations == (
        Move(
            source=f"{source.path}/image.qcow2",
            target=f"vault/verifier/verified/{DIGEST}",
            slot="verified",
            sha256=DIGEST,
            labels=(("owner", "verifier"),),
            also_retire=(source.path,),
        ),
    )


def test_empty_directory() -> None:
    """A directory that is empty already is put away."""
    proposal = planned(item({}))
    (operation,) = proposal.operations
    assert isinstance(operation, Retire)
    assert operation.source == item({}).path
    assert proposal.skips == ()


@pytest.mark.parametrize(
    ("children", "inside", "reason"),
    [
        pytest.param({"a": Kind.FILE, "b": Kind.FILE}, "", Reason.UNEXPECTED_CONTENT, id="two files"),
        pytest.param({"a": Kind.FILE, "b": Kind.DIRECTORY}, "", Reason.UNEXPECTED_CONTENT, id="file and directory"),
        pytest.param({"a": Kind.DIRECTORY}, "/a", Reason.NOT_A_REGULAR_FILE, id="directory"),
        pytest.param({"a": Kind.SYMLINK}, "/a", Reason.NOT_A_REGULAR_FILE, id="link"),
        pytest.param({"a": Kind.FIFO}, "/a", Reason.NOT_A_REGULAR_FILE, id="pipe"),
    ],
)
def test_unusual(children: dict[str, Kind], inside: str, reason: Reason) -> None:
    """Anything but one regular file stays where it is."""
    source = item(children)
    proposal = planned(source)
    assert proposal.operations == ()
    assert [(skip.path, skip.reason) for skip in proposal.skips] == [(source.path + inside, reason)]


def test_target_without_a_verifier() -> None:
    """5.7.0 has no directory for the verifier, so nothing happens; for each other release one of the two migrations runs."""
    labels = PACK.order.labels
    chains = {label: {each.id for each in chain(PACK.migrations, PACK.order, label, "post-vault")} for label in labels}
    both = {label: len(ids & {"eve-verified", "eve-verified-typed"}) for label, ids in chains.items()}
    assert both == {label: int(label not in ("legacy", "5.1.0", "5.7.0")) for label in labels}
