"""How much room state takes, and whose it is: for each agent and place what is in use, what is old, unknown, or can be reclaimed.

Counted is what du(1) counts: files and directories, a file with several names once; bytes as they look (`du --apparent-size`) and
as they are allocated, which is less where there are holes. Looks only.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from upgradeconverter.engine.places import ENGINE_FOLDER, QUARANTINE, folder_of, parent
from upgradeconverter.model.entry import Kind
from upgradeconverter.model.outcome import Reason
from upgradeconverter.planning.scan import places

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from upgradeconverter.disk.port import Disk
    from upgradeconverter.engine.session import Session
    from upgradeconverter.model.entry import Entry
    from upgradeconverter.model.layout import Slot
    from upgradeconverter.model.operation import Skip

# What waits for nothing any more.
_RECLAIMABLE = {Reason.NO_READER, Reason.MEDIA_TYPE_UNKNOWN, Reason.STALE_GENERATION}
_NOBODY = "nobody known"
_OWN = "upgradeconverter"


class State(StrEnum):
    """What is known of a place: it is the target layout's, an older one's, neither, or known and never converted."""

    CURRENT = "current"
    LEGACY = "legacy"
    OTHER = "other"
    UNKNOWN = "unknown"


class Place(Struct, frozen=True):
    """Where something lies, as far as it matters here: the agent, the directory, and the state of that."""

    agent: str
    directory: str
    state: State
    pattern: str | None = None


class Room(Struct):
    """What lies in a place (bytes)."""

    files: int = 0
    size: int = 0
    allocated: int = 0
    reclaimable: int = 0

    def add(self, entry: Entry, *, reclaimable: bool) -> None:
        """Count one entry."""
        self.files += entry.kind is not Kind.DIRECTORY
        self.size += entry.size
        self.allocated += entry.allocated
        self.reclaimable += entry.allocated if reclaimable else 0


class _Count(Struct):
    disk: Disk
    places: dict[str, Place]
    reclaimable: frozenset[str]
    rooms: dict[tuple[str, str, State], Room] = field(default_factory=dict)
    seen: set[tuple[int, int]] = field(default_factory=set)

    def walk(self, top: str) -> None:
        """Count everything below a directory, and that."""
        root = self.disk.find(top)
        pending = [(root, self.place_of(top, None, root), False)] if root is not None else []
        while pending:
            entry, place, goes = pending.pop()
            goes = goes or entry.path in self.reclaimable
            if entry.links > 1 and entry.kind is not Kind.DIRECTORY:
                # A file with several names takes its room once.
                if (entry.identity, entry.ctime_ns) in self.seen:
                    continue
                self.seen.add((entry.identity, entry.ctime_ns))
            self.rooms.setdefault((place.agent, place.directory, place.state), Room()).add(entry, reclaimable=goes)
            if entry.kind is Kind.DIRECTORY:
                pending += [(inner, self.place_of(inner.path, place, inner), goes) for inner in self._inside(entry.path)]

    def _inside(self, path: str) -> Iterator[Entry]:
        yield from self.disk.entries(path)
        own = self.disk.find(folder_of(path)) if path in ("", *self._homes()) else None
        if own is not None:
            yield own

    def _homes(self) -> Iterable[str]:
        return (parent(path) for path in self.places if path.endswith(f"/{ENGINE_FOLDER}"))

    def place_of(self, path: str, above: Place | None, entry: Entry | None) -> Place:
        """Return whose a path is, by what is above it."""
        known = self.places.get(path)
        if known is not None:
            return known
        if above is None or not path:
            return Place(_NOBODY, "", State.OTHER)
        if above.directory == "":
            # Directories that only hold places are nobody's, and nothing to wonder at.
            holds = any(place.startswith(f"{path}/") for place in self.places)
            return above if holds else Place(_NOBODY, path, State.UNKNOWN)
        is_stranger = parent(path) == above.directory and above.pattern is not None
        if is_stranger and entry is not None and not re.fullmatch(above.pattern or "", entry.name):
            return Place(above.agent, above.directory, State.UNKNOWN)
        return above


def usage(session: Session, skips: Iterable[Skip]) -> list[dict[str, Any]]:
    """Return a row for each place in which anything lies, the agents in order; `skips` say what nothing waits for any more."""
    homes = ["", session.pack.vault] if session.pack.vault is not None else [""]
    known = {place.directory: place for place in _places(session)}
    known |= {folder_of(home): Place(_OWN, folder_of(home), State.CURRENT) for home in homes}
    reclaimable = {skip.path for skip in skips if skip.reason in _RECLAIMABLE}
    reclaimable |= {f"{folder_of(home)}/{QUARANTINE}" for home in homes}
    count = _Count(session.disk, known, frozenset(reclaimable))
    count.walk("")
    return [
        {
            "agent": agent,
            "place": directory,
            "state": state.value,
            "files": room.files,
            "size": room.size,
            "allocated": room.allocated,
            "reclaimable": room.reclaimable,
        }
        for (agent, directory, state), room in sorted(count.rooms.items())
    ]


def strangers(session: Session) -> tuple[str, ...]:
    """Return what lies in the root, and is nothing that the pack knows or that holds something of it."""
    count = _Count(session.disk, {place.directory: place for place in _places(session)}, frozenset())
    top = Place(_NOBODY, "", State.OTHER)
    found = (entry for entry in session.disk.entries("") if entry.name != "lost+found")
    return tuple(entry.path for entry in found if count.place_of(entry.path, top, entry).state is State.UNKNOWN)


def _places(session: Session) -> Iterator[Place]:
    """Yield each place that the pack knows; what the target layout says of it counts most."""
    known: list[tuple[Slot, State, str | None]] = [(slot, State.OTHER, None) for slot in session.pack.others]
    old = (slot for migration in session.pack.migrations for slot in session.slots_of(migration))
    known += [(slot, State.LEGACY, slot.pattern) for slot in old]
    known += [(slot, State.CURRENT, slot.pattern) for slot in session.layout().slots]
    for slot, state, pattern in known:
        for directory in places(session.disk, slot):
            yield Place(slot.owner, directory, state, pattern)
