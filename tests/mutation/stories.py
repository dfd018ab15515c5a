"""Stories that are told on the model of a disk, and what must be true of whatever a power cut leaves of them.

A *story* is a disk as it is before, something that the program is started for, and the ways in which it may go on after a power
cut, each with what must come of it. It can begin on a disk on which an earlier start was killed, whose changes no sync covers,
or where a power cut took what was not synced; somebody may have deleted or written something since; the disk may refuse a call.

The promises D1 to D10 are those of `docs/durability.md`.
"""

from __future__ import annotations

import errno
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from hashlib import blake2b
from random import Random
from typing import TYPE_CHECKING

from tests.mutation.points import RIVAL, Point, Seen, Switched
from tests.mutation.world import ARTIFACTS, DOMAINS, FULL, PACK, build, start
from tests.support.modeldisk import ModelDisk, PowerCut
from tests.support.underway import under_way
from upgradeconverter.engine.ledger import read_ledger
from upgradeconverter.engine.overtaken import pending_sources
from upgradeconverter.engine.places import (
    EARLIER_LEDGER,
    ENGINE_FOLDER,
    JOURNAL,
    LEDGER,
    STAMP,
    WAITING,
    WORKING_FOLDERS,
    folder_of,
)
from upgradeconverter.engine.session import Session
from upgradeconverter.errors import NothingToRollBackError, UpgradeConverterError
from upgradeconverter.journal.log import Journal
from upgradeconverter.model.entry import Kind
from upgradeconverter.model.outcome import Reason

if TYPE_CHECKING:
    from tests.support.modeldisk import Row, Snapshot
    from upgradeconverter.journal.log import JournalView
    from upgradeconverter.model.entry import Entry

LIMIT = 24
FOREVER = 1 << 30
# The tales that are told where room is short: a trial would have to leave what does not fit twice.
_TIGHT = ("run", "rollback")
# What a disk writes as a whole, or not at all (bytes).
SECTOR = 512
# What a start writes down for the next one and for people; nothing about data is decided by it.
_NOTES = (LEDGER, EARLIER_LEDGER, STAMP)
# What the second layout has and the first has not, by path: its times tell when the program ran.
_NEW = ("new/version", "links/current", "new/tree/format", "vault/volumes/box/format", "vault/sums", "new", "links", "final")


class BrokenError(AssertionError):
    """A promise is broken."""

    def __init__(self, promise: str, found: str) -> None:
        """Say which promise, and what was found instead; `at` is the point of the disk."""
        super().__init__(f"{promise}: {found}")
        self.promise, self.found, self.at = promise, found, 0


@dataclass(frozen=True, slots=True)
class End:
    """One way to go on: what is started, and the layouts any of which is right then.

    One that is `straight` leads there only where nothing was taken back before.
    """

    starts: tuple[str, ...]
    trees: tuple[str, ...]
    straight: bool = False


@dataclass(frozen=True, slots=True)
class Tale:
    """What a story is about: starts that came before, the one that is told, and how it may go on.

    Attributes:
        out_of_date: contents that may go, since the old system, which had them, went on with them.
    """

    name: str
    before: tuple[str, ...]
    told: str
    ends: tuple[End, ...]
    out_of_date: tuple[bytes, ...] = ()


