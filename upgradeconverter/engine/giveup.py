"""A start that failed and leaves nothing half made: what it did is taken back, and readers meet what was there before.

Taken back is what this start did, and what starts before it did in the same phases of a run that has not come to its end yet. A
trial that waits from an earlier boot stays. There is no deadline for it.

Calling sequence: `giving_up` around all that a start does under the lock.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from msgspec.structs import replace

from upgradeconverter import log
from upgradeconverter.engine.ledger import journals_of, last_noted
from upgradeconverter.engine.pace import Pace
from upgradeconverter.engine.recover import about, recover
from upgradeconverter.engine.run import done_forward, last_run, mark_waiting
from upgradeconverter.engine.takeback import forget, turn_round
from upgradeconverter.errors import (
    EXIT_REFUSED,
    EXIT_ROLLED_BACK,
    HaltedError,
    InterruptedRunError,
    PausedError,
    TakenBackError,
    UpgradeConverterError,
)
from upgradeconverter.journal.record import EVERY_KIND
from upgradeconverter.model.outcome import ItemStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from upgradeconverter.engine.run import Run
    from upgradeconverter.journal.log import JournalView, Transaction


@contextmanager
def giving_up(run: Run, phase: str) -> Iterator[None]:
    """Take back what was done where the body fails.

    Raises:
        TakenBackError: it failed, and the disk is as it was before.
        UpgradeConverterError: it failed, and not all could be taken back: why, or else what the body failed of.
    """
    phases = frozenset(each.name for each in run.session.phases(phase))
    settled = _settled(run, phases)
    try:
        yield
    except (InterruptedRunError, TakenBackError):
        # Who asks to stop has no time for more.
        raise
    except UpgradeConverterError as error:
        concerned = _concerned(run, settled)
        if concerned and _is_passing(error):
            _take_back(run, error, settled)
        elif concerned or error.exit_status != EXIT_ROLLED_BACK:
            raise
        raise TakenBackError(error) from error


def _is_passing(error: UpgradeConverterError) -> bool:
    """Return whether what ended a start leaves a disk on which something can be taken back."""
    return error.exit_status in (EXIT_REFUSED, EXIT_ROLLED_BACK) or isinstance(error, HaltedError | PausedError)


def _settled(run: Run, phases: frozenset[str]) -> frozenset[str]:
    """Return the transactions that are none of our business: of other phases, or of starts that had come to their end."""
    view = run.journal.read(repair=False, brief=EVERY_KIND)
    if not view.transactions:
        return frozenset()
    known, last = run.session.stamp(), last_run(view)
    is_unfinished = known is None or known.run != last
    # A start that died has noted nothing, also in a run that goes on after an earlier start of it has ended.
    noted = journals_of(last_noted(run.disk)).get(view.transactions[0].txid, 0)
    ours = {
        t.txid
        for t in view.transactions
        if about(t).get("phase") in phases
        and (t.records[-1].sequence >= noted or (is_unfinished and about(t).get("run") == last))
    }
    return frozenset(t.txid for t in view.transactions if not t.is_open) - ours


def _concerned(run: Run, settled: frozenset[str]) -> bool:
    view = run.journal.read(repair=True, brief=EVERY_KIND)
    return any(t.txid not in settled for t in (*view.open, *view.waiting, *done_forward(view)))


def _take_back(run: Run, error: UpgradeConverterError, settled: frozenset[str]) -> None:
    log.event("giving-up", code=error.code)
    run.report.warn(f"{error.code}: {error.message}")
    run.pace = Pace(meter=run.pace.meter)
    plans, results = dict(run.plans), dict(run.results)
    recovered = recover(run.disk, run.journal, run.journal.read(repair=True), undo=True, pace=run.pace, spared=settled)
    turn_round(run, _left(run.journal.read(repair=True), settled))
    back = [plan for name, plan in run.plans.items() if name not in plans]
    is_whole = all(each.is_whole for each in recovered) and not any(plan.skips for plan in back)
    is_whole = is_whole and all(
        r.status is not ItemStatus.LEFT for name in run.results if name not in results for r in run.results[name]
    )
    mark_waiting(run)
    if not is_whole:
        run.report.warn("not everything could be taken back; what could not is named with its reason")
        run.show()
        raise error
    run.plans = plans
    run.results = {name: [replace(r, status=ItemStatus.UNDONE) for r in each] for name, each in results.items()}
    run.show()
    if not settled & {t.txid for t in run.journal.read(repair=True, brief=EVERY_KIND).transactions}:
        forget(run)


def _left(view: JournalView, settled: frozenset[str]) -> tuple[Transaction, ...]:
    return tuple(t for t in done_forward(view) if t.txid not in settled)
