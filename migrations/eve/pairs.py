"""Numbers that zedrouter gave to pairs of network and application are kept by network, application and interface since 7.7.0.

What was kept for a pair is what its first interface has today. Where both forms are there the device fell back, and the old
release has counted on: its number counts, for that pair only. EVE's own converter deletes all new ones first, those of other
applications and of second interfaces as well, and knows an old file again by its content only (known defect 17).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from upgradeconverter.packs.api import DiskState, Divergence, Input, Migration, Operation, Proposal, Reason, Retire, Rewrite, Skip

from . import gojson
from .layouts import PAIRS, PAIRS_WITH_INTERFACE
from .names import read_uuid
from .pubsub import RESTARTED, TopicItem, items_of
from .releases import Feature, layouts_with

if TYPE_CHECKING:
    from collections.abc import Iterable

_OLD = Input(path=PAIRS.directory, directory=True, limit=1 << 16)
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
        operations.append(_rewrite(item, found))
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


def _rewrite(item: TopicItem, found: dict[str, Any]) -> Rewrite:
    first = {name: found[name] for name in _FIRST}
    rest = {name: found[name] for name in _REST if found[name] is not None}
    more = {name: value for name, value in found.items() if name not in (*_FIRST, *_REST, _INTERFACE)}
    key = f"{found['BaseID']}-{found['AppID']}-0"
    return Rewrite(
        source=item.document.path,
        target=f"{PAIRS_WITH_INTERFACE.directory}/{key}.json",
        content=gojson.write(first | {_INTERFACE: 0} | rest | more),
        basis=item.document.digest,
        slot=PAIRS_WITH_INTERFACE.name,
        divergence=Divergence.SOURCE,
        also_retire=item.beside,
    )


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
    inputs=(_OLD,),
    writes=(PAIRS_WITH_INTERFACE,),
    targets=layouts_with(Feature.PAIRS_WITH_INTERFACE),
    plan=plan,
)
