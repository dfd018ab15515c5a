"""Taking a run back: what is open is undone, and what is done is turned round, transaction by transaction, newest first.

The plan is made from the journal's finished transactions and the disk as it is, so that it holds only what is still to be taken
back: a rollback that was interrupted, or that had to leave something, is taken up by the next one. A journal that was taken back
as a whole goes away, and the run before it is the last one again.

Calling sequence: `take_back` under the lock, with a real disk; `foresee_taking_back` without lock, on a read-only one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from upgradeconverter.engine.backward import backward_plan
from upgradeconverter.engine.convert import open_details
from upgradeconverter.engine.executor import steps_from_payload
from upgradeconverter.engine.places import PREVIOUS_JOURNAL
from upgradeconverter.engine.recover import BACKWARD, about, open_homes, recover, sweep_closed
from upgradeconverter.engine.remember import note, noting, stamp
from upgradeconverter.engine.run import Run, carry_out, done_forward, failing_on_record, mark_waiting
from upgradeconverter.errors import EXIT_DEVIATIONS, NothingToRollBackError
from upgradeconverter.journal.log import Journal, JournalView
from upgradeconverter.journal.record import RecordKind
from upgradeconverter.model.outcome import ItemStatus, Outcome
from upgradeconverter.model.plan import Attributes

if TYPE_CHECKING:
    from upgradeconverter.journal.log import Transaction
    from upgradeconverter.model.plan import Plan

_BACK = "back"


def take_back(run: Run) -> None:
    """Take the last run back; the report says what could not be taken back.

    Raises:
        NothingToRollBackError: no run changed anything that was not taken back.
        VaultMissingError, VaultLockedError, VaultNotUsableError: the run lies in a vault that cannot be reached.
    """
    with failing_on_record(run, "all"):
        view = _view(run)
        first = _first(view)
        _check_vault(run, view)
        stamp(run.session, run.session.carried_label())
        for recovery in recover(run.disk, run.journal, view, undo=True):
            run.report.take_recovery(recovery.txid, recovery.last, recovery.result, recovery.left)
        plan = _plan(run, done_forward(run.journal.read(repair=True)))
        carry_out(run, plan, _BACK, BACKWARD)
    layout = str(about(first).get("source", "")) or run.session.pack.order.labels[0]
    _conclude(run, layout)


def foresee_taking_back(run: Run) -> None:
    """Fill the report with what `take_back` would do; changes nothing (D6)."""
    view = run.journal.read(repair=False)
    if not _has_work(view):
        view = Journal(run.disk, PREVIOUS_JOURNAL).read(repair=False)
    _first(view)
    run.report.details.update(open_details(view))
    _plan(run, done_forward(view))
    run.report.outcome = Outcome.PLANNED


def _has_work(view: JournalView) -> bool:
    return bool(view.open or view.waiting or done_forward(view))


def _view(run: Run) -> JournalView:
    """Return the journal of the last run that did something; the one that was put aside becomes the present one again."""
    view = run.journal.read(repair=True)
    if _has_work(view) or not _has_work(Journal(run.disk, PREVIOUS_JOURNAL).read(repair=False)):
        return view
    sweep_closed(run.disk, view)
    run.journal.discard()
    run.journal.restore(PREVIOUS_JOURNAL)
    return run.journal.read(repair=True)


def _first(view: JournalView) -> Transaction:
    """Return the oldest transaction of the run, which knows the layout to go back to."""
    found = [t for t in view.transactions if t.is_open or t.is_waiting or t.last is RecordKind.DONE]
    if not found:
        raise NothingToRollBackError("none that changed anything and was not taken back")
    return found[0]


def _plan(run: Run, done: tuple[Transaction, ...]) -> Plan:
    run.plans[_BACK] = backward_plan(run.disk, done, pack=run.session.pack.name)
    run.show()
    return run.plans[_BACK]


def _check_vault(run: Run, view: JournalView) -> None:
    """Raise unless everything that the run moved can be reached and written to."""
    transactions = (*view.open, *view.waiting, *done_forward(view))
    inside = f"{run.session.pack.vault}/"
    steps = [step for t in transactions for step in steps_from_payload(t.payload(RecordKind.BEGIN) or {"steps": []})]
    is_inside = any(path.startswith(inside) for step in steps for path in (step.source, step.target) if path)
    if is_inside or any(home for transaction in transactions for home in open_homes(transaction)):
        for phase in run.session.pack.phases:
            problem = run.session.vault_problem(phase)
            if problem is not None:
                raise problem


def _conclude(run: Run, layout: str) -> None:
    report = run.report
    report.outcome = Outcome.DONE
    left = bool(run.plans[_BACK].skips) or any(result.status is ItemStatus.LEFT for result in run.all_results)
    if left:
        report.exit_status = EXIT_DEVIATIONS
        report.warn("not everything could be taken back; what was left is named with its reason, and can be taken back later")
    with noting(report):
        note(run.disk, report, "all")
        stamp(run.session, layout)
        mark_waiting(run)
        if not left:
            view = run.journal.read(repair=True)
            sweep_closed(run.disk, view)
            _restore_times(run, view)
            run.journal.discard()


def _restore_times(run: Run, view: JournalView) -> None:
    """Give folders the times that they had before the run; sweeping may have changed them, and stopped before it said so."""
    for transaction in reversed(done_forward(view)):
        for path, atime_ns, mtime_ns in (transaction.payload(RecordKind.BEGIN) or {}).get("touched", []):
            if run.disk.find(path) is not None:
                run.disk.set_attributes(path, Attributes(atime_ns=atime_ns, mtime_ns=mtime_ns))
                run.disk.sync_file(path)
