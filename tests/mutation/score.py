"""Removes each ordering point in turn and says what caught that: `make mutation-score`.

    python -m tests.mutation.score [--jobs N] [--seed N] [--points N] [--evidence FILE]

The points of the engine and the journal are removed on the model of a disk, those inside the real disk on file systems whose
power is cut (needs root). A point that nothing catches, or that no story comes by, counts against the score; the exit status is
1 when it is below 1. What is said to have been caught is told once more with the point in its place: a story that fails then as
well is no catch but a defect of the program, and named as one.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import sys
import time
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import zip_longest
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from tests.mutation import real
from tests.mutation.points import Point, Seen, static_points
from tests.mutation.stories import LIMIT, BrokenError, Story, tales_of
from tests.mutation.world import ARTIFACTS, DOMAINS
from tests.powercut.sweep import commit
from upgradeconverter import log
from upgradeconverter.engine.places import JOURNAL
from upgradeconverter.journal.log import Journal
from upgradeconverter.journal.record import RecordKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

REPOSITORY = Path(__file__).resolve().parents[2]
GATE = 1.0
KILLS = 14
SWEPT = 8
FAILURES = 6
TORN = 3
TRIES = 120
FEW = 3
THOROUGH = 6
NEAR = 80
CLOSE = 12
UNREACHED = "no story comes by"


@dataclass(frozen=True, slots=True)
class Row:
    """One ordering point and what caught its removal: the story, the promise that was broken, and what was found."""

    kind: str
    point: str
    caught: bool
    by: str = ""
    promise: str = ""
    found: str = ""
    defect: str = ""


@cache
def all_stories(seed: int) -> tuple[Story, ...]:
    """Return the stories: each tale undisturbed, then a choice of those that are disturbed, the same for the same seed."""
    random = Random(seed)  # noqa: S311 - choices that can be repeated
    plain = [Story(tale, where, tale.told) for where in DOMAINS for tale in tales_of(where)]
    disturbed = [
        story
        for each in plain
        for story in (*_stopped(each, random), *_torn(each, random), *_failing(each, random), *_meddled(each, random))
    ]
    random.shuffle(disturbed)
    return (*plain, *disturbed)


def _back(story: Story) -> str:
    return f"rollback {story.told.split()[1]}"


def _stopped(story: Story, random: Random) -> Iterator[Story]:
    """Kill the process, or cut the power, and start again; more often in the middle of a record than elsewhere.

    So it is while a transaction is swept that is done: the few places that a start comes by then are those that tell of it.
    """
    seen = story.trace()
    points = random.sample(range(seen.points), min(KILLS, seen.points))
    points += [point for first, last in _swept(seen) for point in random.sample(range(first, last), min(SWEPT, last - first))]
    points += [point for point, _ in random.sample(seen.kept, min(KILLS // 2, len(seen.kept)))]
    for killed in points:
        for told in dict.fromkeys((story.told, _back(story))):
            yield replace(story, told=told, killed=killed, taken=random.choice((0, 0, 1, 2, 3, 4, 5, 6)))


def _swept(seen: Seen) -> Iterator[tuple[int, int]]:
    """Return where a transaction that is done is swept: from which point on, and which is the first after that."""
    ends = [*(point for point, _ in seen.kept[1:]), seen.points]
    for kind, (point, _), end in zip(seen.kinds, seen.kept, ends, strict=False):
        if kind is RecordKind.DONE:
            yield point + 1, max(point + 1, end)


def _torn(story: Story, random: Random) -> Iterator[Story]:
    """Cut the power in the middle of a record, so that half of it is found."""
    for killed, _ in random.sample(story.trace().kept, min(TORN, len(story.trace().kept))):
        for taken in range(1, LIMIT):
            torn = replace(story, killed=killed, taken=taken)
            if Journal(torn.disk(), JOURNAL).read(repair=False).torn is not None:
                holed = replace(torn, holed=True)
                yield from (torn, replace(torn, told=_back(torn)), holed, replace(holed, told=_back(torn)))
                break


def _failing(story: Story, random: Random) -> Iterator[Story]:
    """Let the disk refuse a call; where it is a record, it may be on the disk nevertheless."""
    seen = story.trace()
    for call in random.sample(range(seen.calls), min(FAILURES, seen.calls)):
        yield replace(story, failing=call)
    for _, call in seen.kept:
        yield replace(story, failing=call, late=True)


def _meddled(story: Story, random: Random) -> Iterator[Story]:
    """Let somebody delete or write to what was published, after the process was killed while it was put into the trash."""
    if story.tale.name != "run":
        return
    seen = story.trace()
    for kind, (point, _) in zip(seen.kinds, seen.kept, strict=False):
        if kind is not RecordKind.COMMITTED:
            continue
        for name in (each.names[1] for each in ARTIFACTS if len(each.names) > 1):
            for told in (story.told, _back(story)):
                meddled = replace(story, told=told, killed=point + random.randrange(1, 6))
                yield random.choice((replace(meddled, deleted=name), replace(meddled, written=name)))


@cache
def all_points(seed: int) -> dict[Point, tuple[Story, ...]]:
    """Return the ordering points that stories come by, each with those stories.

    The first `TRIES` are of every sort, and of these come those first that are soon told.
    """
    found: dict[Point, list[Story]] = {}
    for story in all_stories(seed):
        for point in story.trace().first:
            found.setdefault(point, []).append(story)
    return {point: _in_order(point, stories) for point, stories in sorted(found.items(), key=lambda each: str(each[0]))}


def _in_order(point: Point, stories: list[Story]) -> tuple[Story, ...]:
    plain = [story for story in stories if story.is_undisturbed]
    # Where the process died there is most to be seen that is not durable.
    others = sorted(
        (story for story in stories if not story.is_undisturbed), key=lambda story: story.killed < 0 or story.taken > 0
    )
    others = [story for pair in zip_longest(others, reversed(others)) for story in pair if story is not None][: len(others)]
    kept = TRIES - len(plain)
    soon = sorted((*plain, *others[:kept]), key=lambda story: story.trace().points - story.trace().first[point])
    return (*soon, *others[kept:])


def missing(points: Iterable[Point]) -> tuple[str, ...]:
    """Return the names of the places in the source that no story comes by."""
    seen = [point.name for point in points]
    return tuple(sorted(name for name in static_points() if not any(each.startswith(name) for each in seen)))


def judge(point: Point, stories: Sequence[Story]) -> Row:
    """Tell stories without a point until one of them comes out wrong."""
    defect = ""
    soon, late = stories[:TRIES], stories[TRIES:]
    turns = [(story, FEW, NEAR) for story in soon]
    turns += [(story, LIMIT, CLOSE) for story in soon] + [(story, LIMIT, NEAR) for story in soon[:THOROUGH]]
    # There are points that only one story in hundreds misses.
    turns += [(story, FEW, NEAR) for story in late]
    for story, few, far in turns:
        first = story.trace().first[point]
        try:
            if point.what == "replace":
                story.let_in_a_rival(point, point)
            else:
                story.sweep(point, first, first + far, few=few)
        except BrokenError as error:
            problem = _without_removal(story, point, error.at, few)
            if problem:
                defect = defect or f"{story}: {problem}"
                continue
            found = " ".join(error.found.split())[:200]
            row = Row(kind=point.what, point=point.name, caught=True, by=str(story), promise=error.promise, found=found)
            return replace(row, defect=defect)
    found = f"{len(stories)} stories came out no worse without it"
    return Row(kind=point.what, point=point.name, caught=False, found=found, defect=defect)


def _without_removal(story: Story, point: Point, at: int, few: int) -> str:
    """Return what is wrong with a story although nothing was removed."""
    try:
        if point.what == "replace":
            story.let_in_a_rival(point, None)
        else:
            story.sweep(None, story.trace().first[point], at, few=few)
    except BrokenError as error:
        return str(error)[:2000]
    return ""


def _work(task: tuple[Point, int]) -> Row:
    point, seed = task
    return judge(point, all_points(seed)[point])


def rows(options: argparse.Namespace) -> list[Row]:
    """Remove each point, several at a time."""
    points = list(all_points(options.seed))
    absent = [Row(kind="sync", point=name, caught=False, found=UNREACHED) for name in missing(points)]
    chosen = points
    if options.points:
        chosen = Random(options.seed).sample(points, options.points)  # noqa: S311 - choices that can be repeated
    if options.only:
        chosen = [point for point in points if options.only in str(point)]
    found = list(absent)
    context = multiprocessing.get_context("fork")
    with context.Pool(options.jobs) as pool:
        for number, row in enumerate(
            pool.imap_unordered(_work, [(point, options.seed) for point in chosen], chunksize=1), start=1
        ):
            found.append(row)
            _say(f"{number} of {len(chosen)}: {_line(row)}")
    return sorted(found, key=lambda row: (row.kind, row.point))


def _line(row: Row) -> str:
    caught = f"{row.promise} in {row.by}" if row.caught else f"NOT CAUGHT: {row.found}"
    return f"{row.kind}: {row.point}: {caught}" + (f" DEFECT {row.defect}" if row.defect else "")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def main(argv: list[str]) -> int:
    """Carry out one command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutation.score", description=(__doc__ or "").split("\n", maxsplit=1)[0]
    )
    parser.add_argument("--jobs", type=int, default=2, help="how many processes")
    parser.add_argument("--seed", type=int, default=1, help="of the choice of stories")
    parser.add_argument("--points", type=int, default=0, help="how many points, chosen by the seed; 0 for all")
    parser.add_argument("--only", default="", help="only points in whose name this is")
    parser.add_argument("--evidence", default=str(REPOSITORY / "docs/evidence/mutation.json"), help="where the result goes")
    options = parser.parse_args(argv)
    began, tested = time.monotonic(), commit()
    # What the program says of itself thousands of times nobody reads.
    log.event = lambda *_, **__: None
    found = rows(options)
    if not options.only:
        found += [
            Row(
                kind="real disk",
                point=name,
                caught=bool(without),
                by="a power cut right after",
                promise="port",
                found=without,
                defect=with_it,
            )
            for name, without, with_it in real.verdicts_of(range(len(real.all_points())))
        ]
    caught = sum(row.caught for row in found)
    evidence: dict[str, Any] = {
        "score": round(caught / len(found), 4),
        "caught": caught,
        "points": len(found),
        "defects": [asdict(row) for row in found if row.defect],
        "stories": len(all_stories(options.seed)),
        "seconds": round(time.monotonic() - began),
        "jobs": options.jobs,
        "seed": options.seed,
        "kernel": platform.release(),
        "commit": tested,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "rows": [asdict(row) for row in found],
    }
    sys.stdout.write("".join(f"{_line(row)}\n" for row in found))
    sys.stdout.write(f"sync mutation score: {evidence['score']} ({caught} of {len(found)})\n")
    Path(options.evidence).parent.mkdir(parents=True, exist_ok=True)
    Path(options.evidence).write_text(json.dumps(evidence, indent=2) + "\n", encoding="utf-8")
    return 0 if evidence["score"] >= GATE else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
