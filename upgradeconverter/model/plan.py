"""Plans: what a run will do, as data. Same state and same checkpoint give a byte-identical plan (D9).

A *step* is one operation together with what must still be true when it is carried out, and how it is carried out. A *group*
flips together or not at all. A *wave* is one transaction: its groups share one set of syncs.
"""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from msgspec import NODEFAULT, Struct
from msgspec.structs import replace

from upgradeconverter.model.entry import Kind
from upgradeconverter.model.operation import Divergence, Skip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from upgradeconverter.model.entry import Entry


class Shape(StrEnum):
    """How a step appears on the disk, and so which row of the recovery table it has.

    RENAME: the source itself becomes the target. COPY: a staged copy becomes the target, then the source is put away.
    STREAM: the content of the source goes over piece by piece into a staged hollow copy, which becomes the target.
    DISPLACE: the source is put away when the others are published, to make way for one of them.
    CREATE: something staged becomes the target; there is no source to put away. RETIRE: the source is put away.
    ADJUST: attributes of an existing target change.
    """

    RENAME = "rename"
    COPY = "copy"
    STREAM = "stream"
    CREATE = "create"
    RETIRE = "retire"
    DISPLACE = "displace"
    ADJUST = "adjust"


class Attributes(Struct, frozen=True, kw_only=True):
    """Owner, mode and our own xattrs of one path; None keeps what is there.

    Attributes:
        labels: xattrs under `XATTR_PREFIX` by name; an empty value removes the xattr.
        mtime_ns: modification time to set, None leaves it.
    """

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    labels: tuple[tuple[str, str], ...] = ()
    mtime_ns: int | None = None
    atime_ns: int | None = None

    def without_times(self) -> Attributes:
        """Return the same but for the times: what was written since then keeps its own."""
        return replace(self, mtime_ns=None, atime_ns=None)


class Precondition(Struct, frozen=True, kw_only=True):
    """What the source was when the plan was made; re-checked at the moment of acting.

    Attributes:
        identity: inode number.
        fingerprint: `TreeFacts.fingerprint` of the file or tree.
        changed_ns: time of the last change of any kind (ctime); None where our own work on another name may change it.
    """

    identity: int
    kind: str
    size: int
    mtime_ns: int
    fingerprint: str
    changed_ns: int | None = None

    @classmethod
    def of(cls, entry: Entry, fingerprint: str) -> Precondition:
        """Return what an entry and everything inside it must still be."""
        changes_by_itself = entry.kind is Kind.DIRECTORY or entry.links == 1
        return cls(
            identity=entry.identity,
            kind=entry.kind.value,
            size=entry.size,
            mtime_ns=entry.mtime_ns,
            fingerprint=fingerprint,
            changed_ns=entry.ctime_ns if changes_by_itself else None,
        )


class Step(Struct, frozen=True, kw_only=True):
    """One operation, ready to be carried out.

    Attributes:
        number: place in the plan, and name of its staged copy and trash entry.
        group: what has the same one is done together or not at all; 0 are new directories that other groups need.
        operation: name of the operation, for people and reports.
        method: for COPY, how the second name comes to be: `copy`, or `link`, a hard link to the same file.
        made_of: for CREATE, what is staged: `directory`, `file`, `symlink`, or `copy` (of `source`, which stays); for RETIRE,
            what goes: a `directory` that is empty, a `file` or a `tree` that nobody needs, or what there is a `copy` of.
        source_home, target_home: homes of the domains of source and target.
        after: attributes that the target gets; before: the ones to restore when undone.
        expected: precondition on the source.
        sha256: digest that the content must have.
        keeps: for RETIRE, whether what is put away is set aside for people instead of being deleted; `why` is then the reason.
        once_empty: for RETIRE, whether it is a directory that stays without a word unless it turns out to be empty and unused.
        divergence: what becomes of a source that was written to while a trial waited, as was the target.
        takes_back: for DISPLACE of what a trial made: `transaction/group` of the steps that no longer count for that.
        twin: for RETIRE, where the same content lies under its new name; for a file put inside a directory that is renamed
            later in the same wave, where it is after that.
        additions: files to be added inside before publication: (path inside, digest of content).
        size, allocated, entries: what the source holds; all 0 of a tree that is only renamed, since nobody looks inside.
        piece: for STREAM, how many bytes of content may lie at both places at the same time.
        hollow: for STREAM, how many bytes it takes at most besides: a copy without content, and what is written down meanwhile.
    """

    number: int
    group: int
    migration: str
    operation: str
    shape: Shape
    source: str | None = None
    target: str | None = None
    method: str = "copy"
    made_of: str = ""
    source_home: str = ""
    target_home: str = ""
    after: Attributes = Attributes()
    before: Attributes = Attributes()
    expected: Precondition | None = None
    sha256: str | None = None
    additions: tuple[tuple[str, str], ...] = ()
    omissions: tuple[str, ...] = ()
    twin: str | None = None
    keeps: bool = False
    once_empty: bool = False
    divergence: Divergence = Divergence.ASK
    takes_back: str = ""
    why: str = ""
    size: int = 0
    allocated: int = 0
    entries: int = 1
    piece: int = 0
    hollow: int = 0


class Trial(Struct, frozen=True, kw_only=True):
    """How a trial is planned: sources stay until it is confirmed, save those that are given up `at_once` for want of space."""

    at_once: frozenset[str] = frozenset()


