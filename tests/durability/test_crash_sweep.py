"""Power fails before every effect of a wave, on a disk that forgets: nothing is lost, and recovery ends well.

The numbers D1-D10 are those of `docs/durability.md`, J1-J6 those of the journal package.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from tests.support.modeldisk import HardLink, ModelDisk, PowerCut, Snapshot, Symlink
from tests.support.underway import under_way
from upgradeconverter.engine.executor import Executor
from upgradeconverter.engine.places import JOURNAL, folder_of, stage_folder, trash_folder
from upgradeconverter.engine.places import parent as above
from upgradeconverter.engine.recover import recover
from upgradeconverter.errors import DiskFailedError, HaltedError, NothingToRollBackError, UpgradeConverterError, WedgedError
from upgradeconverter.journal.log import Journal, JournalView
from upgradeconverter.journal.record import RecordKind
from upgradeconverter.model.plan import Attributes, Precondition, Shape, Step, Wave

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from upgradeconverter.model.entry import Domain

TXID = "1111"
LIMIT = 24
DOMAINS = {
    "one disk": {"": ("plain", False, "disk"), "vault": ("vault", True, "disk")},
    "two disks": {"": ("plain", False, "disk"), "vault": ("vault", True, "other")},
}
TREE: dict[str, bytes | Symlink | HardLink | None] = {
    "old/app.json": b"application state",
    "old/tree/a": b"first of the tree",
    "old/tree/sub/b": b"second of the tree",
    "clear/file": b"content of the file",
    "clear/box/disk.img": b"content of the disk",
    "clear/box/link": Symlink("disk.img"),
    "pass/file": b"content of a file that goes over in pieces",
    "pass/box/a": b"first of what goes over",
    "pass/box/b": HardLink("pass/box/a"),
    "pass/box/sub/c": b"short",
    "loose": b"loose file",
    "kept": b"file that only changes its mode",
    "vault/deep/other": b"file of somebody else",
}
VERSION = b"version 2\n"
ADDED = b"made on the way\n"


def digest_of(content: bytes) -> str:
    """Return the name under which a step refers to small contents."""
    return hashlib.sha256(content).hexdigest()


CONTENTS = {digest_of(content): content for content in (VERSION, ADDED)}


@dataclass(frozen=True, slots=True)
class Case:
    """Steps that one wave makes of the tree: facts for the planning come from the disk it is planned on."""

    name: str
    make: Callable[[ModelDisk], tuple[Step, ...]]


def step(disk: ModelDisk, number: int, shape: Shape, source: str | None, target: str | None, **more: object) -> Step:
    """Plan one step as the planner would, each in a group of its own."""
    facts = disk.find(source) if source is not None else None
    expected = None
    if source is not None and facts is not None:
        expected = Precondition(
            identity=facts.identity,
            kind=facts.kind.value,
            size=facts.size,
            mtime_ns=facts.mtime_ns,
            fingerprint=disk.survey(source).fingerprint,
        )
    homes: dict[str, Domain] = {name: disk.domain(path or "") for name, path in (("s", source), ("t", target))}
    values: dict[str, object] = {
        "number": number,
        "group": number,
        "migration": "test",
        "operation": "Move",
        "shape": shape,
        "source": source,
        "target": target,
        "source_home": homes["s"].home,
        "target_home": homes["t"].home,
        "expected": expected,
    }
    return Step(**{**values, **more})  # type: ignore[arg-type]


def emptied(disk: ModelDisk, number: int, folder: str) -> Step:
    """Plan to put a directory away once it is empty; its inside changes on the way, so only its identity counts."""
    one = step(disk, number, Shape.RETIRE, folder, None, operation="Retire", made_of="directory", why="emptied")
    if one.expected is None:
        return one
    return replace(one, expected=replace(one.expected, size=0, mtime_ns=0, fingerprint=""))


def renames(disk: ModelDisk) -> tuple[Step, ...]:
    """Move a file with new attributes, and a tree, inside one domain."""
    attributes = {
        "after": Attributes(mode=0o600, labels=(("owner", "app"),)),
        "before": Attributes(mode=0o644, labels=(("owner", ""),)),
    }
    return (
        step(disk, 1, Shape.CREATE, None, "new", made_of="directory", after=Attributes(mode=0o755)),
        step(disk, 2, Shape.RENAME, "old/app.json", "new/app.json", **attributes),
        step(disk, 3, Shape.RENAME, "old/tree", "new/tree"),
    )


def copies(disk: ModelDisk) -> tuple[Step, ...]:
    """Move a file and a tree with an addition into the vault, and put away what is empty then."""
    return (
        step(disk, 1, Shape.COPY, "clear/file", "vault/file", after=Attributes(mode=0o600)),
        step(disk, 2, Shape.COPY, "clear/box", "vault/box", additions=(("format", digest_of(ADDED)),)),
        emptied(disk, 3, "clear"),
    )


def streams(disk: ModelDisk) -> tuple[Step, ...]:
    """Move a file, and a tree with an addition and a file of two names, into the vault piece by piece."""
    added = (("format", digest_of(ADDED)),)
    return (
        step(disk, 1, Shape.STREAM, "pass/file", "vault/file", after=Attributes(mode=0o600), piece=1),
        step(disk, 2, Shape.STREAM, "pass/box", "vault/box", additions=added, piece=1),
        emptied(disk, 3, "pass"),
    )


def small(disk: ModelDisk) -> tuple[Step, ...]:
    """Make a file and a link, put one file away, change the mode of another."""
    link = {"made_of": "symlink", "why": "../kept"}
    return (
        step(disk, 1, Shape.CREATE, None, "old/version", operation="Write", made_of="file", why=digest_of(VERSION)),
        step(disk, 2, Shape.CREATE, None, "vault/link", operation="Link", **link),
        step(disk, 3, Shape.RETIRE, "loose", None, operation="Retire", made_of="file", why="not needed"),
        step(disk, 4, Shape.ADJUST, None, "kept", after=Attributes(mode=0o600), before=Attributes(mode=0o644)),
    )


def mixed(disk: ModelDisk) -> tuple[Step, ...]:
    """Reach every shape in one wave."""
    return (
        step(disk, 1, Shape.CREATE, None, "vault/new", made_of="directory", after=Attributes(mode=0o755)),
        step(disk, 2, Shape.RENAME, "old/tree", "old/moved", after=Attributes(mode=0o700), before=Attributes(mode=0o755)),
        step(disk, 3, Shape.COPY, "clear/file", "vault/new/file"),
        step(disk, 4, Shape.RETIRE, "loose", None, operation="Retire", made_of="file", why="not needed"),
        step(disk, 5, Shape.ADJUST, None, "kept", after=Attributes(mode=0o600), before=Attributes(mode=0o644)),
    )


def unwilling(disk: ModelDisk) -> tuple[Step, ...]:
    """Move one of two things out of a directory that is to be put away although the other is still inside."""
    return step(disk, 1, Shape.COPY, "clear/file", "vault/deep/file"), emptied(disk, 2, "clear")


def inside(disk: ModelDisk) -> tuple[Step, ...]:
    """Put a file into a directory and move both together."""
    made = {"made_of": "file", "why": digest_of(ADDED), "twin": "old/moved/format", "group": 2}
    return (
        step(disk, 1, Shape.CREATE, None, "old/tree/format", operation="Write", **made),
        step(disk, 2, Shape.RENAME, "old/tree", "old/moved"),
    )


def outside(disk: ModelDisk) -> tuple[Step, ...]:
    """Move a directory and put away one file that was in it."""
    return (step(disk, 1, Shape.RENAME, "old/tree", "old/moved", omissions=("a",)),)


CASES = {case.__name__: case for case in (renames, copies, streams, small, mixed, unwilling, inside, outside)}
EVERYTHING = [
    pytest.param(case, where, id=f"{case}, {where}")
    for case in CASES
    for where in DOMAINS
    # Nothing leaves room on one disk by going over to another.
    if (case, where) != ("streams", "two disks")
]


class LostError(AssertionError):
    """A promise is broken."""

    def __init__(self, promise: str, found: str) -> None:
        """Say which promise, and what was found instead."""
        super().__init__(f"{promise}: {found}")


@dataclass(slots=True)
class Scenario:
    """One case on one set of domains: the disk before, the result, and what was found out about survivors so far.

    Attributes:
        verdicts: by hash of the whole disk: whether recovery leads to the tree `before` or `after`.
        repeated: hashes of recovered disks on which running again was seen to give the result.
    """

    case: str
    where: str
    base: ModelDisk = field(init=False)
    steps: tuple[Step, ...] = field(init=False)
    before: Snapshot = field(init=False)
    after: Snapshot = field(init=False)
    reached: ModelDisk = field(init=False)
    verdicts: dict[int, str] = field(default_factory=dict)
    repeated: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Make the disk and learn what a run without faults makes of it."""
        self.base = ModelDisk.build(TREE, domains=DOMAINS[self.where])
        self.steps = CASES[self.case](self.base)
        self.before = self.look(self.base)
        disk = self.base.clone()
        self.run(disk, TXID)
        self.after, self.reached = self.look(disk), disk
        assert self.after != self.before
        require_clean(disk)

    # --- doing -------------------------------------------------------------------------------------------------------

    def wave(self, disk: ModelDisk) -> Wave:
        """Plan the wave on a disk, with the times that an undo and those that the end restores."""
        steps = CASES[self.case](disk)
        homes = dict.fromkeys(home for one in steps for home in (one.source_home, one.target_home, ""))
        holders = dict.fromkeys(above(path) for one in steps for path in (one.source, one.target) if path is not None)
        holders |= dict.fromkeys(one.source for one in steps if one.source is not None and one.omissions)
        facts = {path: disk.find(path) for path in (*homes, *holders)}
        times = {path: (entry.atime_ns, entry.mtime_ns) for path, entry in facts.items() if entry is not None}
        restored = [(home, home) for home in homes if home not in holders]
        restored += [
            (one.target, one.source)
            for one in steps
            if one.shape is Shape.RENAME and one.target is not None and one.source in times
        ]
        return Wave(
            steps=steps,
            touched=tuple((path, *both) for path, both in times.items()),
            restore=tuple((path, *times[origin]) for path, origin in restored),
        )

    def run(self, disk: ModelDisk, txid: str) -> None:
        """Carry the wave out."""
        journal = Journal(disk, JOURNAL)
        journal.read(repair=True)
        Executor(disk=disk, journal=journal, wave=self.wave(disk), txid=txid, contents=CONTENTS, run={"run": "test"}).run_wave()

    def look(self, disk: ModelDisk) -> Snapshot:
        """Return what counts in a comparison: not the engine's folders, directory times, or times of what is new."""
        new = {path for one in self.steps if one.shape is Shape.CREATE for path in (one.target, one.twin)}
        new |= {f"{one.target}/{name}" for one in self.steps for name, _ in one.additions}
        rows = disk.snapshot(engine=False, folder_times=False)
        return tuple((*row[:6], 0, *row[7:]) if row[0] in new else row for row in rows)

    # --- judging -----------------------------------------------------------------------------------------------------

    def judge(self, disk: ModelDisk) -> str:
        """Check every promise on a disk that was found after a power cut; return which tree recovery led to."""
        key = hash(disk.whole())
        if key not in self.verdicts:
            self.check_before(disk)
            self.verdicts[key] = self.check_recovery(disk)
        return self.verdicts[key]

    def check_before(self, disk: ModelDisk) -> None:
        """D1 and D2, as found."""
        last = last_record(disk)
        for one in self.steps:
            places = [path for path in (one.source, one.target) if path is not None]
            if last not in (None, RecordKind.DONE, RecordKind.ABORTED):
                places.append(f"{trash_folder(one.source_home, TXID)}/{one.number}")
                if last is not RecordKind.BEGIN:
                    places.append(f"{stage_folder(one.target_home, TXID)}/{one.number}")
            is_there = any(self.holds(disk, path, one) for path in places)
            if one.shape in (Shape.RENAME, Shape.COPY, Shape.STREAM) and not is_there and not self.is_passing(disk, one):
                raise LostError("D1", f"no complete copy of {one.source} in {places}, last record {last}")
            source = content_of(disk, one.source or "")
            if one.shape is Shape.STREAM and source and source != content_of(self.base, one.source or ""):
                raise LostError("D2", f"{one.source} shows partial content, last record {last}")
            if one.target is not None and disk.find(one.target) is not None and not self.is_whole(disk, one):
                raise LostError("D2", f"{one.target} shows partial content, last record {last}")

    def holds(self, disk: ModelDisk, path: str, one: Step) -> bool:
        """Return whether all that was at the source of a step, and is to be kept, is at a path."""
        return content_of(disk, path).items() >= self.required(one).items()

    def is_passing(self, disk: ModelDisk, one: Step) -> bool:
        """Return whether what a stream takes along is whole in both places together, as far as the journal says it has come."""
        _, view = read_journal(disk, repair=False)
        for step, found in under_way(disk, view):
            texts = {path: "directory" if content is None else content.decode() for path, content in found.items()}
            if step.number == one.number and texts.items() >= self.required(one).items():
                return True
        return False

    def required(self, one: Step) -> dict[str, str]:
        """Return what a step takes along."""
        return {name: text for name, text in content_of(self.base, one.source or "").items() if name not in one.omissions}

    def is_whole(self, disk: ModelDisk, one: Step) -> bool:
        """Return whether a target is exactly what it is to be."""
        found = content_of(disk, one.target or "")
        if one.shape is Shape.CREATE:
            return one.made_of == "directory" or found in ({"": VERSION.decode()}, {"": ADDED.decode()}, {"": one.why})
        if one.shape is Shape.ADJUST:
            return found == content_of(self.base, one.target or "")
        added = {f"{one.target}/{name}": digest for name, digest in one.additions}
        added |= {other.twin: other.why for other in self.steps if other.twin is not None}
        inside = {path.removeprefix(f"{one.target}/"): CONTENTS[digest].decode() for path, digest in added.items()}
        required = self.required(one) | inside
        known = content_of(self.base, one.source or "").items() | content_of(self.reached, one.target or "").items()
        return found.items() >= required.items() and found.items() <= known

    def check_recovery(self, disk: ModelDisk) -> str:
        """Recover, and check that the result is one of two and that recovering again changes nothing."""
        found, disk = disk, disk.clone()
        restart(disk)
        result = self.verdict_of(disk)
        require_clean(disk)
        whole = disk.whole()
        restart(disk)
        if disk.whole() != whole:
            raise LostError("D4", f"a second recovery changes something{differences(whole, disk.whole())}")
        if result == "before":
            self.check_repetition(disk)
        self.check_undo(found)
        return result

    def check_undo(self, disk: ModelDisk) -> None:
        """D5: what is open can be taken back, to the last time stamp, or that is refused and nothing is changed."""
        disk = disk.clone()
        journal, view = read_journal(disk, repair=True)
        if not view.open:
            return
        last, whole = view.open[0].last.value, disk.whole()
        is_final = view.open[0].last is RecordKind.COMMITTED and any(one.shape is Shape.STREAM for one in self.steps)
        try:
            recover(disk, journal, view, undo=True)
        except NothingToRollBackError as error:
            if disk.whole() != whole:
                raise LostError("D5", f"refused to undo after {last}, and changed something: {error}") from error
            return
        except UpgradeConverterError as error:
            raise LostError("D5", f"no undo after {last}: {error}") from error
        original, found = self.base.snapshot(engine=False), disk.snapshot(engine=False)
        if is_final:
            # It is brought to its end, and has to be turned round.
            self.verdict_of(disk)
        elif found != original:
            raise LostError("D5", f"undone after {last}{differences(original, found)}")
        require_clean(disk)

    def verdict_of(self, disk: ModelDisk) -> str:
        """Return which of the two trees a recovered disk has."""
        found = self.look(disk)
        if found not in (self.before, self.after):
            problem = f"to the original{differences(self.before, found)}\nto the result{differences(self.after, found)}"
            raise LostError("D4", f"neither the result nor the original\n{problem}")
        return "before" if found == self.before else "after"

    def check_repetition(self, disk: ModelDisk) -> None:
        """After a crash that came to nothing, running again gives what a run gives."""
        key = hash(disk.whole())
        if key in self.repeated:
            return
        self.repeated.add(key)
        again = disk.clone()
        self.run(again, "2222")
        if self.verdict_of(again) != "after":
            raise LostError("D4", "running again after a crash does nothing")
        require_clean(again)

    # --- sweeping ----------------------------------------------------------------------------------------------------

    def judge_all(self, disk: ModelDisk, seed: int, limit: int = LIMIT) -> set[str]:
        """Judge every disk that may be found if the power fails now."""
        return {self.judge(found) for found in disk.survivors(limit=limit, seed=seed)}

    def watched_run(self, disk: ModelDisk, first: int = 0) -> None:
        """Run on a disk and judge at every point from `first` on, and at the end, where only the result will do."""
        disk.become(self.base)
        disk.watch = lambda number: None if number < first else void(self.judge_all(disk, number))
        self.run(disk, TXID)
        for found in disk.survivors(limit=LIMIT):
            end = self.judge(found), last_record(found)
            if end != ("after", RecordKind.DONE):
                raise LostError("J1", f"the run ended, and a power cut takes that back: {end}")
            for path, _, mtime_ns in self.wave(self.base).restore:
                entry = found.find(path)
                if entry is None or entry.mtime_ns != mtime_ns:
                    raise LostError("D5", f"the time of {path} is not what it was")


