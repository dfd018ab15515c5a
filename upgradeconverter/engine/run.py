"""A whole run on one screen: recover, plan, carry out wave by wave, remember.

Calling sequence: `convert` or `take_back`, under the lock, with a real disk; `audit` without lock on a read-only one. Each fills
the report that it is given;
an UpgradeConverterError that ends the run is raised and put into the report by the command line.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from upgradeconverter import log
from upgradeconverter.engine.backward import backward_plan
from upgradeconverter.engine.executor import executor_for
from upgradeconverter.engine.ledger import add_run
from upgradeconverter.engine.places import ENGINE_FOLDER, JOURNAL, PREVIOUS_JOURNAL
from upgradeconverter.engine.recover import open_homes, recover
from upgradeconverter.engine.session import watched_paths
from upgradeconverter.engine.stamp import Stamp, remove_stamp, write_stamp
from upgradeconverter.engine.verify import deviations
from upgradeconverter.errors import (
    EXIT_ROLLED_BACK,
    BoundaryError,
    NothingToRollBackError,
    UpgradeConverterError,
    VaultLockedError,
    VaultNotUsableError,
)
from upgradeconverter.journal.log import Journal, JournalView
from upgradeconverter.journal.record import RecordKind
from upgradeconverter.model.operation import Skip
from upgradeconverter.model.outcome import ItemStatus, Outcome, Reason
from upgradeconverter.model.plan import Attributes, Wave

if TYPE_CHECKING:
    from upgradeconverter.disk.port import Disk, Progress
    from upgradeconverter.engine.executor import StepResult
    from upgradeconverter.engine.report import Report
    from upgradeconverter.engine.session import Session
    from upgradeconverter.model.plan import Plan
    from upgradeconverter.packs.api import Phase

_OUTCOMES = {3: Outcome.REFUSED, 4: Outcome.ROLLED_BACK, 5: Outcome.BUSY, 6: Outcome.WEDGED, 2: Outcome.USAGE}


@dataclass(slots=True, kw_only=True)
class Run:
    """What belongs to one start of the program.

    Attributes:
        plans: what there was to do, by phase.
        results: what became of the steps carried out so far, by phase.
    """

    session: Session
    report: Report
    read_back: str = "none"
    progress: Progress | None = None
    identity: str = field(default_factory=lambda: secrets.token_hex(8))
    journal: Journal = field(init=False)
    plans: dict[str, Plan] = field(default_factory=dict)
    results: dict[str, list[StepResult]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Find the journal."""
        self.journal = Journal(self.session.disk, JOURNAL)
        self.report.run = self.identity

    @property
    def disk(self) -> Disk:
        """The disk of the session."""
        return self.session.disk

    def show(self) -> None:
        """Bring the report up to what is known of all phases."""
        self.report.show((plan, self.results.get(phase, ())) for phase, plan in self.plans.items())

    def make_engine_folder(self) -> None:
        """Make the engine's own folder in the root, without a trace on the root's own time."""
        if self.disk.find(ENGINE_FOLDER) is not None:
            return
        root = self.disk.find("")
        self.disk.make_directory(ENGINE_FOLDER, Attributes(mode=0o700))
        if root is not None:
            # The root's own time is state too: an undo must find what was there before we came.
            self.disk.set_attributes("", Attributes(atime_ns=root.atime_ns, mtime_ns=root.mtime_ns))
        self.disk.sync_directory("")


def outcome_of(error: UpgradeConverterError) -> Outcome:
    """Return the outcome that an error means."""
    return _OUTCOMES.get(error.exit_status, Outcome.REFUSED)


def audit(run: Run, phase: str) -> None:
    """Fill the report with what `convert` would do; changes nothing (D6)."""
    view = run.journal.read(repair=False)
    run.report.details.update(_open_details(view))
    for each in run.session.phases(phase):
        plan = run.session.make_plan(each.name)
        _take(run, plan, each)
        problem = run.session.vault_problem(each)
        if isinstance(problem, VaultNotUsableError):
            # An audit works on a read-only mount; a real run would refuse.
            run.report.warnings.append(problem.message)
        elif problem is not None and plan.steps:
            _refuse_phase(run, problem)
            return
    run.report.outcome = Outcome.PLANNED if run.report.items else Outcome.NOTHING_TO_DO


def _take(run: Run, plan: Plan, phase: Phase) -> None:
    run.plans[phase.name] = plan
    run.show()
    if plan.steps:
        run.report.warn(*run.session.vault_warnings(phase))


