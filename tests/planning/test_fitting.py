"""What fits on the disk, in which transactions: space is counted at the fullest moment, not for the run as a whole."""

from __future__ import annotations

import pytest

from upgradeconverter.model.entry import Entry, Kind, Space
from upgradeconverter.model.outcome import Reason
from upgradeconverter.model.plan import Plan, Shape, Step
from upgradeconverter.planning import fitting
from upgradeconverter.planning.facts import Facts
from upgradeconverter.planning.fitting import Fitting, fit

MIB = 1 << 20
RESERVE = MIB


def _facts(free: int, *, inodes: int = 1000, links: int = 1, names: str = "abcdefgh") -> Facts:
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
