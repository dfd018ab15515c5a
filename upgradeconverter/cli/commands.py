"""One function per command; each fills the report."""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from upgradeconverter.cli.progress import metered
from upgradeconverter.disk import lock
from upgradeconverter.disk.dryrun import read_only
from upgradeconverter.engine.budget import Budget
from upgradeconverter.engine.confirm import confirm as confirm_trial
from upgradeconverter.engine.confirm import foresee_confirming
from upgradeconverter.engine.convert import audit, convert
from upgradeconverter.engine.drift import altered, changed_since, lost_records
from upgradeconverter.engine.ledger import last_noted, read_ledger
from upgradeconverter.engine.overtaken import pending_sources
from upgradeconverter.engine.pace import Pace
from upgradeconverter.engine.places import ENGINE_FOLDER, JOURNAL, WAITING
from upgradeconverter.engine.recover import is_trial_lost
from upgradeconverter.engine.run import Run, make_engine_folder
from upgradeconverter.engine.takeback import foresee_taking_back, take_back
from upgradeconverter.engine.usage import usage as rooms
from upgradeconverter.engine.verify import deviations, set_aside, unfinished, vault_problem
from upgradeconverter.errors import EXIT_DEVIATIONS, StateRefusedError, TrialLostError, UpgradeConverterError
from upgradeconverter.journal.log import Journal
from upgradeconverter.model.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from upgradeconverter.engine.report import Report
    from upgradeconverter.engine.session import Session
    from upgradeconverter.settings import Settings


_clock = time.monotonic


class Context(Struct, frozen=True, kw_only=True):
    """What a command works with."""

    session: Session
    settings: Settings
    report: Report
    root_fd: int
    deep: bool = False

    def looking(self) -> Run:
        """Return a run that cannot change anything."""
        session = replace(self.session, disk=read_only(self.session.disk))
        return Run(session=session, report=self.report, when_short=self.settings.when_short)

    @contextmanager
    def acting(self) -> Iterator[Run]:
        """Return a run that may change the disk, under the lock, and show how it goes."""
        settings = self.settings
        with _locked(self), metered(quiet=settings.quiet) as meter:
            yield Run(
                session=self.session,
                report=self.report,
                read_back=settings.read_back,
                when_short=settings.when_short,
                pace=Pace(meter=meter, budget=self._budget()),
            )

    def _budget(self) -> Budget:
        granted = self.settings.deadline
        return Budget(seconds=granted, ends=self.report.started_ns / 1e9 + granted, clock=_clock) if granted else Budget()


@contextmanager
def _locked(context: Context) -> Iterator[None]:
    path = lock.lock_path(context.root_fd)
    if path is None:
        path = f"/proc/self/fd/{context.root_fd}/{ENGINE_FOLDER}/lock"
        if context.session.disk.find(ENGINE_FOLDER) is None:
            make_engine_folder(context.session.disk)
    with lock.held(path, context.root_fd):
        yield


def run(context: Context) -> None:
    """Convert, or audit with --dry-run."""
    if context.settings.dry_run:
        audit(context.looking(), context.report.phase)
        return
    with context.acting() as acting:
        convert(acting, context.report.phase, takes_back=context.settings.on_failure == "take-back")


def plan(context: Context) -> None:
    """Show what a run would do."""
    audit(context.looking(), context.report.phase)


def status(context: Context) -> None:
    """Show which layout the disk carries, what is open and what was set aside."""
    session, report = context.session, context.report
    disk = read_only(session.disk)
    view = Journal(disk, JOURNAL).read(repair=False)
    report.outcome = Outcome.INFORMATION
    report.source, report.target = session.carried_label(), session.target_label()
    report.details.update(
        {
            "carries layout": report.source,
            "target layout": report.target,
            "last run": _last(last_noted(disk)),
            "system release": session.release or "unknown",
            "vault": disk.vault_state(session.pack.vault) if session.pack.vault else "not used",
            "open transactions": [f"{t.txid} after {t.last.value}" for t in view.open],
            "waiting for confirmation": sorted(pending_sources(view)),
            "set aside": list(set_aside(disk, ("", session.pack.vault, *session.annexed.values()))),
        },
    )
    if is_trial_lost(disk, view):
        report.warn(TrialLostError(WAITING, JOURNAL).message)


