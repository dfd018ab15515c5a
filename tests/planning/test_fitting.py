"""What fits on the disk, in which transactions: space is counted at the fullest moment, not for the run as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from upgradeconverter.disk import manifest, streaming
from upgradeconverter.model.entry import Entry, Kind, SharedFile, Space, TreeFacts
from upgradeconverter.model.outcome import Reason
from upgradeconverter.model.plan import Plan, Precondition, Shape, Step, Trial
from upgradeconverter.planning import fitting, lowspace
from upgradeconverter.planning.facts import Facts
from upgradeconverter.planning.fitting import Fitting, fit, reserve
from upgradeconverter.planning.lowspace import CHUNK, as_stream, can_go_over

if TYPE_CHECKING:
    from collections.abc import Iterable

MIB = 1 << 20
RESERVE = MIB
TREE = TreeFacts(entries=1, size=1, allocated=1, fingerprint="")
SPACE = Space(filesystem="8:1", free=64 * MIB, free_inodes=1000, block_size=4096)


def _facts(free: int, *, inodes: int = 1000, links: int = 1, names: Iterable[str] = "abcdefgh") -> Facts:
    """Facts of one file system with a vault on it and files in the root."""
    space = Space(filesystem="8:1", free=free, free_inodes=inodes, block_size=4096)
    facts = Facts(spaces={"": space, "vault": space})
    for number, name in enumerate(names):
        facts.entries[name] = Entry(
            path=name,
            kind=Kind.FILE,
            size=1,
            allocated=1,
            mode=0o600,
            uid=0,
            gid=0,
            mtime_ns=0,
            atime_ns=0,
            identity=number,
            links=links,
        )
        facts.trees[name] = TREE
    return facts


def _copy(name: str, size: int, group: int, *, operation: str = "Move") -> Step:
    return Step(
        number=0,
        group=group,
        migration="m",
        operation=operation,
        shape=Shape.COPY,
        source=name,
        target=f"vault/{name}",
        target_home="vault",
        allocated=size,
    )


def _folder(path: str) -> Step:
    return Step(
        number=0,
        group=0,
        migration="m",
        operation="EnsureDirectory",
        shape=Shape.CREATE,
        made_of="directory",
        target=path,
        target_home="vault",
    )


def _layout(found: Fitting) -> list[str]:
    return ["".join(step.source or "/" for step in wave.steps) for wave in found.waves]


def test_everything_shares_one_wave_where_it_fits() -> None:
    """With room for all copies at once there is one transaction."""
    found = fit([_copy("a", MIB, 1), _copy("b", MIB, 2)], _facts(8 * MIB))
    assert (_layout(found), found.short) == (["ab"], ())
    assert found.needs[0].needed == 2 * (MIB + 4096)


def test_freed_sources_make_room_for_the_next_wave() -> None:
    """Where two copies do not fit beside each other, the second waits until the first source is gone."""
    found = fit([_copy("a", 5 * MIB, 1), _copy("b", 5 * MIB, 2)], _facts(7 * MIB))
    assert (_layout(found), found.short) == (["a", "b"], ())
    assert found.needs[0].needed < 6 * MIB


def test_what_a_small_one_frees_lets_a_big_one_in() -> None:
    """A group that does not fit at its turn is tried again once others have made room on their file system."""
    facts = _facts(6 * MIB)
    facts.spaces["other"] = Space(filesystem="8:2", free=1 << 40, free_inodes=1000, block_size=4096)
    away = Step(
        number=0,
        group=2,
        migration="m",
        operation="Move",
        shape=Shape.COPY,
        source="b",
        target="other/b",
        target_home="other",
        allocated=4 * MIB,
    )
    found = fit([_copy("a", 8 * MIB, 1), away], facts)
    assert (_layout(found), found.short) == (["b", "a"], ())


@pytest.mark.parametrize(
    ("step", "links"),
    [
        pytest.param(_copy("a", 5 * MIB, 1), 2, id="another name holds the source"),
        pytest.param(_copy("a", 5 * MIB, 1, operation="Copy"), 1, id="the source stays"),
    ],
)
def test_what_stays_frees_nothing(step: Step, links: int) -> None:
    """Room is only counted as freed when the last name of the source goes."""
    found = fit([step, _copy("b", 5 * MIB, 2)], _facts(7 * MIB, links=links))
    assert (_layout(found), [(s.path, s.reason) for s in found.short]) == (["a"], [("b", Reason.NO_SPACE)])


def test_too_big_is_left_by_name_and_the_rest_goes_on() -> None:
    """One volume that never fits does not stop the others (D10); the detail says what is needed and what is there."""
    found = fit([_copy("a", 50 * MIB, 1), _copy("b", MIB, 2)], _facts(8 * MIB))
    assert _layout(found) == ["b"]
    assert found.short[0].path == "a"
    assert str(8 * MIB - RESERVE) in found.short[0].detail


def test_inodes_count_too() -> None:
    """A file system without inodes is as full as one without bytes."""
    found = fit([_copy("a", 1, 1), _copy("b", 1, 2)], _facts(8 * MIB, inodes=1 + fitting._INODE_RESERVE, links=2))
    assert (_layout(found), "inodes" in found.short[0].detail) == (["a"], True)


def test_groups_are_never_torn(monkeypatch: pytest.MonkeyPatch) -> None:
    """What must flip together lies in one wave, however small waves are (D10)."""
    monkeypatch.setattr(fitting, "WAVE_STEPS", 2)
    steps = [_copy("a", 1, 1), _copy("b", 1, 2), _copy("c", 1, 2), _copy("d", 1, 3), _copy("e", 1, 3), _copy("f", 1, 3)]
    found = fit(steps, _facts(8 * MIB))
    assert _layout(found) == ["a", "bc", "def"]


def test_waves_are_bounded_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction copies no more than its limit, unless one group alone is bigger."""
    monkeypatch.setattr(fitting, "WAVE_BYTES", 3 * MIB)
    found = fit([_copy(name, MIB, number) for number, name in enumerate("abcd", 1)], _facts(64 * MIB))
    assert _layout(found) == ["ab", "cd"]