def _refuse_phase(run: Run, problem: UpgradeConverterError) -> None:
    run.report.fail(problem, Outcome.REFUSED)
    reason = Reason(problem.code)
    run.report.take_skips((Skip(path=run.session.pack.vault or "", reason=reason, detail=problem.message),))


def _open_details(view: JournalView) -> dict[str, Any]:
    return {"open transactions": [f"{t.txid} after {t.last.value}" for t in view.open]} if view.open else {}


def convert(run: Run, phase: str) -> None:
    """Bring the disk to the target layout; the report says what was done and what was left alone."""
    view = run.journal.read(repair=True)
    if not _recover(run, view, phase):
        return
    for each in run.session.phases(phase):
        plan = run.session.make_plan(each.name)
        _take(run, plan, each)
        problem = run.session.vault_problem(each)
        if problem is not None:
            if plan.steps:
                _refuse_phase(run, problem)
                return
            continue
        try:
            _carry_out(run, plan, each.name)
        except BoundaryError as error:
            _copy_instead(run, each, error)
    _conclude(run, phase)


def _recover(run: Run, view: JournalView, phase: str) -> bool:
    """Finish what an earlier start left open; False when that has to wait for a later phase."""
    if view.open:
        blocked = next((p for e in run.session.phases(phase) if (p := run.session.vault_problem(e)) is not None), None)
        vault_homes = {home for transaction in view.open for home in open_homes(transaction) if home}
        if vault_homes and (blocked is not None or not any(e.needs_vault for e in run.session.phases(phase))):
            if blocked is not None:
                _refuse_phase(run, blocked)
            else:
                run.report.warnings.append("an open transaction waits for the phase that may touch the vault")
            return False
        remove_stamp(run.disk)
    for recovery in recover(run.disk, run.journal, view):
        log.event("recovered", txid=recovery.txid, last=recovery.last, result=recovery.result)
        run.report.recovered.append({"txid": recovery.txid, "last": recovery.last, "result": recovery.result})
    return True


def _carry_out(run: Run, plan: Plan, phase: str) -> None:
    if not plan.steps:
        return
    log.event("run-started", run=run.identity, phase=phase, steps=len(plan.steps), plan=plan.digest)
    run.make_engine_folder()
    remove_stamp(run.disk)
    _archive_journal(run)
    about = {
        "run": run.identity,
        "phase": phase,
        "direction": "forward",
        "pack": plan.pack,
        "source": plan.source,
        "target": plan.target,
        "plan": plan.digest,
    }
    _run_waves(run, plan, phase, about)


def _copy_instead(run: Run, phase: Phase, error: BoundaryError) -> None:
    """Plan what is left of a phase without renames, after the disk had refused one that nothing spoke against."""
    run.report.warn(f"{error.message}; copied instead")
    done = [result for result in run.results.pop(phase.name) if result.status is not ItemStatus.UNDONE]
    if done:
        # Earlier waves of the phase stay done; they are told as a part of their own, and planned anew nothing of them is left.
        first = f"{phase.name}, before copying"
        run.results[first] = done
        run.plans[first] = replace(run.plans[phase.name], waves=(Wave(steps=tuple(r.step for r in done)),), skips=())
    _take(run, run.session.make_plan(phase.name, may_rename=False), phase)
    _carry_out(run, run.plans[phase.name], phase.name)


def _run_waves(run: Run, plan: Plan, phase: str, about: dict[str, Any]) -> None:
    results = run.results.setdefault(phase, [])
    for wave in plan.waves:
        executor = executor_for(
            run.disk,
            run.journal,
            wave,
            secrets.token_hex(8),
            run=about,
            contents=dict(plan.contents),
            read_back=run.read_back,
            progress=run.progress,
        )
        try:
            results.extend(executor.run_wave())
        except UpgradeConverterError:
            # What earlier waves did stays done and is told; this wave was put back.
            results.extend(executor.results.values())
            run.show()
            raise
        log.event("wave-done", run=run.identity, txid=executor.txid, steps=len(wave.steps))
    run.show()


def _archive_journal(run: Run) -> None:
    if run.disk.find(JOURNAL) is not None:
        run.disk.remove(PREVIOUS_JOURNAL)
        run.journal.archive(PREVIOUS_JOURNAL)


