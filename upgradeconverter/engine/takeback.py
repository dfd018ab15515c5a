"""Taking a run back: what is open is undone, and what is done is turned round, transaction by transaction, newest first.

The plan is made from the journal's finished transactions and the disk as it is, so that it holds only what is still to be taken
back: a rollback that was interrupted, or that had to leave something, is taken up by the next one. A journal that was taken back
as a whole goes away, and the run before it is the last one again.

Calling sequence: `take_back` under the lock, with a real disk; `foresee_taking_back` without lock, on a read-only one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from upgradeconverter import log
from upgradeconverter.engine.backward import backward_plan
from upgradeconverter.engine.batch import steps_from_payload
from upgradeconverter.engine.housekeeping import is_reachable, sync_folders
from upgradeconverter.engine.places import EARLIER_JOURNALS, folder_of
from upgradeconverter.engine.progress import Load, load_of
from upgradeconverter.engine.recover import BACKWARD, about, open_homes, recover, steps_of, sweep_closed, unreachable
from upgradeconverter.engine.remember import note, noting, stamp
from upgradeconverter.engine.run import Run, carry_out, done_forward, failing_on_record, last_run, mark_waiting, open_details
from upgradeconverter.errors import EXIT_DEVIATIONS, NothingToRollBackError, NoTimeError
from upgradeconverter.journal.log import Journal, JournalView
from upgradeconverter.journal.record import RecordKind
from upgradeconverter.model.outcome import ItemStatus, Outcome
from upgradeconverter.model.plan import Attributes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from upgradeconverter.journal.log import Transaction

_BACK = "back"


def take_back(run: Run) -> None:
    """Take the last run back; the report says what could not be taken back.

    Raises:
        NothingToRollBackError: no run changed anything that was not taken back.
        VaultMissingError, VaultLockedError, VaultNotUsableError: the run lies in a vault that cannot be reached.
        NoTimeError: not all was taken back before the deadline; another rollback takes up the rest.
    """
    with failing_on_record(run, "all"):
        view = _view(run)
        if view.transactions and not _has_work(view):
            _remember(run, _layout_before(view.transactions[0], run))
        first = _first(view)
        stamp(run.session, run.session.carried_label())
        run.has_acted = bool(view.open or view.waiting)
        _tell_undone(run, view)
        _expect(run, view)
        recovered = recover(run.disk, run.journal, view, undo=True, pace=run.pace)
        for recovery in recovered:
            run.report.take_recovery(recovery.txid, recovery.last, recovery.result, recovery.left)
        run.show()
        _check_time(run)
        turn_round(run, done_forward(run.journal.read(repair=True)))
    _conclude(run, _layout_before(first, run), is_whole=all(recovery.is_whole for recovery in recovered))


def turn_round(run: Run, done: tuple[Transaction, ...]) -> None:
    """Take finished transactions back, one after the other: what a later one moved on has to be back before the earlier one."""
    for place, transaction in reversed(tuple(enumerate(done))):
        steps = steps_of(run.journal.read(repair=True), transaction)
        plan = backward_plan(run.disk, transaction, steps, pack=run.session.pack.name)
        phase = f"{_BACK} {transaction.txid}"
        run.plans[phase] = plan
        run.show()
        run.pace.meter.correct(load_of(steps), load_of(plan.steps))
        try:
            carry_out(run, plan, phase, BACKWARD)
        except NoTimeError as error:
            more = _items(run.journal.read(repair=True), done[:place])
            raise NoTimeError(error.seconds, error.left + more) from error


def _items(view: JournalView, transactions: Iterable[Transaction]) -> int:
    return load_of(step for transaction in transactions for step in steps_of(view, transaction)).items


def _expect(run: Run, view: JournalView) -> None:
    """Let the meter know all that there is to take back."""
    undone = [load_of(steps_of(view, transaction), reads=False) for transaction in (*view.open, *view.waiting)]
    turned = [load_of(steps_of(view, transaction)) for transaction in done_forward(view)]
    run.pace.meter.expect("rollback", Load(*map(sum, zip(Load(), *undone, *turned, strict=True))))


def _check_time(run: Run) -> None:
    """Raise NoTimeError where the time is over, and there is more to take back."""
    view = run.journal.read(repair=True)
    concerned = (*view.waiting, *done_forward(view))
    if concerned and run.pace.budget.is_over:
        raise NoTimeError(run.pace.budget.seconds, _items(view, concerned))


def _layout_before(transaction: Transaction, run: Run) -> str:
    return str(about(transaction).get("source", "")) or run.session.pack.order.labels[0]


def foresee_taking_back(run: Run) -> None:
    """Fill the report with what `take_back` would do; changes nothing (D6)."""
    view = run.journal.read(repair=False)
    if not _has_work(view):
        view = _earlier(run)[1]
    _first(view)
    run.report.details.update(open_details(view))
    _tell_undone(run, view)
    arriving: set[str] = set()
    for transaction in reversed(done_forward(view)):
        steps = steps_of(view, transaction)
        plan = backward_plan(run.disk, transaction, steps, pack=run.session.pack.name, arriving=frozenset(arriving))
        arriving.update(step.target for step in plan.steps if step.target is not None)
        run.plans[f"{_BACK} {transaction.txid}"] = plan
    run.show()
    run.report.outcome = Outcome.PLANNED


def _tell_undone(run: Run, view: JournalView) -> None:
    """Tell what a trial that waits has made, all of which is undone: what it was made of is there still."""
    steps = (step for transaction in view.waiting for step in steps_of(view, transaction))
    made = [f"{step.target} ({step.source} stays)" for step in steps if step.source is not None and step.target is not None]
    if made:
        run.report.details["taken back"] = made


def _has_work(view: JournalView) -> bool:
    return bool(view.open or view.waiting or done_forward(view))


def _earlier(run: Run) -> tuple[str, JournalView]:
    """Return the latest of the journals that were put aside, and what it says."""
    for name in EARLIER_JOURNALS:
        view = Journal(run.disk, name).read(repair=False)
        if _has_work(view):
            return name, view
    return "", JournalView()


def _view(run: Run) -> JournalView:
    """Return the journal of the last run that did something; the one that was put aside becomes the present one again."""
    view = run.journal.read(repair=True)
    name, earlier = ("", view) if _has_work(view) else _earlier(run)
    _check_vault(run, earlier)
    if name:
        sweep_closed(run.disk, view)
        run.journal.discard()
        run.journal.restore(name)
        view = run.journal.read(repair=True)
        stamp(run.session, run.session.carried_label(), ended=last_run(view))
    return view


def _first(view: JournalView) -> Transaction:
    """Return the oldest transaction of the run, which knows the layout to go back to."""
    found = [t for t in view.transactions if t.is_open or t.is_waiting or t.last is RecordKind.DONE]
    if not found:
        raise NothingToRollBackError("none that changed anything and was not taken back")
    return found[0]


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
    missing = unreachable(run.disk, transactions)
    if missing is not None:
        raise missing


def _conclude(run: Run, layout: str, *, is_whole: bool) -> None:
    report = run.report
    report.outcome = Outcome.DONE
    log.event("run-done", run=run.identity, outcome=report.outcome.value)
    left = any(plan.skips for plan in run.plans.values()) or any(r.status is ItemStatus.LEFT for r in run.all_results)
    if not is_whole:
        report.exit_status = EXIT_DEVIATIONS
        report.warn("not everything could be put back as it was; what could not is named with its reason, and left to people")
    if left:
        report.exit_status = EXIT_DEVIATIONS
        report.warn("not everything could be taken back; what was left is named with its reason, and can be taken back later")
    with noting(report):
        note(run.disk, report, "all")
    if left:
        with noting(report):
            mark_waiting(run)
    else:
        _remember(run, layout)


def _remember(run: Run, layout: str) -> None:
    """Leave nothing that tells of a run all of which was taken back; where the disk refuses this, another rollback does it."""
    with noting(run.report):
        mark_waiting(run)
        stamp(run.session, layout)
        forget(run)


def forget(run: Run) -> None:
    """Let a journal go that was taken back as a whole, once nothing of it is left anywhere."""
    view = run.journal.read(repair=True)
    if view.open or view.waiting:
        return
    homes = tuple(dict.fromkeys(home for t in view.transactions for home in open_homes(t) if home))
    for home in homes:
        if not is_reachable(run.disk, home):
            run.report.warn(f"{home} cannot be reached any more; what may be left there is removed by a later start")
            return
    sweep_closed(run.disk, view)
    _restore_times(run, view)
    # What was swept before may come back in a power cut, and then nobody knows of it any more.
    sync_folders(run.disk, (folder_of(home) for home in homes))
    run.journal.discard()


def _restore_times(run: Run, view: JournalView) -> None:
    """Give folders the times that they had before the run; sweeping may have changed them, and stopped before it said so."""
    for transaction in reversed(done_forward(view)):
        for path, atime_ns, mtime_ns in (transaction.payload(RecordKind.BEGIN) or {}).get("touched", []):
            if run.disk.find(path) is not None:
                run.disk.set_attributes(path, Attributes(atime_ns=atime_ns, mtime_ns=mtime_ns))
                run.disk.sync_file(path)
