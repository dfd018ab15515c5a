"""Measures the cases that move state: every way on a duplicate of the same disk, round by round, and each result is looked at."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import equal, grounds
from .cases import count, size
from .devices import Device
from .errors import BrokenError, NoRoomError
from .figures import Found, Result, Sample, ratio
from .running import count_calls, run
from .ways import OURS, WAYS, Way, place_of, refusal, work_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .cases import Case
    from .devices import Moved
    from .figures import Wanted
    from .grounds import Ground
    from .ways import Commands

ROUNDS = 5
_LEAST_FREE = 16 << 20
_PHASES = str(Path(__file__).resolve().parent / "phases.py")
NOT_EQUAL = "not equal: "
# System calls are counted on a smaller disk: under strace(1) each costs more than the work.
_COUNTED = 0.1
_QUOTED = 3
# What ours adds to a container: containerd looks it up.
_ADDED = "snapshotid.txt"
_CACHE = "the disk cold (just mounted, its image thrown out of the page cache), the programs warm, for all alike"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """One case on one ground, with its disk as it was before: `before` has the facts of each source."""

    case: Case
    ground: Ground
    scale: float
    scratch: Path
    moved: Sequence[Moved]
    before: dict[str, equal.Facts]

    @property
    def template(self) -> Path:
        """Where the disk lies that every way begins with a duplicate of."""
        return self.scratch / "template"

    def files(self) -> int:
        """Return the number of files of all sources."""
        return sum(bool(fact.digest) for facts in self.before.values() for fact in facts.values())

    def data(self) -> int:
        """Return the bytes that all sources occupy."""
        return sum(map(equal.allocated, self.before.values()))


def prepare(case: Case, ground: Ground, scale: float, scratch: Path) -> Bench:
    """Build the disk of a case; NoRoomError where the machine has not the room for it."""
    check_room(scratch, case.budget(scale))
    image = scratch / "template"
    grounds.make(image, ground, room=case.room(scale), files=3 * count(case.files, scale))
    with grounds.mounted(image, scratch / "disk", ground) as root:
        device = Device(str(root))
        case.build(device, scale)
        device.finish()
        before = {each.source: equal.facts_of(str(root / each.source)) for each in device.moved}
    return Bench(case=case, ground=ground, scale=scale, scratch=scratch, moved=device.moved, before=before)


def check_room(scratch: Path, needed: int) -> None:
    """Refuse what does not fit where the images lie."""
    space = os.statvfs(scratch)
    free = space.f_bavail * space.f_frsize
    if needed > free:
        raise NoRoomError(where=str(scratch), needed=needed, free=free)


def measure(case: Case, ground: Ground, wanted: Wanted, scratch: Path, ways: Sequence[Way] = tuple(WAYS.values())) -> Result:
    """Measure one case on one ground; ours is compared with each other way, by the ratio of the same round."""
    found = {way.name: Found(name=way.name, samples={}, about=way.about) for way in ways}
    if wanted.count:
        _count(prepare(case, ground, wanted.scale * _COUNTED, scratch), ways, found)
    bench = prepare(case, ground, wanted.scale, scratch)
    for number in range(wanted.rounds or ROUNDS):
        turn = number % len(ways)
        for way in (*ways[turn:], *ways[:turn]):
            if not found[way.name].problem():
                found[way.name].samples[number] = once(bench, way)
    if wanted.count and OURS in found and not found[OURS].problem():
        found[OURS].phases = _phases(bench)
    bench.template.unlink()
    ours = found[OURS].seconds() if OURS in found else {}
    for each in found.values():
        each.ratio = ratio(ours, each.seconds())
    return Result(
        case=case.name,
        about=case.about,
        ground=ground.name,
        ratio="ours / this",
        cache=_CACHE,
        scale=wanted.scale,
        files=bench.files(),
        size=bench.data(),
        found=[*found.values()],
    )


@contextmanager
def duplicated(bench: Bench, way: Way) -> Iterator[tuple[Path, Commands]]:
    """Yield the root of a duplicate of the disk, ready for one way, and what that has to do."""
    image = bench.scratch / "image"
    grounds.duplicate(bench.template, image)
    with grounds.mounted(image, bench.scratch / "disk", bench.ground) as root:
        # The loop device keeps it until it is unmounted, and nothing else has to.
        image.unlink()
        if way.name != OURS:
            (root / bench.case.into).mkdir(parents=True, exist_ok=True)
        elif bench.case.free is not None:
            # With less there would be no room for the journal, however small the case.
            grounds.leave_free(root, max(_LEAST_FREE, size(bench.case.free, bench.scale)))
        yield root, way.commands(work_of(bench.case, root))


def once(bench: Bench, way: Way) -> Sample:
    """Do the work once in one way, on a disk of its own, and look at what came of it."""
    with duplicated(bench, way) as (root, commands):
        ended = run(commands, bench.scratch)
        problem = refusal(way, ended)
        allocated = 0
        if not problem:
            problem, allocated = look(bench, way, root)
    return Sample(
        seconds=ended.seconds,
        cpu=ended.cpu,
        largest=ended.largest,
        together=ended.together,
        allocated=allocated,
        problem=problem,
    )


def look(bench: Bench, way: Way, root: Path) -> tuple[str, int]:
    """Return how the result differs from what a way claims to keep, "" where it does not, and the bytes it occupies."""
    said: list[str] = []
    allocated = 0
    for moved in bench.moved:
        target = place_of(way, bench.case, moved)
        if os.path.lexists(root / moved.source):
            said.append(f"{moved.source} is still there")
        if not os.path.lexists(root / target):
            said.append(f"{target} is missing")
            continue
        found = equal.facts_of(str(root / target))
        if way.name == OURS:
            found.pop(_ADDED, None)
        said += [f"{target}: {each}" for each in equal.differences(bench.before[moved.source], found, way.keeps)]
        allocated += equal.allocated(found)
    more = f" and {len(said) - _QUOTED} more" if len(said) > _QUOTED else ""
    return (NOT_EQUAL + "; ".join(said[:_QUOTED]) + more if said else ""), allocated


def _phases(bench: Bench) -> dict[str, float]:
    """Return how long each part of our work takes, in a run of its own."""
    told = bench.scratch / "phases"
    with duplicated(bench, WAYS[OURS]) as (_, commands):
        ended = run(
            [[str(Path(command[0]).parent / "python3"), _PHASES, str(told), *command[1:]] for command in commands], bench.scratch
        )
    if problem := refusal(WAYS[OURS], ended):
        raise BrokenError(what="timing the parts of our work", found=problem)
    spent: dict[str, float] = json.loads(told.read_text(encoding="utf-8"))
    return spent | {"the rest": ended.seconds - sum(spent.values())}


def _count(bench: Bench, ways: Sequence[Way], found: dict[str, Found]) -> None:
    for way in ways:
        with duplicated(bench, way) as (_, commands):
            ended, calls = count_calls(commands, bench.scratch)
        if not refusal(way, ended):
            found[way.name].calls = calls
            found[way.name].calls_per_file = sum(calls.values()) / bench.files()
    bench.template.unlink()
