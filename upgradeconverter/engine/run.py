"""A whole run on one screen: recover, plan, carry out wave by wave, remember.

Calling sequence: `convert` or `take_back`, under the lock, with a real disk; `audit` without lock on a read-only one. Each fills
the report that it is given;
an UpgradeConverterError that ends the run is raised and put into the report by the command line.
"""

from __future__ import annotations

import json
import secrets
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from upgradeconverter import log
from upgradeconverter.engine import stopping
from upgradeconverter.engine.backward import backward_plan
from upgradeconverter.engine.executor import executor_for
from upgradeconverter.engine.ledger import add_run
from upgradeconverter.engine.places import ENGINE_FOLDER, JOURNAL, PREVIOUS_JOURNAL, QUARANTINE, folder_of, parent
from upgradeconverter.engine.recover import open_homes, recover
from upgradeconverter.engine.report import Report, as_text
from upgradeconverter.engine.session import watched_paths
from upgradeconverter.engine.stamp import Section, Signature, Stamp, write_stamp
from upgradeconverter.engine.verify import deviations
from upgradeconverter.errors import (
    EXIT_DEVIATIONS,
    BoundaryError,
    NothingToRollBackError,
    UpgradeConverterError,
    VaultNotUsableError,
)
from upgradeconverter.journal.log import Journal, JournalView
from upgradeconverter.journal.record import RecordKind
from upgradeconverter.model.operation import Skip
from upgradeconverter.model.outcome import PASSING, ItemStatus, Outcome, Reason
from upgradeconverter.model.plan import Attributes, Wave, folders_wanted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from upgradeconverter.disk.port import Disk, Progress
    from upgradeconverter.engine.executor import StepResult
    from upgradeconverter.engine.session import Session
    from upgradeconverter.journal.log import Transaction
    from upgradeconverter.model.plan import Plan, Step
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
    archived: bool = False
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


def _open_details(view: JournalView) -> dict[str, Any]:
    return {"open transactions": [f"{t.txid} after {t.last.value}" for t in view.open]} if view.open else {}


@contextmanager
def _failing_on_record(run: Run, phase: str) -> Iterator[None]:
    """Note a run that fails after it has begun in the history as well."""
    try:
        yield
    except UpgradeConverterError as error:
        if run.archived:
            run.report.outcome = outcome_of(error)
            with _noting(run.report):
                add_run(run.disk, ledger_entry(run, phase))
        raise


def convert(run: Run, phase: str) -> None:
    """Bring the disk to the target layout; the report says what was done and what was left alone."""
    with _failing_on_record(run, phase):
        _convert(run, phase)


def _convert(run: Run, phase: str) -> None:
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
        _stamp(run, run.session.carried_label())
    for recovery in recover(run.disk, run.journal, view):
        log.event("recovered", txid=recovery.txid, last=recovery.last, result=recovery.result)
        run.report.take_recovery(recovery.txid, recovery.last, recovery.result, recovery.left)
    return True