def void(_: object) -> None:
    """Forget a value."""


@cache
def scenario(case: str, where: str) -> Scenario:
    """Return a scenario, with everything that was found out about it before."""
    return Scenario(case, where)


def content_of(disk: ModelDisk, path: str) -> dict[str, str]:
    """Return kinds and content below a path, by path inside; empty where nothing is."""
    found = {}
    for row in disk.snapshot():
        if row[0] == path or row[0].startswith(path + "/"):
            text = row[2].decode() + row[8]
            found[row[0][len(path) :].lstrip("/")] = text if row[1] != "directory" else "directory"
    return found


def read_journal(disk: ModelDisk, *, repair: bool) -> tuple[Journal, JournalView]:
    """Read the journal as every start does."""
    journal = Journal(disk, JOURNAL)
    try:
        return journal, journal.read(repair=repair)
    except UpgradeConverterError as error:
        raise LostError("J3", str(error)) from error


def last_record(disk: ModelDisk) -> RecordKind | None:
    """Return the last record of the only transaction."""
    _, view = read_journal(disk, repair=False)
    return view.transactions[0].last if view.transactions else None


def restart(disk: ModelDisk) -> None:
    """Do what every start does first."""
    journal, view = read_journal(disk, repair=True)
    try:
        recover(disk, journal, view)
    except UpgradeConverterError as error:
        raise LostError("D4", f"recovery refuses: {error}") from error


