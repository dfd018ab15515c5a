"""Ordering points: the places in the source that make something durable, or in order, and how each is removed for a test.

A point is found in two ways: the source is read for calls of the verbs that sync (so one that no story comes by is seen as well),
and each story is traced (so that one place that serves several callers is several points). Nobody keeps a list of them.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import upgradeconverter
from tests.support.modeldisk import ModelDisk
from upgradeconverter.engine.places import ENGINE_FOLDER
from upgradeconverter.journal.log import Journal
from upgradeconverter.journal.record import RecordKind
from upgradeconverter.model.plan import Attributes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from upgradeconverter.journal.log import JournalView

PROGRAM = Path(upgradeconverter.__file__).parent
SYNCS = ("sync_directory", "sync_file", "sync_filesystem", "append", "truncate")
RIVAL = b"content of somebody who was quicker"
# What a record says must be durable before it is written (J2), by kind.
# What must be durable before something else is done (J1, J6), by kind: of the others nothing follows that they explain.
EXPLAINS = tuple(RecordKind(each) for each in ("begin", "staged", "piece", "committed", "confirmed", "done", "undo"))
CLAIMS = (RecordKind.STAGED, RecordKind.COMMITTED, RecordKind.DONE, RecordKind.ABORTED)


@dataclass(frozen=True, slots=True)
class Point:
    """What is removed: `sync` a call, `replace` the flag of a rename, `leave out`, `late` or `early` a record of the journal."""

    what: str
    name: str

    def __str__(self) -> str:
        """Return it as the table has it."""
        return f"{self.what}: {self.name}"


@dataclass(frozen=True, slots=True)
class Place:
    """A call: in which function, from which line to which, what is called, and which call of it there."""

    function: str
    first: int
    last: int
    called: str
    number: int


@cache
def places(file: str) -> tuple[Place, ...]:
    """Return all calls in a file: in which function, from which line to which, what is called, and which call of it there."""
    found: list[Place] = []

    def visit(node: ast.AST, within: str, counted: Counter[str]) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                visit(child, f"{within}.{child.name}".lstrip("."), Counter())
                continue
            if isinstance(child, ast.Call):
                called = child.func.attr if isinstance(child.func, ast.Attribute) else getattr(child.func, "id", "")
                counted[called] += 1
                found.append(Place(within, child.lineno, child.end_lineno or child.lineno, called, counted[called]))
            visit(child, within, counted)

    visit(ast.parse(Path(file).read_text(encoding="utf-8")), "", Counter())
    return tuple(found)


def _place(file: str, line: int, called: str) -> Place:
    around = [place for place in places(file) if place.called == called and place.first <= line <= place.last]
    return min(around, key=lambda place: place.last - place.first)


def title(file: str, place: Place) -> str:
    """Return how a place is called in the table."""
    total = sum(each.function == place.function and each.called == place.called for each in places(file))
    which = f" ({place.number} of {total})" if total > 1 else ""
    return f"{Path(file).relative_to(PROGRAM)} {place.function}: {place.called}{which}"


@cache
def static_points() -> frozenset[str]:
    """Return the names of all places in the engine and the journal that make something durable on a disk."""
    found = set()
    for folder in ("engine", "journal"):
        for file in sorted((PROGRAM / folder).glob("*.py")):
            lines = file.read_text(encoding="utf-8").splitlines()
            for place in places(str(file)):
                if place.called in SYNCS and f"disk.{place.called}(" in lines[place.first - 1]:
                    found.add(title(str(file), place))
    return frozenset(found)


def _program_frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.startswith(str(PROGRAM)):
            yield frame
        frame = frame.f_back


def where(verb: str) -> str:
    """Return the name of the place in the program that just called a verb of the disk.

    A private helper is named with who called it, and the journal's `append` with the kind of the record.
    """
    frames = _program_frames()
    frame = next(frames)
    kind = frame.f_locals.get("kind")
    file, function = frame.f_code.co_filename, frame.f_code.co_name
    name = title(file, _place(file, frame.f_lineno, verb))
    if verb == "append" and isinstance(kind, RecordKind):
        return f"{name} of `{kind.value}`"
    if function.startswith("_") and sum(place.called == function for place in places(file)) > 1:
        caller = next(frames)
        at = _place(file, caller.f_lineno, function)
        total = sum(place.function == at.function and place.called == function for place in places(file))
        which = f" ({at.number} of {total})" if total > 1 else ""
        return f"{name}, for {at.function.rpartition('.')[2]}{which}"
    return name


@dataclass(slots=True)
class Seen:
    """What a story came by.

    Attributes:
        first: number of the first point of the disk at each ordering point.
        kinds: of the records, in order.
        syncs: how many there were since the last record.
        kept: number of the point and of the call at which content that was appended or cut is made durable.
        points, calls: how many there were in all.
    """

    first: dict[Point, int] = field(default_factory=dict)
    kinds: list[RecordKind] = field(default_factory=list)
    syncs: int = 0
    kept: list[tuple[int, int]] = field(default_factory=list)
    points: int = 0
    calls: int = 0


class Switched(ModelDisk):
    """A disk on which one ordering point can be removed, and that tells which ones were passed.

    Attributes:
        removed: the point that is not there.
        expected: kinds of the records that are going to be written, for those that come too early.
        rival: the rename just before which somebody else takes the name.
        refused: paths of the calls that failed.
    """

    def __init__(self, removed: Point | None = None, expected: tuple[RecordKind, ...] = ()) -> None:
        """Make one that is to take over another."""
        super().__init__()
        self.removed, self.expected = removed, expected
        self.rival: Point | None = None
        self.seen = Seen()
        self.rival_came = False
        self.refused: list[str] = []
        self._verb = ""
        self._later: list[Callable[[], None]] = []
        self._held: list[tuple[RecordKind, Callable[[], None]]] = []

    def _is_removed(self, point: Point) -> bool:
        self.seen.first.setdefault(point, self.points)
        return point == self.removed

    def _call(self, path: str) -> None:
        try:
            super()._call(path)
        except OSError:
            self.refused.append(path)
            raise

    # --- syncs -------------------------------------------------------------------------------------------------------

    def _sync(self, verb: str, act: Callable[[], None]) -> None:
        self.seen.syncs += 1
        if self._is_removed(Point("sync", where(verb))):
            return
        if self._comes_early():
            self._later.append(act)
        else:
            act()

    def _comes_early(self) -> bool:
        """Return whether the next record is the one that is written before what it claims is durable."""
        number = len(self.seen.kinds)
        return number < len(self.expected) and self.removed == Point("early", f"`{self.expected[number].value}`")

    def sync_directory(self, path: str) -> None:
        """Do it, do it later, or not at all."""
        self._sync("sync_directory", lambda: ModelDisk.sync_directory(self, path))

    def sync_file(self, path: str) -> None:
        """Do it, do it later, or not at all."""
        self._sync("sync_file", lambda: ModelDisk.sync_file(self, path))

    def sync_filesystem(self, path: str) -> None:
        """Do it, do it later, or not at all."""
        self._sync("sync_filesystem", lambda: ModelDisk.sync_filesystem(self, path))

    def append(self, path: str, content: bytes) -> None:
        """Do it, or without the sync in it."""
        self._verb = "append"
        super().append(path, content)

    def truncate(self, path: str, size: int) -> None:
        """Do it, or without the sync in it."""
        self._verb = "truncate"
        super().truncate(path, size)

    def _keep_content(self, path: str, inode: int) -> None:
        self.seen.kept.append((self.points, self.calls))
        if not self._is_removed(Point("sync", where(self._verb))):
            super()._keep_content(path, inode)

    # --- renames -----------------------------------------------------------------------------------------------------

    def rename(self, source: str, target: str) -> None:
        """Do it; where a rival is let in he is quicker, and pays for it where nothing forbids to replace what is his."""
        if ENGINE_FOLDER in target.split("/"):
            # In there nobody else takes names.
            super().rename(source, target)
            return
        point = Point("replace", where("rename"))
        is_first = point not in self.seen.first
        removed = self._is_removed(point)
        if point == self.rival and is_first and self.find(target) is None:
            ModelDisk.write_file(self, target, RIVAL, Attributes())
            self.rival_came = True
        if removed and self.find(target) is not None:
            ModelDisk.remove(self, target)
        super().rename(source, target)

    # --- records -----------------------------------------------------------------------------------------------------

    def _append_record(self, write: Callable[[], None], kind: RecordKind) -> None:
        name = f"`{kind.value}`"
        if kind in CLAIMS and self.seen.syncs:
            self._is_removed(Point("early", name))
        left_out = self._is_removed(Point("leave out", name))
        late = kind in EXPLAINS and self._is_removed(Point("late", name))
        is_early = self._comes_early()
        self.seen.kinds.append(kind)
        if not is_early:
            # Several of one kind in a row are late together.
            self.catch_up(records=not late or any(held is not kind for held, _ in self._held))
        if late:
            self._held.append((kind, write))
        elif not left_out:
            write()
        self.catch_up(records=False)
        self.seen.syncs = 0

    def catch_up(self, *, records: bool = True) -> None:
        """Do what was put off."""
        if records:
            held, self._held = self._held, []
            for _, write in held:
                write()
        later, self._later = self._later, []
        for act in later:
            act()

    @contextmanager
    def recording(self) -> Iterator[None]:
        """See each record before it is written, and each reading of the journal."""
        append, read = Journal.append, Journal.read

        # Disks that power cuts leave are looked at meanwhile; their journals are none of this.
        def appending(journal: Journal, txid: str, kind: RecordKind, payload: dict[str, Any]) -> None:
            if journal.disk is self:
                self._append_record(lambda: append(journal, txid, kind, payload), kind)
            else:
                append(journal, txid, kind, payload)

        def reading(journal: Journal, **how: Any) -> JournalView:
            if journal.disk is self:
                self.catch_up()
            return read(journal, **how)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Journal, "append", appending)
            patch.setattr(Journal, "read", reading)
            yield
            self.catch_up()
