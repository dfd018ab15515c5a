"""Numbers that zedrouter gave to pairs of network and application are kept by network, application and interface since 7.7.0.

What was kept for a pair is what its first interface has today. Where both forms are there the device fell back, and the old
release has counted on: its number counts, for that pair only. EVE's own converter deletes all new ones first, those of other
applications and of second interfaces as well, and knows an old file again by its content only (known defect 17).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from upgradeconverter.packs.api import (
    DiskState,
    Divergence,
    Input,
    Migration,
    Note,
    Operation,
    Proposal,
    Reason,
    Retire,
    Rewrite,
    Skip,
)

from . import gojson
from .layouts import PAIRS, PAIRS_WITH_INTERFACE
from .names import read_uuid
from .pubsub import BACKUP, RESTARTED, TopicItem, items_of
from .releases import Feature, has, layouts_with

if TYPE_CHECKING:
    from collections.abc import Iterable

_OLD = Input(path=PAIRS.directory, directory=True, limit=1 << 16)
_NEW = Input(path=PAIRS_WITH_INTERFACE.directory, directory=True, limit=1 << 16)
# In the order in which the new form has them.
_FIRST = ("BaseID", "AppID")
_INTERFACE = "IfIdx"
_REST = ("Number", "NumType", "CreateTime", "LastUseTime", "InUse")


def plan(state: DiskState) -> Proposal:
    """Return the new form of each number, and a skip for each file that holds none."""
    operations: list[Operation] = []
    skips: list[Skip] = []
    numbers: Counter[tuple[Any, Any]] = Counter()
    documents = state.documents_in(_OLD)
    for item in items_of(documents):
        found = _read(item)
        if found is None:
            detail = item.document.problem or "it is not a number for a network and an application"
            skips.append(Skip(path=item.document.path, reason=Reason.UNEXPECTED_CONTENT, detail=detail))
            continue
        numbers[found["BaseID"], found["Number"]] += 1
        operations.append(_rewrite(state, item, found))
    mark = documents.get(RESTARTED)
    if mark is not None and mark.content is not None and not skips:
        # It says of a topic that its agent has restarted; of one that is no more it says nothing.
        operations.append(Retire(source=mark.path, why="of a topic that is no more", keeps=True))
    return Proposal(
        migration=MIGRATION.id, operations=tuple(operations), skips=tuple(skips), warnings=tuple(_warnings(numbers.items()))
    )


def _read(item: TopicItem) -> dict[str, Any] | None:
    try:
        found = gojson.read(item.document.content or b"")
    except ValueError:
        return None
    known = {name: gojson.member(found, name) for name in (*_FIRST, *_REST)}
    uuids = [known[name] for name in _FIRST]
    is_whole = all(isinstance(each, str) and read_uuid(each) is not None for each in uuids)
    return found | known if is_whole and gojson.whole_number(known["Number"]) is not None else None


def _rewrite(state: DiskState, item: TopicItem, found: dict[str, Any]) -> Rewrite:
    first = {name: found[name] for name in _FIRST}
    rest = {name: found[name] for name in _REST if found[name] is not None}
    more = {name: value for name, value in found.items() if name not in (*_FIRST, *_REST, _INTERFACE)}
    target = f"{PAIRS_WITH_INTERFACE.directory}/{found['BaseID']}-{found['AppID']}-0.json"
    content = gojson.write(first | {_INTERFACE: 0} | rest | more)
    return Rewrite(
        source=item.document.path,
        target=target,
        content=content,
        basis=item.document.digest,
        slot=PAIRS_WITH_INTERFACE.name,
        divergence=Divergence.SOURCE,
        also_retire=item.beside,
        beside=_version_before(state, target, content),
    )


def _version_before(state: DiskState, target: str, content: bytes) -> tuple[Note, ...]:
    """Return the companion that an agent writes when it replaces what it kept, in releases that do so."""
    before = state.documents.get(target)
    if before is None or before.content in (None, b"", content) or not has(state.target.label, Feature.BACKUPS):
        return ()
    return (Note(target + BACKUP, before.content or b"", PAIRS_WITH_INTERFACE.name),)


def _warnings(numbers: Iterable[tuple[tuple[Any, Any], int]]) -> list[str]:
    return [
        f"network {network} has given number {number} to {count} applications; zedrouter has to tell them apart again"
        for (network, number), count in numbers
        if count > 1
    ]


MIGRATION = Migration(
    id="eve-pairs",
    summary="Numbers for pairs of network and application are kept by interface.",
    phase="pre-vault",
    reads=(PAIRS,),
    inputs=(_OLD, _NEW),
    writes=(PAIRS_WITH_INTERFACE,),
    targets=layouts_with(Feature.PAIRS_WITH_INTERFACE),
    plan=plan,
)