def require_clean(disk: ModelDisk) -> None:
    """Check that no folder of the engine holds anything but the journal, and that no transaction is open."""
    allowed = {folder_of(""), JOURNAL}
    engine = {row[0] for row in disk.snapshot()} - {row[0] for row in disk.snapshot(engine=False)}
    if engine - allowed:
        raise LostError("D4", f"leftovers: {sorted(engine - allowed)}")
    if read_journal(disk, repair=False)[1].open:
        raise LostError("D4", "a transaction is still open")


def differences(first: object, second: object) -> str:
    """Say in which rows two snapshots differ."""
    assert isinstance(first, tuple)
    assert isinstance(second, tuple)
    rows = [f"\n  - {row}" for row in first if row not in second] + [f"\n  + {row}" for row in second if row not in first]
    return "".join(rows)


def cuts(one: Scenario) -> Iterator[ModelDisk]:
    """Yield the disk at every power cut of a run, until a run ends without one."""
    number = 0
    while True:
        disk = one.base.clone(crash_at=number)
        try:
            one.run(disk, TXID)
        except PowerCut:
            yield disk
            number += 1
        else:
            return


def sampled(one: Scenario, limit: int, share: float) -> Iterator[ModelDisk]:
    """Yield a repeatable choice of the disks that power cuts leave, each once."""
    random = Random(f"{one.case} {one.where}")  # noqa: S311 - repeatable, not secret
    seen: set[object] = set()
    for number, disk in enumerate(cuts(one)):
        for found in disk.survivors(limit=limit, seed=number):
            if found.whole() not in seen and random.random() < share:
                yield found
            seen.add(found.whole())


