"""What lies in two places together on a model of a disk, because a stream was on its way when the power failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from upgradeconverter.disk.port import Place
from upgradeconverter.engine.batch import steps_from_payload
from upgradeconverter.engine.places import stage_folder, trash_folder
from upgradeconverter.journal.record import RecordKind
from upgradeconverter.model.plan import Shape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.modeldisk import ModelDisk
    from upgradeconverter.journal.log import JournalView, Transaction
    from upgradeconverter.model.plan import Step


def under_way(disk: ModelDisk, view: JournalView) -> Iterator[tuple[Step, dict[str, bytes | None]]]:
    """Yield each stream whose source was put away, with all that is in both places: content of files, None for all else."""
    for transaction in view.open:
        payload = transaction.payload(RecordKind.STAGED) or {"steps": []}
        for step in steps_from_payload(payload):
            rest = f"{trash_folder(step.source_home, transaction.txid)}/{step.number}"
            if step.shape is Shape.STREAM and disk.find(rest) is not None:
                yield step, _merged(disk, transaction, step, rest)


def _merged(disk: ModelDisk, transaction: Transaction, step: Step, rest: str) -> dict[str, bytes | None]:
    over = _content(disk, f"{stage_folder(step.target_home, transaction.txid)}/{step.number}")
    place = Place(**transaction.pieces().get(step.number, {}).get("place", {}))
    first_names: dict[int, str] = {}
    found: dict[str, bytes | None] = {}
    for path, (inode, content) in _content(disk, rest).items():
        first = first_names.setdefault(inode, path)
        if first != path:
            # More names of one file have what its first one has.
            found[path] = found[first]
            continue
        size = place.offset if path == place.path else len(content) if content is not None and path < place.path else 0
        there = over.get(path, (0, b""))[1] or b""
        found[path] = there[:size] + content[size:] if content is not None else None
    return found


def _content(disk: ModelDisk, top: str) -> dict[str, tuple[int, bytes | None]]:
    """Return everything below a path by its path inside, with its inode, and with its content if it is a file."""
    if disk.find(top) is None:
        return {}
    nodes = disk._live.nodes
    return {path: (inode, nodes[inode].content if nodes[inode].kind == "file" else None) for path, inode in disk._tree(top)}
