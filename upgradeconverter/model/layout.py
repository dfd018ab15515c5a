"""Layouts: which places exist, what may lie there, who owns them, and behind which protection they lie."""

from __future__ import annotations

from enum import StrEnum
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct

from upgradeconverter.model.entry import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# Gives so many bytes of a file from some place on, or what there is of them.
Part: TypeAlias = "Callable[[int, int], bytes]"

_ROOT = 0
_READABLE, _SEARCHABLE = 0o040, 0o050


class Zone(StrEnum):
    """Behind which protection a slot lies."""

    PLAIN = "plain"
    CLEAR = "clear"
    VAULT = "vault"
    UNSEALED = "unsealed vault"


class Slot(Struct, frozen=True, kw_only=True):
    """One declared place.

    Attributes:
        name: how migrations call it.
        directory: where it lies, relative to the root; a component with `*` stands for every directory whose name is like that.
        pattern: regular expression that a whole entry name must match; None: the slot is only a directory.
        kind: what the entries must be, or any of several; None: files and directories.
        owner: the agent that alone may write here.
        keeps_owner: whether what is put here stays whose it is, and what is made here is whose the root is: no agent has ids.
        readers: agents that have to look into it; where they have ids of their own they do so by the group.
        mode: permission bits of the directory itself.
        entry_mode: permission bits of entries put here; None keeps what each has.
        zone: protection.
        children: whether the scan also lists what lies directly inside directory entries.
        labels: whether the scan reads our own xattrs of the entries.
        probe: what the scan is to tell of the content of each file that it finds, of which it may look at parts: nothing large,
            since all items are held at the same time.
        shared: whether other slots say what else lies there: what the pattern does not know is nothing to tell of.
        marks: whether the entries are there because a program runs, and the scan tells whether it still does.
        whole: whether the directory itself is the one thing that the scan finds, with everything in it.
    """

    name: str
    directory: str
    owner: str
    readers: tuple[str, ...] = ()
    mode: int
    zone: Zone
    pattern: str | None = None
    kind: Kind | tuple[Kind, ...] | None = None
    keeps_owner: bool = False
    entry_mode: int | None = None
    children: bool = False
    labels: bool = False
    probe: Callable[[Part], object] | None = None
    marks: bool = False
    shared: bool = False
    whole: bool = False

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """What the entries may be."""
        if isinstance(self.kind, Kind):
            return (self.kind,)
        return self.kind if self.kind is not None else (Kind.FILE, Kind.DIRECTORY)

    @property
    def stem(self) -> str:
        """The directory itself, or the one in which all those lie that it stands for."""
        return self.directory.partition("*")[0].rpartition("/")[0] if "*" in self.directory else self.directory

    def is_at(self, path: str) -> bool:
        """Return whether a directory is one that the slot stands for."""
        if "*" not in self.directory:
            return path == self.directory
        return path.count("/") == self.directory.count("/") and self.holds(path)

    def holds(self, path: str) -> bool:
        """Return whether a path is, or lies in, a directory that the slot stands for."""
        if "*" not in self.directory:
            return path == self.directory or path.startswith(self.directory + "/")
        wanted, parts = self.directory.split("/"), path.split("/")
        return len(parts) >= len(wanted) and all(map(fnmatchcase, parts, wanted))


class Access(Struct, frozen=True, kw_only=True):
    """Whose a slot and what is put there is: the owner writes, and where it is shared the group reads."""

    uid: int
    gid: int
    is_shared: bool = False

    def granted(self, mode: int, kind: Kind) -> int:
        """Return permission bits together with those that readers need."""
        needed = _SEARCHABLE if kind is Kind.DIRECTORY else _READABLE
        return mode | needed if self.is_shared else mode


def access(slot: Slot, agents: Mapping[str, tuple[int, int]]) -> Access:
    """Return whose a slot is, given the ids of agents; who is not named there is root, who reads anyway.

    Raises:
        ValueError: its readers are in several groups, and a directory has only one.
    """
    uid, gid = agents.get(slot.owner, (_ROOT, _ROOT))
    groups = {ids[1] for ids in (agents.get(reader, (_ROOT, _ROOT)) for reader in slot.readers) if ids[0] not in (_ROOT, uid)}
    if len(groups) > 1:
        message = f"{', '.join(slot.readers)} read {slot.directory} and need one group"
        raise ValueError(message)
    return Access(uid=uid, gid=groups.pop(), is_shared=True) if groups else Access(uid=uid, gid=gid)


class Layout(Struct, frozen=True, kw_only=True):
    """One way state may lie on the disk: its label and its slots."""

    label: str
    slots: tuple[Slot, ...]

    def slot(self, name: str) -> Slot:
        """Return the slot of that name; KeyError when there is none."""
        for slot in self.slots:
            if slot.name == name:
                return slot
        raise KeyError(name)

    def owner_of(self, path: str) -> Slot | None:
        """Return the slot whose directory is, or directly or indirectly holds, the path; the deepest one wins."""
        holders = [slot for slot in self.slots if slot.holds(path)]
        return max(holders, key=lambda slot: (slot.directory.count("/"), len(slot.directory)), default=None)