def _conclude(run: Run, phase: str) -> None:
    report = run.report
    done = [result for results in run.results.values() for result in results]
    if done:
        if any(result.status is not ItemStatus.LEFT for result in done):
            report.outcome = Outcome.DONE
        bad = [r for r in done if r.reason in (Reason.DISK_FAILED, Reason.NO_SPACE) and r.status is ItemStatus.LEFT]
        if bad:
            report.outcome, report.exit_status = Outcome.ROLLED_BACK, EXIT_ROLLED_BACK
        report.details["verified"] = "the new layout holds" if not deviations(run.session) else "deviations, see `verify`"
        add_run(run.disk, ledger_entry(run, phase))
        log.event("run-done", run=run.identity, outcome=report.outcome.value)
    elif report.recovered:
        report.outcome = Outcome.DONE
        add_run(run.disk, ledger_entry(run, phase))
    if report.exit_status == 0:
        _remember(run, phase)


def ledger_entry(run: Run, phase: str) -> dict[str, Any]:
    """Return what history keeps of a run."""
    report = run.report
    return {
        "run": run.identity,
        "phase": phase,
        "command": report.command,
        "outcome": report.outcome.value,
        "from": report.source,
        "target": report.target,
        "plan_digest": report.plan_digest,
        "items": len(report.items),
        "skipped": len(report.skipped),
    }


def _remember(run: Run, phase: str) -> None:
    """Write the stamp, unless it would say nothing new."""
    session = run.session
    phases = tuple(p.name for p in session.pack.phases) if phase == "all" else (phase,)
    old = session.stamp()
    skips = tuple(Skip(path=s["path"], reason=Reason(s["reason"])) for s in run.report.skipped)
    paths = dict.fromkeys(path for name in phases for path in watched_paths(session, name, skips))
    stamp = Stamp(
        pack=session.pack.name,
        layout=session.target_label() if "post-vault" in phases or phase == "all" else session.source_label(),
        asked=session.asked,
        release=session.release,
        run=run.identity,
        phases=(*phases, "all") if phase == "all" else phases,
        watched=tuple((path, _signature(run.disk, path)) for path in paths),
    )
    if old is not None and (old.layout, old.watched, old.release, old.asked) == (
        stamp.layout,
        stamp.watched,
        stamp.release,
        stamp.asked,
    ):
        return
    if run.disk.find(ENGINE_FOLDER) is None and not run.report.items and not any(s for _, s in stamp.watched):
        # A disk on which there was never anything to convert is not written to at all.
        return
    run.make_engine_folder()
    write_stamp(run.disk, stamp)


def _signature(disk: Disk, path: str) -> tuple[int, int, int] | None:
    entry = disk.find(path)
    return None if entry is None else (entry.identity, entry.mtime_ns, entry.ctime_ns)


def take_back(run: Run) -> None:
    """Undo the open or, when there is none, the last run; the report says what could not be undone."""
    view = run.journal.read(repair=True)
    if view.open:
        for phase in run.session.pack.phases:
            problem = run.session.vault_problem(phase)
            if problem is not None and any(home for t in view.open for home in open_homes(t)):
                raise problem
        remove_stamp(run.disk)
        for recovery in recover(run.disk, run.journal, view, undo=True):
            run.report.recovered.append({"txid": recovery.txid, "last": recovery.last, "result": recovery.result})
        run.report.outcome = Outcome.DONE
        add_run(run.disk, ledger_entry(run, "all"))
        return
    _take_back_closed(run, view)


def _take_back_closed(run: Run, view: JournalView) -> None:
    finished = [t for t in view.transactions if t.last is RecordKind.DONE]
    if not finished:
        raise NothingToRollBackError("no run that changed anything")
    about = (finished[-1].payload(RecordKind.BEGIN) or {}).get("run", {})
    if about.get("direction") == "backward":
        raise NothingToRollBackError(f"run {about.get('run')}, which was a rollback itself")
    if any(home for t in finished for home in open_homes(t)):
        problem = next((p for e in run.session.pack.phases if (p := run.session.vault_problem(e)) is not None), None)
        if isinstance(problem, VaultLockedError):
            raise problem
    plan = backward_plan(run.disk, finished, pack=str(about.get("pack", "")))
    run.plans["back"] = plan
    run.show()
    remove_stamp(run.disk)
    _archive_journal(run)
    record = {"run": run.identity, "direction": "backward", "pack": plan.pack, "plan": plan.digest}
    record |= {"source": plan.source, "target": plan.target, "phase": "all"}
    _run_waves(run, plan, "back", record)
    run.report.outcome = Outcome.DONE
    add_run(run.disk, ledger_entry(run, "all"))