RUN = (End(("run two",), ("two",)), End(("rollback two",), ("one",)))
TALES = (
    Tale("run", (), "run two", RUN),
    Tale("trial", (), "trial two", (End(("trial two",), ("trial",)), End(("rollback two",), ("one",)))),
    Tale(
        "confirm",
        ("trial two",),
        "confirm two",
        (End(("confirm two",), ("confirmed",), straight=True), End(("rollback two",), ("one",))),
    ),
    Tale("rollback", ("run two",), "rollback two", (End(("rollback two",), ("one",)), End(("run two",), ("two",)))),
    Tale("rollback of a trial", ("trial two",), "rollback two", (End(("rollback two",), ("one",)),)),
    Tale(
        "fallback",
        ("trial two", "fallback two"),
        "trial two",
        (End(("trial two",), ("overtaken",), straight=True), End(("rollback two",), ("one, written",))),
        out_of_date=(b"content of the file",),
    ),
    Tale(
        "confirm after a fallback",
        ("trial two", "fallback two", "trial two"),
        "confirm two",
        # What counts once it is confirmed is what comes back from then on.
        (
            End(("confirm two",), ("overtaken, confirmed",), straight=True),
            End(("rollback two",), ("one, written", "one, after it was confirmed")),
        ),
    ),
    Tale("nothing to do", ("run two", "forget two"), "run two", (End(("run two",), ("two",)),)),
    # A rollback that was made again takes the run before back as well; from the first layout nothing leads to the third.
    Tale(
        "second run", ("run two",), "run three", (End(("run three",), ("three", "one")), End(("rollback three",), ("two", "one")))
    ),
    Tale(
        "rollback after a run that failed",
        ("run two", "fail three"),
        "rollback two",
        (End(("rollback two",), ("one",)), End(("run two",), ("two",))),
    ),
    Tale(
        "rollback of the second run",
        ("run two", "run three"),
        "rollback three",
        (End(("run three",), ("three", "one")), End(("rollback three",), ("two", "one"))),
    ),
    Tale(
        "rollback of the run before",
        ("run two", "run three", "rollback three"),
        "rollback two",
        (End(("rollback two",), ("one",)), End(("run two",), ("two",))),
    ),
)


def tales_of(where: str) -> tuple[Tale, ...]:
    """Return the tales that are told on one kind of disk."""
    return tuple(tale for tale in TALES if where != FULL or tale.name in _TIGHT)


