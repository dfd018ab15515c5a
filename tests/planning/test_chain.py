"""Exactly the migrations that lead to a layout are taken, each behind those it must follow."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest

from upgradeconverter.errors import UnknownNewerLayoutError
from upgradeconverter.model.version import LayoutOrder, Range
from upgradeconverter.planning.chain import ChainError, chain, ended

ORDER = LayoutOrder(labels=("old", "1", "2", "3"), resolve=lambda word: word)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What the chain needs of a migration."""

    id: str
    phase: str = "all"
    targets: tuple[Range, ...] = (Range("1"),)
    ended: str = ""
    after: tuple[str, ...] = ()


def ids(*steps: Step, target: str = "3", phase: str = "all") -> list[str]:
    """Return the chain by its ids."""
    return [step.id for step in chain(steps, ORDER, target, phase)]


@pytest.mark.parametrize(
    ("since", "until", "targets"),
    [
        pytest.param("1", None, ["1", "2", "3"], id="for ever"),
        pytest.param("2", None, ["2", "3"], id="since 2"),
        pytest.param("1", "3", ["1", "2"], id="until 3"),
        pytest.param("2", "3", ["2"], id="only 2"),
        pytest.param("3", None, ["3"], id="last"),
        pytest.param("2", "2", [], id="never"),
        pytest.param("old", "1", ["old"], id="before all"),
    ],
)
def test_targets(since: str, until: str | None, targets: list[str]) -> None:
    """A migration runs for targets from `since` on and before `until`."""
    step = Step(id="a", targets=(Range(since, until),))
    assert [target for target in ORDER.labels if ids(step, target=target)] == targets


def test_several_ranges() -> None:
    """What one branch of releases has and a later release has not is in two ranges."""
    step = Step(id="a", targets=(Range("1", "2"), Range("3")))
    assert [target for target in ORDER.labels if ids(step, target=target)] == ["1", "3"]


def test_ended() -> None:
    """Only what ran for earlier layouts, and has something to say of that, is told; in a gap between two ranges as well."""
    steps = (
        Step(id="a", targets=(Range("1", "2"),), ended="gone"),
        Step(id="b", targets=(Range("1", "2"),)),
        Step(id="c", targets=(Range("old", "1"), Range("3")), ended="gone for a while"),
        Step(id="d", targets=(Range("3"),), ended="not yet"),
    )
    found = {target: [step.id for step in ended(steps, ORDER, target, "all")] for target in ORDER.labels}
    assert found == {"old": [], "1": ["c"], "2": ["a", "c"], "3": ["a"]}


def test_phase() -> None:
    """Only the migrations of the phase are taken."""
    steps = (Step(id="a", phase="pre"), Step(id="b", phase="post"))
    assert (ids(*steps, phase="pre"), ids(*steps, phase="post"), ids(*steps)) == (["a"], ["b"], [])


def test_without_wishes_the_order_stays() -> None:
    """Migrations that follow nothing keep the pack's order."""
    assert ids(Step(id="b"), Step(id="c"), Step(id="a")) == ["b", "c", "a"]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_after(order: tuple[int, ...]) -> None:
    """In whatever order a pack lists them, each comes behind those it must follow."""
    steps = (
        Step(id="a"),
        Step(id="b", after=("a",)),
        Step(id="c", after=("a",)),
        Step(id="d", after=("b", "c")),
    )
    found = ids(*(steps[place] for place in order))
    assert sorted(found) == ["a", "b", "c", "d"]
    assert all(found.index(before) < found.index(step.id) for step in steps for before in step.after)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(Step(id="b", phase="pre"), id="other phase"),
        pytest.param(Step(id="b", targets=(Range("3"),)), id="not yet"),
        pytest.param(Step(id="b", targets=(Range("1", "2"),)), id="no longer"),
    ],
)
def test_after_one_that_does_not_run(other: Step) -> None:
    """What does not run now holds nothing up."""
    assert ids(Step(id="a", after=("b",)), other, target="2") == ["a"]


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param((Step(id="a", after=("a",)),), id="itself"),
        pytest.param((Step(id="a", after=("b",)), Step(id="b", after=("a",))), id="two"),
        pytest.param((Step(id="c"), Step(id="a", after=("b", "c")), Step(id="b", after=("a",))), id="two behind a third"),
    ],
)
def test_circle(steps: tuple[Step, ...]) -> None:
    """A circle is refused by the names of those in it."""
    with pytest.raises(ChainError, match=r"\ba, b|\ba$"):
        ids(*steps)


def test_unknown_target() -> None:
    """A layout that the order does not know is not reached by anything."""
    with pytest.raises(UnknownNewerLayoutError):
        ids(Step(id="a"), target="4")
