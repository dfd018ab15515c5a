"""A whole conversion: recover, settle a trial that waits, plan, carry out phase by phase, remember.

Calling sequence: `convert` under the lock, with a real disk; `audit` without lock, on a read-only one. Each fills the report
that it is given; an UpgradeConverterError that ends it is raised and put into the report by the command line.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from msgspec.structs import replace

from upgradeconverter import log
from upgradeconverter.engine.giveup import giving_up
from upgradeconverter.engine.overtaken import look, merged, pending_sources, sources_of, without
from upgradeconverter.engine.places import ENGINE_FOLDER
from upgradeconverter.engine.recover import FORWARD, about, open_homes, recover, unreachable
from upgradeconverter.engine.remember import note, noting, section, stamp
from upgradeconverter.engine.run import (
    Run,
    carry_out,
    failing_as_it_is,
    failing_on_record,
    last_run,
    make_engine_folder,
    mark_waiting,
    open_details,
)
from upgradeconverter.engine.verify import deviations
from upgradeconverter.errors import (
    BothDoNotFitError,
    BoundaryError,
    NoTimeError,
    StateRefusedError,
    TrialWaitsError,
    UpgradeConverterError,
    VaultLockedError,
    VaultNotUsableError,
)
from upgradeconverter.journal.record import EVERY_KIND
from upgradeconverter.model.operation import Skip
from upgradeconverter.model.outcome import PASSING, ItemStatus, Outcome, Reason
from upgradeconverter.model.plan import Trial, Wave

if TYPE_CHECKING:
    from upgradeconverter.engine.session import Session
    from upgradeconverter.journal.log import JournalView
    from upgradeconverter.model.plan import Plan
    from upgradeconverter.packs.api import Phase

_TRIAL = "trial"
# What a later start can do once somebody has removed the cause.
_CURABLE = PASSING | {Reason.IMMUTABLE}


def audit(run: Run, phase: str) -> None:
    """Fill the report with what `convert` would do; changes nothing (D6)."""
    view = run.journal.read(repair=False)
    run.report.details.update(open_details(view))
    overtaken = _mind_the_trial(run, view, phase)
    for each in run.session.phases(phase):
        plan = merged(_make_plan(run, each), overtaken, view)
        _take(run, plan, each)
        problem = run.session.vault_problem(each)
        if isinstance(problem, VaultNotUsableError):
            # An audit works on a read-only mount; a real run would refuse.
            run.report.warnings.append(problem.message)
        elif problem is not None and (plan.steps or isinstance(problem, VaultLockedError)):
            _refuse_phase(run, problem)
            return
    run.report.outcome = Outcome.PLANNED if run.report.items else Outcome.NOTHING_TO_DO


def _mind_the_trial(run: Run, view: JournalView, phase: str) -> Plan:
    """Leave out what waits for confirmation already; returns what of it makes way for what is converted anew.

    Nothing makes way that cannot be converted anew: what the trial made of it may be all that is usable.

    Raises:
        TrialWaitsError: another layout is asked for meanwhile.
    """
    wanted = run.session.target_label()
    layouts = {str(about(transaction).get("target", "")) for transaction in view.waiting}
    if layouts - {wanted}:
        raise TrialWaitsError(", ".join(sorted(layouts - {wanted})), wanted)
    if view.waiting:
        _take_pending(run, view)
    plan = plan_overtaken(run, run.session, view, phase)
    if plan.skips:
        run.plans[_TRIAL] = replace(plan, waves=())
        run.show()
    if plan.steps:
        run.session = _settled(run.session, view, plan)
    return plan


def plan_overtaken(run: Run, session: Session, view: JournalView, phase: str) -> Plan:
    """Return the plan that takes out of a trial what the old system has overtaken and can be converted anew."""
    phases = frozenset(each.name for each in session.phases(phase))
    plan = look(run.disk, run.journal, view, phases, pack=session.pack.name, layout=session.target_label())
    while plan.steps:
        settled = _settled(session, view, plan)
        fewer = without(run.disk, plan, view, [settled.make_plan(each.name) for each in session.phases(phase)])
        if fewer == plan:
            break
        plan = fewer
    return plan


def _settled(session: Session, view: JournalView, overtaken: Plan) -> Session:
    """Return the session as it will be once what the old system has overtaken is taken back."""
    again = {path for paths in sources_of(view, overtaken).values() for path in paths}
    return replace(session, pending=session.pending - again, waiting=session.pending | again, leaving=overtaken.steps)


def _take_pending(run: Run, view: JournalView) -> None:
    pending = pending_sources(view)
    run.session = replace(run.session, pending=pending)
    run.report.details["waiting for confirmation"] = sorted(pending)


def _make_plan(run: Run, phase: Phase) -> Plan:
    """Plan a phase; in a trial, decide what happens where the old and the new layout do not fit side by side."""
    try:
        plan, short = _check_room(run.session, phase, run.when_short)
    except StateRefusedError as refused:
        causes = (Skip(path=path, reason=Reason(reason), detail=detail) for path, reason, detail in refused.refusals)
        run.report.take_skips(tuple(causes))
        raise
    if not short:
        return plan
    run.report.warn(f"converted at once, since there is no room for the old and the new one: {', '.join(sorted(short))}")
    run.session = replace(run.session, trial=Trial(at_once=frozenset(short)))
    return run.session.make_plan(phase.name)


def _check_room(session: Session, phase: Phase, when_short: str) -> tuple[Plan, set[str]]:
    """Return the plan of a phase, and for what of it there is no room as long as the old layout stays.

    Raises:
        BothDoNotFitError: there is no room for something, and that is not to be converted at once.
    """
    plan = session.make_plan(phase.name)
    if session.trial is None or not _short(plan):
        return plan, set()
    at_once = replace(session, trial=None).make_plan(phase.name)
    short = _short(plan) - _short(at_once)
    if short and when_short == "refuse":
        detail = next(skip.detail for skip in plan.skips if skip.path in short)
        raise BothDoNotFitError(tuple(sorted(short)), detail)
    return plan, short


def _short(plan: Plan) -> set[str]:
    return {skip.path for skip in plan.skips if skip.reason is Reason.NO_SPACE}


def _take(run: Run, plan: Plan, phase: Phase) -> None:
    run.plans[phase.name] = plan
    run.show()
    if any(step.sha256 is not None for step in plan.steps):
        run.report.details["digests"] = "compared while converting; what has another one than its name says is set aside"
    if plan.steps:
        run.report.warn(*run.session.vault_warnings(phase))


def _refuse_phase(run: Run, problem: UpgradeConverterError) -> None:
    run.report.fail(problem, Outcome.REFUSED)
    # The vault itself is never made.
    run.report.items = [item for item in run.report.items if item["target"] != run.session.pack.vault]
    reason = Reason(problem.code)
    run.report.take_skips((Skip(path=run.session.pack.vault or "", reason=reason, detail=problem.message),))


def convert(run: Run, phase: str, *, takes_back: bool = False) -> None:
    """Bring the disk to the target layout; the report says what was done and what was left alone.

    With `takes_back` a start that fails leaves nothing half made, see `giveup`.
    """
    with failing_on_record(run, phase), giving_up(run, phase) if takes_back else nullcontext(), failing_as_it_is(run):
        if not _recover(run, run.journal.read(repair=True), phase):
            return
        view = run.journal.read(repair=True)
        overtaken = _mind_the_trial(run, view, phase)
        for each in run.session.phases(phase):
            plan = merged(_make_plan(run, each), overtaken, view)
            _take(run, plan, each)
            problem = run.session.vault_problem(each)
            if problem is not None:
                # Of a vault that is locked nobody can say that there is nothing to do in it.
                if plan.steps or isinstance(problem, VaultLockedError):
                    _refuse_phase(run, problem)
                    return
                continue
            try:
                _carry_out(run, plan, each, overtaken, view)
            except NoTimeError:
                _name_later(run, phase, each)
                raise
    _conclude(run, phase)


def _carry_out(run: Run, plan: Plan, phase: Phase, overtaken: Plan, view: JournalView) -> None:
    try:
        carry_out(run, plan, phase.name, FORWARD)
    except BoundaryError as error:
        _copy_instead(run, phase, error, overtaken, view)


def _name_later(run: Run, phase: str, last: Phase) -> None:
    """Tell which phases have not even been looked at."""
    phases = run.session.phases(phase)
    later = [each.name for each in phases[phases.index(last) + 1 :]]
    if later:
        run.report.warn(f"not begun before the deadline: {', '.join(later)}")


def _recover(run: Run, view: JournalView, phase: str) -> bool:
    """Finish what an earlier start left open; False when that has to wait for a later phase."""
    if view.open:
        blocked = _blocked(run, phase)
        vault_homes = {home for transaction in view.open for home in open_homes(transaction) if home}
        blocked = blocked or unreachable(run.disk, view.open)
        is_early = any(e.needs_vault for e in run.session.pack.phases) and not any(
            e.needs_vault for e in run.session.phases(phase)
        )
        if vault_homes and (blocked is not None or is_early):
            if is_early:
                # The vault may be locked still, and then nothing in it can be told.
                run.report.warnings.append("an open transaction waits for the phase that may touch the vault")
            elif blocked is not None:
                _refuse_phase(run, blocked)
            return False
        stamp(run.session, run.session.carried_label())
    run.has_acted = bool(view.open)
    for recovery in recover(run.disk, run.journal, view):
        log.event("recovered", txid=recovery.txid, last=recovery.last, result=recovery.result)
        run.report.take_recovery(recovery.txid, recovery.last, recovery.result, recovery.left)
    return True


def _blocked(run: Run, phase: str) -> UpgradeConverterError | None:
    """Return why this start must not touch the vault although a phase of it needs that, or None."""
    return next((problem for each in run.session.phases(phase) if (problem := run.session.vault_problem(each)) is not None), None)


def _copy_instead(run: Run, phase: Phase, error: BoundaryError, overtaken: Plan, view: JournalView) -> None:
    """Plan what is left of a phase without renames, after the disk had refused one that nothing spoke against."""
    run.report.warn(f"{error.message}; copied instead")
    done = [result for result in run.results.pop(phase.name) if result.status is not ItemStatus.UNDONE]
    if done:
        # Earlier waves of the phase stay done; they are told as a part of their own, and planned anew nothing of them is left.
        first = f"{phase.name}, before copying"
        run.results[first] = done
        run.plans[first] = replace(run.plans[phase.name], waves=(Wave(steps=tuple(r.step for r in done)),), skips=())
    _take(run, merged(run.session.make_plan(phase.name, may_rename=False), overtaken, view), phase)
    carry_out(run, run.plans[phase.name], phase.name, FORWARD)


def _conclude(run: Run, phase: str) -> None:
    report, results = run.report, run.all_results
    if passing := sum(Reason(skip["reason"]) in PASSING for skip in report.skipped):
        report.warn(f"{passing} left for now: they are still where the old system had them, and the next start tries again")
    has_done = any(result.status is not ItemStatus.LEFT for result in results) or bool(report.recovered)
    if has_done:
        report.outcome = Outcome.DONE
    if results:
        report.details["verified"] = _verified(run)
        log.event("run-done", run=run.identity, outcome=report.outcome.value)
    with noting(report):
        _remember(run, phase, has_done=has_done, changed=bool(results or report.recovered))


def _told_by_journal(run: Run) -> tuple[bool, bool]:
    """Return whether a trial waits, and whether an earlier start did something and died before it could note that down.

    The journal of a long run is large, so nobody keeps what was read of it.
    """
    view, stamp = run.journal.read(repair=True, brief=EVERY_KIND), run.session.stamp()
    return bool(view.waiting), last_run(view) not in ("", stamp.run if stamp is not None else "")


def _verified(run: Run) -> str:
    """Return what a look at the new layout shows; a disk that refuses it undoes nothing of what was done."""
    try:
        found = deviations(run.session)
    except OSError as error:
        run.report.warn(f"what was done could not be looked at again: {error.filename}: {error.strerror}")
        return "not all could be looked at"
    if found:
        return f"{len(found)} deviations; `upgradeconverter verify` lists them"
    return f"what lies in the places of layout {run.report.target} is as that layout wants it"


def _remember(run: Run, phase: str, *, has_done: bool, changed: bool) -> None:
    """Write history and stamp, unless they would say nothing new."""
    session = run.session
    layout = session.carried_label()
    is_curable = any(Reason(skip["reason"]) in _CURABLE for skip in run.report.skipped)
    # Everything is converted once the last phase is; where nothing was, although something could be, nothing is.
    if session.pack.phases[-1] in session.phases(phase) and (has_done or not is_curable):
        layout = session.target_label()
    # While a trial waits each start has to look: the old system may have been there meanwhile.
    waits, has_died = _told_by_journal(run)
    known = None if waits else section(replace(session, carried=layout), phase)
    if changed or has_died:
        note(run.disk, run.report, phase)
    elif run.disk.find(ENGINE_FOLDER) is None and (known is None or not any(sign for _, sign in known.watched)):
        # A disk on which there was never anything to convert is not written to at all.
        return
    make_engine_folder(run.disk)
    left = {skip["reason"] for skip in run.report.skipped}
    is_whole = known is not None and session.phases(phase) == session.pack.phases
    mark_waiting(run, nothing_lies_twice=is_whole and not left & {Reason.TARGET_EXISTS, Reason.DIVERGED})
    stamp(session, layout, known, ended=last_run(run.journal.read(repair=True, brief=EVERY_KIND)), changed=changed)