@dataclass(frozen=True, slots=True)
class Story:
    """A tale with what disturbs it.

    Attributes:
        killed: point of the tale's start at which an earlier process died; -1 when none did.
        taken: which of the disks a power cut may leave there was found; 0 when it was not cut, and all is there, durable or not.
        told: what is started.
        holed: whether the record that was being written then has its end, and zeros where its beginning never reached the disk.
        deleted, written: paths that somebody deleted or wrote to after that.
        failing: number of the call that the disk refuses; -1 when there is none.
        late: whether what it refused to sync has reached the disk nevertheless.
    """

    tale: Tale
    where: str
    told: str
    killed: int = -1
    taken: int = 0
    holed: bool = False
    deleted: str = ""
    written: str = ""
    failing: int = -1
    late: bool = False

    def __str__(self) -> str:
        """Return it as the table has it."""
        words = [self.tale.name if self.told == self.tale.told else f"{self.told} after {self.tale.name}", self.where]
        if self.killed >= 0:
            words.append(f"power cut ({self.taken}) at {self.killed}" if self.taken else f"killed at {self.killed}")
            words += ["with a hole in the journal"] * self.holed
        words += [f"{self.deleted} deleted"] * bool(self.deleted) + [f"{self.written} written to"] * bool(self.written)
        if self.failing >= 0:
            words.append(f"call {self.failing} refused" + ", but done" * self.late)
        return ", ".join(words)

    @property
    def is_quiet(self) -> bool:
        """Whether nobody but the program changes what is somebody's."""
        return not self.deleted and not self.written

    @property
    def is_undisturbed(self) -> bool:
        """Whether it is just the tale."""
        return self.told == self.tale.told and self.killed < 0 and self.failing < 0

    # --- the disk before ---------------------------------------------------------------------------------------------

    def disk(self) -> ModelDisk:
        """Return the disk on which the story begins."""
        disk = settled(self.where, self.tale.before)
        if self.killed >= 0:
            dying = Switched()
            dying.take_over(disk)
            dying.crash_at = self.killed
            with suppress(PowerCut):
                start(dying, self.tale.told)
            found = list(dying.survivors(limit=LIMIT, seed=self.killed)) if self.taken else [dying]
            disk = found[(self.taken - 1) % len(found)]
            if self.holed:
                _punch(disk, dying.read(JOURNAL, FOREVER))
        if self.is_quiet:
            return disk
        disk = disk.clone()
        if self.deleted:
            disk.remove(self.deleted)
        if self.written and disk.find(self.written) is not None:
            inode = next(entry.identity for entry in _files(disk, self.written))
            disk._write(inode, b"written since then")
        disk.settle()
        return disk

    def _superseded(self) -> tuple[bytes, ...]:
        """Return contents that may go, since who had them went on with them."""
        was = replace(self, written="").disk() if self.written else None
        if was is None or was.find(self.written) is None:
            return self.tale.out_of_date
        return (*self.tale.out_of_date, *(was.read(entry.path, FOREVER) for entry in _files(was, self.written)[:1]))

    def tell(self, disk: Switched) -> None:
        """Start the program on the disk; what it refuses is part of the story."""
        self._refuse(disk)
        with disk.recording():
            try:
                start(disk, self.told)
            except NothingToRollBackError:
                pass
            except (UpgradeConverterError, OSError) as error:
                if self.failing < 0:
                    raise BrokenError("D4", f"{self.told} fails: {error!r}") from error
        disk.fail_at = None

    def _refuse(self, disk: Switched) -> None:
        disk.fail_at, disk.fail_late, disk.fail_errno = (self.failing if self.failing >= 0 else None), self.late, errno.EIO

    @cache  # noqa: B019 - stories live as long as the process
    def trace(self) -> Seen:
        """Tell it once with nobody watching; returns what it came by."""
        disk = Switched()
        disk.take_over(self.disk())
        self.tell(disk)
        disk.seen.points, disk.seen.calls = disk.points, disk.calls
        return disk.seen

    def let_in_a_rival(self, point: Point, removed: Point | None) -> None:
        """Tell it while somebody takes a name just before a rename; whatever comes of that, what is his stays, and all else."""
        disk = Switched(removed)
        disk.take_over(self.disk())
        disk.rival = point
        before = counted(disk, own=False) - Counter(self._superseded())
        self._refuse(disk)
        with suppress(UpgradeConverterError, OSError), disk.recording():
            start(disk, self.told)
        if disk.rival_came:
            before[RIVAL] += 1
        if lost := before - counted(disk):
            raise BrokenError("D1", f"replaced, and nowhere any more: {sorted(lost)}")

    # --- what must be true -------------------------------------------------------------------------------------------

    def sweep(self, removed: Point | None, first: int, last: int = FOREVER, *, few: int = LIMIT) -> None:
        """Tell the story without one ordering point; cut the power at each point from `first` to `last`, and at the end.

        Of what may be left then up to `few` disks are looked at, among them the one that kept nothing.

        Raises:
            BrokenError: a promise is broken; `at` says where.
        """
        disk = Switched(removed, tuple(self.trace().kinds))
        disk.take_over(self.disk())
        before, left = counted(disk, own=False) - Counter(self._superseded()), set(disk.snapshot())
        at = 0

        def look(number: int) -> None:
            nonlocal at
            at = number
            if first <= number <= last:
                for found in _chosen(disk, few, number):
                    self.judge(found, before)

        disk.watch = look
        try:
            self.tell(disk)
            disk.watch = None
            at = disk.points
            self._judge_end(disk, before, left)
        except BrokenError as error:
            error.at = at
            raise

    def _judge_end(self, disk: Switched, before: Counter[bytes], left: set[Row]) -> None:
        # What the disk refused to note down is not there, and the start said so.
        is_sound = not disk.has_dropped and not {ENGINE_FOLDER, LEDGER} & set(disk.refused)
        was_open = bool(_journal(disk).open)
        untouched = left & set(disk.snapshot())
        for found in disk.survivors(limit=LIMIT):
            self.judge(found, before)
            if self.failing < 0:
                told, kept = remembered(disk), remembered(found)
            else:
                told, kept = (_ledger(each) if is_sound else () for each in (disk, found))
            told, kept = (_without(rows, untouched) for rows in (told, kept))
            if told != kept:
                raise BrokenError("D4", f"a start had ended, but: {differences(told, kept)}")
            if is_sound and not was_open and _journal(found).open:
                raise BrokenError("J1", "a start had ended with every transaction closed, and now one is open")

    def judge(self, disk: ModelDisk, before: Counter[bytes]) -> None:
        """Check every promise on a disk that was found after a power cut."""
        number = int.from_bytes(blake2b(repr(disk.whole()).encode(), digest_size=8).digest(), "big")
        key = number, f"{self.told} {self.tale.name}", self.where, self.is_quiet
        if key in _FINE:
            return
        lost = before - counted(disk)
        if lost:
            raise BrokenError("D1", f"nowhere any more: {sorted(lost)}")
        if self.is_quiet:
            self._look(disk)
        if gaps := [problem for problem in read_ledger(disk)[1] if "does not follow" in problem]:
            raise BrokenError("D8", f"the history has lost runs: {gaps}")
        # One way to go on for each disk: there are many disks, and each way is gone from many of them.
        ends = [end for end in self.tale.ends if not end.straight or self.told == self.tale.told]
        self._go_on(disk.clone(), ends[number % len(ends)])
        _FINE.add(key)

    def _look(self, disk: ModelDisk) -> None:
        facts: dict[str, str] = {row[0]: _fact(row) for row in disk.snapshot(engine=False)}
        stray = facts.keys() - known_paths(self.where)
        if stray:
            raise BrokenError("D7", f"nobody's: {sorted(stray)}")
        passing = [_as_facts(found) for _, found in under_way(disk, _journal(disk))]
        for names, wholes, allowed in complete(self.where, fallen="fallback two" in self.tale.before):
            found = {name: _below(facts, name) for name in names if name in facts}
            for name, inside in found.items():
                # Before a directory is renamed what is added to it is put there already.
                wanted = [{**whole, **allowed} for whole in wholes] + (wholes if name == names[0] else [])
                if inside not in wanted:
                    raise BrokenError("D2", f"{name} is partial: {inside}")
            if not found and not any({**whole, **allowed} == {**other, **allowed} for whole in wholes for other in passing):
                raise BrokenError("D1", f"{names[0]} is nowhere complete")
        for source in pending_sources(_journal(disk)) - facts.keys():
            raise BrokenError("D1", f"a trial waits, and the old system does not find {source} any more")

    def _go_on(self, disk: ModelDisk, end: End) -> None:
        refused = False
        for words in end.starts:
            try:
                report = start(disk, words)
            except NothingToRollBackError:
                refused = True
                continue
            except Exception as error:
                raise BrokenError("D4", f"{words} fails: {error!r}") from error
            lies = [skip for skip in report.skipped if skip["reason"] == Reason.CHANGED_MEANWHILE]
            if lies and self.is_quiet:
                raise BrokenError("D8", f"{words} says that somebody changed something: {lies}")
        if self.is_quiet:
            self._compare(disk, end, refused=refused)

    def _compare(self, disk: ModelDisk, end: End, *, refused: bool) -> None:
        accepted = [tree(self.where, name) for name in end.trees]
        found = [looked(disk, exact=name == "one") for name in end.trees]
        if not any(one == other for one, other in zip(accepted, found, strict=True)):
            promise = "D5" if end.starts[-1].startswith("rollback") else "D4"
            raise BrokenError(promise, f"{end.starts[-1]} does not lead to {end.trees[0]}:{differences(accepted[0], found[0])}")
        self._require_clean(disk, end)
        if not refused:
            # What refuses changes nothing, not even a mark that is out of date; the next start does.
            self._require_told(disk, end)
        if end.starts[-1].startswith("run") and not disk.changes % 4:
            # On trial what fails its digest is looked at by each start.
            quiet = disk.whole()
            start(disk, end.starts[-1])
            if disk.whole() != quiet:
                raise BrokenError("D4", f"one more {end.starts[-1]} changes something")

    def _require_clean(self, disk: ModelDisk, end: End) -> None:
        left = [f"{folder_of(home)}/{name}" for home in DOMAINS[self.where] for name in WORKING_FOLDERS]
        if found := [path for path in left if disk.find(path) is not None]:
            raise BrokenError("D4", f"left behind after {end.starts[-1]}: {found}")
        if _journal(disk).open:
            raise BrokenError("D4", f"after {end.starts[-1]} a transaction is open")

    def _require_told(self, disk: ModelDisk, end: End) -> None:
        view = _journal(disk)
        if bool(view.waiting) != (disk.find(WAITING) is not None):
            raise BrokenError("D4", f"after {end.starts[-1]} the mark of a trial is wrong")
        told = Session(disk=disk, pack=PACK, agents={}).carried_label()
        if told not in {_LABELS[name] for name in end.trees}:
            raise BrokenError("D4", f"after {end.starts[-1]} the stamp says layout {told}")


