"""One start of the program on one disk: what it plans, what becomes of it, and the journal that it writes to.

A *run* is what `rollback` takes back. It is known by the identity in its transactions, and goes on over as many starts as it
takes until one of them comes to its end: the stamp then names it.

Calling sequence: `carry_out` for each plan; the first one that converts something makes the journal ready for it.
"""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from upgradeconverter import log
from upgradeconverter.engine import stopping
from upgradeconverter.engine.executor import Executor
from upgradeconverter.engine.pace import Pace
from upgradeconverter.engine.places import EARLIER_JOURNALS, ENGINE_FOLDER, JOURNAL, WAITING, parent
from upgradeconverter.engine.progress import load_of
from upgradeconverter.engine.recover import BACKWARD, about, is_forward, is_trial_lost
from upgradeconverter.engine.remember import note, noting, stamp
from upgradeconverter.errors import (
    DiskFailedError,
    DiskRefusedError,
    HaltedError,
    NoTimeError,
    PausedError,
    UpgradeConverterError,
)
from upgradeconverter.journal.log import Journal, JournalView
from upgradeconverter.journal.record import EVERY_KIND, RecordKind
from upgradeconverter.model.outcome import Outcome, Reason
from upgradeconverter.model.plan import Attributes, Wave, folders_wanted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from upgradeconverter.disk.port import Disk
    from upgradeconverter.engine.batch import StepResult
    from upgradeconverter.engine.report import Report
    from upgradeconverter.engine.session import Session
    from upgradeconverter.journal.log import Transaction
    from upgradeconverter.model.plan import Plan, Step

_OUTCOMES = {
    3: Outcome.REFUSED,
    4: Outcome.ROLLED_BACK,
    5: Outcome.BUSY,
    6: Outcome.WEDGED,
    2: Outcome.USAGE,
    7: Outcome.ROLLED_BACK,
}


