"""Every mistake that can be seen in a pack without a disk is one sentence."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from migrations.eve import PACK
from upgradeconverter.packs.api import DiskState, LayoutOrder, Migration, Proposal, Range, Slot, Zone
from upgradeconverter.packs.check import check


def _plan(_: DiskState) -> Proposal:
    return Proposal(migration="one")


SLOT = Slot(name="place", directory="place", owner="root", mode=0o700, zone=Zone.PLAIN, pattern="[a-z]+")
ONE = Migration(id="one", summary="One.", phase="pre-vault", reads=(SLOT,), targets=(Range("design"),), plan=_plan)


def test_real_pack_is_sound() -> None:
    """The pack that is shipped has no problem."""
    assert check(PACK) == ()
    assert check(replace(PACK, migrations=(ONE,))) == ()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        pytest.param({"phase": "later"}, "migration one: phase later is not declared", id="phase"),
        pytest.param({"after": ("two",)}, "migration one: two comes after nothing", id="after"),
        pytest.param({"targets": (Range("6.0"),)}, "migration one: layout 6.0 is not declared", id="since"),
        pytest.param({"targets": (Range("design", "7.0"),)}, "migration one: layout 7.0 is not declared", id="until"),
        pytest.param(
            {"reads": (replace(SLOT, pattern=None),)},
            "migration one: slot place is read but has no pattern",
            id="no pattern",
        ),
        pytest.param({"reads": (replace(SLOT, pattern="("),)}, "migration one: slot place has a bad pattern", id="bad pattern"),
    ],
)
def test_bad_migration(change: dict[str, Any], problem: str) -> None:
    """Each word of a migration that refers to nothing is told."""
    (found,) = check(replace(PACK, migrations=(replace(ONE, **change),)))
    assert found.startswith(problem)


def test_bad_pack() -> None:
    """Names that are used twice, layouts without slots and a default that leads nowhere are told."""
    order = LayoutOrder(labels=("old", "design", "later"), resolve=lambda _: None)
    found = check(replace(PACK, order=order, migrations=(ONE, ONE, ONE)))
    assert found == (
        "migration one is declared 3 times",
        "layout later has no slots",
        f"default target {PACK.default_target} is not a layout",
    )