def _chosen(disk: ModelDisk, few: int, seed: int) -> list[ModelDisk]:
    found = list(disk.survivors(limit=LIMIT, seed=seed))
    if len(found) <= few:
        return found
    least = min(found, key=lambda each: len(each.snapshot()))
    return [least, *Random(seed).sample(found, few - 1)]  # noqa: S311 - choices that can be repeated


_FINE: set[tuple[int, str, str, bool]] = set()
_LABELS = {"one": "one", "two": "two", "trial": "two", "confirmed": "two", "three": "three"}
_LABELS |= {"overtaken": "two", "overtaken, confirmed": "two", "one, written": "one", "one, after it was confirmed": "one"}
_TREES = {
    "one": (),
    "two": ("run two",),
    "trial": ("trial two",),
    "confirmed": ("trial two", "confirm two"),
    "three": ("run two", "run three"),
    "overtaken": ("trial two", "fallback two", "trial two"),
    "overtaken, confirmed": ("trial two", "fallback two", "trial two", "confirm two"),
    "one, written": ("trial two", "fallback two", "rollback two"),
    "one, after it was confirmed": ("trial two", "fallback two", "trial two", "confirm two", "rollback two"),
}


@cache
def settled(where: str, starts: tuple[str, ...]) -> ModelDisk:
    """Return the disk after some starts that nothing disturbed, all of it durable."""
    if not starts:
        return build(where)
    disk = settled(where, starts[:-1]).clone()
    start(disk, starts[-1])
    disk.settle()
    return disk


