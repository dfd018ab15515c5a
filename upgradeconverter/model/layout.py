"""Layouts: which places exist, what may lie there, who owns them, and behind which protection they lie."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct

from upgradeconverter.model.entry import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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
        directory: where it lies, relative to the root.
        pattern: regular expression that a whole entry name must match; None: the slot is only a directory.
        kind: what the entries must be; None: files and directories.
        owner: the agent that alone may write here.
        readers: agents that have to look into it; where they have ids of their own they do so by the group.
        mode: permission bits of the directory itself.
        entry_mode: permission bits of entries put here; None keeps what each has.
        zone: protection.
        children: whether the scan also lists what lies directly inside directory entries.
        labels: whether the scan reads our own xattrs of the entries.
        peek: how many bytes the scan reads of each file that it finds, from its beginning.
        gist: what is kept of those bytes: nothing large, since all items are held at the same time.
        whole: whether the directory itself is the one thing that the scan finds, with everything in it.
    """

    name: str
    directory: str
    owner: str
    readers: tuple[str, ...] = ()
    mode: int
    zone: Zone
    pattern: str | None = None
    kind: Kind | None = None
    entry_mode: int | None = None
    children: bool = False
    labels: bool = False
    peek: int = 0
    gist: Callable[[bytes], object] = bytes
    whole: bool = False


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
        holders = [s for s in self.slots if path == s.directory or path.startswith(s.directory + "/")]
        return max(holders, key=lambda s: len(s.directory), default=None)
