"""What lies in two places together, because a start was stopped while something went over piece by piece, forth or back.

The journal is read as it lies there, before anything is done about it; the content is compared with what was on the disk first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.disktree import Tree, capture, decode_extent
from upgradeconverter.disk.port import Place
from upgradeconverter.disk.posix import PosixDisk
from upgradeconverter.engine.batch import steps_from_payload
from upgradeconverter.engine.places import JOURNAL, stage_folder, trash_folder
from upgradeconverter.journal.log import Journal
from upgradeconverter.journal.record import RecordKind
from upgradeconverter.model.plan import Shape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from upgradeconverter.journal.log import Transaction


def is_under_way(top: str, source: str, target: str, before: Tree) -> bool:
    """Return whether all content of what was the source lies in both places of a stream that is on its way there, or back."""
    expected = _contents(before, source)
    return any(_both(top, *places, expected) == expected for places in _open_streams(top, {source, target}))


def _open_streams(top: str, names: set[str]) -> Iterator[tuple[str, str, Place]]:
    """Yield where the rest of it lies, where what went over lies, and how far that is known to have come."""
    disk = PosixDisk.at(top)
    try:
        transactions = Journal(disk, JOURNAL).read(repair=False).open
    finally:
        disk.close()
    for transaction in transactions:
        yield from _streams_of(transaction, names)


def _streams_of(transaction: Transaction, names: set[str]) -> Iterator[tuple[str, str, Place]]:
    for step in steps_from_payload(transaction.payload(RecordKind.STAGED) or {"steps": []}):
        if step.shape is Shape.STREAM and {step.source, step.target} == names:
            rest = f"{trash_folder(step.source_home, transaction.txid)}/{step.number}"
            over = f"{stage_folder(step.target_home, transaction.txid)}/{step.number}"
            yield rest, over, Place(**transaction.pieces().get(step.number, {}).get("place", {}))


def _both(top: str, rest: str, over: str, place: Place, expected: dict[str, bytes]) -> dict[str, bytes]:
    """Return what is in both: up to the place what went over, from it on what is left."""
    tree = capture(top, engine=True)
    here, there = _contents(tree, rest), _contents(tree, over)
    found, is_over = {}, place != Place()
    for path, content in expected.items():
        size = place.offset if path == place.path else len(content) if is_over else 0
        is_over = is_over and path != place.path
        found[path] = there.get(path, b"")[:size] + here.get(path, b"")[size:]
    return found


def _contents(tree: Tree, name: str) -> dict[str, bytes]:
    """Return the content of each file of something, under the first of its names, in the order of a walk."""
    found = {}
    for path in sorted(tree, key=lambda path: path.split("/")):
        if (path == name or path.startswith(f"{name}/")) and "data" in tree[path]:
            content = bytearray(tree[path]["size"])
            for offset, encoding, value in tree[path]["data"]:
                extent = decode_extent(encoding, value)
                content[offset : offset + len(extent)] = extent
            found[path[len(name) + 1 :]] = bytes(content)
    return found