@pytest.mark.parametrize(("case", "where"), EVERYTHING)
def test_power_cut_anywhere(case: str, where: str) -> None:
    """Whatever a power cut leaves, nothing is lost, and recovery leads to the result or to the original."""
    one = scenario(case, where)
    verdicts = [one.judge_all(disk, number) for number, disk in enumerate(cuts(one))]
    assert verdicts[0] == {"before"}
    assert verdicts[-1] == {"after"}
    one.watched_run(ModelDisk())


@pytest.mark.parametrize(("case", "where"), EVERYTHING)
def test_power_cut_inside_recovery(case: str, where: str) -> None:
    """A second power cut, anywhere inside a recovery, is no worse than the first, and does not turn it round."""
    one = scenario(case, where)
    for found in sampled(one, limit=8, share=0.1):
        expected = one.judge(found)
        disk = found.clone()
        disk.watch = lambda number, disk=disk: void(one.judge_all(disk, number, limit=6))
        restart(disk)
        assert one.judge_all(disk, 0) == {expected}


@pytest.mark.parametrize(("case", "where"), EVERYTHING)
def test_process_killed_anywhere(case: str, where: str) -> None:
    """A killed process leaves changes that are not durable; power may fail anywhere in the recovery that follows."""
    one = scenario(case, where)
    for disk in cuts(one):
        disk.crash_at = None
        disk.watch = lambda number, disk=disk: void(one.judge_all(disk, number, limit=6))
        restart(disk)
        require_clean(disk)
        assert one.judge_all(disk, 0) == {one.verdict_of(disk)}


