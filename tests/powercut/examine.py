"""Records stories, cuts the power wherever it can be cut, and examines what is left: the work of one process.

Whoever works must have mounts of its own (`blockdev.own_mounts`). Nothing here knows how many states are wanted in all.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.powercut.blockdev import copy_sparse, fingerprint
from tests.powercut.oracle import NO_RECORD, Artifact, Oracle, last_record, moves_of
from tests.powercut.recorder import events_of, mark, recorded
from tests.powercut.stories import CONTROLS, PLACES, REWRITE, Place, Story, neighbour, rewrite, run_of, start
from tests.powercut.survivors import Replay, Survivor, survivors
from tests.support.disktree import capture
from tests.support.running import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from random import Random

    from tests.support.cases import Case
    from tests.support.disktree import Tree

PATIENCE = 60
MOST_DEEP = 60
DEEP_PART = 0.3  # of states of cuts while recovering, to states of cuts while converting
KEPT_OF_EACH_SORT = 2
CONTROL_PLACE = "ext4 with an encrypted vault"
CONTROL_FIXTURE = "eve/multi_drive_app"
CONTROL_QUOTA = 250


@dataclass(frozen=True, slots=True)
class Finding:
    """What was seen of one survivor; `state` tells its disks from all others."""

    state: str
    place: str
    story: str
    form: str
    record: str
    depth: int
    problems: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """A short name of the state, for a folder."""
        return self.state.replace(":", "-")[-40:]


@dataclass(slots=True)
class Scene:
    """A story on a place, ready to be recorded: images as they are before it, and who knows what may become of them."""

    place: Place
    story: Story
    images: list[str]
    oracle: Oracle
    depth: int = 1
    first: int = 0
    identity: str = ""


class StuckError(BaseException):
    """Something took longer than anything on a small disk may take; no handler of the program may catch this."""


@contextmanager
def _patiently(seconds: int = PATIENCE) -> Iterator[None]:
    def give_up(_signal: int, _frame: object) -> None:
        raise StuckError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@dataclass(slots=True)
class Bench:
    """One process's place to work in, and its choices."""

    folder: str
    random: Random
    keep: str = ""
    kept: Counter[tuple[str, ...]] = field(default_factory=Counter)
    made: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    seen: dict[str, set[int]] = field(default_factory=dict)

    @property
    def top(self) -> str:
        """Where disks are mounted."""
        path = f"{self.folder}/mnt"
        os.makedirs(path, exist_ok=True)
        return path

    def images(self, name: str, place: Place) -> list[str]:
        """Return paths for the images of a place."""
        return [f"{self.folder}/{name}-{number}.img" for number in range(len(place.formats))]

    def scene(self, place: Place, story: Story, name: str = "scene") -> Scene:
        """Build the disk of a story, and learn what an undisturbed life makes of it."""
        case = story.case
        key = (place.name, story.fixture)
        if key not in self.made:
            self.made[key] = self.images(f"made-{len(self.made)}", place)
            place.make(self.made[key], self.top, case)
        images = self.images(name, place)
        after: Tree = {}
        ends: list[Tree] = []
        _copy(self.made[key], images)
        with place.open(images, self.top, case) as root:
            _run_all(root, [words for words in story.before if words == REWRITE], case)
            before = capture(root)
            _run_all(root, (run_of(case),), case)
            after = capture(root)
        _copy(self.made[key], images)
        with place.open(images, self.top, case) as root:
            _run_all(root, story.before, case)
            ends.append(capture(root))
            for words in story.starts:
                _run_all(root, (words,), case)
                ends.append(capture(root))
        _copy(self.made[key], images)
        if story.before:
            with place.open(images, self.top, case) as root:
                _run_all(root, story.before, case)
        oracle = Oracle.of(moves_of(case), before, after, ends, is_stale=REWRITE in story.before)
        return Scene(place, story, images, oracle, identity=fingerprint(images))

    # --- recording -----------------------------------------------------------------------------------------------------

    def record(self, scene: Scene, name: str, work: Callable[[str, str], None], *, also_everything: bool = True) -> str:
        """Let work happen on a disk that is recorded, beside a neighbour who syncs; returns the log."""
        log = f"{self.folder}/{name}.log"
        with (
            recorded(scene.images, self.folder, log) as disks,
            scene.place.open(disks, self.top, scene.story.case) as root,
            neighbour(scene.place, self.top, self.random, also_everything=also_everything),
        ):
            work(root, log)
        return log

    def story(self, scene: Scene) -> Callable[[str, str], None]:
        """Return the work that a story consists of: its starts, and a mark before and after each."""

        def work(root: str, log: str) -> None:
            for number, words in enumerate(scene.story.starts[scene.first :], start=scene.first):
                mark(log, f"start {number}")
                status = start(root, words)
                mark(log, f"end {number} {status}")

        return work

    # --- examining -----------------------------------------------------------------------------------------------------

    def sweep(self, scene: Scene, quota: int) -> Iterator[Finding]:
        """Record a scene and examine what a cut may leave of it; for some, recovery is recorded and cut again."""
        deep_quota = min(MOST_DEEP, quota // 3)
        deep_share = DEEP_PART / deep_quota if scene.depth == 1 else 0.0
        name = f"depth-{scene.depth}"
        log = self.record(scene, name, self.story(scene))
        images = self.images(f"{name}-cut", scene.place)
        replay = Replay(scene.images, list(events_of(log)), self.folder)
        seen = self.seen.setdefault(scene.identity, set())
        try:
            for survivor in survivors(replay, self.random, quota=quota, whole=scene.place.whole, seen=seen):
                replay.make(survivor, images)
                finding = self._finding(scene, replay, survivor, images)
                if finding.problems:
                    self._keep(scene, log, survivor, finding)
                yield finding
                if self.random.random() < deep_share:
                    yield from self._deeper(scene, replay, survivor, finding.state, deep_quota)
        finally:
            replay.close()
            os.unlink(log)

    def _deeper(self, scene: Scene, replay: Replay, survivor: Survivor, state: str, quota: int) -> Iterator[Finding]:
        """Record what follows a cut, and cut that as well."""
        images = self.images("deep", scene.place)
        replay.make(survivor, images)
        first = max(_under_way(replay.marks), scene.first)
        deep = Scene(scene.place, scene.story, images, scene.oracle, depth=scene.depth + 1, first=first, identity=state)
        # Both replays need their own working copies.
        below = Bench(f"{self.folder}/deep", self.random, self.keep, self.kept)
        os.makedirs(below.folder, exist_ok=True)
        yield from below.sweep(deep, quota)

    def _finding(self, scene: Scene, replay: Replay, survivor: Survivor, images: list[str]) -> Finding:
        state = f"{scene.identity}:{replay.digest(survivor):032x}"
        record, problems = self.judge(scene, replay.marks, images, odd=bool(survivor.cut % 2))
        return Finding(state, scene.place.name, scene.story.name, survivor.form, record, scene.depth, tuple(problems))

    def judge(self, scene: Scene, marks: Sequence[str], images: list[str], *, odd: bool) -> tuple[str, list[str]]:
        """Return the last record in the journal, and what is wrong with a disk before or after the next start."""
        record = NO_RECORD
        oracle, story = scene.oracle, scene.story
        try:
            with _patiently(), scene.place.open(images, self.top, story.case) as root:
                record = last_record(root)
                problems = oracle.look(root)
                at = max(_under_way(marks), scene.first)
                problems += [f"nothing disturbed it, but: {text}" for text in marks if _has_failed(text)]
                if marks and marks[-1] == f"end {at} 0":
                    problems += oracle.kept_word(root, at)
                starts, expected = story.starts[at:], oracle.ends[-1]
                if odd and story.other_end:
                    starts, expected = (story.other_end,), oracle.ends[0]
                elif odd and at:
                    # What a boot does by itself comes before what somebody asks for again.
                    starts = (story.starts[0], *starts)
                return record, problems or oracle.carry_on(root, starts, expected)
        except (OSError, StuckError) as error:
            return record, [f"{type(error).__name__}: {error}"]

    def control(self, name: str) -> tuple[int, int]:
        """Cut the power while something goes on that is known to be wrong; returns how many states, and how many bad ones."""
        place = PLACES[CONTROL_PLACE]
        scene = self.scene(place, Story(name, CONTROL_FIXTURE, ()))
        moves = moves_of(scene.story.case)
        log = self.record(scene, "control", lambda root, _log: CONTROLS[name](root, moves), also_everything=False)
        images = self.images("control-cut", place)
        replay = Replay(scene.images, list(events_of(log)), self.folder)
        states = bad = 0
        try:
            for survivor in survivors(replay, self.random, quota=CONTROL_QUOTA, whole=place.whole):
                replay.make(survivor, images)
                with place.open(images, self.top, scene.story.case) as root:
                    states, bad = states + 1, bad + any(text.startswith(("D1", "D2")) for text in scene.oracle.look(root))
        finally:
            replay.close()
        return states, bad

    # --- what is bad is kept -------------------------------------------------------------------------------------------

    def _keep(self, scene: Scene, log: str, survivor: Survivor, finding: Finding) -> None:
        sort = (finding.place, finding.story, finding.record, finding.problems[0][:40])
        self.kept[sort] += 1
        if not self.keep or self.kept[sort] > KEPT_OF_EACH_SORT:
            return
        folder = f"{self.keep}/{finding.name}"
        os.makedirs(folder, exist_ok=True)
        for number, image in enumerate(scene.images):
            copy_sparse(image, f"{folder}/{number}.img")
        shutil.copy(log, f"{folder}/log")
        told: dict[str, Any] = {
            "place": scene.place.name,
            "story": asdict(scene.story),
            "first": scene.first,
            "depth": scene.depth,
            "survivor": asdict(survivor),
            "oracle": asdict(scene.oracle),
            "finding": asdict(finding),
        }
        Path(folder, "about.json").write_text(json.dumps(told, indent=1), encoding="utf-8")

    def again(self, folder: str) -> tuple[str, list[str]]:
        """Examine a state that was kept; its images stay beside it as `cut-N.img`."""
        told = json.loads(Path(folder, "about.json").read_text(encoding="utf-8"))
        place = PLACES[told["place"]]
        tale = told["story"]
        starts, before, other = (tuple(map(tuple, tale["starts"])), tuple(map(tuple, tale["before"])), tuple(tale["other_end"]))
        story = Story(tale["name"], tale["fixture"], starts, before, other)
        known = told["oracle"]
        artifacts = tuple(Artifact(**each) for each in known["artifacts"])
        oracle = Oracle(artifacts, known["before"], known["after"], tuple(known["ends"]))
        bases = [f"{folder}/{number}.img" for number in range(len(place.formats))]
        scene = Scene(place, story, bases, oracle, told["depth"], told["first"])
        kept = told["survivor"]
        survivor = Survivor(kept["cut"], kept["form"], tuple(kept["chosen"]), kept["torn"], tuple(kept["sectors"]))
        replay = Replay(bases, list(events_of(f"{folder}/log")), self.folder)
        try:
            replay.go_to(survivor.cut)
            images = [f"{folder}/cut-{number}.img" for number in range(len(place.formats))]
            replay.make(survivor, images)
            work = self.images("again", place)
            _copy(images, work)
            return self.judge(scene, replay.marks, work, odd=bool(survivor.cut % 2))
        finally:
            replay.close()


def _copy(images: Sequence[str], copies: Sequence[str]) -> None:
    for image, copy in zip(images, copies, strict=True):
        copy_sparse(image, copy)


def _run_all(root: str, starts: Sequence[Sequence[str]], case: Case) -> None:
    for words in starts:
        if words == REWRITE:
            rewrite(root, case, moves_of(case))
            continue
        status, document = run(*words, "-p", root)
        assert status == 0, f"{words}: {document['error']}"


def _has_failed(mark_text: str) -> bool:
    """Return whether a mark says that a start failed; that there was nothing left to take back is no failure."""
    words = mark_text.split()
    return words[0] == "end" and words[2] not in ("0", "3")


def _under_way(marks: Sequence[str]) -> int:
    """Return the number of the last start that was made, -1 when there was none."""
    return max((int(text.split()[1]) for text in marks), default=-1)