def test_idle_folders_are_not_made() -> None:
    """A new directory is made only where something goes into it, before it and the directories above it."""
    steps = [_folder("vault/x"), _folder("vault/x/y"), _folder("vault/z"), _copy("a", 50 * MIB, 1)]
    assert fit(steps, _facts(8 * MIB)).waves == ()
    into = Step(
        number=0,
        group=2,
        migration="m",
        operation="Move",
        shape=Shape.RENAME,
        source="b",
        target="vault/x/y/b",
        target_home="vault",
    )
    found = fit([*steps, into], _facts(8 * MIB))
    assert [step.target for step in found.waves[0].steps] == ["vault/x", "vault/x/y", "vault/x/y/b"]
    assert [step.number for step in found.waves[0].steps] == [0, 1, 2]


def test_numbers_run_through_all_waves() -> None:
    """A step's number is unique in the plan, so reports can name it."""
    found = fit([_copy("a", 5 * MIB, 1), _copy("b", 5 * MIB, 2)], _facts(7 * MIB))
    plan = Plan(pack="p", source="s", target="t", waves=found.waves)
    assert [step.number for step in plan.steps] == [0, 1]


# --- what goes over piece by piece ---------------------------------------------------------------------------------------

# Two blocks, an inode, and two records more than a file of 50 MiB has smallest pieces.
LITTLE = 2 * 4096 + 512 + 52 * 512


def _movable(name: str, size: int, group: int, **members: Any) -> Step:
    """Return a copy that may go over piece by piece where it does not fit."""
    expected = Precondition(identity=1, kind=Kind.FILE.value, size=size, mtime_ns=0, fingerprint="")
    return replace(_copy(name, size, group), **{"expected": expected, **members})


def _shapes(found: Fitting) -> list[str]:
    return [" ".join(step.shape.value for step in wave.steps) for wave in found.waves]


def test_what_does_not_fit_goes_over_in_pieces() -> None:
    """What there is no room to copy goes over piece by piece; it needs a piece, of which twice as much is free, and no more."""
    found = fit([_movable("a", 50 * MIB, 1)], _facts(8 * MIB))
    assert (_shapes(found), found.short) == (["stream"], ())
    stream, need = found.waves[0].steps[0], found.needs[0]
    assert stream.piece == 3 * MIB
    assert need.needed == stream.piece + stream.hollow
    assert 2 * stream.piece <= need.free - need.reserve
    assert stream.hollow < 8 * 4096


def test_what_fits_is_copied_first() -> None:
    """Only what does not fit, not even once others have made room, goes over in pieces, each in a wave of its own, last."""
    steps = [_movable("a", 50 * MIB, 1), _movable("b", MIB, 2), _movable("c", 40 * MIB, 3), _movable("d", 2 * MIB, 4)]
    found = fit(steps, _facts(8 * MIB))
    assert (_layout(found), _shapes(found)) == (["bd", "a", "c"], ["copy copy", "stream", "stream"])
    assert [step.number for wave in found.waves for step in wave.steps] == [0, 1, 2, 3]


def test_room_that_others_made_lets_a_copy_in() -> None:
    """What fits as a copy once others are gone is never a stream."""
    found = fit([_movable("a", 9 * MIB, 1), _movable("b", 5 * MIB, 2)], _facts(7 * MIB))
    assert _shapes(found)[0] == "copy"
    assert found.short == ()


