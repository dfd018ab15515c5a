"""The containerd store: one move of the whole, for releases whose users' containerd lives in the vault."""

from __future__ import annotations

from typing import TYPE_CHECKING

from migrations.eve import PACK, containerd
from upgradeconverter.disk.posix import PosixDisk
from upgradeconverter.model.outcome import Reason
from upgradeconverter.packs.api import Checkpoint, DiskState, Divergence, Move
from upgradeconverter.planning.chain import chain
from upgradeconverter.planning.scan import scan

if TYPE_CHECKING:
    from pathlib import Path

    from upgradeconverter.packs.api import Proposal


def _proposed(root: Path) -> tuple[Proposal, list[Reason]]:
    disk = PosixDisk.at(str(root))
    inventory, skips = scan(disk, containerd.MIGRATION.reads)
    disk.close()
    state = DiskState(target=PACK.layouts["7.11.0"], checkpoint=Checkpoint(content=None), inventory=inventory)
    return containerd.plan(state), [skip.reason for skip in skips]


def test_the_store_moves_as_a_whole(tmp_path: Path) -> None:
    """Whatever is in it, even nothing, the directory itself is what moves; of two stores the one in the vault counts."""
    (tmp_path / "containerd").mkdir()
    moved = Move(
        source="containerd",
        target="vault/containerd",
        slot="containerd",
        labels=(("owner", "containerd"),),
        divergence=Divergence.TARGET,
    )
    assert (_proposed(tmp_path)[0].operations, _proposed(tmp_path)[1]) == ((moved,), [])


def test_what_is_no_store_stays(tmp_path: Path) -> None:
    """Without a store there is nothing to do; a file or link of that name is reported."""
    assert (_proposed(tmp_path)[0].operations, _proposed(tmp_path)[1]) == ((), [])
    (tmp_path / "containerd").symlink_to("/etc")
    assert (_proposed(tmp_path)[0].operations, _proposed(tmp_path)[1]) == ((), [Reason.NOT_A_DIRECTORY])


def test_only_releases_that_look_there() -> None:
    """Releases before 7.11.0 look for the store where it was."""
    targets = PACK.order.labels[1:]
    wanted = [label for label in targets if containerd.MIGRATION in chain(PACK.migrations, PACK.order, label, "post-vault")]
    assert wanted == ["design", *targets[targets.index("7.11.0") :]]
