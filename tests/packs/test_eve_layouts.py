"""Words and releases lead to layouts, and volumes named by the design document take the releases' names."""

from __future__ import annotations

import importlib

import pytest

from upgradeconverter.packs.api import Checkpoint, DiskState, Entry, Inventory, Item, Kind, Move, Reason
from upgradeconverter.packs.find import load

PACK = load("eve")
layouts = importlib.import_module("upgradeconverter_pack_eve.layouts")
releases = importlib.import_module("upgradeconverter_pack_eve.releases")
design_names = importlib.import_module("upgradeconverter_pack_eve.design_names")
VOLUME = "11111111-1111-4111-8111-111111111111"


@pytest.mark.parametrize(
    ("word", "label"),
    [
        pytest.param("latest", "17.1.0", id="latest"),
        pytest.param("legacy", "legacy", id="legacy"),
        pytest.param("design", "design", id="design"),
        pytest.param("5.7.0", "5.7.0", id="5.7.0"),
        pytest.param("5.7.1", "5.7.1", id="5.7.1"),
        pytest.param("5.7", "5.7.0", id="two numbers"),
        pytest.param("5.7.0-xen-arm64", "5.7.0", id="5.7.0 for a machine"),
        pytest.param("5.7.2", "5.7.1", id="5.7.2"),
        pytest.param("5.12.0", "5.7.1", id="5.12 after 5.7"),
        pytest.param("6.0.0+build", "5.15.0", id="build"),
        pytest.param("16.12.0-kvm-amd64", "16.12.0", id="16.12.0-kvm-amd64"),
        pytest.param("5.6.3", "5.1.0", id="5.6.3"),
        pytest.param("4.99.99", "legacy", id="4.99.99"),
        pytest.param("garbage", None, id="garbage"),
        pytest.param("", None, id="nothing"),
        pytest.param("0.0.0-master-1a2b3c4d", "17.1.0", id="development"),
        pytest.param("5.7.1garbage", None, id="garbage behind"),
        pytest.param("v5.7.1", None, id="letter before"),
        pytest.param("5.7.1.2", None, id="four numbers"),
        pytest.param("5.7.1\n", None, id="newline"),
        pytest.param("9" * 5000 + ".0.0", None, id="endless"),
        pytest.param("16.2", "16.1.0", id="16.2"),
        pytest.param("7.10.9", "7.7.0", id="7.10.9"),
    ],
)
def test_resolve(word: str, label: str | None) -> None:
    """A label, `latest`, a release or a build between releases leads to its layout; anything else leads nowhere."""
    assert releases.resolve(word) == label


@pytest.mark.parametrize(
    ("release", "media_types", "config_map"),
    [
        pytest.param("5.14.0", False, False, id="5.14"),
        pytest.param("9.4.10-lts", False, True, id="9.4.10-lts"),
        pytest.param("9.4.11-lts", True, True, id="9.4.11-lts"),
        pytest.param("9.5.0", False, True, id="9.5.0"),
        pytest.param("10.4.9-lts", True, True, id="10.4.9-lts"),
        pytest.param("11.0.3-lts", True, True, id="11.0.3-lts"),
        pytest.param("11.1.0", False, True, id="11.1.0"),
        pytest.param("11.8.0", True, True, id="11.8.0"),
        pytest.param("14.5.4-lts", True, False, id="14.5.4-lts"),
        pytest.param("15.3.0", True, True, id="15.3.0"),
        pytest.param("16.0.0-lts", True, True, id="16.0.0-lts"),
        pytest.param("16.0.1-lts", True, False, id="16.0.1-lts"),
        pytest.param("16.11.0", True, True, id="16.11.0"),
        pytest.param("16.12.0", True, False, id="16.12.0"),
    ],
)
def test_branches(release: str, *, media_types: bool, config_map: bool) -> None:
    """What a branch of long support got, or lost, before the releases with a higher number is known of each."""
    label, feature = releases.resolve(release), releases.Feature
    assert releases.has(label, feature.MEDIA_TYPES) == media_types
    assert releases.has(label, feature.CONFIG_MAP_IN_STATUS) == config_map
    for each in (feature.MEDIA_TYPES, feature.CONFIG_MAP_IN_STATUS):
        assert releases.ORDER.covers(releases.layouts_with(each), label) == releases.has(label, each)


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