def counted(disk: ModelDisk, *, own: bool = True) -> Counter[bytes]:
    """Return contents of which each must stay somewhere, also set aside, and with `own` in trash and stage."""
    places = ("/quarantine/", "/trash/", "/stage/") if own else ("/quarantine/",)
    rows = (row for row in disk.snapshot() if row[1] == "file" and row[2].startswith(_SOMEBODYS))
    found = {row[2] for row in rows if ENGINE_FOLDER not in row[0].split("/") or any(each in row[0] for each in places)}
    if own:
        found |= {content for _, inside in under_way(disk, _journal(disk)) for content in inside.values() if content is not None}
    return Counter(found)


_SOMEBODYS = (b"application", b"content", b"first", b"second", b"file", b"written", RIVAL)


def looked(disk: ModelDisk, *, exact: bool) -> Snapshot:
    """Return what counts in a comparison: the times of folders only where all must be as it was, and never the root's."""
    rows = disk.snapshot(engine=False, folder_times=exact)
    return tuple((*row[:6], 0, *row[7:]) if not row[0] or (not exact and row[0] in _NEW) else row for row in rows)


@cache
def tree(where: str, name: str) -> Snapshot:
    """Return what a layout looks like."""
    return looked(settled(where, _TREES[name]), exact=name == "one")


@cache
def known_paths(where: str) -> frozenset[str]:
    """Return every path that any layout has."""
    inside = (f"{each.names[0]}/{name}" for each in ARTIFACTS for name, _ in each.additions)
    names = ("one", "two") if where == FULL else _TREES
    return frozenset((*(row[0] for name in names for row in tree(where, name)), *inside))


