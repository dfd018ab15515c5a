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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from tests.machine.disk import LIFE, PLACE, WORDS, case
from tests.machine.guest import PHASES, Cut, Pace, boot
from tests.machine.log import events_of
from tests.powercut.blockdev import copy_sparse
from tests.powercut.oracle import NO_RECORD, last_record
from tests.powercut.survivors import Replay, Survivor, _selections, survivors

if TYPE_CHECKING:
    from tests.machine.guest import Ending
    from tests.machine.image import Machine
    from tests.powercut.examine import Bench, Scene

MOST_CUTS = 6  # of one chain, before it is left to come to its end
MOST_BOOTS = 12
SHARE_OF_CUTS = 0.85
OTHERS = 5  # other states of each boot that the host looks at, without booting them
GOOD = "machine.good"
_SELECTIONS = 12
_SLACK = 1.1
_MUCH = 100_000
_BY_WRITES = 0.5
# Where a machine is cut, and how often; a moment that does not come in a boot lets it come to its end.
MOMENTS = {
    "kernel": 1,
    "pre-vault": 2,
    "pre-vault works": 3,
    "after pre-vault": 1,
    "post-vault": 3,
    "post-vault works": 7,
    "after post-vault": 1,
    "confirm": 7,
    "after confirm": 1,
}
_AFTER_TRIAL, _AFTER_CONFIRM = 1, 2  # numbers of the starts in `disk.LIFE`


@dataclass(slots=True)
class CutSeen:
    """One cut: where the machine was, what the journal said, and which kind of state was made of it."""

    moment: str
    record: str
    form: str


@dataclass(slots=True)
class ChainSeen:
    """What was seen of one chain; `problems` say in which boot they were seen."""

    number: int
    boots: int = 0
    cuts: list[CutSeen] = field(default_factory=list)
    others: int = 0
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

    def boot(self, base: str, words: tuple[str, ...], cut: Cut | None = None) -> tuple[Ending, Replay]:
        """Boot from a copy of an image; returns what was seen, and the way from the image to what was left."""
        copy_sparse(base, self.path("disk"))
        ending = boot(self.machine, self.path("disk"), self.path("log"), self.path("console"), (*WORDS, *words), cut)
        return ending, Replay([base], list(events_of(self.path("log"))), self.bench.folder)

    def calibrate(self) -> tuple[Pace, list[str]]:
        """Boot undisturbed; returns its pace, and what is wrong with the result."""
        base = self.scene.images[0]
        ending, replay = self.boot(base, (GOOD,))
        replay.go_to(len(replay.events))
        replay.make(Survivor(replay.at, "prefix", tuple(replay.under_way)), [self.path("again")])
        replay.close()
        problems = ["what was written down is not what was written"] if not same(self.path("disk"), self.path("again")) else []
        problems += self.at_rest(ending, self.path("disk"), _AFTER_CONFIRM)
        pace = Pace.of(ending, os.path.getsize(self.path("log")))
        return pace, problems + [f"{name} never came" for name in MOMENTS.keys() - pace.lasting.keys()]

    def choose(self, random: Random) -> Cut:
        """Choose when to cut: by time, or in half of the moments at which much is written, by how much has been."""
        moment = random.choices(list(MOMENTS), list(MOMENTS.values()))[0]
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
            cut = self.choose(random) if len(seen.cuts) < MOST_CUTS and random.random() < SHARE_OF_CUTS else None
            ending, replay = self.boot(base, (GOOD,) if is_good else (), cut)
            seen.boots += 1
            try:
                problems, survivor = self._after(ending, replay, random, seen, is_good=is_good)
                if problems:
                    seen.problems = [f"boot {seen.boots}, {ending.moment}: {text}" for text in problems]
                    seen.kept = self._keep(seen, base, replay, survivor, seed)
                elif survivor is not None:
                    replay.make(survivor, [self.path("next")])
            finally:
                replay.close()
            if survivor is None and is_good:
                return seen
            is_good = is_good or survivor is None
            os.replace(self.path("next" if survivor else "disk"), base)
        seen.problems = seen.problems or [f"{MOST_BOOTS} boots, and none came to its end"]
        return seen

    def _after(
        self, ending: Ending, replay: Replay, random: Random, seen: ChainSeen, *, is_good: bool
    ) -> tuple[list[str], Survivor | None]:
        """Judge one boot; returns what is wrong, and what the next one starts from when this one was cut."""
        last = _AFTER_CONFIRM if is_good else _AFTER_TRIAL
        count, problems, other = self.others(replay, random)
        seen.others += count
        replay.go_to(len(replay.events))
        if problems:
            return problems, other
        if not ending.was_cut:
            return self.at_rest(ending, self.path("disk"), last), None
        survivor = choose_survivor(replay, random)
        replay.make(survivor, [self.path("look")])
        kept = last if ending.moment == f"after {PHASES[last]}" else -1
        record, problems = self.look(self.path("look"), kept)
        seen.cuts.append(CutSeen(ending.moment, record, survivor.form))
        return problems, survivor

    def _keep(self, seen: ChainSeen, base: str, replay: Replay, survivor: Survivor | None, seed: str) -> str:
        """Keep what makes a bad state again; returns the folder."""
        if not self.bench.keep:
            return ""
        folder = f"{self.bench.keep}/seed-{seed}-chain-{seen.number}-boot-{seen.boots}"
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        copy_sparse(base, f"{folder}/base.img")
        for name in ("log", "console"):
            shutil.copy(self.path(name), folder)
        whole = Survivor(len(replay.events), "prefix", tuple(replay.under_way))
        told = {"seed": seed, "seen": asdict(seen), "survivor": asdict(survivor or whole)}
        Path(folder, "about.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
        return folder

    def again(self, folder: str) -> list[str]:
        """Make a kept state again, as `cut.img` beside it, and examine it."""
        told = json.loads(Path(folder, "about.json").read_text(encoding="utf-8"))["survivor"]
        survivor = Survivor(told["cut"], told["form"], tuple(told["chosen"]), told["torn"], tuple(told["sectors"]))
        replay = Replay([f"{folder}/base.img"], list(events_of(f"{folder}/log")), self.bench.folder)
        replay.go_to(survivor.cut)
        replay.make(survivor, [f"{folder}/cut.img"])
        replay.close()
        copy_sparse(f"{folder}/cut.img", self.path("other"))
        _, problems = self.bench.judge(self.scene, [], [self.path("other")], odd=False)
        return problems + checked(self.path("other"))


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
    done = subprocess.run(["e2fsck", "-f", "-n", image], check=False, capture_output=True, text=True)
    return [f"e2fsck: {done.stdout[-600:]}"] if done.returncode else []


def same(one: str, other: str) -> bool:
    """Return whether two images have the same content."""
    return subprocess.run(["cmp", "--silent", one, other], check=False).returncode == 0


def _idle(phase: str) -> tuple[str, ...]:
    """Return how systemd tells of a unit whose condition does not hold: nothing waits for `confirm` any more."""
    return ("success 0 inactive",) if phase == "confirm" else ()
