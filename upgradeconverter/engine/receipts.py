"""What the history keeps of a start: for each item what was done with it, and how what it left can be known again.

A start that died has noted nothing. So what is noted is not only what this start did but everything that the journal holds and
the history does not; how much of a journal it holds stands in its last line.

No content is read for this: a digest is what was computed while copying, and its name says over what. `sha256:` is over the
content; `manifest:` over kind, size, mode and CRC-32 of the content of everything inside; `fingerprint:` of a renamed file with
other names over its kind, size, times, mode, owner and inode as they were planned, with nothing of the content. Of what else is
only renamed there is no digest, since nobody looked inside; what lay there afterwards tells it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from upgradeconverter import __version__
from upgradeconverter.engine.ledger import journals_of
from upgradeconverter.engine.recover import steps_of
from upgradeconverter.engine.report import is_shown, size_of
from upgradeconverter.journal.record import RecordKind
from upgradeconverter.model.entry import Kind
from upgradeconverter.model.outcome import ItemStatus
from upgradeconverter.model.plan import Shape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from upgradeconverter.disk.port import Disk
    from upgradeconverter.engine.report import Report
    from upgradeconverter.journal.log import JournalView, Transaction
    from upgradeconverter.model.plan import Step

_THERE = (ItemStatus.DONE, ItemStatus.WAITING, ItemStatus.QUARANTINED)
# The present journal and the two before it, which may become the present one again.
_JOURNALS = 3

_Key = tuple[str | None, str | None, Shape]


class _Known(Struct):
    """What report and journal say together of one item."""

    step: Step
    status: ItemStatus
    reason: str | None = None
    digest: str | None = None
    mark: str | None = None


class _Items(Struct):
    known: dict[_Key, _Known] = field(default_factory=dict)

    def take_transaction(self, view: JournalView, transaction: Transaction) -> None:
        """Take what a transaction came to; one that is still open is the next start's, and what was taken back is no more."""
        staged = transaction.payload(RecordKind.STAGED) or {}
        if transaction.is_open:
            return
        for step in filter(is_shown, steps_of(view, transaction) if staged else ()):
            number = str(step.number)
            digest, mark = staged.get("digests", {}).get(number), staged.get("marks", {}).get(number)
            self.known[_key(step)] = _Known(step, _status(transaction, step), digest=digest, mark=mark)

    def take_report(self, report: Report) -> None:
        """Take what this start knows better: what was left, and why."""
        for step, result in report.became:
            if result is not None:
                item = self.known.setdefault(_key(step), _Known(step, result.status))
                item.status, item.reason = result.status, result.reason.value if result.reason is not None else None
        left = {skip["path"]: skip["reason"] for skip in report.left_by_recovery}
        for item in self.known.values():
            item.reason = item.reason or left.get(item.step.source or item.step.target or "")


def _key(step: Step) -> _Key:
    return step.source, step.target, step.shape


def _status(transaction: Transaction, step: Step) -> ItemStatus:
    if transaction.last is RecordKind.ABORTED:
        return ItemStatus.UNDONE
    if transaction.is_waiting and step.shape is not Shape.DISPLACE:
        return ItemStatus.WAITING
    return ItemStatus.QUARANTINED if step.keeps else ItemStatus.DONE


def entry_of(disk: Disk, report: Report, phase: str, view: JournalView, before: dict[str, Any] | None) -> dict[str, Any]:
    """Return the line of the history for a start that comes to its end; `before` is the line before it."""
    journals = journals_of(before)
    name = view.transactions[0].txid if view.transactions else ""
    noted = journals.pop(name, 0)
    here = [(name, records_in(view))] if name else []
    items = _Items()
    for transaction in view.transactions:
        if transaction.records[-1].sequence >= noted:
            items.take_transaction(view, transaction)
    items.take_report(report)
    return {
        "run": report.run,
        "begun": report.begun,
        "time": disk.clock(),
        "seconds": round((time.monotonic_ns() - report.started_ns) / 1e9, 3),
        "engine": __version__,
        "phase": phase,
        "command": report.command,
        "outcome": report.outcome.value,
        "from": report.source,
        "target": report.target,
        "plan_digest": report.plan_digest,
        "items": list(_told(disk, items)),
        "skipped": [{"path": skip["path"], "reason": skip["reason"]} for skip in report.skipped],
        "journals": [*here, *journals.items()][:_JOURNALS],
    }


def records_in(view: JournalView) -> int:
    """Return how many records a journal holds."""
    return sum(len(transaction.records) for transaction in view.transactions)


def _told(disk: Disk, items: _Items) -> Iterator[dict[str, Any]]:
    for item in items.known.values():
        step = item.step
        yield {
            "operation": step.operation,
            "source": step.source,
            "target": step.target if step.target is not None else step.twin,
            "transfer": "link" if step.method == "link" else step.shape.value,
            "status": item.status.value,
            "reason": item.reason,
            "size": size_of(step),
            "digest": _digest(item),
            "left": _left(disk, item),
        }


def _digest(item: _Known) -> str | None:
    if item.status not in _THERE or item.step.target is None:
        return None
    if item.digest is not None:
        return item.digest
    if item.step.sha256 is not None:
        return f"sha256:{item.step.sha256}"
    expected = item.step.expected
    return f"fingerprint:{expected.fingerprint}" if expected is not None and expected.fingerprint else None


def _left(disk: Disk, item: _Known) -> dict[str, Any] | None:
    """Return how the target can be known again; None where it is not there, or was written to as soon as it was."""
    entry = disk.find(item.step.target, labels=True) if item.step.target is not None and item.status in _THERE else None
    if entry is None:
        return None
    expected, after = item.step.expected, item.step.after
    if entry.kind is Kind.FILE and expected is not None and expected.kind == Kind.FILE.value:
        as_published = expected.size, after.mtime_ns if after.mtime_ns is not None else expected.mtime_ns
        if (entry.size, entry.mtime_ns) != as_published:
            return None
    return {
        "kind": entry.kind.value,
        "mode": entry.mode,
        "owner": [entry.uid, entry.gid],
        "labels": dict(entry.labels),
        "size": entry.size,
        "mtime_ns": entry.mtime_ns,
        "ctime_ns": entry.ctime_ns,
        "inode": entry.identity,
        "fingerprint": item.mark,
    }
