"""What every start does first: look at the open transactions of the journal and finish or undo each.

Guarantees: a transaction is touched only if every one of its steps is in a state that the recovery table lists (D1, D4);
otherwise UnknownStateError and nothing was changed. Running again is the same as running once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from upgradeconverter.disk.port import Place
from upgradeconverter.engine.batch import steps_from_payload, told
from upgradeconverter.engine.executor import Executor
from upgradeconverter.engine.housekeeping import homes_of, is_reachable, sweep_home
from upgradeconverter.engine.pace import Pace
from upgradeconverter.engine.places import WAITING, WORKING_FOLDERS, folder_of
from upgradeconverter.engine.progress import load_of
from upgradeconverter.engine.states import STATE_OF_RECORD, State
from upgradeconverter.engine.work import StepRefusedError, check_displaced, check_source
from upgradeconverter.errors import (
    AnnexMissingError,
    UnknownStateError,
    UpgradeConverterError,
    VaultNotUsableError,
    WedgedError,
)
from upgradeconverter.journal.decide import Verdict, decide, decide_all
from upgradeconverter.journal.record import RecordKind
from upgradeconverter.model.outcome import ItemStatus
from upgradeconverter.model.plan import Shape, Wave

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from upgradeconverter.disk.port import Disk
    from upgradeconverter.journal.log import Journal, JournalView, Transaction
    from upgradeconverter.model.operation import Skip
    from upgradeconverter.model.plan import Step

# What the transactions of a run are for: to convert, or to take another one back.
FORWARD, BACKWARD = "forward", "backward"
# Until a flip is known to be committed, a target of another inode is someone else's.
_OURS_ONLY = (RecordKind.BEGIN, RecordKind.STAGED, RecordKind.UNDO)


class Recovery(Struct, frozen=True, kw_only=True):
    """What became of one open transaction: `finished` or `undone`, and which of its steps left something alone.

    Not `is_whole` is one of which something could not be put back where it was.
    """

    txid: str
    run: str
    last: str
    result: str
    left: tuple[Skip, ...] = ()
    is_whole: bool = True


def about(transaction: Transaction) -> dict[str, Any]:
    """Return what `begin` says of the run that a transaction belongs to."""
    found: dict[str, Any] = (transaction.payload(RecordKind.BEGIN) or {}).get("run", {})
    return found


def is_forward(transaction: Transaction) -> bool:
    """Return whether a transaction converts something; others take back what one of these has done, as a whole or in part."""
    return str(about(transaction).get("direction", FORWARD)) == FORWARD


def is_trial_lost(disk: Disk, view: JournalView) -> bool:
    """Return whether a trial waits of which the journal knows nothing: somebody has deleted or replaced that."""
    trials = (transaction for transaction in view.transactions if (transaction.payload(RecordKind.BEGIN) or {}).get("trial"))
    return disk.find(WAITING) is not None and not any(trials)


def open_homes(transaction: Transaction) -> tuple[str, ...]:
    """Return the homes of the domains that a transaction lies in; all must be there before it is touched."""
    return homes_of(steps_from_payload(transaction.payload(RecordKind.BEGIN) or {"steps": []}))


def unreachable(disk: Disk, transactions: Iterable[Transaction]) -> UpgradeConverterError | None:
    """Return what is wrong where a domain that one of the transactions lies in is not there, such as a vault not mounted."""
    homes = dict.fromkeys(home for transaction in transactions for home in open_homes(transaction))
    missing = (home for home in homes if not is_reachable(disk, home))
    return next((_missing(home) for home in missing), None)


def _missing(home: str) -> UpgradeConverterError:
    annex, is_annex, _ = home.partition(":")
    return AnnexMissingError(annex) if is_annex else VaultNotUsableError(home, "another file system, or none of its own")


def steps_of(view: JournalView, transaction: Transaction) -> tuple[Step, ...]:
    """Return what a transaction still stands for: its steps, without what of them a later one has taken back."""
    payload = transaction.payload(RecordKind.STAGED) or transaction.payload(RecordKind.BEGIN) or {"steps": []}
    steps, gone = steps_from_payload(payload), _taken_back(view)
    for key in [key for key in gone if key.startswith(f"{transaction.txid}/")]:
        group = tuple(step for step in steps if f"{transaction.txid}/{step.group}" == key)
        taken = taken_with(group, gone[key])
        steps = tuple(step for step in steps if step not in taken)
    return steps


def group_of(view: JournalView, group: str) -> tuple[Step, ...]:
    """Return the steps of a trial's group, as `Step.takes_back` names it."""
    txid, _, number = group.partition("/")
    waiting = (step for transaction in view.waiting if transaction.txid == txid for step in steps_of(view, transaction))
    return tuple(step for step in waiting if str(step.group) == number)


def copies_of(view: JournalView, group: str) -> tuple[Step, ...]:
    """Return the copies of a trial's group."""
    return only_copies(group_of(view, group))


