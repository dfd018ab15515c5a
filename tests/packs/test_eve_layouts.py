"""Words and releases lead to layouts, and volumes named by the design document take the releases' names."""

from __future__ import annotations

import importlib

import pytest

from upgradeconverter.packs.api import Checkpoint, DiskState, Entry, Inventory, Item, Kind, Move, Reason
from upgradeconverter.packs.find import load

PACK = load("eve")
layouts = importlib.import_module("upgradeconverter_pack_eve.layouts")
design_names = importlib.import_module("upgradeconverter_pack_eve.design_names")
VOLUME = "11111111-1111-4111-8111-111111111111"


@pytest.mark.parametrize(
    ("word", "label"),
    [
        pytest.param("latest", "7.11.0", id="latest"),
        pytest.param("legacy", "legacy", id="legacy"),
        pytest.param("design", "design", id="design"),
        pytest.param("5.7.0", "5.7.0", id="5.7.0"),
        pytest.param("5.7.1", "5.7.1", id="5.7.1"),
        pytest.param("5.7", "5.7.0", id="two numbers"),
        pytest.param("5.7.0-xen-arm64", "5.7.0", id="5.7.0 for a machine"),
        pytest.param("5.7.2", "5.7.1", id="5.7.2"),
        pytest.param("5.12.0", "5.7.1", id="5.12 after 5.7"),
        pytest.param("6.0.0+build", "5.7.1", id="build"),
        pytest.param("16.12.0-kvm-amd64", "7.11.0", id="16.12.0-kvm-amd64"),
        pytest.param("5.6.3", "legacy", id="5.6.3"),
        pytest.param("4.99.99", "legacy", id="4.99.99"),
        pytest.param("garbage", None, id="garbage"),
        pytest.param("", None, id="nothing"),
        pytest.param("0.0.0-master-1a2b3c4d", "7.11.0", id="development"),
        pytest.param("5.7.1garbage", None, id="garbage behind"),
        pytest.param("v5.7.1", None, id="letter before"),
    ],
)
def test_resolve(word: str, label: str | None) -> None:
    """A label, `latest`, a release or a build between releases leads to its layout; anything else leads nowhere."""
    assert layouts.resolve(word) == label


def test_every_label_has_a_layout() -> None:
    """What can be resolved can be reached."""
    assert tuple(PACK.layouts) == PACK.order.labels
    assert {label: layout.label for label, layout in PACK.layouts.items()} == {k: k for k in PACK.order.labels}


@pytest.mark.parametrize(
    ("target", "name"),
    [
        pytest.param("design", f"{VOLUME}#3", id="design"),
        pytest.param("5.7.0", f"{VOLUME}#3.qcow2", id="5.7.0"),
        pytest.param("5.7.1", f"{VOLUME}#3.qcow2", id="5.7.1"),
    ],
)
def test_volume_name(target: str, name: str) -> None:
    """The design has no format in the name of a volume, the releases have."""
    assert layouts.volume_name(PACK.layouts[target], VOLUME, 3, "qcow2") == name


def in_slot(slot: str, folder: str, kind: Kind, labels: dict[str, str], form: str | None = None) -> Item:
    """Return a volume with the design's name, or with a format in its name."""
    name = f"{VOLUME}#3" + ("" if form is None else f".{form}")
    entry = Entry(
        path=f"{folder}/{name}",
        kind=kind,
        size=1,
        allocated=4096,
        mode=0o600,
        uid=0,
        gid=0,
        mtime_ns=0,
        atime_ns=0,
        identity=1,
        labels=labels,
    )
    keys = {"volume": VOLUME, "generation": "3"} | ({} if form is None else {"format": form})
    return Item(slot=slot, entry=entry, keys=keys)


def state_of(item: Item) -> DiskState:
    """Return a state with one volume, on the way to 5.7.1."""
    checkpoint = Checkpoint(content=None, problem=Reason.CHECKPOINT_MISSING)
    return DiskState(target=PACK.layouts["5.7.1"], checkpoint=checkpoint, inventory=Inventory(items=(item,)))


@pytest.mark.parametrize(
    ("kind", "labels", "form"),
    [
        pytest.param(Kind.FILE, {"format": "raw"}, "raw", id="file"),
        pytest.param(Kind.DIRECTORY, {"format": "container"}, "container", id="container"),
        pytest.param(Kind.DIRECTORY, {}, "container", id="container without label"),
    ],
)
@pytest.mark.parametrize(
    ("slot", "folder"),
    [
        pytest.param("vault-volumes", "vault/volumes", id="vault"),
        pytest.param("clear-volumes", "clear/volumes", id="clear"),
    ],
)
def test_design_name(kind: Kind, labels: dict[str, str], form: str, slot: str, folder: str) -> None:
    """A volume takes the format from its label into its name, in the same directory, without a configuration."""
    proposal = design_names.plan(state_of(in_slot(slot, folder, kind, labels)))
    (operation,) = proposal.operations
    assert isinstance(operation, Move)
    assert operation.source == f"{folder}/{VOLUME}#3"
    assert operation.target == f"{folder}/{VOLUME}#3.{form}"
    assert operation.slot == slot
    assert proposal.skips == ()


@pytest.mark.parametrize(
    ("kind", "labels"),
    [
        pytest.param(Kind.FILE, {}, id="no label"),
        pytest.param(Kind.FILE, {"format": "exe"}, id="unknown format"),
        pytest.param(Kind.FILE, {"format": "container"}, id="file as container"),
        pytest.param(Kind.DIRECTORY, {"format": "qcow2"}, id="directory as image"),
    ],
)
def test_design_name_without_format(kind: Kind, labels: dict[str, str]) -> None:
    """Where the label does not fit what lies there, the volume keeps its name."""
    item = in_slot("vault-volumes", "vault/volumes", kind, labels)
    proposal = design_names.plan(state_of(item))
    assert proposal.operations == ()
    assert [(skip.path, skip.reason) for skip in proposal.skips] == [(item.path, Reason.FORMAT_UNKNOWN)]


def test_release_name_stays() -> None:
    """A volume that has the format in its name is left as it is, silently."""
    item = in_slot("vault-volumes", "vault/volumes", Kind.FILE, {"format": "raw"}, "qcow2")
    proposal = design_names.plan(state_of(item))
    assert (proposal.operations, proposal.skips) == ((), ())
