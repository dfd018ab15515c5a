"""Operations that only make sense together, and reasons to convert nothing at all; places that stand for several; probes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from tests.support.modeldisk import ModelDisk
from upgradeconverter.engine.session import Session
from upgradeconverter.errors import StateRefusedError
from upgradeconverter.model.entry import Kind
from upgradeconverter.model.layout import Layout, Slot, Zone
from upgradeconverter.model.operation import Move, Proposal, Retire, Skip, Write
from upgradeconverter.model.outcome import Reason
from upgradeconverter.model.version import LayoutOrder, Range
from upgradeconverter.packs.api import Checkpoint, Migration, Pack, Phase
from upgradeconverter.planning.scan import places, scan

if TYPE_CHECKING:
    from upgradeconverter.model.plan import Plan
    from upgradeconverter.packs.api import DiskState

NEW = Slot(name="new", directory="new/*", owner="app", mode=0o750, zone=Zone.PLAIN, keeps_owner=True)
OLD = Slot(name="old", directory="old", owner="app", mode=0o755, zone=Zone.PLAIN, pattern=r".+")
MOVES = (
    Move(source="old/a", target="new/x/a", slot="new"),
    Write(target="new/x/list", content=b"a, b\n", slot="new"),
    Move(source="old/b", target="new/x/b", slot="new"),
)


def _plan(disk: ModelDisk, proposal: Proposal) -> Plan:
    def propose(_: DiskState) -> Proposal:
        return proposal

    order = LayoutOrder(labels=("1", "2"), resolve={"1": "1", "2": "2"}.get)
    pack = Pack(
        name="whole",
        summary="",
        order=order,
        layouts={"2": Layout(label="2", slots=(NEW,))},
        phases=(Phase(name="all at once", needs_vault=False),),
        migrations=(
            Migration(id="m", summary="", phase="all at once", reads=(OLD,), writes=(NEW,), targets=(Range("2"),), plan=propose),
        ),
        default_target="2",
        inputs=(),
        read_checkpoint=lambda _, __: Checkpoint(content=None),
    )
    return Session(disk=disk, pack=pack, agents={"app": (7, 7)}).make_plan("all at once")


def _old(**more: bytes) -> ModelDisk:
    return ModelDisk.build({"old/a": b"one", "old/b": b"two", **{name.replace("__", "/"): each for name, each in more.items()}})


def test_together() -> None:
    """What goes together is one group of one transaction."""
    plan = _plan(_old(), Proposal(migration="m", operations=MOVES, whole=True))
    assert plan.skips == ()
    assert [len({step.group for step in wave.steps if step.group}) for wave in plan.waves] == [1]
    assert {step.target for step in plan.steps} == {"new", "new/x", "new/x/a", "new/x/list", "new/x/b"}


def test_nothing_without_the_others() -> None:
    """Where one cannot go the command is refused, by what is in the way."""
    disk = _old(new__x__b=b"somebody else's")
    assert {step.target for step in _plan(disk, Proposal(migration="m", operations=MOVES)).steps} == {"new/x/a", "new/x/list"}
    with pytest.raises(StateRefusedError, match="old/b: new/x/b: new/x/b has other content") as refused:
        _plan(disk, Proposal(migration="m", operations=(*MOVES, Retire(source="old", why="", once_empty=True)), whole=True))
    assert refused.value.code == "TargetExists"


def test_no_room_for_all() -> None:
    """Where not all of it fits nothing is converted; alone each is left by name."""
    disk = ModelDisk.build(
        {"old/a": b"one", "old/b": b"two", "new/x/c": b""},
        domains={"": ("plain", False, "disk"), "new": ("other", False, "disk")},
    )
    disk.free = 2 << 20
    disk.scale = 1 << 20
    assert {skip.reason for skip in _plan(disk, Proposal(migration="m", operations=MOVES)).skips} == {Reason.NO_SPACE}
    with pytest.raises(StateRefusedError) as refused:
        _plan(disk, Proposal(migration="m", operations=MOVES, whole=True))
    assert refused.value.code == "NoSpace"


def test_one_source_for_two() -> None:
    """What is to go to two places goes to the first of them only, and what goes together with that does not go at all."""
    twice = (MOVES[0], replace(MOVES[0], target="new/y/a"))
    plan = _plan(_old(), Proposal(migration="m", operations=twice))
    assert [(skip.path, skip.reason) for skip in plan.skips] == [("old/a", Reason.AMBIGUOUS_VOLUME)]
    with pytest.raises(StateRefusedError, match="two places"):
        _plan(_old(), Proposal(migration="m", operations=twice, whole=True))


def test_refusals() -> None:
    """A reason to refuse ends the whole command, by its name, whatever else could be done."""
    cause = Skip(path="old/lock", reason=Reason.IN_USE, detail="process 7")
    with pytest.raises(StateRefusedError, match="old/lock: process 7, and 1 more") as refused:
        _plan(_old(), Proposal(migration="m", operations=MOVES, refusals=(cause, replace(cause, path="old/other"))))
    assert refused.value.code == "InUse"
    assert [path for path, _, _ in refused.value.refusals] == ["old/lock", "old/other"]


def test_owner_of_the_root() -> None:
    """What has no agent keeps its owner; what is made is whose the root is, whatever the settings say of agents."""
    plan = _plan(_old(), Proposal(migration="m", operations=MOVES))
    after = {step.target: (step.after.uid, step.after.gid) for step in plan.steps}
    assert after["new/x/a"] == (None, None)
    assert after["new/x"] == after["new/x/list"] == (0, 0)
    modes = {step.target: step.after.mode for step in plan.steps}
    assert modes["new/x"] == 0o750


@pytest.mark.parametrize(
    ("directory", "found"),
    [
        ("old", ("old",)),
        ("*/in", ("new/in", "old/in")),
        ("o*", ("old",)),
        ("old/*/deep", ("old/in/deep", "old/on/deep")),
        ("none/*", ()),
        ("old/file/*", ()),
    ],
)
def test_places(directory: str, found: tuple[str, ...]) -> None:
    """A star stands for every directory that is called like that, and for nothing else."""
    tree = {"old/in/deep/x": b"", "old/on/y": b"", "old/file": b"", "new/in/z": b""}
    slot = replace(OLD, directory=directory)
    assert places(ModelDisk.build(tree), slot) == found
    assert all(slot.is_at(place) and slot.holds(f"{place}/inside") for place in found)
    assert not slot.is_at("elsewhere")
    assert not any(slot.is_at(f"{place}/inside") for place in found)


def test_probes_and_shared_places() -> None:
    """A probe sees the parts that it asks for; of a shared place other slots tell what else is there, or that it is none."""
    disk = ModelDisk.build({"old/a.img": b"0123456789", "old/b.txt": b"text"})
    images = replace(OLD, name="images", pattern=r".+\.img", kind=Kind.FILE, probe=lambda part: part(4, 3), shared=True)
    inventory, skips = scan(disk, (images,))
    assert [(item.path, dict(item.gists)) for item in inventory.items] == [("old/a.img", {"old/a.img": b"456"})]
    assert skips == ()
    assert [skip.path for skip in scan(disk, (replace(images, shared=False),))[1]] == ["old/b.txt"]
    below = replace(images, directory="old/a.img")
    assert scan(disk, (below,))[1] == ()
    assert [skip.reason for skip in scan(disk, (replace(below, shared=False),))[1]] == [Reason.NOT_A_DIRECTORY]
