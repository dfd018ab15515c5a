"""Finds packs by path and loads them; refuses a pack that somebody untrusted could change.

Searched in order: folders from the settings, the system's folder, inside the installed package, beside a checkout. Entry points
and `importlib.resources` would cost more than the whole work of many boots.
"""

from __future__ import annotations

import importlib.util
import os
import stat
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

from upgradeconverter.errors import PackDamagedError, UnknownPackError
from upgradeconverter.packs.api import Pack
from upgradeconverter.packs.check import check

if TYPE_CHECKING:
    from collections.abc import Iterable

SYSTEM_ROOT = "/usr/lib/upgradeconverter/migrations"
# Who could change the engine itself could not do more by changing a pack.
_OWNER_OF_THE_ENGINE = os.stat(__file__).st_uid
_MODULE = "upgradeconverter_pack_"


def roots(extra: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the folders that may hold packs, in order of preference."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    beside = os.path.join(os.path.dirname(package), "migrations")
    return (*extra, SYSTEM_ROOT, os.path.join(package, "migrations"), beside)


def names(extra: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the names of all packs that can be found, sorted."""
    found = set()
    for root in roots(extra):
        if os.path.isdir(root):
            found |= {name for name in os.listdir(root) if os.path.isfile(os.path.join(root, name, "__init__.py"))}
    return tuple(sorted(found))


def load(name: str, extra: Iterable[str] = ()) -> Pack:
    """Return the pack of that name.

    Raises:
        UnknownPackError: it is nowhere.
        PackDamagedError: it does not load, is unsound, or could be changed by somebody who is neither root nor we.
    """
    extra = tuple(extra)
    if name not in names(extra):
        raise UnknownPackError(name, names(extra))
    folders = (os.path.join(root, name) for root in roots(extra))
    folder = next((path for path in folders if os.path.isfile(os.path.join(path, "__init__.py"))), None)
    if folder is None:
        raise PackDamagedError(name, "any of its places", "expected it to be there still, found nothing")
    _check_ownership(name, folder)
    loaded = sys.modules.get(_MODULE + name)
    if loaded is None:
        spec = importlib.util.spec_from_file_location(
            _MODULE + name,
            os.path.join(folder, "__init__.py"),
            submodule_search_locations=[folder],
        )
        if spec is None or spec.loader is None:
            raise PackDamagedError(name, folder, "expected a Python package, found none")
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[_MODULE + name] = loaded
        try:
            with redirect_stdout(sys.stderr):
                spec.loader.exec_module(loaded)
        except (Exception, SystemExit) as error:
            del sys.modules[_MODULE + name]
            raise PackDamagedError(name, folder, f"expected a pack that loads, found {error!r}") from error
    pack = getattr(loaded, "PACK", None)
    if not isinstance(pack, Pack):
        raise PackDamagedError(name, folder, "expected PACK to be a Pack")
    problems = check(pack)
    if problems:
        raise PackDamagedError(name, folder, problems[0])
    return pack


def _check_ownership(name: str, folder: str) -> None:
    """Refuse a pack when the folder that holds it, or anything in it, could be changed by somebody who is not trusted."""
    _check_one(name, os.path.realpath(os.path.dirname(folder)))
    pending = [folder]
    while pending:
        path = pending.pop()
        try:
            _check_one(name, path)
            inside = os.listdir(path) if os.path.isdir(path) else []
        except FileNotFoundError:
            # Another start is just writing byte code: what is gone again is loaded by nobody.
            continue
        pending += sorted((os.path.join(path, inner) for inner in inside), reverse=True)


def _check_one(name: str, path: str) -> None:
    if os.path.islink(path):
        # What a link leads to may lie in a folder that somebody else can change.
        raise PackDamagedError(name, path, "expected a file or folder, found a link")
    facts = os.lstat(path)
    if facts.st_uid not in (0, os.geteuid(), _OWNER_OF_THE_ENGINE):
        raise PackDamagedError(name, path, f"expected owner root, found uid {facts.st_uid}")
    if facts.st_mode & stat.S_IWOTH and not facts.st_mode & stat.S_ISVTX:
        raise PackDamagedError(name, path, "expected no write permission for others")
    if facts.st_mode & stat.S_IWGRP and facts.st_gid not in (0, os.getegid()):
        raise PackDamagedError(name, path, f"expected no write permission for group {facts.st_gid}")
