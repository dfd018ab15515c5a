"""A sample of `make mutation-score`: what was removed is missed, every place is reached, and nothing is caught without cause."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.mutation import real
from tests.mutation.points import Point
from tests.mutation.score import Row, all_points, judge, missing
from tests.mutation.stories import BrokenError, Story
from tests.mutation.world import FULL
from upgradeconverter.journal.record import RecordKind

if TYPE_CHECKING:
    from collections.abc import Sequence

SEED = 1
SAMPLE = 6


def _said(rows: Sequence[Row]) -> str:
    return "\n".join(f"{row.kind}: {row.point}: {row.promise} {row.by} {row.found} {row.defect}" for row in rows)


@pytest.mark.slow
def test_every_place_in_the_source_is_reached() -> None:
    """No call that makes something durable is left out of all stories, and each record can be missing, and late."""
    points = all_points(SEED)
    assert missing(points) == ()
    records = {"begin", "staged", "piece", "committed", "confirmed", "done", "undo", "aborted"}
    assert {point.name.strip("`") for point in points if point.what == "leave out"} == records
    assert {point.name.strip("`") for point in points if point.what == "late"} == records - {"aborted"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_is_removed_is_missed() -> None:
    """Without any of some points, a promise is broken; with them it is not."""
    points = all_points(SEED)
    chosen = Random(SEED).sample(list(points), SAMPLE)  # noqa: S311 - choices that can be repeated
    rows = [judge(point, points[point]) for point in chosen]
    assert [row.point for row in rows if not row.caught or row.defect] == [], _said(rows)


@pytest.mark.parametrize("name", ["confirm", "fallback", "confirm after a fallback"])
def test_nothing_is_removed(name: str) -> None:
    """A story in which nothing is removed breaks no promise wherever the power is cut, so that a catch means something."""
    story = next(story for story in _plain() if story.tale.name == name)
    story.sweep(None, 0, few=2)


def test_rollback_while_a_trial_is_settled_anew() -> None:
    """Taking back what a power cut left of that leads to the first layout, wherever that is cut as well, and says so."""
    tale = next(story.tale for story in _plain() if story.tale.name == "fallback")
    Story(tale, "one disk", "rollback two", killed=17, taken=2).sweep(None, 0, few=3)


@pytest.mark.timeout(300)
def test_stream_goes_back_once_it_was_published() -> None:
    """A commit that was refused is taken back: nothing gives its content back while a power cut may bring its new name again."""
    for told in (story for story in _plain() if story.where == FULL):
        seen = told.trace()
        commits = [call for kind, (_, call) in zip(seen.kinds, seen.kept, strict=False) if kind is RecordKind.COMMITTED]
        for call in commits:
            replace(told, failing=call, late=True).sweep(None, 0, few=2)


def _plain() -> list[Story]:
    from tests.mutation.stories import tales_of
    from tests.mutation.world import DOMAINS

    return [Story(tale, where, tale.told) for where in DOMAINS for tale in tales_of(where)]


def test_a_removed_sync_is_seen() -> None:
    """A start that leaves out the one sync by which it keeps its word is caught at its end."""
    story = next(story for story in _plain() if story.tale.name == "nothing to do")
    point = Point("sync", "engine/stamp.py write_stamp: sync_directory")
    with pytest.raises(BrokenError):
        story.sweep(point, story.trace().first[point])


@pytest.mark.root
@pytest.mark.parametrize("number", range(len(real.all_points())), ids=[point.name for point in real.all_points()])
def test_real_disk(number: int) -> None:
    """Each sync in the real disk, and each refusal to replace, is missed on a real file system, and only when it is removed."""
    name, without, with_it = real.verdicts_of((number,))[0]
    assert without, f"{name} can be left out"
    assert not with_it