@dataclass(slots=True, kw_only=True)
class Run:
    """What belongs to one start of the program.

    Attributes:
        identity: of the run; taken over from the journal when the start goes on with a run that did not come to its end.
        when_short: what a trial does where both layouts do not fit: `refuse`, or `irreversible`, convert that for good.
        pace: what is told how it goes, and knows when the time is over.
        has_begun: whether the journal is open for this start.
        has_acted: whether anything of what lies on the disk may have been changed.
        plans: what there was to do, by phase.
        results: what became of the steps carried out so far, by phase.
    """

    session: Session
    report: Report
    read_back: str = "none"
    when_short: str = "refuse"
    pace: Pace = field(default_factory=Pace)
    identity: str = field(default_factory=lambda: secrets.token_hex(8))
    journal: Journal = field(init=False)
    has_begun: bool = False
    has_acted: bool = False
    plans: dict[str, Plan] = field(default_factory=dict)
    results: dict[str, list[StepResult]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Find the journal."""
        self.journal = Journal(self.session.disk, JOURNAL)
        self.report.run = self.identity
        log.bind(run=self.identity)
        self.report.begun = self.disk.clock()

    @property
    def disk(self) -> Disk:
        """The disk of the session."""
        return self.session.disk

    @property
    def all_results(self) -> tuple[StepResult, ...]:
        """What became of the steps of all phases."""
        return tuple(result for results in self.results.values() for result in results)

    def show(self) -> None:
        """Bring the report up to what is known of all phases."""
        self.report.show((plan, self.results.get(phase, ())) for phase, plan in self.plans.items())


def outcome_of(error: UpgradeConverterError) -> Outcome:
    """Return the outcome that an error means."""
    if isinstance(error, NoTimeError | PausedError):
        return Outcome.UNFINISHED
    return _OUTCOMES.get(error.exit_status, Outcome.REFUSED)


def make_engine_folder(disk: Disk) -> None:
    """Make the engine's own folder in the root, without a trace on the root's own time."""
    if disk.find(ENGINE_FOLDER) is not None:
        return
    if disk.is_immutable(""):
        raise DiskRefusedError("the persist directory", "it is immutable or append-only")
    root = disk.find("")
    disk.make_directory(ENGINE_FOLDER, Attributes(mode=0o700))
    if root is not None:
        # The root's own time is state too: an undo must find what was there before we came.
        disk.set_attributes("", Attributes(atime_ns=root.atime_ns, mtime_ns=root.mtime_ns))
    disk.sync_directory("")


def mark_waiting(run: Run, *, nothing_lies_twice: bool = False) -> None:
    """Tell by a file whether a trial waits to be confirmed; of one that was lost it tells until nothing lies twice."""
    view = run.journal.read(repair=True, brief=EVERY_KIND)
    waits = bool(view.waiting)
    is_lost = is_trial_lost(run.disk, view) and not nothing_lies_twice
    if waits == (run.disk.find(WAITING) is not None) or is_lost:
        return
    if waits:
        run.disk.write_file(WAITING, b"", Attributes(mode=0o600))
    else:
        run.disk.remove(WAITING)
    run.disk.sync_directory(ENGINE_FOLDER)


@contextmanager
def failing_on_record(run: Run, phase: str) -> Iterator[None]:
    """Note a start that fails after it has begun in the history as well.

    Raises:
        DiskFailedError, HaltedError: the disk refused something outside of any wave, after something had been changed.
    """
    try:
        with failing_as_it_is(run):
            yield
    except UpgradeConverterError as error:
        if run.has_begun:
            run.report.outcome = outcome_of(error)
            with noting(run.report):
                note(run.disk, run.report, phase)
        raise


@contextmanager
def failing_as_it_is(run: Run) -> Iterator[None]:
    """Never let a start that has changed something end as one that has not."""
    try:
        yield
    except OSError as error:
        if not run.has_acted:
            raise
        path, problem = str(error.filename or "the disk"), error.strerror or str(error)
        raise HaltedError(path, problem) if _may_be_open(run) else DiskFailedError("looking at", path, problem) from error


def _may_be_open(run: Run) -> bool:
    try:
        return bool(run.journal.read(repair=False, brief=EVERY_KIND).open)
    except (OSError, UpgradeConverterError):
        return True


def open_details(view: JournalView) -> dict[str, Any]:
    """Return the open transactions for the report."""
    return {"open transactions": [f"{t.txid} after {t.last.value}" for t in view.open]} if view.open else {}


def done_forward(view: JournalView) -> tuple[Transaction, ...]:
    """Return the finished transactions that converted something, oldest first; what takes them back stands beside them."""
    return tuple(t for t in view.transactions if t.last is RecordKind.DONE and is_forward(t))


def _open_journal(run: Run) -> None:
    """Make the journal ready for this start: the last run that came to its end is put aside.

    One that did not goes on, and so does one that was taken back in part. A journal in which nothing was done goes away, and
    the one before it stays for `rollback`.
    """
    if run.has_begun:
        return
    # Once the journal is put aside nobody could tell a trial that has ended from one that was lost.
    mark_waiting(run)
    view = run.journal.read(repair=True, brief=EVERY_KIND)
    done = (*done_forward(view), *view.waiting)
    finished = [t for t in view.transactions if t.last is RecordKind.DONE]
    is_whole = not view.waiting and (not finished or about(finished[-1]).get("direction") != BACKWARD)
    last = last_run(view)
    known = run.session.stamp()
    if not done:
        run.journal.discard()
    elif is_whole and known is not None and known.run == last:
        _archive(run)
    else:
        run.identity = run.report.run = last
        log.bind(run=last)
    run.has_begun = True


def _archive(run: Run) -> None:
    """Put the journal aside; two earlier ones are kept, since the run that begins may turn out to do nothing."""
    latest, oldest = EARLIER_JOURNALS
    if run.disk.find(latest) is not None:
        run.disk.remove(oldest)
        run.disk.rename(latest, oldest)
    run.journal.archive(latest)


def last_run(view: JournalView) -> str:
    """Return the identity of the last run that did something, or an empty text."""
    done = [t for t in view.transactions if t in done_forward(view) or t.is_waiting]
    return str(about(done[-1]).get("run", "")) if done else ""


def carry_out(run: Run, plan: Plan, phase: str, direction: str) -> None:
    """Carry a plan out, wave by wave.

    Raises:
        DiskFailedError, WedgedError, InterruptedRunError: earlier waves stay done and are told; see `Executor.run_wave`.
        NoTimeError: not all could be done before the deadline; what was done stays done.
    """
    if not plan.steps:
        return
    make_engine_folder(run.disk)
    stamp(run.session, run.session.source_label() if direction != BACKWARD else run.session.carried_label())
    if direction != BACKWARD:
        _open_journal(run)
        run.pace.meter.expect(phase, load_of(plan.steps))
    run.has_begun = run.has_acted = True
    log.event("run-started", run=run.identity, phase=phase, steps=len(plan.steps), plan=plan.digest)
    described: dict[str, Any] = {"run": run.identity, "phase": phase, "direction": direction, "pack": plan.pack}
    if run.session.annexes:
        described["annexes"] = dict(run.session.annexes)
    described |= {"source": plan.source, "target": plan.target, "plan": plan.digest}
    results = run.results.setdefault(phase, [])
    try:
        for executed in _waves(run, plan, described, results):
            log.event("wave-done", run=run.identity, txid=executed)
    finally:
        run.show()
    if any(result.reason is Reason.NO_TIME for result in results):
        left = [result.step for result in results if result.reason is Reason.NO_TIME]
        raise NoTimeError(run.pace.budget.seconds, load_of(left).items)


def _waves(run: Run, plan: Plan, described: dict[str, Any], results: list[StepResult]) -> Iterator[str]:
    """Carry out one wave after the other; yields each one's transaction."""
    idle: tuple[Step, ...] = ()
    touched: tuple[tuple[str, int, int], ...] = ()
    for wave in plan.waves:
        stopping.check()
        executor = Executor(
            disk=run.disk,
            journal=run.journal,
            wave=_with_folders(wave, idle, touched),
            txid=secrets.token_hex(8),
            run=described,
            contents=dict(plan.contents),
            read_back=run.read_back,
            pace=run.pace,
        )
        try:
            results.extend(executor.run_wave())
        except UpgradeConverterError:
            # What earlier waves did stays done and is told; this wave was put back.
            results.extend(executor.results.values())
            raise
        left = {step.number: step for step in (*idle, *executor.batch.idle)}
        idle = tuple(step for _, step in sorted(left.items()) if step not in executor.steps)
        touched += executor.wave.touched
        run.pace.end_wave(wave.steps, executor.steps)
        yield executor.txid


def _with_folders(wave: Wave, folders: tuple[Step, ...], touched: tuple[tuple[str, int, int], ...]) -> Wave:
    """Return a wave with the new directories that it needs of those which an earlier one left out."""
    wanted = folders_wanted(folders, wave.steps)
    holders = {parent(step.target or "") for step in wanted} - {path for path, _, _ in wave.touched}
    more = tuple(times for times in touched if times[0] in holders)
    return replace(wave, steps=(*wanted, *wave.steps), touched=(*wave.touched, *more))
