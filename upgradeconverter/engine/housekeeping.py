"""The engine's own folders in every domain, and the traces that they leave on what is around them.

Must not know waves; works on a `Disk` and on names.
"""

from __future__ import annotations

import errno
from itertools import chain, count
from typing import TYPE_CHECKING

from upgradeconverter.engine.places import (
    QUARANTINE,
    WORKING_FOLDERS,
    folder_of,
    manifest_path,
    parent,
    stage_folder,
    trash_folder,
)
from upgradeconverter.model.entry import Kind
from upgradeconverter.model.plan import Attributes, Shape

if TYPE_CHECKING:
    from collections.abc import Iterable

    from upgradeconverter.disk.port import Disk
    from upgradeconverter.model.plan import Step

_PRIVATE = Attributes(mode=0o700)
_FIXED = (errno.EPERM, errno.EACCES, errno.EROFS)


def homes_of(steps: Iterable[Step]) -> tuple[str, ...]:
    """Return the homes of the domains that steps change something in; what is only copied from is needed no more."""
    homes = ((step.target_home if step.shape is Shape.CREATE else step.source_home, step.target_home) for step in steps)
    return tuple(dict.fromkeys(home for both in homes for home in both))


def is_reachable(disk: Disk, home: str) -> bool:
    """Return whether a domain is there: names in a vault that is locked or not mounted only look absent."""
    return not home or (disk.vault_state(home) != "locked" and disk.domain(home).home == home)


def make_folder(disk: Disk, path: str, *, at_once: bool = True) -> None:
    """Make one of the engine's own folders with everything above it; durably, unless something else is going to sync it."""
    missing = []
    while path and disk.find(path) is None:
        missing.append(path)
        path = parent(path)
    for folder in reversed(missing):
        disk.make_directory(folder, _PRIVATE)
        if at_once:
            disk.sync_directory(parent(folder))


def free_path(disk: Disk, path: str) -> str:
    """Return a path, or one like it where that is taken: what was set aside there before, by a start that died, stays."""
    return next(name for name in chain([path], (f"{path}.{number}" for number in count(2))) if disk.find(name) is None)


def sync_folders(disk: Disk, folders: Iterable[str]) -> None:
    """Make durable which names are in folders; what is gone is passed over."""
    for folder in dict.fromkeys(folders):
        entry = disk.find(folder)
        # Somebody may have put something else in its place since, and then there is nothing of ours to be synced.
        if entry is not None and entry.kind is Kind.DIRECTORY:
            disk.sync_directory(folder)


def restore_times(disk: Disk, times: Iterable[tuple[str, int, int]]) -> None:
    """Give folders the times that they had; what is gone is passed over."""
    for path, atime_ns, mtime_ns in times:
        if disk.find(path) is not None:
            # A folder whose times must not be set, such as an immutable one, is no reason to stop half way.
            try:
                disk.set_attributes(path, Attributes(atime_ns=atime_ns, mtime_ns=mtime_ns))
            except OSError as error:
                if error.errno not in _FIXED:
                    raise
            disk.sync_file(path)


def sweep_home(disk: Disk, home: str, txid: str) -> None:
    """Delete a closed transaction's leftovers in one domain, and the engine's folders there that are empty.

    The time of the domain's home does not tell of it.
    """
    folder, holder = folder_of(home), disk.find(home)
    if holder is None or disk.find(folder) is None:
        return
    for path in (trash_folder(home, txid), stage_folder(home, txid), manifest_path(home, txid)):
        disk.remove(path)
    for name in (*WORKING_FOLDERS, QUARANTINE):
        disk.remove_directory(f"{folder}/{name}")
    if home and disk.remove_directory(folder):
        disk.set_attributes(home, Attributes(atime_ns=holder.atime_ns, mtime_ns=holder.mtime_ns))
        disk.sync_file(home)
