from dataclasses import dataclass, field
from typing import TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrations.eve import eve_pb2 as pb
from migrations.eve.volumes import plan
from tests.packs.eve_words import (
    APP,
    IMAGE,
    NIL,
    OTHER_APP,
    SHA1,
    SHA2,
    T1,
    T2,
    V1,
    V2,
    app,
    device,
    drive,
    legacy,
    ref,
    saved,
    state,
    tree,
    volume,
)
from upgradeconverter.packs.api import Checkpoint, Divergence, Move, Proposal, Reason


class Rest(TypedDict):
    """What a configuration has beside applications."""

    volumes: list[pb.Volume]
    trees: list[pb.ContentTree]


OLD1, OLD2 = f"{SHA1}-{APP}", f"{SHA2}-{APP}"
BOTH: Rest = {"volumes": [volume(V1, T1), volume(V2, T2)], "trees": [tree(T1, SHA1), tree(T2, SHA2)]}
SWAPPED: Rest = {"volumes": [volume(V1, T2), volume(V2, T1)], "trees": [tree(T1, SHA1), tree(T2, SHA2)]}
NONE: Rest = {"volumes": [], "trees": []}
LATCH = "status/zedmanager/AppAndImageToHash/x.json"
HASH = f'{{"AppUUID":"{APP}","ImageID":"{IMAGE}","Hash":"{SHA1.upper()}","PurgeCounter":%d}}'


def outcome(proposal: Proposal) -> dict[str, str]:
    """Return what becomes of each source: its target's name, or the reason why it stays."""
    found = {skip.path.rpartition("/")[2]: str(skip.reason.value) for skip in proposal.skips}
    for operation in proposal.operations:
        assert isinstance(operation, Move)
        found[operation.source.rpartition("/")[2]] = operation.target
    return found


@dataclass(frozen=True)
class Case:
    """One example: a configuration, the names found, and what becomes of each."""

    name: str
    config: pb.EdgeDevConfig
    found: dict[str, str]
    files: dict[str, bytes] = field(default_factory=dict)


def vault(uuid: str, form: str, generation: int = 0) -> str:
    """Return where a release has an encrypted volume."""
    return f"vault/volumes/{uuid}#{generation}.{form}"


AMBIGUOUS = Reason.AMBIGUOUS_VOLUME.value
STALE = Reason.STALE_GENERATION.value
UNOWNED = Reason.NO_OWNER_IN_CONFIG.value
NO_REF = Reason.NO_VOLUME_REFERENCE.value
ONE = app([drive()], [ref()])
TWINS = [drive(), drive()]