class Wave(Struct, frozen=True, kw_only=True):
    """The steps of one transaction, in order; `groups` in it share one set of syncs.

    Attributes:
        touched: directories that gain or lose entries, with access and modification time, so that an undo can restore them.
        restore: times to set once the wave is through.
        trial: whether the sources stay until the wave is confirmed.
    """

    steps: tuple[Step, ...]
    touched: tuple[tuple[str, int, int], ...] = ()
    restore: tuple[tuple[str, int, int], ...] = ()
    trial: bool = False


class Undo(StrEnum):
    """Until when, and how, a step can be taken back.

    UNTIL_CONFIRMED: what was there before stays untouched until the trial is confirmed. MOVED_BACK: it comes back from its new
    place, as long as the journal of the run is kept: that of the last run and of the one before it. NEVER: it is deleted, and
    nothing else has its content.
    """

    UNTIL_CONFIRMED = "until confirmed"
    MOVED_BACK = "moved back"
    NEVER = "never"


def undo_of(step: Step, *, trial: bool) -> Undo:
    """Return until when a step can be taken back, in a transaction that is on trial or not."""
    if step.shape is Shape.DISPLACE:
        return Undo.MOVED_BACK if step.keeps else Undo.NEVER
    if trial:
        return Undo.UNTIL_CONFIRMED
    is_deleted = step.shape is Shape.RETIRE and step.made_of != "directory" and step.twin is None and not step.keeps
    return Undo.NEVER if is_deleted else Undo.MOVED_BACK


def folders_wanted(folders: Iterable[Step], steps: Iterable[Step]) -> tuple[Step, ...]:
    """Return those new directories, given parents first, in which a target of the steps lies."""
    wanted = {_above(step.target) for step in steps if step.target is not None}
    used: list[Step] = []
    for step in reversed(tuple(folders)):
        if step.target in wanted:
            wanted.add(_above(step.target or ""))
            used.append(step)
    return tuple(reversed(used))


def _above(path: str) -> str:
    return path.rpartition("/")[0]


class Need(Struct, frozen=True, kw_only=True):
    """What a plan needs on one file system, against what is there (bytes and inodes)."""

    filesystem: str
    free: int
    needed: int
    reserve: int
    free_inodes: int
    needed_inodes: int


class Plan(Struct, frozen=True, kw_only=True, eq=False):
    """A whole run as data; whether two of them say the same is told by their digests.

    Attributes:
        source, target: layout labels.
        contents: bytes of small files to be written, by SHA-256; kept out of the journal.
    """

    pack: str
    source: str
    target: str
    waves: tuple[Wave, ...] = ()
    skips: tuple[Skip, ...] = ()
    warnings: tuple[str, ...] = ()
    space: tuple[Need, ...] = ()
    contents: tuple[tuple[str, bytes], ...] = ()

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps of all waves, in order."""
        return tuple(step for wave in self.waves for step in wave.steps)

    @property
    def digest(self) -> str:
        """SHA-256 over what is to be done: steps, skips and both layouts; not over free space."""
        return _digest_of(self)


_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode


def canonical(data: object) -> bytes:
    """Return the one JSON text of some data: sorted keys, no blanks, ASCII (so that any file name survives)."""
    return _canonical(data).encode("ascii")


@lru_cache(maxsize=4)
def _digest_of(plan: Plan) -> str:
    found = hashlib.sha256(canonical([plan.pack, plan.source, plan.target]))
    # Piece by piece: together the texts of many steps would take more room than the plan itself.
    for each in (*plan.steps, *plan.skips):
        found.update(canonical(_values(each)))
    return found.hexdigest()


def _reader(kind: type[Struct]) -> tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]]]:
    return kind.__struct_fields__, attrgetter(*kind.__struct_fields__)


def _usual(kind: type[Struct]) -> tuple[Any, ...]:
    """Return what the fields of a kind are where nobody says anything else; NODEFAULT where somebody has to."""
    required = len(kind.__struct_fields__) - len(kind.__struct_defaults__)
    return (NODEFAULT,) * required + kind.__struct_defaults__


_KINDS: tuple[type[Struct], ...] = (Attributes, Precondition, Step, Skip)
_WORDS = {kind: _reader(kind) for kind in _KINDS}
_USUAL = {kind: _usual(kind) for kind in _KINDS}


def _values(thing: Any) -> list[Any]:
    """Return what `as_data` gives without the names."""
    return [_values(each) if type(each) in _WORDS else each for each in _WORDS[type(thing)][1](thing)]


def as_data(thing: Any) -> dict[str, Any]:
    """Return a step or a skip, and what a step is made of, as plain data for `canonical`.

    Fields that are as usual are left out: a journal of many steps is read as a whole, and most of their fields are.
    """
    kind = type(thing)
    names, values = _WORDS[kind]
    said = zip(names, values(thing), _USUAL[kind], strict=True)
    return {name: as_data(each) if type(each) in _WORDS else each for name, each, usual in said if each != usual}


def step_from_data(data: dict[str, Any]) -> Step:
    """Read a step back from what `as_data` made of it and JSON carried."""
    fields = dict(data)
    fields["shape"] = Shape(fields["shape"])
    fields["divergence"] = Divergence(fields.get("divergence", Divergence.ASK))
    for name in ("after", "before"):
        attributes = dict(fields.get(name, {}))
        attributes["labels"] = tuple((key, value) for key, value in attributes.get("labels", ()))
        fields[name] = Attributes(**attributes)
    if fields.get("expected") is not None:
        fields["expected"] = Precondition(**fields["expected"])
    fields["additions"] = tuple((path, digest) for path, digest in fields.get("additions", ()))
    fields["omissions"] = tuple(fields.get("omissions", ()))
    return Step(**fields)
