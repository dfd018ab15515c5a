"""A plan while it is made: the steps so far, what they claim, and the parts of which all operations are made. Pure.

Guarantees: nothing is added whose source was not looked at, is in use or must not be changed; every missing directory above a
target comes before it. What cannot be done is a CannotError, and the caller takes back what it had added.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field
from msgspec.structs import replace

from upgradeconverter.model.entry import Kind
from upgradeconverter.model.layout import Access, access
from upgradeconverter.model.operation import Skip
from upgradeconverter.model.outcome import Reason
from upgradeconverter.model.plan import Attributes, Precondition, Shape, Step
from upgradeconverter.planning.facts import Facts, above, attributes_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from upgradeconverter.model.entry import Domain, Entry
    from upgradeconverter.model.layout import Layout, Slot

_DEFAULT_FOLDER_MODE, _DEFAULT_FILE_MODE = 0o700, 0o600

_NAME_MAX = 255
# Names of no more characters than this are short enough whatever these are.
_SHORT_NAME = _NAME_MAX // 4


class CannotError(Exception):
    """One operation cannot be planned; becomes a skip."""

    def __init__(self, path: str, reason: Reason, detail: str, rival: str = "") -> None:
        """Say what stays where it is, and why."""
        super().__init__(detail)
        self.skip = Skip(path=path, reason=reason, detail=detail, rival=rival)


def check_name(target: str) -> None:
    """Refuse a target that no file system can give a name: it would fail only when everything else is staged."""
    name = target.rpartition("/")[2]
    if len(name) <= _SHORT_NAME:
        return
    size = len(name.encode("utf-8", "surrogatepass"))
    if size > _NAME_MAX:
        detail = f"a name of {size} bytes, and a file system takes {_NAME_MAX}"
        raise CannotError(target, Reason.UNEXPECTED_CONTENT, detail)


class Draft(Struct):
    """The plan while it is made.

    Attributes:
        claimed: source and group by target; an empty source where something is made.
        made: directories that are planned, with the domain that they will lie in.
        at_once: sources that a trial gives up at once, since there is no room for both.
        pending: sources that wait for a trial to be confirmed.
        whole: groups that are carried out, or nothing is.
        taken: sources that move to one place already, with their group.
    """

    facts: Facts
    layout: Layout
    agents: Mapping[str, tuple[int, int]]
    steps: list[Step] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    contents: dict[str, bytes] = field(default_factory=dict)
    claimed: dict[str, tuple[str, int]] = field(default_factory=dict)
    made: dict[str, Domain] = field(default_factory=dict)
    once_empty: list[str] = field(default_factory=list)
    group: int = 0
    warnings: list[str] = field(default_factory=list)
    may_rename: bool = True
    trial: bool = False
    at_once: frozenset[str] = frozenset()
    pending: frozenset[str] = frozenset()
    whole: set[int] = field(default_factory=set)
    taken: dict[str, int] = field(default_factory=dict)
    _changes: list[tuple[dict[str, Any], str, Any]] = field(default_factory=list)
    _given: dict[tuple[object, ...], Attributes] = field(default_factory=dict)
    _places: dict[str, tuple[Slot, Access]] = field(default_factory=dict)

    def add(self, step: Step) -> None:
        """Number a step and append it."""
        number = len(self.steps)
        self.steps.append(step if step.number == number else replace(step, number=number))

    def claim(self, target: str, source: str, group: int) -> None:
        """Note who gets a name; an empty source where something is made."""
        self._set(self.claimed, target, (source, group))

    def take(self, source: str) -> None:
        """Note that a source moves; CannotError where it goes elsewhere already."""
        if source in self.taken:
            raise CannotError(source, Reason.AMBIGUOUS_VOLUME, "it is to go to two places")
        self._set(self.taken, source, self.group)

    def note_made(self, path: str, domain: Domain) -> None:
        """Note that a directory is planned."""
        self._set(self.made, path, domain)

    def _set(self, known: dict[str, Any], key: str, value: object) -> None:
        self._changes.append((known, key, known.get(key)))
        known[key] = value

    def begin(self) -> int:
        """Let what is added from now on be of a new group, all of which `take_back` can take back; returns where it begins."""
        self.group += 1
        self._changes.clear()
        return len(self.steps)

    def take_back(self, mark: int) -> None:
        """Be again what it was at the last `begin`, which returned the mark."""
        del self.steps[mark:]
        for known, key, before in reversed(self._changes):
            known.pop(key) if before is None else known.update({key: before})

    def source_entry(self, path: str) -> Entry:
        """Return the facts of a source that can be worked with; otherwise say why not."""
        entry = self.facts.entries.get(path)
        if entry is None:
            raise CannotError(path, Reason.CHANGED_MEANWHILE, "it is gone")
        if path in self.facts.unreadable:
            raise CannotError(path, Reason.DISK_FAILED, self.facts.unreadable[path])
        tree = self.facts.trees.get(path)
        if tree is not None and tree.mounts:
            raise CannotError(path, Reason.IN_USE, f"{tree.mounts[0]} is a mount point")
        fixed = [p for p in (path, above(path)) if p in self.facts.fixed]
        if fixed:
            raise CannotError(path, Reason.IMMUTABLE, f"{fixed[0]} is immutable or append-only", rival=fixed[0])
        return entry

    def check_free(self, target: str) -> None:
        """Raise CannotError where a target is taken already, on the disk or by an earlier step."""
        if self.facts.entries.get(target) is not None or target in self.claimed:
            raise CannotError(target, Reason.TARGET_EXISTS, "the name is taken")

    def from_source(self, base: Step, source: str, **more: Any) -> Step:
        """Return a step with everything that is known of its source, and what else is given."""
        entry, tree = self.source_entry(source), self.facts.tree(source)
        return replace(
            base,
            number=len(self.steps),
            source=source,
            source_home=self.facts.domains[above(source)].home,
            before=attributes_of(entry, None),
            expected=Precondition.of(entry, tree.fingerprint),
            size=tree.size,
            allocated=tree.allocated,
            entries=tree.entries,
            **more,
        )

    def put_away(self, base: Step, source: str, *, twin: str | None, why: str) -> None:
        """Plan to put a file, or a duplicate tree, away."""
        step = self.from_source(base, source)
        entry = self.facts.entries[source]
        made_of = "tree" if entry is not None and entry.kind is Kind.DIRECTORY else "file"
        made_of = "copy" if twin is not None else made_of
        self.add(replace(step, shape=Shape.RETIRE, twin=twin, why=why, made_of=made_of))

    def set_aside(self, base: Step, source: str) -> None:
        """Plan to keep a source aside, because what lies at its target counts."""
        step = self.from_source(replace(base, operation="SetAside"), source)
        self.add(replace(step, shape=Shape.RETIRE, keeps=True, why=Reason.DIVERGED.value))

    def displace(self, base: Step, path: str, why: Reason) -> None:
        """Plan that what has a name makes way for what is to get it, in the same transaction; it is kept aside."""
        step = self.from_source(replace(base, operation="SetAside"), path)
        self.add(replace(step, shape=Shape.DISPLACE, keeps=True, why=why.value))

    def retire_folder(self, base: Step, folder: str, *, leaving: Collection[str]) -> None:
        """Plan to put away a directory that is, or will be once those `leaving` have gone, empty."""
        entry = self.source_entry(folder)
        inside = self.facts.trees[folder].top_names
        if any(f"{folder}/{name}" not in leaving for name in inside):
            raise CannotError(folder, Reason.UNEXPECTED_CONTENT, "it is not empty")
        step = self.from_source(replace(base, operation="Retire"), folder)
        # Its inside changes on the way, so only the directory itself is what must stay the same.
        expected = Precondition(identity=entry.identity, kind=entry.kind.value, size=0, mtime_ns=0, fingerprint="")
        self.add(replace(step, shape=Shape.RETIRE, made_of="directory", why="emptied", expected=expected, size=0, allocated=0))

    def prepare_parent(self, base: Step, target: str) -> Domain:
        """Plan every missing directory above a target; returns the domain in which the target will lie."""
        missing, folder = [], above(target)
        while folder not in self.made and self.facts.entries.get(folder) is None:
            missing.append(folder)
            folder = above(folder)
        if folder in self.made:
            domain = self.made[folder]
        else:
            self._check_folder(target, folder)
            domain = self.facts.domains[folder]
        for path in reversed(missing):
            step = replace(base, operation="EnsureDirectory", shape=Shape.CREATE, made_of="directory", target=path)
            self.add(replace(step, target_home=domain.home, after=self.folder_attributes(path), source=None, group=0))
            self.note_made(path, domain)
        return domain

    def _check_folder(self, target: str, folder: str) -> None:
        entry = self.facts.entries[folder]
        if entry is not None and entry.kind is not Kind.DIRECTORY:
            raise CannotError(target, Reason.NOT_A_DIRECTORY, f"{folder} is a {entry.kind.value}", rival=folder)
        if folder in self.facts.fixed:
            raise CannotError(target, Reason.IMMUTABLE, f"{folder} is immutable or append-only", rival=folder)

    def folder_attributes(self, path: str) -> Attributes:
        """Return owner and mode of a directory that is to be made."""
        slot = next((s for s in self.layout.slots if s.is_at(path)), None)
        owner = slot or self.layout.owner_of(path)
        theirs = self._access(owner) if owner is not None else Access(uid=0, gid=0)
        mode = slot.mode if slot else _DEFAULT_FOLDER_MODE
        return Attributes(mode=theirs.granted(mode, Kind.DIRECTORY), uid=theirs.uid, gid=theirs.gid)

    def _place(self, name: str) -> tuple[Slot, Access]:
        if name not in self._places:
            slot = self.layout.slot(name)
            self._places[name] = slot, self._access(slot)
        return self._places[name]

    def _access(self, slot: Slot) -> Access:
        """Return whose a slot is, and what is made in it."""
        root = self.facts.entries.get("")
        if slot.keeps_owner and root is not None:
            return Access(uid=root.uid, gid=root.gid)
        return access(slot, self.agents)

    def attributes_in_slot(self, name: str, entry: Entry, labels: tuple[tuple[str, str], ...] = ()) -> Attributes:
        """Return owner, mode and labels of an entry that is put into a slot."""
        known = name, entry.kind, entry.mode, labels
        if known not in self._given:
            self._given[known] = self._attributes_in_slot(name, entry, labels)
        return self._given[known]

    def _attributes_in_slot(self, name: str, entry: Entry, labels: tuple[tuple[str, str], ...]) -> Attributes:
        slot, theirs = self._place(name)
        declared = slot.entry_mode if entry.kind is not Kind.DIRECTORY else None
        mode = theirs.granted(entry.mode if declared is None else declared, entry.kind)
        is_kept = declared is None and (not theirs.is_shared or entry.kind is Kind.SYMLINK)
        uid, gid = (None, None) if slot.keeps_owner else (theirs.uid, theirs.gid)
        return Attributes(mode=None if is_kept else mode, uid=uid, gid=gid, labels=labels)

    def attributes_of_new(self, name: str) -> Attributes:
        """Return owner and mode of a file that is made in a slot."""
        slot, theirs = self._place(name)
        mode = _DEFAULT_FILE_MODE if slot.entry_mode is None else slot.entry_mode
        return Attributes(mode=theirs.granted(mode, Kind.FILE), uid=theirs.uid, gid=theirs.gid)

    def remember(self, content: bytes) -> str:
        """Keep the bytes of a small file; returns their SHA-256."""
        digest = hashlib.sha256(content).hexdigest()
        self._set(self.contents, digest, content)
        return digest