def taken_with(group: tuple[Step, ...], names: Collection[str]) -> tuple[Step, ...]:
    """Return which steps of a group are taken back with the new names that make way.

    That is who gave them, and, where nothing else of the group has a new name from it, whatever else it puts away. What is made
    beside them stays, and so does what made way for that.
    """
    named = tuple(step for step in group if (step.target or step.twin) in names and step.shape is not Shape.DISPLACE)
    left = tuple(step for step in group if step not in named)
    if any(step in left for step in only_copies(group)):
        return named
    made = {step.target for step in left if step.shape is Shape.CREATE}
    return (*named, *(step for step in left if step.shape in (Shape.RETIRE, Shape.DISPLACE) and step.source not in made))


def only_copies(group: Iterable[Step]) -> tuple[Step, ...]:
    """Return which steps of a trial's group have given something a new name, or else have found it there already."""
    group = tuple(group)
    copies = tuple(step for step in group if step.shape is Shape.COPY or (step.operation == "Copy" and step.source is not None))
    return copies or tuple(step for step in group if is_duplicate(step))


def is_duplicate(step: Step) -> bool:
    """Return whether a step only puts away what is there under a new name as well."""
    return step.shape is Shape.RETIRE and step.twin is not None


def _taken_back(view: JournalView) -> dict[str, set[str]]:
    """Return which new names of groups of trials, as `transaction/group`, have made way since the old system overtook them."""
    done = [transaction for transaction in view.transactions if is_committed(transaction)]
    # As the records have them: to make steps of all that a run has done, for each of its transactions, takes too long.
    steps = (step for t in done for step in (t.payload(RecordKind.STAGED) or {"steps": []})["steps"])
    found: dict[str, set[str]] = {}
    for step in steps:
        if step["shape"] == Shape.DISPLACE.value and (key := step.get("takes_back", "")):
            found.setdefault(key, set()).add(step["source"])
    return found


def is_committed(transaction: Transaction) -> bool:
    """Return whether what a transaction publishes was there for good once."""
    return any(record.kind is RecordKind.COMMITTED for record in transaction.records)


def executor_of(disk: Disk, journal: Journal, view: JournalView, transaction: Transaction, pace: Pace | None = None) -> Executor:
    """Return an executor that stands where an open transaction, or a trial that waits, stopped."""
    begin = transaction.payload(RecordKind.BEGIN) or {}
    staged = transaction.payload(RecordKind.STAGED) or {}
    executor = Executor(
        disk=disk,
        journal=journal,
        txid=transaction.txid,
        wave=Wave(
            steps=steps_of(view, transaction),
            touched=tuple((p, a, m) for p, a, m in begin.get("touched", [])),
            restore=tuple((p, a, m) for p, a, m in begin.get("restore", [])),
            trial=bool(begin.get("trial")),
        ),
        run=begin.get("run", {}),
        homes=open_homes(transaction),
        initial=STATE_OF_RECORD[transaction.last],
        pace=pace or Pace(),
    )
    executor.work.is_committed = is_committed(transaction)
    executor.work.staged.update({int(number): identity for number, identity in staged.get("staged", {}).items()})
    executor.work.marks.update({int(number): mark for number, mark in staged.get("marks", {}).items()})
    executor.work.places.update({number: Place(**piece["place"]) for number, piece in transaction.pieces().items()})
    return executor


def judge(executor: Executor, last: RecordKind) -> tuple[Verdict, tuple[Step, ...]]:
    """Return what the disk allows for a transaction, and the steps of which somebody deleted something.

    UnknownStateError names the step that fits no row.
    """
    verdicts = []
    alone = []
    for step in executor.steps:
        who = executor.work.who(step, ours_only=last in _OURS_ONLY)
        verdict = decide(step.shape, last, who)
        if verdict is Verdict.REFUSE:
            raise UnknownStateError(executor.txid, step.number, last.value, f"{who} ({step.source} -> {step.target})")
        if verdict is Verdict.FORTH and last is RecordKind.STAGED:
            verdict = _unless_changed(executor, step, who)
        if verdict is Verdict.ALONE:
            alone.append(step)
        verdicts.append(verdict)
    return decide_all(tuple(verdicts)), tuple(alone)


def _unless_changed(executor: Executor, step: Step, who: str) -> Verdict:
    """Return whether what a step was decided by is still so: either system may have run and written since."""
    try:
        if (step.shape is Shape.COPY and "G" in who) or (step.shape is Shape.STREAM and "S" in who and "X" not in who):
            check_source(executor.disk, step, deep=True)
        elif step.shape is Shape.DISPLACE and "S" in who:
            check_displaced(executor.work, step)
    except (StepRefusedError, OSError):
        # What cannot be looked at is no reason to stop half way, either.
        return Verdict.BACK
    return Verdict.FORTH