@pytest.mark.parametrize("free", [RESERVE + 2 * CHUNK, RESERVE + 2 * CHUNK + LITTLE - 1])
def test_not_even_the_smallest_piece(free: int) -> None:
    """Where twice the smallest piece and what is no content do not fit it is left by name, with what a copy needs."""
    found = fit([_movable("a", 50 * MIB, 1)], _facts(free))
    assert (found.waves, [(skip.path, skip.reason) for skip in found.short]) == ((), [("a", Reason.NO_SPACE)])
    assert str(50 * MIB + 4096) in found.short[0].detail


def test_the_smallest_piece() -> None:
    """With room for twice the smallest piece it goes over."""
    assert _shapes(fit([_movable("a", 50 * MIB, 1)], _facts(RESERVE + 2 * CHUNK + LITTLE))) == ["stream"]


def test_inodes_of_a_stream() -> None:
    """A hollow copy needs as many inodes as a full one."""
    step = _movable("a", 50 * MIB, 1, entries=100)
    assert _shapes(fit([step], _facts(64 * MIB, inodes=100 + fitting._INODE_RESERVE))) == ["copy"]
    step = _movable("a", 80 * MIB, 1, entries=100)
    assert _shapes(fit([step], _facts(64 * MIB, inodes=100 + fitting._INODE_RESERVE))) == ["stream"]
    assert fit([step], _facts(64 * MIB, inodes=99 + fitting._INODE_RESERVE)).short[0].reason is Reason.NO_SPACE


def test_another_file_system_is_no_place_for_a_stream() -> None:
    """What lies on another file system leaves no room where it goes to."""
    facts = _facts(8 * MIB)
    facts.spaces[""] = Space(filesystem="8:2", free=1 << 40, free_inodes=1000, block_size=4096)
    found = fit([_movable("a", 50 * MIB, 1)], facts)
    assert (found.waves, found.short[0].reason) == ((), Reason.NO_SPACE)


@pytest.mark.parametrize(
    "members",
    [
        pytest.param({"operation": "Copy"}, id="the source stays"),
        pytest.param({"method": "link"}, id="a second name"),
        pytest.param({"shape": Shape.RENAME}, id="a rename"),
        pytest.param({"expected": None}, id="nobody knows what it is"),
        pytest.param({"expected": Precondition(identity=1, kind="symlink", size=1, mtime_ns=0, fingerprint="")}, id="a link"),
    ],
)
def test_step_that_cannot_go_over(members: dict[str, Any]) -> None:
    """Only a file or a tree that is moved by copying it can go over in pieces."""
    assert can_go_over(_movable("a", MIB, 1), TREE)
    assert not can_go_over(_movable("a", MIB, 1, **members), TREE)


@pytest.mark.parametrize(
    "facts",
    [
        pytest.param({"shared": (SharedFile(identity="8:1:7", inside=1, links=2),)}, id="names elsewhere"),
        pytest.param({"mounts": ("a/b",)}, id="a mount"),
        pytest.param({"immutable": ("a/b",)}, id="immutable"),
        pytest.param({"flags": "i"}, id="flag i"),
        pytest.param({"flags": "dAa"}, id="flag a"),
        pytest.param({"flags": "eV"}, id="fs-verity"),
    ],
)
def test_tree_that_cannot_go_over(facts: dict[str, Any]) -> None:
    """What others have too, or what must not be written to, cannot go over in pieces, and is left by name."""
    tree = replace(TREE, **facts)
    assert not can_go_over(_movable("a", MIB, 1), tree)
    assert can_go_over(_movable("a", MIB, 1), replace(TREE, flags="deA"))
    disk = _facts(8 * MIB)
    disk.trees["a"] = tree
    assert [skip.reason for skip in fit([_movable("a", 50 * MIB, 1)], disk).short] == [Reason.NO_SPACE]


