"""Directories and files outside of the root that a pack takes state from: checked as they were named, with names in the disk.

What is named once is known from then on: the journal says where it was, so that `confirm` and `rollback` find it again.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from upgradeconverter.disk.posix import Annexed
from upgradeconverter.engine.places import EARLIER_JOURNALS, JOURNAL
from upgradeconverter.engine.recover import about
from upgradeconverter.errors import AnnexMissingError, BadSettingError, UpgradeConverterError
from upgradeconverter.journal.log import Journal
from upgradeconverter.journal.record import EVERY_KIND

if TYPE_CHECKING:
    from collections.abc import Mapping

    from upgradeconverter.disk.posix import PosixDisk
    from upgradeconverter.packs.api import Pack
    from upgradeconverter.settings import Settings

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def named(settings: Settings, pack: Pack, disk: PosixDisk, *, goes_back: bool) -> dict[str, str]:
    """Return the absolute paths of all annexes by name: those that are named, and those that the journal knows of.

    Of these count the ones that something is still to be done about: what is open, waits, or, if it `goes_back`, can be undone.

    Raises:
        BadSettingError: the pack has none of that name, or nothing fitting lies there.
    """
    recorded = _recorded(disk, is_done_too=goes_back) if pack.annexes else {}
    found = {name: place.path for name, place in recorded.items() if place.is_there()}
    origin = settings.origins.get("annexes", "")
    for name, path in settings.annexes.items():
        kind, _, key = name.partition(".")
        if kind not in pack.annexes:
            known = ", ".join(pack.annexes) or f"nothing, as pack {pack.name} has none"
            raise BadSettingError(f"annex {kind}", origin, known, kind)
        if bool(key) != pack.annexes[kind].each or (key and not _KEY.fullmatch(key)):
            wanted = "a name and a path, as ID=PATH" if pack.annexes[kind].each else "one path"
            raise BadSettingError(f"annex {kind}", origin, wanted, f"{key}={path}" if key else path)
        _check_place(name, origin, path, disk.root_path, is_file=pack.annexes[kind].is_file)
        if name in recorded and not recorded[name].is_at(path) and not pack.annexes[kind].is_file:
            raise AnnexMissingError(name, recorded[name].path, path)
        found[name] = os.path.realpath(path)
    for name, path in found.items():
        if twins := [other for other in found if other != name and found[other] == path]:
            raise BadSettingError(f"annex {name}", origin, "a place of its own", f"{path}, as {twins[0]}")
    return found


class _Recorded(Struct, frozen=True):
    """Where an annex was, and the inode of the directory that it is, or that holds it: devices get other numbers."""

    path: str
    inode: int
    is_file: bool

    @property
    def folder(self) -> str:
        return os.path.dirname(self.path) if self.is_file else self.path

    def is_there(self) -> bool:
        """Return whether what was there still is, though a single file may be gone."""
        return self.is_at(self.folder)

    def is_at(self, folder: str) -> bool:
        """Return whether a directory is the one that was meant."""
        with suppress(OSError):
            return os.stat(folder).st_ino == self.inode
        return False


def _check_place(name: str, origin: str, path: str, root: str, *, is_file: bool) -> None:
    place = os.path.realpath(path)
    if is_file:
        if not os.path.isfile(place):
            raise BadSettingError(f"annex {name}", origin, "a regular file", path)
        return
    if not os.path.isdir(place):
        raise BadSettingError(f"annex {name}", origin, "a directory", path)
    if os.path.commonpath((place, root)) in (place, root) or os.path.samefile(place, root):
        wanted = f"a directory that neither lies in {root} nor holds it; without this, {root} is converted where it is"
        raise BadSettingError(f"annex {name}", origin, wanted, path)


def _recorded(disk: PosixDisk, *, is_done_too: bool) -> dict[str, _Recorded]:
    found: dict[str, Any] = {}
    for place in (*reversed(EARLIER_JOURNALS), JOURNAL) if is_done_too else (JOURNAL,):
        try:
            view = Journal(disk, place).read(repair=False, brief=EVERY_KIND)
        except UpgradeConverterError:
            # Whoever needs it says what is wrong with it.
            continue
        for transaction in view.transactions:
            if is_done_too or transaction.is_open or transaction.is_waiting:
                found |= about(transaction).get("annexes", {})
    return {name: _Recorded(each["path"], each["inode"], each["is_file"]) for name, each in found.items()}


def record(paths: Mapping[str, str], pack: Pack) -> dict[str, dict[str, Any]]:
    """Return what the journal is to know of annexes."""
    found = {}
    for name, path in paths.items():
        is_file = pack.annexes[name.partition(".")[0]].is_file
        folder = os.path.dirname(path) if is_file else path
        found[name] = {"path": path, "inode": os.stat(folder).st_ino, "is_file": is_file}
    return found


def annexed(paths: Mapping[str, str], pack: Pack, root: str) -> tuple[dict[str, Annexed], dict[str, str]]:
    """Return what becomes part of the disk, by name, and the path that each annex has in the disk.

    A file that lies in the root, or in another annex, is part of the disk already.
    """
    folders = {name: path for name, path in paths.items() if not pack.annexes[name.partition(".")[0]].is_file}
    parts = {f"{name}:": Annexed(folder=path) for name, path in folders.items()}
    places = {name: f"{name}:" for name in folders}
    tops = {"": root, **{f"{name}:/": path for name, path in folders.items()}}
    for name, path in paths.items():
        if name in folders:
            continue
        holder = next((top for top, place in tops.items() if path.startswith(f"{place.rstrip('/')}/")), None)
        if holder is None:
            folder, _, only = path.rpartition("/")
            parts[f"{name}:"] = Annexed(folder=folder or "/", only=only)
            places[name] = f"{name}:/{only}"
        else:
            places[name] = f"{holder}{path[len(tops[holder].rstrip('/')) + 1 :]}"
    return parts, places