@pytest.mark.parametrize(("case", "where"), EVERYTHING)
def test_undo_from_anywhere(case: str, where: str) -> None:
    """An open transaction can be taken back from wherever a power cut left it, to the last time stamp (D5)."""
    one = scenario(case, where)
    original = one.base.snapshot(engine=False)
    for found in sampled(one, limit=12, share=1):
        journal, view = read_journal(found, repair=True)
        if not view.open:
            continue
        last = view.open[0].last.value
        try:
            recover(found, journal, view, undo=True)
        except UpgradeConverterError as error:
            raise LostError("D5", f"no undo after {last}: {error}") from error
        if last == RecordKind.COMMITTED.value and case == "streams":
            assert one.verdict_of(found) == "after"
        elif found.snapshot(engine=False) != original:
            raise LostError("D5", f"undone after {last}{differences(original, found.snapshot(engine=False))}")
        require_clean(found)


@pytest.mark.parametrize(("case", "where"), EVERYTHING)
def test_power_cut_inside_undo(case: str, where: str) -> None:
    """Power that fails while a transaction is taken back loses nothing, and once that is done all is as it was."""
    one = scenario(case, where)
    for found in sampled(one, limit=8, share=0.05):
        journal, view = read_journal(found, repair=True)
        if not view.open:
            continue
        found.watch = lambda number, disk=found: void(one.judge_all(disk, number, limit=6))
        recover(found, journal, view, undo=True)
        is_final = case == "streams" and view.open[0].last is RecordKind.COMMITTED
        assert one.judge_all(found, 0) == {"after" if is_final else "before"}


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize(("case", "where"), EVERYTHING)
def test_disk_fails_anywhere(case: str, where: str, lasting: bool) -> None:
    """A call that fails costs nothing: all is put back, or left by name, or found by the next start."""
    one = scenario(case, where)
    number = 0
    failed = True
    while failed:
        disk = one.base.clone()
        disk.fail_at, disk.fail_on = number, lasting
        try:
            one.run(disk, TXID)
        except DiskFailedError:
            assert one.look(disk) == one.before
            require_clean(disk)
        except (WedgedError, HaltedError, OSError):
            pass
        failed = disk.calls > number
        disk.fail_at = None
        for found in disk.survivors(limit=6, seed=number):
            one.check_before(found)
            restart(found)
            require_clean(found)
            one.check_before(found)
        number += 1