def _carry_out(run: Run, plan: Plan, phase: str) -> None:
    if not plan.steps:
        return
    log.event("run-started", run=run.identity, phase=phase, steps=len(plan.steps), plan=plan.digest)
    run.make_engine_folder()
    _stamp(run, run.session.source_label())
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
    idle: tuple[Step, ...] = ()
    touched: tuple[tuple[str, int, int], ...] = ()
    for wave in plan.waves:
        stopping.check()
        executor = executor_for(
            run.disk,
            run.journal,
            _with_folders(wave, idle, touched),
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
        idle, touched = (*idle, *executor.idle), (*touched, *executor.touched)
        log.event("wave-done", run=run.identity, txid=executor.txid, steps=len(wave.steps))
    run.show()


def _with_folders(wave: Wave, folders: tuple[Step, ...], touched: tuple[tuple[str, int, int], ...]) -> Wave:
    """Return a wave with the new directories that it needs of those which an earlier one left out."""
    wanted = folders_wanted(folders, wave.steps)
    holders = {parent(step.target or "") for step in wanted} - {path for path, _, _ in wave.touched}
    more = tuple(times for times in touched if times[0] in holders)
    return replace(wave, steps=(*wanted, *wave.steps), touched=(*wave.touched, *more))


def _archive_journal(run: Run) -> None:
    """Put the journal of earlier runs aside before the first transaction of this one.

    One in which nothing was done, or not all of a rollback, goes away instead: the one before it stays for `rollback`.
    """
    if run.archived:
        return
    done = _done(run.journal.read(repair=True))
    if done and not _is_part_of_rollback(done):
        run.disk.remove(PREVIOUS_JOURNAL)
        run.journal.archive(PREVIOUS_JOURNAL)
    else:
        run.journal.discard()
    run.archived = True


def _done(view: JournalView) -> tuple[Transaction, ...]:
    return tuple(t for t in view.transactions if t.last is RecordKind.DONE)


def _conclude(run: Run, phase: str) -> None:
    report = run.report
    if passing := sum(Reason(skip["reason"]) in PASSING for skip in report.skipped):
        report.warn(f"{passing} left for now: they are still where the old system had them, and the next start tries again")
    done = [result for results in run.results.values() for result in results]
    if any(result.status is not ItemStatus.LEFT for result in done) or report.recovered:
        report.outcome = Outcome.DONE
    if done:
        found = deviations(run.session)
        report.details["verified"] = (
            f"{len(found)} deviations; `upgradeconverter verify` lists them"
            if found
            else f"what lies in the places of layout {report.target} is as that layout wants it"
        )
        log.event("run-done", run=run.identity, outcome=report.outcome.value)
    with _noting(report):
        _remember(run, phase, changed=bool(done or report.recovered))


@contextmanager
def _noting(report: Report) -> Iterator[None]:
    """Let history or stamp be refused by the disk: what was done stands, and the next start only has to look for itself."""
    try:
        yield
    except OSError as error:
        report.warn(f"what was done could not be noted down: {error.filename}: {error.strerror}")


def ledger_entry(run: Run, phase: str) -> dict[str, Any]:
    """Return what history keeps of a run."""
    report = run.report
    return {
        "run": run.identity,
        "time": run.disk.clock(),
        "phase": phase,
        "command": report.command,
        "outcome": report.outcome.value,
        "from": report.source,
        "target": report.target,
        "plan_digest": report.plan_digest,
        "items": len(report.items),
        "skipped": len(report.skipped),
    }


def _remember(run: Run, phase: str, *, changed: bool) -> None:
    """Write history and stamp, unless they would say nothing new."""
    session = run.session
    names = tuple(each.name for each in session.phases(phase))
    # Everything is converted once the last phase is.
    layout = session.target_label() if session.pack.phases[-1].name in names else session.carried_label()
    section = _section(replace(session, carried=layout), phase, names)
    if changed:
        add_run(run.disk, ledger_entry(run, phase))
    elif run.disk.find(ENGINE_FOLDER) is None and (section is None or not any(sign for _, sign in section.watched)):
        # A disk on which there was never anything to convert is not written to at all.
        return
    run.make_engine_folder()
    _stamp(run, layout, section, changed=changed)


def _stamp(run: Run, layout: str, section: Section | None = None, *, changed: bool = True) -> None:
    """Note down the layout and, without a change, what was known of other ways of starting; write only what is new."""
    old = run.session.stamp()
    if old is None and layout == run.session.pack.order.labels[0] and section is None:
        return
    kept = [each for each in old.sections if section is None or each.phase != section.phase] if old and not changed else []
    stamp = Stamp(
        pack=run.session.pack.name,
        layout=layout,
        run=run.identity if changed or old is None else old.run,
        sections=(*kept, section) if section is not None else tuple(kept),
    )
    if stamp != old:
        write_stamp(run.disk, stamp)


def _section(session: Session, phase: str, names: tuple[str, ...]) -> Section | None:
    """Return what a start like this one may answer at once from now on; None when each start has to look.

    Made from a look at the disk as it is now, so that it is what the next start would say.
    """
    if any(session.vault_problem(each) is not None for each in session.phases(phase)):
        return None
    next_report = Report(command="run", phase=phase)
    plans = [session.make_plan(name) for name in names]
    next_report.show((plan, ()) for plan in plans)
    skips = tuple(skip for plan in plans for skip in plan.skips)
    if any(plan.steps for plan in plans) or any(skip.reason in PASSING for skip in skips):
        return None
    paths = dict.fromkeys(path for name in names for path in watched_paths(session, name, skips))
    return Section(
        phase=phase,
        asked=session.asked,
        release=session.release,
        config=session.config,
        watched=tuple((path, _signature(session.disk, path)) for path in paths),
        text=as_text(next_report).rstrip("\n"),
        json=json.dumps(next_report.document()),
    )


def _signature(disk: Disk, path: str) -> Signature | None:
    entry = disk.find(path)
    return None if entry is None else (entry.identity, entry.mtime_ns, entry.ctime_ns)


def set_aside(disk: Disk, vault: str | None) -> tuple[str, ...]:
    """Return what earlier runs set aside because its content does not have the digest that its name claims."""
    folders = [f"{folder_of(home)}/{QUARANTINE}" for home in ("", vault) if home is not None]
    return tuple(entry.path for folder in folders if disk.find(folder) is not None for entry in disk.entries(folder))


def take_back(run: Run) -> None:
    """Undo the open or, when there is none, the last run; the report says what could not be undone."""
    with _failing_on_record(run, "all"):
        _take_back(run)


def _take_back(run: Run) -> None:
    view = run.journal.read(repair=True)
    if not view.open:
        _take_back_closed(run, view)
        return
    _check_vault(run, view.open)
    about = _about(view.open)
    _stamp(run, run.session.carried_label())
    for recovery in recover(run.disk, run.journal, view, undo=True):
        run.report.take_recovery(recovery.txid, recovery.last, recovery.result, recovery.left)
    _conclude_back(run, str(about.get("source", "")))


def foresee_taking_back(run: Run) -> None:
    """Fill the report with what `take_back` would do; changes nothing (D6)."""
    view = run.journal.read(repair=False)
    if view.open:
        run.report.details.update(_open_details(view))
    else:
        _plan_back(run, _finished(run, view))
    run.report.outcome = Outcome.PLANNED


def _take_back_closed(run: Run, view: JournalView) -> None:
    finished = _finished(run, view)
    _check_vault(run, finished)
    plan = _plan_back(run, finished)
    _stamp(run, run.session.carried_label())
    _archive_journal(run)
    about: dict[str, Any] = {"run": run.identity, "direction": "backward", "pack": plan.pack, "plan": plan.digest}
    about |= {"source": plan.source, "target": plan.target, "phase": "all", "waves": len(plan.waves)}
    _run_waves(run, plan, "back", about)
    _conclude_back(run, plan.target)


def _plan_back(run: Run, finished: tuple[Transaction, ...]) -> Plan:
    run.plans["back"] = backward_plan(run.disk, finished, pack=str(_about(finished).get("pack", "")))
    run.show()
    return run.plans["back"]


def _is_part_of_rollback(done: Sequence[Transaction]) -> bool:
    about = _about(done)
    return about.get("direction") == "backward" and len(done) < int(about.get("waves", 0))


def _about(transactions: Sequence[Transaction]) -> dict[str, Any]:
    about: dict[str, Any] = (transactions[-1].payload(RecordKind.BEGIN) or {}).get("run", {})
    return about


def _finished(run: Run, view: JournalView) -> tuple[Transaction, ...]:
    """Return the transactions of the last run that changed anything; NothingToRollBackError when none can be taken back."""
    finished = _done(view)
    if not finished or _is_part_of_rollback(finished):
        finished = _done(Journal(run.disk, PREVIOUS_JOURNAL).read(repair=False))
    if not finished:
        raise NothingToRollBackError("no run that changed anything")
    about = _about(finished)
    if about.get("direction") == "backward":
        raise NothingToRollBackError(f"run {about.get('run')}, which was a rollback itself")
    return finished


def _check_vault(run: Run, transactions: Iterable[Transaction]) -> None:
    """Raise unless every domain that the transactions lie in can be reached."""
    if any(home for transaction in transactions for home in open_homes(transaction)):
        for phase in run.session.pack.phases:
            problem = run.session.vault_problem(phase)
            if problem is not None:
                raise problem


def _conclude_back(run: Run, layout: str) -> None:
    report = run.report
    report.outcome = Outcome.DONE
    if report.skipped:
        report.exit_status = EXIT_DEVIATIONS
        report.warn("not everything could be taken back; what was left is named with its reason")
    with _noting(report):
        add_run(run.disk, ledger_entry(run, "all"))
        _stamp(run, layout or run.session.pack.order.labels[0])