def recover(
    disk: Disk,
    journal: Journal,
    view: JournalView,
    *,
    undo: bool = False,
    pace: Pace | None = None,
    spared: Collection[str] = (),
) -> tuple[Recovery, ...]:
    """Finish or undo every open transaction, newest first; `undo` takes back also what could be finished.

    One that takes another one back is never undone for that: finished, it has come nearer to what is wanted. One that is past
    the point up to which it can be undone is finished as well, and has to be turned round. Trials that wait are left alone, but
    for `undo`, which comes to them last, and to as many as there is time for; those that are `spared` stay.

    Raises:
        UnknownStateError: no open transaction was touched, or no trial.
        WedgedError: the disk refused.
    """
    settle(disk, journal, view)
    pace = pace or Pace()
    done = _recover_all(disk, journal, view, view.open, Pace(meter=pace.meter), undo=undo)
    if undo:
        # Which parts of them still count is known only now.
        view = journal.read(repair=True)
        waiting = [transaction for transaction in view.waiting if transaction.txid not in spared]
        done += _recover_all(disk, journal, view, waiting, pace, undo=True)
    sweep_closed(disk, view)
    return done


def _recover_all(
    disk: Disk, journal: Journal, view: JournalView, concerned: Iterable[Transaction], pace: Pace, *, undo: bool
) -> tuple[Recovery, ...]:
    pairs = [(transaction, executor_of(disk, journal, view, transaction, pace)) for transaction in concerned]
    judged = [(transaction, executor, *judge(executor, transaction.last)) for transaction, executor in pairs]
    done: list[Recovery] = []
    for transaction, executor, verdict, alone in reversed(judged):
        if pace.budget.is_over:
            break
        done.append(_recover_one(transaction, executor, verdict, alone, undo=undo))
        load = load_of(executor.wave.steps, reads=False)
        pace.meter.wave_over(load, load)
    return tuple(done)


def _recover_one(
    transaction: Transaction, executor: Executor, verdict: Verdict, alone: tuple[Step, ...], *, undo: bool
) -> Recovery:
    backwards = verdict is Verdict.BACK or (undo and is_forward(transaction) and _can_undo(executor))
    try:
        if not backwards:
            executor.let_go(alone)
        backwards = backwards or not _went_forth(executor)
        if backwards:
            executor.go_back()
    except OSError as error:
        raise WedgedError(transaction.txid, told(error)) from error
    return Recovery(
        txid=transaction.txid,
        run=str(executor.run.get("run", "")),
        last=transaction.last.value,
        result="undone" if backwards else "finished",
        left=executor.batch.left(),
        is_whole=not backwards or all(result.status is not ItemStatus.LEFT for result in executor.results.values()),
    )


def _went_forth(executor: Executor) -> bool:
    """Finish a transaction; False when the disk refuses while it still can be put back."""
    try:
        executor.go_forth()
    except OSError:
        if executor.machine.state not in (State.FLIPPING, State.VERIFYING):
            raise
        return False
    return True


def settle(disk: Disk, journal: Journal, view: JournalView) -> None:
    """Make durable what can be seen, before anything is concluded from it.

    When only the process died, records and names may be seen that no sync has covered yet. Acting on them and then losing them
    in a power cut would turn the order of things round (J1).
    """
    homes = dict.fromkeys(home for transaction in view.open for home in open_homes(transaction))
    if not view.transactions:
        return
    if not homes and not has_leftovers(disk, ""):
        disk.sync_file(journal.path)
        return
    # The root's file system holds the journal.
    for home in dict.fromkeys(("", *homes)):
        if disk.find(home) is not None:
            disk.sync_filesystem(home)


def _can_undo(executor: Executor) -> bool:
    """Return whether every step can still be taken back; else what is finished has to be turned round."""
    waits = executor.wave.trial and executor.machine.state is State.COMMITTED
    return all(_can_undo_step(executor, step, waits=waits) for step in executor.steps)


def _can_undo_step(executor: Executor, step: Step, *, waits: bool) -> bool:
    who = executor.work.who(step, ours_only=True)
    if step.shape is Shape.STREAM and executor.work.is_committed:
        # What it came from has no content any more: it has to be turned round.
        return False
    # A source that is gone was deleted by the old system while a trial waits, and put away by us otherwise.
    is_retired = step.shape is Shape.COPY and who == "..T." and not waits
    return not is_retired and decide(step.shape, RecordKind.UNDO, who) is not Verdict.REFUSE


def sweep_closed(disk: Disk, view: JournalView) -> None:
    """Delete what transactions left that were closed but not swept before the machine stopped (J6)."""
    for transaction in view.transactions:
        if transaction.is_open:
            continue
        for home in {*open_homes(transaction), ""}:
            if has_leftovers(disk, home):
                is_garbage = any(disk.find(f"{folder_of(home)}/{name}") is not None for name in WORKING_FOLDERS)
                sweep_home(disk, home, transaction.txid)
                if is_garbage:
                    # The journal may go next, and then nobody knows of it any more.
                    disk.sync_filesystem(home)


def has_leftovers(disk: Disk, home: str) -> bool:
    """Return whether the engine left anything in a domain that is there only while a transaction is open."""
    folder = folder_of(home)
    places = (folder,) if home else tuple(f"{folder}/{name}" for name in WORKING_FOLDERS)
    return any(disk.find(place) is not None for place in places)