# --- teeth -----------------------------------------------------------------------------------------------------------


class LazyFilesystem(ModelDisk):
    """A disk that does not write back what was staged."""

    def sync_filesystem(self, path: str) -> None:
        """Do nothing."""


class LazyDirectories(ModelDisk):
    """A disk that keeps no names."""

    def sync_directory(self, path: str) -> None:
        """Do nothing."""


class LazyTarget(ModelDisk):
    """A disk where names in the vault are not yet durable when sources go."""

    def sync_directory(self, path: str) -> None:
        """Do nothing in the vault."""
        if self.domain(path).home != "vault":
            super().sync_directory(path)


@pytest.mark.parametrize(
    ("bug", "case", "where"),
    [
        pytest.param(LazyFilesystem, "copies", "one disk", id="staged copies not synced"),
        pytest.param(LazyFilesystem, "copies", "two disks", id="staged copies not synced, two disks"),
        pytest.param(LazyDirectories, "renames", "one disk", id="directories not synced"),
        pytest.param(LazyDirectories, "copies", "two disks", id="directories not synced, two disks"),
        pytest.param(LazyTarget, "copies", "two disks", id="source removed before the target is durable"),
    ],
)
def test_planted_bug_is_caught(bug: type[ModelDisk], case: str, where: str) -> None:
    """The check has teeth: it finds the classic mistakes."""
    one = scenario(case, where)
    with pytest.raises(LostError):
        one.watched_run(bug(domains=one.base.domains))