def _last(run: dict[str, Any] | None) -> str:
    return "none" if run is None else "{run} {command} {phase}: {outcome}".format_map(defaultdict(str, run))


def verify(context: Context) -> None:
    """Compare the disk with the target layout, and with what the history noted."""
    run = context.looking()
    refused: list[str] = []
    try:
        audit(run, context.report.phase)
    except StateRefusedError as error:
        refused = [f"{path}: {detail}" for path, _, detail in error.refusals]
    view = run.journal.read(repair=False)
    runs, broken = read_ledger(run.disk)
    found = [
        *refused,
        *unfinished(run.session, view, run.plans.values()),
        *deviations(run.session, deep=True, waiting=pending_sources(view)),
    ]
    beside = run.session.pack.vault if vault_problem(run.session) else None
    drifted = altered(run.disk, runs, beside=beside, deep=context.deep)
    # What the layout does not want is told once.
    told = {sentence.split(": ")[0] for sentence in found}
    found += [sentence for sentence in drifted if "Diverged" in sentence or sentence.split(": ")[0] not in told]
    found += [*lost_records(run.disk, runs, view), *broken]
    report = context.report
    report.error, report.warnings = None, []
    report.details = {"deviations": found, "changed since": list(changed_since(run.disk, runs, beside=beside))}
    report.outcome = Outcome.DEVIATIONS if found else Outcome.INFORMATION
    report.exit_status = EXIT_DEVIATIONS if found else 0


def confirm(context: Context) -> None:
    """Let a trial last; with --dry-run only say what waits."""
    if context.settings.dry_run:
        foresee_confirming(context.looking())
        return
    with context.acting() as run:
        confirm_trial(run)
        _tell_what_is_left(run)


def _tell_what_is_left(run: Run) -> None:
    """Say whether there is more to do now that the old layout has made room for it."""
    if not run.all_results:
        return
    session = replace(run.session, pending=frozenset())
    with suppress(UpgradeConverterError, OSError):
        plans = [session.make_plan(phase.name) for phase in session.pack.phases if session.vault_problem(phase) is None]
        if number := sum(len(plan.steps) for plan in plans):
            run.report.warn(f"{number} steps can only be done now: start the program once more to have all of the new layout")


def rollback(context: Context) -> None:
    """Undo the open or the last run; with --dry-run only say what that would do."""
    if context.settings.dry_run:
        foresee_taking_back(context.looking())
        return
    with context.acting() as run:
        take_back(run)


def history(context: Context) -> None:
    """List the runs, oldest first."""
    runs, problems = read_ledger(read_only(context.session.disk))
    context.report.outcome = Outcome.INFORMATION
    context.report.details["runs"] = list(runs)
    context.report.warn(*problems)


def usage(context: Context) -> None:
    """Show how much room state takes, by agent and place."""
    run = context.looking()
    # What forbids to convert anything takes its room as well.
    with suppress(StateRefusedError):
        audit(run, context.report.phase)
    skips = tuple(skip for plan in run.plans.values() for skip in plan.skips)
    rows = rooms(run.session, skips)
    report = context.report
    report.error, report.warnings, report.items, report.skipped = None, [], [], []
    totals = {name: sum(row[name] for row in rows) for name in ("files", "size", "allocated", "reclaimable")}
    report.details = {"usage": rows, "in all": totals}
    report.outcome, report.exit_status = Outcome.INFORMATION, 0


# Those that change something.
ACTING = ("run", "confirm", "rollback")


def doctor(context: Context) -> None:
    """Tell what the next boot would do and why, and what is unusual."""
    from upgradeconverter.cli import doctor as office

    office.doctor(context)


COMMANDS: dict[str, Callable[[Context], None]] = {
    "run": run,
    "plan": plan,
    "status": status,
    "verify": verify,
    "confirm": confirm,
    "rollback": rollback,
    "history": history,
    "usage": usage,
    "doctor": doctor,
}
