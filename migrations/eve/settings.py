"""The way of EVE's settings through the releases: from `GlobalConfig` to a map, from `P/config` to `P/status`, and what is added.

Four migrations, each with releases of its own; a device that skips releases goes all of the way in one step. A file that EVE
would not read is left alone and named, and so is what would have to be made of it: nobody's settings ever become defaults, as
they do with EVE's own converter (known defect 20).

Where two forms are there the one that was written to last counts, as with EVE; the other one is set aside instead of deleted,
since a clock may have been wrong (known defects 21 and 23).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from upgradeconverter.packs.api import (
    DiskState,
    Divergence,
    Document,
    Input,
    Migration,
    Note,
    Operation,
    Proposal,
    Reason,
    Rewrite,
    Skip,
    Slot,
    Write,
)

from .config_items import SSH_KEY, ItemType, default_items, item_of, read_keys, read_map, read_old, write_map
from .layouts import CONFIG_MAP, CONFIG_MAP_IN_STATUS, INGESTED, INGESTED_CONFIG, OLD_CONFIG, OLD_CONFIG_MAP
from .pubsub import BACKUP
from .releases import DESIGN, Feature, Release, has, layouts_with, read_release

if TYPE_CHECKING:
    from collections.abc import Callable

_FILE = "global.json"
_LIMIT = 1 << 20
_OLD = Input(path=f"{OLD_CONFIG.directory}/{_FILE}", limit=_LIMIT)
_MAP = Input(path=f"{CONFIG_MAP.directory}/{_FILE}", limit=_LIMIT)
_MAP_IN_STATUS = Input(path=f"{CONFIG_MAP_IN_STATUS.directory}/{_FILE}", limit=_LIMIT)
_BACKUP = Input(path=_MAP_IN_STATUS.path + BACKUP, limit=_LIMIT)
_GIVEN_MAP = Input(path=f"GlobalConfig/{_FILE}", outside="config", limit=_LIMIT)
_GIVEN_KEYS = Input(path="authorized_keys", outside="config", limit=_LIMIT)
_BOOTSTRAP = Input(path="bootstrap-config.pb", outside="config")
_TAKEN_MAP = Input(path=f"{INGESTED_CONFIG.directory}/global.sha", limit=_LIMIT)
_TAKEN_KEYS = Input(path=f"{INGESTED.directory}/authorized_keys.sha", limit=_LIMIT)
# The design came between releases, with the settings of those.
_RELEASE_OF_DESIGN: Release = (5, 7, 0)
_ENDED = "since 16.12.0, and in 14.5.4 and 16.0.1, EVE gets its settings anew at each boot"
_MISSING, _LOCKED = "missing", "locked"
_FROM_OLD, _TO_STATUS, _IMPORT, _DEFAULTS = "eve-global-config", "eve-config-map", "eve-config-import", "eve-config-defaults"


class _UnreadableError(Exception):
    """A file cannot be made anything of; becomes a skip."""

    def __init__(self, document: Document, problem: str) -> None:
        super().__init__(problem)
        reason = Reason.VAULT_LOCKED if problem == _LOCKED else Reason.UNEXPECTED_CONTENT
        self.skip = Skip(path=document.path, reason=reason, detail=problem)


class _Settings(Struct, frozen=True):
    """A map of settings, apart: items, items of each agent, and members that nobody knows here."""

    items: dict[str, Any]
    agents: dict[str, dict[str, Any]]
    more: dict[str, Any]

    @property
    def content(self) -> bytes:
        return write_map(self.items, self.agents, self.more)


def _is_there(document: Document) -> bool:
    return document.problem != _MISSING


def _read(document: Document) -> _Settings:
    if document.content is None:
        raise _UnreadableError(document, document.problem)
    try:
        return _Settings(*read_map(document.content))
    except ValueError as error:
        raise _UnreadableError(document, f"it is no map of settings: {error}") from error


def _release(state: DiskState) -> Release:
    return read_release(state.target.label) or _RELEASE_OF_DESIGN


def _catching(plan: Callable[[DiskState], Proposal], name: str) -> Callable[[DiskState], Proposal]:
    def planned(state: DiskState) -> Proposal:
        try:
            return plan(state)
        except _UnreadableError as unreadable:
            return Proposal(migration=name, skips=(unreadable.skip,))

    return planned


# --- from the old configuration to a map ---------------------------------------------------------------------------------


def _plan_old(state: DiskState) -> Proposal:
    old, new, release = state.documents[_OLD.key], state.documents[_MAP.key], _release(state)
    if _is_there(old):
        rewrite = _to_map(old, _newest(old, new, _converted(old, release)), CONFIG_MAP, _MAP, OLD_CONFIG.directory)
        return Proposal(migration=_FROM_OLD, operations=(rewrite,))
    if _is_there(new) or state.target.label == DESIGN or has(state.target.label, Feature.CONFIG_MAP_IN_STATUS):
        return Proposal(migration=_FROM_OLD)
    # Agents up to 5.14 wait for a map.
    made = Write(target=_MAP.path, content=write_map(default_items(release), {}, {}), slot=CONFIG_MAP.name)
    return Proposal(migration=_FROM_OLD, operations=(made,))


def _newest(old: Document, new: Document, converted: bytes) -> tuple[bytes, bool]:
    """Return what counts of two forms, and whether that is the new one's: the one that was written to last, if it says something.

    A later map that a power cut left without its end is nothing that anybody has set (known defect 21).

    Raises:
        _UnreadableError: the new one is locked.
    """
    if _is_there(new) and old.mtime_ns <= new.mtime_ns:
        try:
            _read(new)
        except _UnreadableError as unreadable:
            if unreadable.skip.reason is Reason.VAULT_LOCKED:
                raise
        else:
            return new.content or b"", True
    return converted, False


def _converted(old: Document, release: Release) -> bytes:
    if old.content is None:
        raise _UnreadableError(old, old.problem)
    try:
        items, agents = read_old(old.content)
    except ValueError as error:
        raise _UnreadableError(old, f"it is no configuration from before 5.1.0: {error}") from error
    known = default_items(release)
    # What the release does not have it does not get; the old file, which says it, is kept.
    return write_map(known | {key: item for key, item in items.items() if key in known}, agents, {})


def _to_map(source: Document, says: tuple[bytes, bool], slot: Slot, target: Input, folder: str) -> Rewrite:
    return Rewrite(
        source=source.path,
        target=target.path,
        content=says[0],
        of_target=says[1],
        basis=source.digest,
        slot=slot.name,
        divergence=Divergence.SOURCE,
        also_retire=(source.path + BACKUP, folder),
    )


# --- from the configuration's directory to the agent's ------------------------------------------------------------------


def _plan_map(state: DiskState) -> Proposal:
    old, new = state.documents[_MAP.key], state.documents[_MAP_IN_STATUS.key]
    if not _is_there(old):
        return Proposal(migration=_TO_STATUS)
    _read(old)
    rewrite = _to_map(old, _newest(old, new, old.content or b""), CONFIG_MAP_IN_STATUS, _MAP_IN_STATUS, CONFIG_MAP.directory)
    return Proposal(migration=_TO_STATUS, operations=(rewrite,))


# --- what the configuration partition brings -----------------------------------------------------------------------------


def _plan_import(state: DiskState) -> Proposal:
    given, keys = state.documents[_GIVEN_MAP.key], state.documents[_GIVEN_KEYS.key]
    if _is_there(state.documents[_BOOTSTRAP.key]):
        found = [each.path for each in (given, keys) if _is_there(each)]
        warnings = tuple(
            f"{path} of the configuration partition is not imported beside a bootstrap configuration" for path in found
        )
        return Proposal(migration=_IMPORT, warnings=warnings)
    notes = (
        *_note(given, state.documents[_TAKEN_MAP.key], INGESTED_CONFIG),
        *_note(keys, state.documents[_TAKEN_KEYS.key], INGESTED),
    )
    if not notes:
        return Proposal(migration=_IMPORT)
    if _current(state) is None and _waits(state):
        # A map that is made now would count as the later one when what waits can be read again.
        warning = "what the configuration partition brings is imported once the settings that are there can be read"
        return Proposal(migration=_IMPORT, warnings=(warning,))
    has_map = any(note.slot == INGESTED_CONFIG.name for note in notes)
    return Proposal(migration=_IMPORT, operations=_imported(state, given if has_map else None, keys, notes))


def _note(given: Document, taken: Document, slot: Slot) -> tuple[Note, ...]:
    """Return what is to be noted of a file that was not imported yet, as its digest in 32 bytes; nothing where it was."""
    if not _is_there(given):
        return ()
    if given.content is None:
        raise _UnreadableError(given, given.problem)
    digest = hashlib.sha256(given.content).digest()
    return () if taken.content == digest else (Note(taken.path, digest, slot.name),)


def _imported(state: DiskState, given: Document | None, keys: Document, notes: tuple[Note, ...]) -> tuple[Operation, ...]:
    current, slot = state.documents[_MAP_IN_STATUS.key], CONFIG_MAP_IN_STATUS
    known = _current(state) or _Settings({}, {}, {})
    settings = _read(given) if given is not None else known
    text = read_keys(keys.content or b"")
    if text and any(note.slot == INGESTED.name for note in notes):
        items = settings.items | {SSH_KEY: item_of(SSH_KEY, ItemType.STRING, text)}
        settings = _Settings(items, settings.agents, settings.more)
    if not _is_there(current):
        return (Write(target=_MAP_IN_STATUS.path, content=settings.content, slot=slot.name, beside=notes),)
    return (_in_place(current, settings, slot, notes),)


def _current(state: DiskState) -> _Settings | None:
    """Return the settings that agents start with, since 8.3.1 from the companion of a file that is missing or empty."""
    document, backup = state.documents[_MAP_IN_STATUS.key], state.documents[_BACKUP.key]
    if backup.content and (document.content == b"" or not _is_there(document)):
        return _read(backup)
    return _read(document) if _is_there(document) else None


def _waits(state: DiskState) -> bool:
    """Return whether settings of an older form are there still, since they cannot be read."""
    return any(_is_there(state.documents[each.key]) for each in (_OLD, _MAP))


def _in_place(document: Document, settings: _Settings, slot: Slot, notes: tuple[Note, ...] = ()) -> Rewrite:
    path = document.path
    return Rewrite(source=path, target=path, content=settings.content, basis=document.digest, slot=slot.name, beside=notes)


# --- what a release has and nobody has set -------------------------------------------------------------------------------


def _plan_defaults(state: DiskState) -> Proposal:
    document = state.documents[_MAP_IN_STATUS.key]
    defaults = default_items(_release(state))
    settings = _current(state)
    if settings is None:
        # Settings that cannot be read, or wait, are settings; whoever mends them must not find defaults in their place.
        if _is_there(state.documents[_BOOTSTRAP.key]) or _waits(state):
            return Proposal(migration=_DEFAULTS)
        content = write_map(defaults, {}, {})
        made = Write(target=_MAP_IN_STATUS.path, content=content, slot=CONFIG_MAP_IN_STATUS.name)
        return Proposal(migration=_DEFAULTS, operations=(made,))
    if defaults.keys() <= settings.items.keys():
        return Proposal(migration=_DEFAULTS)
    full = _Settings(defaults | settings.items, settings.agents, settings.more)
    if _is_there(document):
        return Proposal(migration=_DEFAULTS, operations=(_in_place(document, full, CONFIG_MAP_IN_STATUS),))
    made = Write(target=_MAP_IN_STATUS.path, content=full.content, slot=CONFIG_MAP_IN_STATUS.name)
    return Proposal(migration=_DEFAULTS, operations=(made,))


# --- migrations ----------------------------------------------------------------------------------------------------------

MIGRATIONS = (
    Migration(
        id=_FROM_OLD,
        summary="Settings from before 5.1.0 become a map.",
        phase="pre-vault",
        reads=(OLD_CONFIG,),
        inputs=(_OLD, _MAP),
        writes=(CONFIG_MAP,),
        targets=layouts_with(Feature.CONFIG_MAP, Feature.CONFIG_MAP_IN_STATUS),
        ended=_ENDED,
        plan=_catching(_plan_old, _FROM_OLD),
    ),
    Migration(
        id=_TO_STATUS,
        summary="The map of settings moves to the agent that owns it.",
        phase="pre-vault",
        reads=(OLD_CONFIG_MAP,),
        inputs=(_MAP, _MAP_IN_STATUS),
        writes=(CONFIG_MAP_IN_STATUS,),
        targets=layouts_with(Feature.CONFIG_MAP_IN_STATUS),
        after=(_FROM_OLD,),
        ended=_ENDED,
        plan=_catching(_plan_map, _TO_STATUS),
    ),
    Migration(
        id=_IMPORT,
        summary="Settings and keys that the configuration partition brings are taken over once.",
        phase="pre-vault",
        reads=(),
        inputs=(_GIVEN_MAP, _GIVEN_KEYS, _BOOTSTRAP, _TAKEN_MAP, _TAKEN_KEYS, _MAP_IN_STATUS, _BACKUP, _OLD, _MAP),
        writes=(CONFIG_MAP_IN_STATUS, INGESTED, INGESTED_CONFIG),
        targets=layouts_with(Feature.CONFIG_IMPORT),
        after=(_TO_STATUS,),
        plan=_catching(_plan_import, _IMPORT),
    ),
    Migration(
        id=_DEFAULTS,
        summary="Settings that the release has and nobody has set get their defaults.",
        phase="pre-vault",
        reads=(),
        inputs=(_MAP_IN_STATUS, _BACKUP, _BOOTSTRAP, _OLD, _MAP),
        writes=(CONFIG_MAP_IN_STATUS,),
        targets=layouts_with(Feature.CONFIG_MAP_IN_STATUS),
        after=(_IMPORT,),
        plan=_catching(_plan_defaults, _DEFAULTS),
    ),
)