CASES = [
    Case("plain VM", device(ONE), {f"{OLD1}.qcow2": vault(V1, "qcow2")}),
    Case("the extension on the disk wins", device(ONE), {f"{OLD1}.raw": vault(V1, "raw")}),
    Case(
        "generation of the reference, not the purge counter",
        device(app([drive()], [ref(V1, 7)], purge=3)),
        {f"{OLD1}#3.raw": vault(V1, "raw", 7)},
    ),
    Case("defect 4: file upper", device(ONE), {f"{SHA1.upper()}-{APP.upper()}.qcow2": vault(V1, "qcow2")}),
    Case(
        "defect 4: configuration upper",
        device(app([drive(SHA1.upper())], [ref(V1.upper())], uuid=APP.upper())),
        {f"{OLD1}.qcow2": vault(V1, "qcow2")},
    ),
    Case("defect 4: both cases on the disk", device(ONE), {f"{OLD1}.raw": AMBIGUOUS, f"{OLD1.upper()}.raw": AMBIGUOUS}),
    Case(
        "defect 3: more drives than references",
        device(app([drive(), drive(SHA2)], [ref()])),
        {f"{OLD1}.raw": vault(V1, "raw"), f"{OLD2}.raw": NO_REF},
    ),
    Case("defect 3: nil reference", device(app([drive()], [ref(NIL)])), {f"{OLD1}.raw": NO_REF}),
    Case("defect 3: reference is no UUID", device(app([drive()], [ref("volume-1")])), {f"{OLD1}.raw": NO_REF}),
    Case("defect 3: no references", device(app([drive()])), {f"{OLD1}.raw": NO_REF}),
    Case(
        "defect 5: reordered references",
        device(app([drive(), drive(SHA2)], [ref(V1), ref(V2)]), **SWAPPED),
        {f"{OLD1}.raw": vault(V2, "raw"), f"{OLD2}.raw": vault(V1, "raw")},
    ),
    Case(
        "defect 5: a drive without reference shifts the others",
        device(app([drive(), drive(SHA2)], [ref(V2)]), **BOTH),
        {f"{OLD1}.raw": AMBIGUOUS, f"{OLD2}.raw": NO_REF},
    ),
    Case(
        "defect 5: the fitting reference is another drive's",
        device(app([drive(), drive()], [ref(V2), ref(V1)], purge=2), **BOTH),
        {f"{OLD1}#2.raw": AMBIGUOUS, f"{OLD1}.raw": vault(V1, "raw")},
    ),
    Case(
        "defect 5: two references fit",
        device(
            app([drive(), pb.Drive(), pb.Drive()], [ref(V1), ref(V2), ref(T2)]),
            volumes=[volume(V1, T2), volume(V2, T1), volume(T2, T1)],
            trees=[tree(T1, SHA1), tree(T2, SHA2)],
        ),
        {f"{OLD1}.raw": AMBIGUOUS},
    ),
    Case(
        "defect 5: positions that agree stay",
        device(app([drive(), drive(SHA2)], [ref(V1), ref(V2)]), **BOTH),
        {f"{OLD1}.raw": vault(V1, "raw"), f"{OLD2}.raw": vault(V2, "raw")},
    ),
    Case(
        "defect 6: two drives of one image, the first one purged",
        device(app(TWINS, [ref(V1), ref(V2)], purge=2)),
        {f"{OLD1}#2.qcow2": vault(V1, "qcow2"), f"{OLD1}.qcow2": vault(V2, "qcow2")},
    ),
    Case("defect 6: two drives, one file", device(app(TWINS, [ref(V1), ref(V2)])), {f"{OLD1}.qcow2": AMBIGUOUS}),
    Case(
        "defect 6: the second drive's file is not the first one's",
        device(app(TWINS, [ref(V1), ref(V2)], purge=2)),
        {f"{OLD1}.qcow2": vault(V2, "qcow2")},
    ),
    Case(
        "defect 6: two later drives wait for one file",
        device(app([drive(SHA2), *TWINS], [ref(T1), ref(V1), ref(V2)], purge=2)),
        {f"{OLD1}.raw": AMBIGUOUS, f"{OLD2}#2.raw": vault(T1, "raw")},
    ),
    Case(
        "defect 7: the current generation wins over an older one",
        device(app([drive()], [ref()], purge=2)),
        {f"{OLD1}#1.raw": STALE, f"{OLD1}#2.raw": vault(V1, "raw"), f"{OLD1}.raw": STALE},
    ),
    Case(
        "defect 7: numbers are no text",
        device(app([drive()], [ref()], purge=9)),
        {f"{OLD1}#10.raw": STALE, f"{OLD1}#9.raw": vault(V1, "raw"), f"{OLD1}#8.raw": STALE},
    ),
    Case(
        "defect 7: the counter was reset",
        device(ONE),
        {f"{OLD1}#4.raw": STALE, f"{OLD1}.raw": vault(V1, "raw")},
    ),
    Case(
        "defect 7: orphan of 5.2, no current generation",
        device(app([drive()], [ref()], purge=5)),
        {f"{OLD1}#4.raw": STALE, f"{OLD1}.raw": vault(V1, "raw")},
    ),
    Case("defect 7: only older ones", device(app([drive()], [ref()], purge=5)), {f"{OLD1}#4.raw": STALE}),
    Case("two formats of one volume", device(ONE), {f"{OLD1}.raw": AMBIGUOUS, f"{OLD1}.qcow2": AMBIGUOUS}),
    Case("a counter of zero is none", device(ONE), {f"{OLD1}#0.raw": AMBIGUOUS, f"{OLD1}.raw": AMBIGUOUS}),
    Case(
        "a container is the prepared directory",
        device(app([drive(form="CONTAINER")], [ref()])),
        {f"{OLD1}.raw": AMBIGUOUS, OLD1: vault(V1, "container")},
    ),
    Case("a VM is the file", device(ONE), {f"{OLD1}.raw": vault(V1, "raw"), OLD1: AMBIGUOUS}),
    Case(
        "nobody knows the format",
        device(app([drive(form="FmtUnknown")], [ref()])),
        {f"{OLD1}.raw": AMBIGUOUS, OLD1: AMBIGUOUS},
    ),
    Case("alone, a container needs no format", device(ONE), {OLD1: vault(V1, "container")}),
    Case(
        "application unknown",
        device(ONE),
        {f"{SHA1}-{OTHER_APP}.raw": UNOWNED, f"{SHA1}-{NIL}.qcow2": UNOWNED},
    ),
    Case("image unknown", device(ONE), {f"{OLD2}.raw": UNOWNED}),
    Case("defect 16: nameless application", device(pb.AppInstanceConfig(drives=TWINS)), {f"{OLD1}.raw": UNOWNED}),
    Case("drive without image", device(app([pb.Drive(), drive()], [ref(V2), ref(V1)])), {f"{OLD1}.raw": vault(V1, "raw")}),
    Case(
        "digest from the latch",
        device(app([drive("", "CONTAINER")], [ref()], purge=2)),
        {f"{SHA1.upper()}-{APP}#2": vault(V1, "container")},
        {LATCH: (HASH % 2).encode()},
    ),
    Case(
        "latch of another purge generation",
        device(app([drive("", "CONTAINER")], [ref()], purge=3)),
        {f"{OLD1}#2": UNOWNED},
        {LATCH: (HASH % 2).encode()},
    ),
    Case(
        "digest from the content tree",
        device(app([drive("")], [ref()]), volumes=[volume(V1, T1)], trees=[tree(T1, SHA1.upper())]),
        {f"{OLD1}.qcow2": vault(V1, "qcow2")},
    ),
    Case("digest nowhere", device(app([drive("")], [ref()])), {f"{OLD1}.qcow2": UNOWNED}),
    Case(
        "references without drives",
        device(app([], [ref(V1), ref(NIL), ref(V2)], purge=4), **BOTH),
        {f"{OLD1}#4.raw": vault(V1, "raw"), f"{OLD2}.raw": vault(V2, "raw")},
    ),
    Case(
        "two applications, one volume",
        device(ONE, app([drive()], [ref()], uuid=OTHER_APP)),
        {f"{OLD1}.raw": AMBIGUOUS, f"{SHA1}-{OTHER_APP}.qcow2": AMBIGUOUS},
    ),
    Case("named by its application", device(app([drive("", "CONTAINER")], [ref()])), {APP: vault(V1, "container")}),
    Case(
        "named by its application, beside a disk",
        device(app([drive(), drive(SHA2, "CONTAINER")], [ref(), ref(V2)])),
        {APP.upper(): vault(V2, "container"), f"{OLD1}.qcow2": vault(V1, "qcow2")},
    ),
    Case(
        "named by its application, and a later one",
        device(app([drive(form="CONTAINER")], [ref()])),
        {APP: STALE, OLD1: vault(V1, "container")},
    ),
    Case(
        "named by an application of two containers",
        device(app([drive(form="CONTAINER"), drive(SHA2, "CONTAINER")], [ref(), ref(V2)])),
        {APP: AMBIGUOUS},
    ),
    Case("named by an application without containers", device(ONE), {APP: UNOWNED, OTHER_APP: UNOWNED}),
    Case(
        "one application twice",
        device(ONE, app([drive()], [ref(V2)])),
        {f"{OLD1}.raw": AMBIGUOUS},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_matching(case: Case) -> None:
    """Every legacy volume gets the one right name or stays with the right reason."""
    proposal = plan(state(saved(case.config, case.files), legacy(*case.found), "5.7.1"))
    assert outcome(proposal) == case.found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_nothing_is_lost_or_guessed(case: Case) -> None:
    """Each item has exactly one outcome, targets are different, none is nil, and the order of listing is no matter."""
    items = legacy(*case.found)
    proposal = plan(state(saved(case.config, case.files), items))
    assert plan(state(saved(case.config, case.files), items[::-1])) == proposal
    sources = [move.source for move in proposal.operations if isinstance(move, Move)]
    assert sorted([*sources, *(skip.path for skip in proposal.skips)]) == sorted(item.path for item in items)
    targets = [move.target for move in proposal.operations if isinstance(move, Move)]
    assert len(set(targets)) == len(targets)
    assert not any(NIL in target for target in targets)
    assert sources == sorted(sources)


@pytest.mark.parametrize("reason", [Reason.CHECKPOINT_MISSING, Reason.CHECKPOINT_UNREADABLE])
def test_without_configuration_everything_stays(reason: Reason) -> None:
    """What is wrong with the configuration is the reason of every item."""
    broken = Checkpoint(content=None, problem=reason, detail="why")
    proposal = plan(state(broken, legacy(f"{OLD1}.raw", OLD2)))
    assert proposal.operations == ()
    assert [(skip.reason, skip.detail) for skip in proposal.skips] == [(reason, "why")] * 2


@pytest.mark.parametrize(
    ("target", "moved", "slot", "labels"),
    [
        ("design", f"clear/volumes/{V1}#0", "clear-volumes", (("owner", "volumemgr"), ("format", "qcow2"))),
        ("5.7.0", f"vault/volumes/{V1}#0.qcow2", "vault-volumes", (("owner", "volumemgr"),)),
        ("5.7.1", f"clear/volumes/{V1}#0.qcow2", "clear-volumes", (("owner", "volumemgr"),)),
    ],
)
def test_clear_text_volumes(target: str, moved: str, slot: str, labels: tuple[tuple[str, str], ...]) -> None:
    """Volumes that need no encryption go to the clear area of layouts that have one (defect 8)."""
    config = device(ONE, volumes=[volume(clear=True)])
    proposal = plan(state(saved(config), legacy(f"{OLD1}.qcow2"), target))
    source, policy = f"img/{OLD1}.qcow2", Divergence.NEWEST
    assert proposal.operations == (Move(source=source, target=moved, slot=slot, labels=labels, divergence=policy),)
    assert proposal.warnings == ()


@pytest.mark.parametrize(("target", "name"), [("design", f"{V1}#0"), ("5.7.1", f"{V1}#0.container")])
def test_containers_bring_their_snapshot(target: str, name: str) -> None:
    """A container directory gets a file with its old name, without a newline."""
    old = f"{SHA1.upper()}-{APP}#2"
    config = device(app([drive(form="CONTAINER")], [ref()], purge=2))
    (move,) = plan(state(saved(config), legacy(old), target)).operations
    assert isinstance(move, Move)
    assert move.target == f"vault/volumes/{name}"
    assert move.additions == (("snapshotid.txt", old.encode()),)


def test_odd_configurations_are_reported() -> None:
    """A volume that is not configured counts as encrypted; of two generations the reference's counts; both are said."""
    unknown = plan(state(saved(device(ONE, volumes=[volume(V2, clear=True)])), legacy(f"{OLD1}.raw"), "5.7.1"))
    assert outcome(unknown) == {f"{OLD1}.raw": vault(V1, "raw")}
    assert [V1 in warning for warning in unknown.warnings] == [True]
    config = device(app([drive()], [ref(V1, 4)]), volumes=[volume(V1, generation=6)])
    differing = plan(state(saved(config), legacy(f"{OLD1}.raw"), "5.7.1"))
    assert outcome(differing) == {f"{OLD1}.raw": vault(V1, "raw", 4)}
    assert ["generation 4" in warning and "6" in warning for warning in differing.warnings] == [True]


names = st.builds(
    lambda sha, owner, purge, form: f"{sha}-{owner}{purge}{form}",
    st.sampled_from([SHA1, SHA1.upper(), SHA2]),
    st.sampled_from([APP, APP.upper(), OTHER_APP]),
    st.sampled_from(["", "#0", "#1", "#2"]),
    st.sampled_from(["", ".raw", ".qcow2"]),
)
drives = st.lists(st.builds(drive, st.sampled_from([SHA1, SHA2, ""]), st.sampled_from(["RAW", "CONTAINER"])), max_size=3)
refs = st.lists(st.builds(ref, st.sampled_from([V1, V2, NIL, ""]), st.integers(0, 1)), max_size=3)
apps = st.builds(
    lambda d, r, p, u: app(d, r, purge=p, uuid=u), drives, refs, st.integers(0, 2), st.sampled_from([APP, OTHER_APP])
)


@given(st.sets(names, max_size=6), st.lists(apps, max_size=2), st.sampled_from([BOTH, SWAPPED, NONE]))
def test_every_item_has_one_outcome(found: set[str], some: list[pb.AppInstanceConfig], rest: Rest) -> None:
    """For any configuration and any files, nothing is lost, nothing is guessed twice, and nothing goes to a nil volume."""
    items = legacy(*sorted(found))
    config = device(*some, **rest)
    proposal = plan(state(saved(config), items))
    moves = [move for move in proposal.operations if isinstance(move, Move)]
    assert sorted([*(m.source for m in moves), *(s.path for s in proposal.skips)]) == sorted(i.path for i in items)
    assert len({move.target.rpartition("/")[2] for move in moves}) == len(moves)
    assert not any(NIL in move.target or "/#" in move.target for move in moves)
