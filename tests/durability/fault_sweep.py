"""Kills the program, and lets the disk refuse, at every call by which the program looks at a disk or changes it, on small disks.

`make sweep` does all of it; `python -m tests.durability.fault_sweep --help` lists what can be chosen. What is done and what must
hold is said in `fault_stories`. Needs root.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.durability.fault_stories import (
    CONFIRM,
    REWRITE,
    ROLLBACK,
    RUN,
    TRIAL,
    Measure,
    Story,
    faults,
    judge,
    measure,
    start,
    stories,
)
from tests.durability.mistakes import MISTAKES, mistaken
from tests.durability.small_disks import PACKS, own_mounts, place_in, small_disks
from tests.support.door import CHANGE, Fault
from tests.support.running import run
from upgradeconverter.disk import lock
from upgradeconverter.engine.places import JOURNAL
from upgradeconverter.model.plan import step_from_data

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MEMBERS = ("additions", "omissions", "sha256", "twin", "keeps")
_SHOWN = 10  # bad cases of a story; `--out` has all


@dataclass(slots=True)
class Tally:
    """What a sweep found."""

    cases: Counter[str] = field(default_factory=Counter)
    bad: list[dict[str, Any]] = field(default_factory=list)


def sweep(arguments: argparse.Namespace, scratch: Path, part: int) -> Tally:
    """Go through the faults that are asked for; of these one in `arguments.jobs`."""
    tally = Tally()
    names = _names(arguments)
    with place_in(scratch, encrypted=_any_encrypted(names)) as place:
        for story in stories(names):
            if arguments.story not in story.name:
                continue
            measured = measure(story, place)
            cases = _chosen(arguments, story, measured)[part :: arguments.jobs]
            known = len(tally.bad)
            for number, fault in cases:
                problems = judge(story, measured, fault, place, go_back=(number + number // 2) % 2 == 1)
                tally.cases[story.name] += 1
                if problems:
                    call = measured.ended.calls[fault.kind][fault.at]
                    case = {"story": story.name, "number": number, "fault": str(fault), "call": call}
                    tally.bad.append({**case, "problems": problems})
            _tell_story(story, len(cases), tally.bad[known:])
    return tally


def _names(arguments: argparse.Namespace) -> list[str]:
    return arguments.disk or list(small_disks())


def _any_encrypted(names: Sequence[str]) -> bool:
    return any(small_disks()[name].vault == "fscrypt" for name in names)


def _chosen(arguments: argparse.Namespace, story: Story, measured: Measure) -> list[tuple[int, Fault]]:
    """Return the faults of a story that are asked for, with their numbers; if only some, these are drawn by the seed."""
    cases = list(enumerate(faults(story, measured)))
    if arguments.number is not None:
        cases = [case for case in cases if case[0] == arguments.number]
    if arguments.call is not None:
        cases = [(number, fault) for number, fault in cases if measured.ended.calls[fault.kind][fault.at] == arguments.call]
    if arguments.every > 1:
        draw = random.Random(f"{arguments.seed} {story.name}")  # noqa: S311 - a choice that can be repeated
        cases = sorted(draw.sample(cases, -(-len(cases) // arguments.every)), key=lambda case: case[0])
    return cases


def reach(names: Sequence[str], scratch: Path) -> set[str]:
    """Return what the steps are like that the stories of some disks take: operation, shape, and what else makes a difference."""
    found = set()
    with place_in(scratch, encrypted=_any_encrypted(names)) as place:
        for name in names:
            disk = small_disks()[name]
            for starts in ((RUN, ROLLBACK), (TRIAL, CONFIRM), (TRIAL, REWRITE, TRIAL)):
                death = None
                for _ in range(2):
                    # The second time it stops half way, since a rollback that comes to its end leaves no journal.
                    with place.disk(disk) as top:
                        for words in starts[:-1]:
                            start(top, disk, words)
                            found |= set(_steps(top))
                        ended = start(top, disk, starts[-1], death, counts=True)
                        found |= set(_steps(top))
                    death = Fault(len(ended.calls.get(CHANGE, ())) * 2 // 3)
    return found


def _steps(top: str) -> Iterator[str]:
    """Yield the features of all steps that the journal of a disk knows."""
    journal = Path(top, JOURNAL)
    for line in journal.read_bytes().splitlines() if journal.exists() else ():
        for step in map(step_from_data, json.loads(line[17:])["payload"].get("steps", ())):
            yield f"operation {step.operation}"
            yield f"shape {step.shape}"
            yield f"{step.shape} by {step.method} of {step.made_of or 'itself'}"
            yield from (f"{step.shape} with {name}" for name in _MEMBERS if getattr(step, name))


def _tell_story(story: Story, count: int, bad: list[dict[str, Any]]) -> None:
    for case in bad[:_SHOWN]:
        problems = "".join(f"    {problem}\n" for problem in case["problems"])
        sys.stdout.write(f"BAD {case['story']}, number {case['number']}: {case['fault']} ({case['call']})\n{problems}")
    sys.stdout.write(f"{story.name}: {count} cases, {len(bad)} bad\n")
    sys.stdout.flush()


def _warm_up(scratch: Path) -> None:
    """Let everything be imported once, so that no process which is forked has to."""
    disk = small_disks()["everything plain"]
    folder = scratch / "warm"
    folder.mkdir()
    with place_in(folder, encrypted=False) as place, place.disk(disk) as top:
        for words in (TRIAL, CONFIRM, ROLLBACK):
            run(*words, "-p", top, *disk.words)
    gc.freeze()


def _one_part(answer: int, arguments: argparse.Namespace, part: int) -> None:
    """Be one worker; never returns."""
    status = 1
    try:
        own_mounts()
        os.environ["UPGRADECONVERTER_PACK_ROOT"] = str(PACKS)
        with tempfile.TemporaryDirectory(prefix="upgradeconverter-sweep-", dir=arguments.memory) as folder:
            scratch = Path(folder)
            (scratch / "run").mkdir()
            lock._FOLDER = str(scratch / "run")
            _warm_up(scratch)
            with mistaken(arguments.mistake):
                tally = sweep(arguments, scratch, part)
        with open(answer, "wb") as stream:
            stream.write(json.dumps([tally.cases, tally.bad]).encode())
        status = 0
    finally:
        if status:
            traceback.print_exc()
        os._exit(status)


def _all_parts(arguments: argparse.Namespace) -> tuple[Tally, bool]:
    """Let all workers do their parts; returns what they found, and whether all came to their ends."""
    answers = []
    for part in range(arguments.jobs):
        reading, writing = os.pipe()
        if os.fork() == 0:
            os.close(reading)
            _one_part(writing, arguments, part)
        os.close(writing)
        answers.append(reading)
    total = Tally()
    is_whole = True
    for reading in answers:
        with open(reading, "rb") as stream:
            said = stream.read()
        is_whole = is_whole and bool(said)
        for cases, bad in [json.loads(said)] if said else []:
            total.cases.update(cases)
            total.bad += bad
    for _ in answers:
        os.wait()
    return total, is_whole


def main() -> int:
    """Sweep with as many processes as are asked for; returns 1 when something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--disk", action="append", choices=sorted(small_disks()), help="only this disk (more than once: these)")
    parser.add_argument("--story", default="", help="only stories with this in their name")
    parser.add_argument("--call", help="only faults at calls of this name, such as `rename`")
    parser.add_argument("--number", type=int, help="only the fault of this number in each story")
    parser.add_argument("--every", type=int, default=1, help="only so many-th part of the faults, drawn by the seed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--memory", default="/dev/shm", help="a folder on a file system in memory")
    parser.add_argument("--mistake", default="", choices=sorted(MISTAKES), help="build this mistake in: it has to be caught")
    parser.add_argument("--reach", action="store_true", help="only say what kinds of steps the disks reach")
    parser.add_argument("--out", help="a file for what is wrong, as JSON")
    arguments = parser.parse_args()
    if arguments.reach:
        return _tell_reach(arguments)
    began = time.monotonic()
    total, is_whole = _all_parts(arguments)
    _tell(total, arguments, time.monotonic() - began)
    return 1 if total.bad or not is_whole or not total.cases else 0


def _tell_reach(arguments: argparse.Namespace) -> int:
    own_mounts()
    os.environ["UPGRADECONVERTER_PACK_ROOT"] = str(PACKS)
    with tempfile.TemporaryDirectory(dir=arguments.memory) as scratch:
        found = reach(_names(arguments), Path(scratch))
    sys.stdout.write("".join(f"{text}\n" for text in sorted(found)))
    return 0


def _tell(total: Tally, arguments: argparse.Namespace, seconds: float) -> None:
    if arguments.out:
        Path(arguments.out).write_text(json.dumps({"cases": total.cases, "bad": total.bad}, indent=1), encoding="utf-8")
    found = f"{sum(total.cases.values())} cases of {len(total.cases)} stories, {len(total.bad)} bad"
    sys.stdout.write(f"{found}, every {arguments.every}, seed {arguments.seed}, {seconds:.0f} s\n")


if __name__ == "__main__":
    sys.exit(main())
