"""Chains of power cuts: boot, cut, boot what is left, until a boot comes to its end: the work of one process.

A machine that is killed keeps on its disk whatever it had written; a disk that lost its power keeps what it was told to flush,
and of what came later anything. So the next boot gets a state that is made of what was written down, by the rules of
`tests/powercut`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from tests.machine.disk import LIFE, PLACE, WORDS, case
from tests.machine.guest import MOMENTS, PHASES, Cut, Pace, boot
from tests.machine.log import events_of, written_in
from tests.powercut.blockdev import copy_sparse
from tests.powercut.oracle import NO_RECORD, last_record
from tests.powercut.survivors import Replay, Survivor, _selections, survivors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.machine.guest import Ending
    from tests.machine.image import Machine
    from tests.powercut.examine import Bench, Scene
    from tests.powercut.recorder import Event

MOST_CUTS = 6  # of one chain, before it is left to come to its end
MOST_BOOTS = 20  # more than a chain with so many cuts ever has
SHARE_OF_CUTS = 0.85  # of the boots
OTHERS = 5  # other states of each boot that the host looks at, without booting them
GOOD = "machine.good"
OLD = ("upgradeconverter=off", "machine.old")
_SELECTIONS = 12  # of the writes under way, from which one is chosen
_SLACK = 1.1  # how much longer than undisturbed a moment may last, and still be cut at its end
_MUCH = 100_000  # bytes; a moment that writes as much is cut by what was written as often as by time
_BY_WRITES = 0.5
# How often a machine is cut in each of its moments.
WEIGHTS = dict(zip(MOMENTS, (1, 2, 4, 1, 2, 14, 1, 8, 1), strict=True))
_EARLIER = 40  # events before the end of a record at which the power may have gone as well
_OLD_SYSTEM = 0.3  # of the boots of a chain whose trial has not come to its end
_AFTER_TRIAL, _AFTER_CONFIRM = 1, 2  # numbers of the starts in `disk.LIFE`


@dataclass(slots=True)
class CutSeen:
    """One cut: where the machine was, what the journal said, and which kind of state was made of it."""

    moment: str
    record: str
    form: str


@dataclass(slots=True)
class ChainSeen:
    """What was seen of one chain; `problems` say in which boot they were seen.

    Attributes:
        others: states that only the host looked at.
        old: boots of the old system, which does not convert, and has to find all that it left.
    """

    number: int
    boots: int = 0
    cuts: list[CutSeen] = field(default_factory=list)
    others: int = 0
    old: int = 0
    problems: list[str] = field(default_factory=list)
    kept: str = ""


@dataclass(slots=True)
class Rig:
    """One process's machine, disk, and place to work in.

    Attributes:
        pace: how an undisturbed boot goes.
    """

    bench: Bench
    scene: Scene
    machine: Machine
    pace: Pace = field(default_factory=lambda: Pace({}, {}))

    @classmethod
    def of(cls, bench: Bench, machine: Machine) -> Rig:
        """Build the disk."""
        return cls(bench, bench.scene(PLACE, LIFE), machine)

    def path(self, name: str) -> str:
        """Return the path of a file to work with."""
        return f"{self.bench.folder}/{name}"

    # --- one boot ------------------------------------------------------------------------------------------------------

    def boot(self, base: str, words: tuple[str, ...], cut: Cut | None = None) -> tuple[Ending, list[Event]]:
        """Boot from a copy of an image; returns what was seen, and what was written down."""
        copy_sparse(base, self.path("disk"))
        ending = boot(self.machine, self.path("disk"), self.path("log"), self.path("console"), (*WORDS, *words), cut)
        return ending, list(events_of(self.path("log")))

    @contextmanager
    def replay(self, base: str, events: list[Event]) -> Iterator[Replay]:
        """Walk from an image along what was written down."""
        replay = Replay([base], events, self.bench.folder)
        try:
            yield replay
        finally:
            replay.close()

    def calibrate(self) -> tuple[Pace, list[str]]:
        """Boot undisturbed; returns its pace, and what is wrong with the result."""
        base = self.scene.images[0]
        ending, events = self.boot(base, (GOOD,))
        with self.replay(base, events) as replay:
            replay.go_to(len(events))
            replay.make(Survivor(len(events), "whole", tuple(replay.under_way)), [self.path("again")])
        problems = ["what was written down is not what was written"] if not same(self.path("disk"), self.path("again")) else []
        problems += self.at_rest(ending, self.path("disk"), _AFTER_CONFIRM)
        pace = Pace.of(ending, os.path.getsize(self.path("log")))
        return pace, problems + [f"{name} never came" for name in MOMENTS if name not in pace.lasting]

    def choose(self, random: Random) -> Cut:
        """Choose when to cut: by time, or in half of the moments at which much is written, by how much has been."""
        moment = random.choices(MOMENTS, [WEIGHTS[moment] for moment in MOMENTS])[0]
        if self.pace.writing[moment] > _MUCH and random.random() < _BY_WRITES:
            return Cut(moment, written=random.randrange(int(_SLACK * self.pace.writing[moment])))
        return Cut(moment, random.uniform(0, _SLACK * self.pace.lasting[moment]))

    # --- looking at disks ----------------------------------------------------------------------------------------------

    def look(self, image: str, kept: int = -1) -> tuple[str, list[str]]:
        """Return the last record in the journal of a disk, and what is wrong with it; the image is repaired by mounting it.

        `kept` is the start that had said that it was done, after which nothing has happened.
        """
        record = NO_RECORD
        try:
            with self.scene.place.open([image], self.bench.top, case()) as root:
                record = last_record(root)
                problems = self.scene.oracle.look(root)
                if kept >= 0:
                    problems += self.scene.oracle.kept_word(root, kept)
        except OSError as error:
            return record, [f"{type(error).__name__}: {error}"]
        return record, problems + checked(image)

    def at_rest(self, ending: Ending, image: str, start: int) -> list[str]:
        """Return what is wrong after a boot that came to its end."""
        wanted = dict.fromkeys(PHASES[: start + 1], "success 0 active")
        found = {phase: ending.results.get(phase) for phase in wanted}
        problems = [f"{phase} ended as {word}" for phase, word in found.items() if word not in (wanted[phase], *_idle(phase))]
        problems += checked(image)
        copy_sparse(image, self.path("look"))
        return problems + self.look(self.path("look"), start)[1]

    def others(self, replay: Replay, random: Random) -> tuple[int, list[str], Survivor | None]:
        """Examine other states that a cut of the same boot may have left: how many, what is wrong, and with which."""
        count = 0
        for survivor in survivors(replay, random, quota=OTHERS, whole=PLACE.whole):
            replay.make(survivor, [self.path("other")])
            _, problems = self.bench.judge(self.scene, [], [self.path("other")], odd=False)
            count += 1
            if problems := problems + checked(self.path("other")):
                return count, problems, survivor
        return count, [], None

    # --- a chain -------------------------------------------------------------------------------------------------------

    def chain(self, number: int, seed: str) -> ChainSeen:
        """Cut the power again and again, and let the last boot come to its end."""
        random = Random(f"{seed}/{number}")  # noqa: S311 - choices that can be repeated
        seen = ChainSeen(number)
        base = self.path("base")
        copy_sparse(self.scene.images[0], base)
        # Every other chain finds its boots good only once a trial came to its end.
        is_good = number % 2 == 0
        while seen.boots < MOST_BOOTS and not seen.problems:
            if not is_good and random.random() < _OLD_SYSTEM:
                self._old_system(base, seen, seed)
            if seen.problems:
                break
            was_cut = self._new_system(base, random, seen, seed, is_good=is_good)
            if is_good and not was_cut:
                return seen
            is_good = is_good or not was_cut
        seen.problems = seen.problems or [f"{MOST_BOOTS} boots, and none came to its end"]
        return seen

    def _old_system(self, base: str, seen: ChainSeen, seed: str) -> None:
        """Boot the old system, which has to find everything; the next boot goes on from there."""
        ending, _ = self.boot(base, OLD)
        seen.boots, seen.old = seen.boots + 1, seen.old + 1
        if ending.results.get("old") != "whole":
            seen.problems = [f"boot {seen.boots}: the old system does not find all that it left"]
            seen.kept = self._keep(seen, base, Survivor(0, "flush"), seed, is_good=False)
        os.replace(self.path("disk"), base)

    def _new_system(self, base: str, random: Random, seen: ChainSeen, seed: str, *, is_good: bool) -> bool:
        """Boot once, cut or not, judge what is left, and put it in the place of the image; returns whether it was cut."""
        cut = self.choose(random) if len(seen.cuts) < MOST_CUTS and random.random() < SHARE_OF_CUTS else None
        ending, events = self.boot(base, (GOOD,) if is_good else (), cut)
        seen.boots += 1
        with self.replay(base, events) as replay:
            count, problems, survivor = self.others(replay, random)
            seen.others += count
        last = _AFTER_CONFIRM if is_good else _AFTER_TRIAL
        if not problems and ending.was_cut:
            survivor, problems = self._left(base, ending, events, random, seen, last)
        elif not problems:
            problems = self.at_rest(ending, self.path("disk"), last)
        if problems:
            seen.problems = [f"boot {seen.boots}, {ending.moment}: {text}" for text in problems]
            seen.kept = self._keep(seen, base, survivor or Survivor(len(events), "flush"), seed, is_good=is_good)
            return ending.was_cut
        os.replace(self.path("next" if ending.was_cut else "disk"), base)
        return ending.was_cut

    def _left(
        self, base: str, ending: Ending, events: list[Event], random: Random, seen: ChainSeen, last: int
    ) -> tuple[Survivor, list[str]]:
        """Choose what is left of a boot that was cut, for the next one to start from; returns what is wrong with it as well."""
        with self.replay(base, events) as replay:
            # Half of the time the power went a little earlier than the machine: between two syncs there is not much time.
            earlier = random.randrange(min(_EARLIER, len(events) + 1)) if random.random() < _BY_WRITES else 0
            replay.go_to(len(events) - earlier)
            survivor = choose_survivor(replay, random)
            for name in ("look", "next"):
                replay.make(survivor, [self.path(name)])
        kept = last if ending.moment == f"after {PHASES[last]}" and not earlier else -1
        record, problems = self.look(self.path("look"), kept)
        seen.cuts.append(CutSeen(ending.moment_at(written_in(events[: survivor.cut])), record, survivor.form))
        return survivor, problems

    def _keep(self, seen: ChainSeen, base: str, survivor: Survivor, seed: str, *, is_good: bool) -> str:
        """Keep what makes a bad state again; returns the folder."""
        if not self.bench.keep:
            return ""
        folder = f"{self.bench.keep}/seed-{seed}-chain-{seen.number}-boot-{seen.boots}"
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        copy_sparse(base, f"{folder}/base.img")
        for name in ("log", "console"):
            shutil.copy(self.path(name), folder)
        told = {"seed": seed, "seen": asdict(seen), "is_good": is_good, "survivor": asdict(survivor)}
        Path(folder, "about.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
        return folder

    def again(self, folder: str) -> list[str]:
        """Make a kept state again, as `cut.img` beside it, examine it, and boot from it and from what was before."""
        about = json.loads(Path(folder, "about.json").read_text(encoding="utf-8"))
        told = about["survivor"]
        survivor = Survivor(told["cut"], told["form"], tuple(told["chosen"]), told["torn"], tuple(told["sectors"]))
        with self.replay(f"{folder}/base.img", list(events_of(f"{folder}/log"))) as replay:
            replay.go_to(survivor.cut)
            replay.make(survivor, [f"{folder}/cut.img"])
        copy_sparse(f"{folder}/cut.img", self.path("other"))
        _, problems = self.bench.judge(self.scene, [], [self.path("other")], odd=False)
        problems += checked(self.path("other"))
        for image in ("base", "cut"):
            ending, _ = self.boot(f"{folder}/{image}.img", (GOOD,) if about["is_good"] else ())
            found = self.at_rest(ending, self.path("disk"), _AFTER_CONFIRM if about["is_good"] else _AFTER_TRIAL)
            problems += [f"booted from {image}.img: {text}" for text in found]
        return problems


def choose_survivor(replay: Replay, random: Random) -> Survivor:
    """Return what is left of a record that the power cut ended, for a replay that stands at its end.

    It is all that was written, as when only the machine dies, or the first few writes since the last flush, or any selection of
    them, half of these with a torn write. The form is `flush` where nothing was under way.
    """
    pending = tuple(replay.under_way)
    if not pending:
        return Survivor(replay.at, "flush")
    selections = _selections(replay, random, _SELECTIONS, PLACE.whole)
    torn = [each for each in selections if each.form == "torn"] or selections
    kept = pending[: random.randrange(len(pending) + 1)]
    whole, prefix = Survivor(replay.at, "whole", pending), Survivor(replay.at, "prefix", kept)
    return random.choice((whole, prefix, random.choice(selections), random.choice(torn)))


def checked(image: str) -> list[str]:
    """Return what e2fsck has to say of a file system that was unmounted."""
    done = subprocess.run(["e2fsck", "-f", "-n", image], check=False, capture_output=True, text=True, errors="replace")
    return [f"e2fsck: {done.stdout[-600:]}"] if done.returncode else []


def same(one: str, other: str) -> bool:
    """Return whether two images have the same content."""
    return subprocess.run(["cmp", "--silent", one, other], check=False).returncode == 0


def _idle(phase: str) -> tuple[str, ...]:
    """Return how systemd tells of a unit whose condition does not hold: nothing waits for `confirm` any more."""
    return ("success 0 inactive",) if phase == "confirm" else ()
