import pytest
from msgspec.structs import replace

from migrations.eve import PACK, design_names
from migrations.eve.layouts import CLEAR_VOLUMES, VAULT_VOLUMES
from tests.packs.eve_words import V1, V2, item, state
from upgradeconverter.packs.api import Checkpoint, Item, Kind, Move, Reason, Slot

NOTHING = Checkpoint(content=None, problem=Reason.CHECKPOINT_MISSING)


def found(name: str, kind: Kind = Kind.FILE, form: str | None = None, slot: Slot = VAULT_VOLUMES) -> Item:
    """Return a volume with or without a label."""
    bare = item(slot, name, labels={} if form is None else {"format": form})
    return replace(bare, entry=replace(bare.entry, kind=kind))


@pytest.mark.parametrize("target", ["5.7.0", "5.7.1"])
@pytest.mark.parametrize("slot", [VAULT_VOLUMES, CLEAR_VOLUMES])
@pytest.mark.parametrize(
    ("kind", "form", "suffix"),
    [
        (Kind.FILE, "qcow2", "qcow2"),
        (Kind.FILE, "fmtunknown", "fmtunknown"),
        (Kind.DIRECTORY, "container", "container"),
        (Kind.DIRECTORY, None, "container"),
    ],
)
def test_format_becomes_part_of_the_name(target: str, slot: Slot, kind: Kind, form: str | None, suffix: str) -> None:
    """A volume of the design takes a release's name where it lies, in a slot that the target has."""
    (move,) = design_names.plan(state(NOTHING, [found(f"{V1}#3", kind, form, slot)], target)).operations
    assert isinstance(move, Move)
    assert move.source == f"{slot.directory}/{V1}#3"
    assert move.target == f"{slot.directory}/{V1}#3.{suffix}"
    assert PACK.layouts[target].slot(move.slot).mode == slot.mode


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        (Kind.FILE, None),
        (Kind.FILE, ""),
        (Kind.FILE, "exe"),
        (Kind.FILE, "../raw"),
        (Kind.FILE, "container"),
        (Kind.DIRECTORY, "raw"),
        (Kind.DIRECTORY, "exe"),
    ],
)
def test_unknown_formats_stay(kind: Kind, form: str | None) -> None:
    """A volume whose format nobody recorded, or recorded wrongly, stays."""
    proposal = design_names.plan(state(NOTHING, [found(f"{V1}#0", kind, form)], "5.7.1"))
    assert proposal.operations == ()
    assert [skip.reason for skip in proposal.skips] == [Reason.FORMAT_UNKNOWN]


def test_names_of_releases_are_left_alone() -> None:
    """What already has its name gives nothing."""
    items = [found(f"{V1}#0.raw"), found(f"{V2}#1.container", Kind.DIRECTORY)]
    proposal = design_names.plan(state(NOTHING, items, "5.7.1"))
    assert (proposal.operations, proposal.skips) == ((), ())