def test_pieces_are_whole_chunks() -> None:
    """A piece is a number of whole chunks, at least one, and never more than is worth doing anew after a power cut."""
    step = _movable("a", 1 << 30, 1, entries=10)
    sizes = [as_stream(step, TREE, SPACE, usable) for usable in range(0, 300 * MIB, MIB // 4)]
    pieces = [stream.piece for stream in sizes if stream is not None]
    assert {piece % CHUNK for piece in pieces} == {0}
    assert (min(pieces), max(pieces), sorted(pieces)) == (CHUNK, 64 * MIB, pieces)
    assert as_stream(step, TREE, SPACE, -MIB) is None
    assert all(
        stream is None or 2 * stream.piece <= usable for stream, usable in zip(sizes, range(0, 300 * MIB, MIB // 4), strict=True)
    )


def test_room_besides_the_pieces() -> None:
    """Directories and what is written down of each piece take room too, which no piece may take."""
    step = _movable("a", 4 << 30, 1, entries=1000)
    few = as_stream(step, TREE, SPACE, 62 * MIB)
    assert few is not None
    assert (few.piece, few.hollow) == (30 * MIB, 2 * 4096 + 1000 * 512 + (2 + 136) * 512)
    many = as_stream(step, replace(TREE, bare=20 * MIB), SPACE, 62 * MIB)
    assert many is not None
    assert (many.piece, many.hollow > 20 * MIB) == (20 * MIB, True)
    # In the smallest pieces there would be more to write down than there is room for.
    assert as_stream(step, TREE, SPACE, 4 * MIB) is None
    assert as_stream(_movable("a", 100 * MIB, 1), TREE, SPACE, 4 * MIB) is not None


def _emptied(folder: str, group: int, **members: Any) -> Step:
    base = replace(_copy(folder, 0, group, operation="Retire"), shape=Shape.RETIRE, target=None, target_home="")
    return replace(base, made_of="directory", **members)


def test_emptied_folder_goes_after_the_stream() -> None:
    """A directory that goes once it is empty does so after what empties it, in a wave behind all streams; others do not wait."""
    names = ["a", "b", "old", "old/x", "other"]
    facts = _facts(8 * MIB, names=names)
    steps = [_movable("old/x", 50 * MIB, 1), _emptied("old", 2, once_empty=True), _emptied("other", 3, once_empty=True)]
    found = fit([*steps, _movable("b", MIB, 4)], facts)
    assert [[step.source for step in wave.steps] for wave in found.waves] == [["other", "b"], ["old/x"], ["old"]]


def test_folder_of_the_group_goes_with_the_stream() -> None:
    """What only puts away the directory around a copy goes with it; a group with more in it is never torn into pieces."""
    with_folder = [_movable("a", 50 * MIB, 1), _emptied("b", 1)]
    assert _shapes(fit(with_folder, _facts(8 * MIB))) == ["stream retire"]
    for more in (_copy("c", MIB, 1), replace(_folder("vault/x"), group=1), replace(_emptied("c", 1), made_of="")):
        found = fit([*with_folder, more], _facts(8 * MIB))
        assert (found.waves, {skip.reason for skip in found.short}) == ((), {Reason.NO_SPACE})


def test_new_folders_of_a_stream() -> None:
    """A new directory that only a stream goes into is made in its wave."""
    folders = [_folder("vault/x"), _folder("vault/y")]
    found = fit([*folders, _movable("a", 50 * MIB, 1, target="vault/x/a")], _facts(8 * MIB))
    assert [[step.target for step in wave.steps] for wave in found.waves] == [["vault/x", "vault/x/a"]]


def test_stream_leaves_room_for_the_next() -> None:
    """What goes over leaves as much room as it took, so one after the other needs no more than one."""
    many = fit([_movable(name, 50 * MIB, number) for number, name in enumerate("abcdef", 1)], _facts(8 * MIB))
    one = fit([_movable("a", 50 * MIB, 1)], _facts(8 * MIB))
    assert len(many.waves) == 6
    assert many.needs[0].needed <= one.needs[0].needed + 6 * 3 * 4096
    assert {step.piece for wave in many.waves for step in wave.steps} == {3 * MIB}


def test_trial_has_no_streams() -> None:
    """Where the old layout has to stay nothing goes over in pieces, but for what is given up at once."""
    steps = [_movable("a", 50 * MIB, 1), _movable("b", 40 * MIB, 2)]
    found = fit(steps, _facts(8 * MIB), Trial())
    assert (found.waves, [skip.path for skip in found.short]) == ((), ["a", "b"])
    found = fit(steps, _facts(8 * MIB), Trial(at_once=frozenset("b")))
    assert (_layout(found), _shapes(found), [skip.path for skip in found.short]) == (["b"], ["stream"], ["a"])
    assert not found.waves[0].trial


@pytest.mark.parametrize("free", [0, MIB, 50 * MIB, 800 * MIB, 1 << 40])
def test_reserve_is_never_planned_with(free: int) -> None:
    """What a stream needs never touches the reserve."""
    found = fit([_movable("a", 1 << 36, 1)], _facts(free))
    assert all(need.needed <= need.free - reserve(need.free) for need in found.needs)
    assert bool(found.waves) == (free > 4 * MIB)


def test_plan_and_disk_count_alike() -> None:
    """The plan, which must not know the disk, counts in the chunks and in the files of a piece that the disk goes by."""
    assert (lowspace.CHUNK, lowspace._FILES) == (manifest.CHUNK, streaming._FILES)