def remembered(disk: ModelDisk) -> Snapshot:
    """Return what must not be forgotten once a start has ended: everything but garbage.

    Times count, but those of what is the engine's own, of the root, and of folders that are new.
    """
    rows = (row for row in disk.snapshot() if not any(f"{row[0]}/".startswith(name) for name in _GARBAGE))
    return tuple((*row[:6], 0, *row[7:]) if _has_own_time(row[0]) else row for row in rows if row[0] != f"vault/{ENGINE_FOLDER}")


def _has_own_time(path: str) -> bool:
    return not path or ENGINE_FOLDER in path.split("/") or path in _NEW


def _punch(disk: ModelDisk, whole: bytes) -> None:
    """Give a disk that was found with half a record the other half of it; what is lost is lost by whole sectors."""
    inode = disk._need(JOURNAL)
    torn = disk.read(JOURNAL, FOREVER)
    good, end = torn.rfind(b"\n") + 1, len(torn) - len(torn) % SECTOR
    if end > good:
        disk._write(inode, torn[:good] + bytes(end - good) + whole[end:])
        disk.settle()


def _without(rows: Snapshot, untouched: set[Row]) -> Snapshot:
    """Leave out what another start wrote down, and which times it gave to folders, before it was killed.

    The one that came after it found that as it was and does not answer for it.
    """
    notes = {row[0] for row in untouched if row[0] in _NOTES}
    folders = {row[0] for row in untouched if row[1] == "directory"}
    kept = (row for row in rows if row[0].removesuffix(".new") not in notes)
    return tuple((*row[:6], 0, *row[7:]) if row[0] in folders else row for row in kept)


def _ledger(disk: ModelDisk) -> Snapshot:
    return tuple((*row[:6], 0, *row[7:]) for row in disk.snapshot() if row[0] == LEDGER)


def _journal(disk: ModelDisk) -> JournalView:
    return Journal(disk, JOURNAL).read(repair=False)


def _files(disk: ModelDisk, path: str) -> list[Entry]:
    top = disk.find(path)
    below = disk.entries(path) if top is not None and top.kind is Kind.DIRECTORY else (top,)
    return [entry for entry in below if entry is not None and entry.kind is Kind.FILE]


_GARBAGE = tuple(f"{folder_of(home)}/{name}/" for home in ("", "vault") for name in WORKING_FOLDERS)


def _as_facts(found: dict[str, bytes | None]) -> dict[str, str]:
    """Return what is in two places together as what lies in one."""
    inside = {f"/{path}" if path else "": content for path, content in found.items()}
    facts = {path: f"file {content!r} " for path, content in inside.items() if content is not None}
    links = {"/link": "symlink b'' disk.img"} if "/link" in inside else {}
    return dict.fromkeys(inside, "directory") | facts | links


def _fact(row: Row) -> str:
    return row[1] if row[1] == "directory" else f"{row[1]} {row[2]!r} {row[8]}"


def _below(facts: dict[str, str], top: str) -> dict[str, str]:
    return {path[len(top) :]: fact for path, fact in facts.items() if path == top or path.startswith(f"{top}/")}


@cache
def complete(where: str, *, fallen: bool) -> tuple[tuple[tuple[str, ...], list[dict[str, str]], dict[str, str]], ...]:
    """Return of each artifact its names, all that it is when it is complete, and what is added to that under a new name.

    There are more versions of it than one where both systems have written.
    """
    disks = [tree(where, "one")]
    if fallen:
        disks.append(looked(settled(where, ("trial two", "fallback two")), exact=False))
    found = []
    for each in ARTIFACTS:
        added = {f"/{name}": f"file {content!r} " for name, content in each.additions}
        wholes = []
        for disk in disks:
            facts = {row[0]: _fact(row) for row in disk}
            versions = (_below(facts, name) for name in each.names if name in facts)
            wholes += [{path: fact for path, fact in inside.items() if path not in added} for inside in versions]
        found.append((each.names, wholes, added))
    return tuple(found)


def differences(first: Snapshot, second: Snapshot) -> str:
    """Say in which rows two snapshots differ."""
    rows = [f"\n  - {row}" for row in first if row not in second] + [f"\n  + {row}" for row in second if row not in first]
    return "".join(rows)
