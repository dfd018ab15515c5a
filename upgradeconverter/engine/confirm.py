"""Making a trial last: whoever found the new system good says so, and the old layout goes.

Calling sequence: `confirm` under the lock, with a real disk. All trials that wait become lasting before the first source of any
of them is put away; what stops after that is finished by the next start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from upgradeconverter.engine.convert import plan_overtaken
from upgradeconverter.engine.overtaken import diverged_from_others, goes_together, pending_sources, sources_of
from upgradeconverter.engine.places import JOURNAL, WAITING
from upgradeconverter.engine.progress import load_of
from upgradeconverter.engine.recover import (
    about,
    executor_of,
    is_trial_lost,
    open_homes,
    recover,
    steps_of,
    sweep_closed,
    unreachable,
)
from upgradeconverter.engine.remember import note, noting, stamp
from upgradeconverter.engine.run import Run, failing_on_record, mark_waiting
from upgradeconverter.errors import HaltedError, TrialLostError, TrialOvertakenError
from upgradeconverter.model.entry import Kind
from upgradeconverter.model.outcome import Outcome
from upgradeconverter.model.plan import Plan, Shape, Wave

if TYPE_CHECKING:
    from upgradeconverter.engine.executor import Executor
    from upgradeconverter.journal.log import JournalView
    from upgradeconverter.model.entry import Entry


def confirm(run: Run) -> None:
    """Let every trial that waits become lasting; the report says which sources were left, and why.

    Raises:
        VaultMissingError, VaultLockedError, VaultNotUsableError: a trial lies in a vault that cannot be reached.
        TrialOvertakenError: the old system went on with something after a fallback.
        TrialLostError: a trial waits, and the journal knows nothing of it.
        StateRefusedError: the pack refuses to convert anything now.
        WedgedError, HaltedError: the disk refused; the next start goes on.
    """
    view = run.journal.read(repair=True)
    if is_trial_lost(run.disk, view):
        raise TrialLostError(WAITING, JOURNAL)
    if not view.waiting and not view.open:
        sweep_closed(run.disk, view)
        mark_waiting(run)
        return
    _check_vault(run, view)
    if not view.open:
        _check_not_overtaken(run, view)
    with failing_on_record(run, "all"):
        stamp(run.session, run.session.carried_label())
        run.has_acted = True
        for recovery in recover(run.disk, run.journal, view):
            run.report.take_recovery(recovery.txid, recovery.last, recovery.result, recovery.left)
        is_recovered, view = bool(view.open), run.journal.read(repair=True)
        if is_recovered:
            _check_not_overtaken(run, view)
        waiting = tuple(executor_of(run.disk, run.journal, view, transaction, run.pace) for transaction in view.waiting)
        run.has_begun = bool(waiting)
        _finish(run, waiting)
    run.report.outcome = Outcome.DONE
    with noting(run.report):
        note(run.disk, run.report, "all")
    with noting(run.report):
        mark_waiting(run)


def foresee_confirming(run: Run) -> None:
    """Fill the report with what waits to be confirmed; changes nothing (D6)."""
    view = run.journal.read(repair=False)
    run.report.details["waiting for confirmation"] = sorted(pending_sources(view))
    if is_trial_lost(run.disk, view):
        raise TrialLostError(WAITING, JOURNAL)
    if not view.open:
        _check_not_overtaken(run, view)
    run.report.outcome = Outcome.PLANNED if view.waiting else Outcome.NOTHING_TO_DO


def _finish(run: Run, waiting: tuple[Executor, ...]) -> None:
    run.report.show([])
    run.pace.meter.expect("confirm", load_of((step for executor in waiting for step in executor.steps), reads=False))
    try:
        for executor in waiting:
            executor.confirm()
        for executor in waiting:
            executor.go_forth()
            load = load_of(executor.steps, reads=False)
            run.pace.meter.wave_over(load, load)
    except OSError as error:
        raise HaltedError(str(error.filename or "the disk"), error.strerror or str(error)) from error
    finally:
        for executor in waiting:
            known = executor.run
            label = str(known.get("target", ""))
            # What made way has done so before, and that was told then.
            steps = tuple(step for step in executor.steps if step.shape is not Shape.DISPLACE)
            results = [result for result in executor.results.values() if result.step.shape is not Shape.DISPLACE]
            run.plans[executor.txid] = Plan(pack=run.session.pack.name, source=label, target=label, waves=(Wave(steps=steps),))
            run.results[executor.txid] = results
        run.show()


def _is_link(entry: Entry | None) -> bool:
    """Return whether a link that a trial made is there still, and nothing that the old system has put in its place."""
    return entry is not None and entry.kind is Kind.SYMLINK


def _check_vault(run: Run, view: JournalView) -> None:
    transactions = (*view.open, *view.waiting)
    if any(home for transaction in transactions for home in open_homes(transaction)):
        for phase in run.session.pack.phases:
            problem = run.session.vault_problem(phase)
            if problem is not None:
                raise problem
    problem = unreachable(run.disk, transactions)
    if problem is not None:
        raise problem


def _check_not_overtaken(run: Run, view: JournalView) -> None:
    """Raise TrialOvertakenError where the old system went on with something: what the trial made of it must not count."""
    made = (step for transaction in view.waiting for step in steps_of(view, transaction) if step.made_of == "symlink")
    gone = tuple(step.target or "" for step in made if not _is_link(run.disk.find(step.target or "")))
    if gone:
        raise TrialOvertakenError(gone)
    for layout in dict.fromkeys(str(about(transaction).get("target", "")) for transaction in view.waiting):
        session = replace(run.session, asked=layout, pending=pending_sources(view))
        overtaken = plan_overtaken(run, session, view, "all")
        if overtaken.steps:
            sources = (path for paths in sources_of(view, overtaken).values() for path in paths)
            raise TrialOvertakenError(tuple(sources))
        if parted := diverged_from_others(view, overtaken):
            raise TrialOvertakenError(parted)
        if goes_together(view):
            # What the pack refuses to convert now, such as a machine that runs, is not to be parted either.
            for phase in session.pack.phases:
                session.make_plan(phase.name)
