"""Carries out one wave as one transaction: begin, stage, sync, flip, commit, retire, done; or all the way back.

Calling sequence: `run_wave` for a new wave; `engine.recover` builds an Executor on a transaction found open and calls
`go_forth` or `go_back`. Both use the same methods: there is one path for every operation.

Guarantees: D1-D5 of `docs/durability.md`. After an exception nothing is worse than before: either the wave was put back
(DiskFailedError), or the journal says how far it came (WedgedError).

Must not know: packs, layouts, plans of other waves.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from upgradeconverter import log
from upgradeconverter.engine import passing, undo
from upgradeconverter.engine import steps as handlers
from upgradeconverter.engine.batch import Batch, StepResult, is_boundary, told
from upgradeconverter.engine.housekeeping import (
    free_path,
    homes_of,
    is_reachable,
    make_folder,
    restore_times,
    sweep_home,
    sync_folders,
)
from upgradeconverter.engine.machine import RunMachine
from upgradeconverter.engine.pace import Pace
from upgradeconverter.engine.places import folder_of, parent, quarantine_path, stage_folder
from upgradeconverter.engine.states import State
from upgradeconverter.engine.work import StepRefusedError, Work, retires
from upgradeconverter.errors import BoundaryError, DiskFailedError, HaltedError, InterruptedRunError, WedgedError
from upgradeconverter.journal.record import EVERY_KIND, RecordKind
from upgradeconverter.model.outcome import ItemStatus, Reason
from upgradeconverter.model.plan import Shape, Step, Wave, as_data

if TYPE_CHECKING:
    from collections.abc import Mapping

    from upgradeconverter.disk.port import Disk
    from upgradeconverter.journal.log import Journal


@dataclass(slots=True, kw_only=True)
class Executor:
    """One transaction.

    Attributes:
        wave: what is carried out, as it was planned.
        run: what `begin` records about the run: id, direction, pack, layouts, plan digest.
        homes: domains that the wave lies in, also where all its steps there were dropped.
        read_back: `all`, `sample` or `none`: which staged copies are read again before they count.
        pace: what is told how it goes, and says when to break off.
        batch: the steps that are left of the wave, and what became of the others.
    """

    disk: Disk
    journal: Journal
    txid: str
    wave: Wave
    run: Mapping[str, Any] = field(default_factory=dict)
    contents: Mapping[str, bytes] = field(default_factory=dict)
    read_back: str = "none"
    pace: Pace = field(default_factory=Pace)
    homes: tuple[str, ...] = ()
    initial: State = State.PREPARED
    work: Work = field(init=False)
    batch: Batch = field(init=False)
    machine: RunMachine = field(init=False)

    def __post_init__(self) -> None:
        """Build the handlers' context, the batch and the machine."""
        self.homes = self.homes or homes_of(self.wave.steps)
        self.work = Work(
            disk=self.disk,
            txid=self.txid,
            contents=self.contents,
            progress=self.pace.moved,
            record_piece=lambda payload: self._record(RecordKind.PIECE, payload),
        )
        self.batch = Batch(work=self.work, steps=self.wave.steps, trial=self.wave.trial, pace=self.pace)
        self.machine = RunMachine(self._record, self.initial)

    @property
    def steps(self) -> tuple[Step, ...]:
        """What is left of the wave's steps."""
        return self.batch.steps

    @property
    def results(self) -> dict[int, StepResult]:
        """What became of steps so far."""
        return self.batch.results

    def _record(self, kind: RecordKind, payload: dict[str, Any]) -> None:
        self.journal.append(self.txid, kind, payload)

    # --- a new wave ----------------------------------------------------------------------------------------------------

    def run_wave(self) -> tuple[StepResult, ...]:
        """Carry the wave out; returns what became of each step.

        Raises:
            DiskFailedError: the disk refused something; all was put back.
            WedgedError: it refused the way back as well.
        """
        self.batch.check()
        if not self.steps:
            return tuple(self.results.values())
        try:
            make_folder(self.disk, folder_of(""))
            self.machine.move("begin", self._begin_payload())
        except OSError as error:
            self._not_begun(error)
        try:
            self.batch.stage(self.read_back)
        except InterruptedRunError:
            self._abandon()
            raise
        except OSError as error:
            self._put_back(error)
        if not self.steps:
            self._abandon()
            return tuple(self.results.values())
        try:
            self.machine.move("flip", self.batch.payload())
            self.go_forth()
        except OSError as error:
            self._put_back(error)
        return tuple(self.results[number] for number in sorted(self.results))

    def _not_begun(self, error: OSError) -> None:
        """Close the transaction if its `begin` reached the journal although the disk said no; never returns."""
        try:
            if any(transaction.txid == self.txid for transaction in self.journal.read(repair=True, brief=EVERY_KIND).open):
                restore_times(self.disk, self.wave.touched)
                self._record(RecordKind.ABORTED, {})
        except OSError as second:
            raise WedgedError(self.txid, told(second)) from error
        raise DiskFailedError("beginning", str(error.filename or ""), error.strerror or str(error)) from error

    def _begin_payload(self) -> dict[str, Any]:
        return {
            "run": dict(self.run),
            "trial": self.wave.trial,
            "steps": [as_data(step) for step in self.steps],
            "touched": [list(entry) for entry in self.wave.touched],
            "restore": [list(entry) for entry in self.wave.restore],
        }

    # --- forth ---------------------------------------------------------------------------------------------------------

    def go_forth(self) -> None:
        """Finish a transaction from wherever it stands (FLIPPING, COMMITTED or RETIRED)."""
        self._check_homes()
        if self.machine.state is State.FLIPPING:
            self._flip()
        if self.machine.state is State.COMMITTED and self.wave.trial:
            self._wait()
            return
        if self.machine.state in (State.COMMITTED, State.CONFIRMED):
            self._retire()
        if self.machine.state is State.RETIRED:
            self.machine.move("finish")
            self._tidy()

    def _wait(self) -> None:
        """Leave a trial as it is: both layouts are whole."""
        for step in self.steps:
            waiting = self.batch.aside.get(step.number) or StepResult(step=step, status=ItemStatus.WAITING)
            self.results.setdefault(step.number, waiting if step.shape is not Shape.DISPLACE else self._retire_one(step))
        with suppress(OSError):
            restore_times(self.disk, self._unchanged())
        self._tidy()

    @property
    def is_open(self) -> bool:
        """Whether it still has to be finished."""
        return self.machine.state not in (State.DONE, State.ROLLED_BACK)

    def confirm(self) -> None:
        """Let a trial become lasting; from then on it is finished like any other."""
        self.machine.move("confirm")

    def let_go(self, steps: tuple[Step, ...]) -> None:
        """Put back what there is of steps of which somebody deleted something since, and go on without them."""
        for step in steps:
            undo.back(self.work, step)
            detail = f"{step.target or step.source} was deleted by somebody"
            reason = Reason.CHANGED_MEANWHILE
            self.results[step.number] = StepResult(step=step, status=ItemStatus.LEFT, reason=reason, detail=detail)
        self.batch.steps = tuple(step for step in self.steps if step not in steps)

    def _tidy(self) -> None:
        """Sweep a closed transaction; what the disk refuses now is left to the next start, for the wave itself is done."""
        with suppress(OSError):
            self.sweep()

    def _flip(self) -> None:
        self.pace.meter.now("finishing")
        displaced = tuple(step for step in self.steps if step.shape is Shape.DISPLACE)
        going = tuple(step for step in self.steps if step.shape in (Shape.DISPLACE, Shape.STREAM))
        away = (*(self.work.trash_path(step) for step in going), *(self.work.aside_path(step) for step in displaced))
        for folder in dict.fromkeys(parent(path) for path in away):
            make_folder(self.disk, folder)
        for step in self.steps:
            log.detail("flip", txid=self.txid, step=step.number)
            if step.shape is Shape.STREAM:
                self.pace.meter.now("copying")
                passing.go_over(self.work, step)
                self.pace.meter.now("finishing")
            else:
                handlers.flip(self.work, step)
            self.pace.meter.ended(step)
        for step in self.steps:
            in_place = step.shape in (Shape.RENAME, Shape.ADJUST) or step.method == "link"
            if in_place and self.disk.find(step.target or "") is not None:
                self.disk.sync_file(step.target or "")
        sync_folders(self.disk, (folder for step in self.steps for folder in handlers.folders_of_flip(self.work, step)))
        self._keep_what_changed(displaced)
        self.machine.move("check")
        for step in self.steps:
            if step.target is not None and not self.work.has_published(step):
                message = "the target is not there after the flip"
                raise OSError(5, message, step.target)
        self.machine.move("commit")
        self.work.is_committed = True

    def _keep_what_changed(self, displaced: tuple[Step, ...]) -> None:
        for step in displaced:
            kept = handlers.keep_what_changed(self.work, step)
            if kept is not None:
                status = ItemStatus.QUARANTINED
                self.batch.aside[step.number] = StepResult(step=step, status=status, reason=kept.reason, detail=kept.detail)

    def _retire(self) -> None:
        for folder in dict.fromkeys(parent(self.work.trash_path(s)) for s in self.steps if retires(s)):
            make_folder(self.disk, folder)
        self.work.look_around(self.steps)
        for step in self.steps:
            self.results[step.number] = self._retire_one(step)
            self.pace.meter.ended(step, reads=False)
        refused = handlers.bring_back_lived_in(self.work, self.steps)
        for step in (step for step in self.steps if step.number in refused):
            known = StepResult(step=step, status=ItemStatus.DONE)
            self.results[step.number] = self._stays(step, known, refused[step.number])
        sync_folders(self.disk, (folder for step in self.steps for folder in handlers.folders_of_retire(self.work, step)))
        restore_times(self.disk, (*self._unchanged(), *self.wave.restore))
        self.machine.move("retire")

    def _retire_one(self, step: Step) -> StepResult:
        known = self.results.get(step.number) or self.batch.aside.get(step.number)
        known = known or StepResult(step=step, status=ItemStatus.DONE)
        # What made way has done so when the others were published.
        refused = handlers.retire(self.work, step) if step.shape is not Shape.DISPLACE else None
        if refused is None and step.keeps:
            detail = known.detail or f"set aside as {self.work.aside_path(step)}"
            return StepResult(step=step, status=ItemStatus.QUARANTINED, reason=Reason(step.why), detail=detail)
        if refused is None:
            return known
        if self.wave.trial and handlers.is_to_be_set_aside(self.work, step, refused):
            make_folder(self.disk, parent(self.work.aside_path(step)))
            refused = handlers.set_aside(self.work, step)
        return self._stays(step, known, refused)

    def _stays(self, step: Step, known: StepResult, refused: StepRefusedError) -> StepResult:
        """Return what became of a step whose source stays where it was."""
        is_gone = step.target is not None and not handlers.is_still_published(self.work, step)
        status = ItemStatus.LEFT if step.shape is Shape.RETIRE or is_gone else known.status
        return replace(known, status=status, reason=None if step.once_empty else refused.reason, detail=refused.detail)

    def _unchanged(self) -> tuple[tuple[str, int, int], ...]:
        """Return the times of homes in which only the engine's own came and went: nothing shall tell of it."""
        holders = {parent(path) for step in self.steps for path in (step.source, step.target) if path}
        return tuple(times for times in self.wave.touched if times[0] in {*self.homes, ""} - holders)

    def sweep(self) -> None:
        """Delete what is garbage once the transaction is closed: trash, stage, manifests, empty folders (J6)."""
        for home in sorted({*self.homes, ""}, key=len, reverse=True):
            sweep_home(self.disk, home, self.txid)

    def _sweep_for_good(self) -> None:
        """Sweep before `aborted` is written: when that was the last one of a run, nobody may ever look for what is left."""
        self.sweep()
        sync_folders(self.disk, (folder_of(home) for home in (*self.homes, "")))

    # --- back ----------------------------------------------------------------------------------------------------------

    def _put_back(self, error: OSError) -> None:
        """Undo after the disk failed; ends in DiskFailedError or WedgedError, never returns."""
        problem = error.strerror or str(error)
        if self.work.is_committed and any(step.shape is Shape.STREAM for step in self.steps):
            # The source has no content any more, and the new one counts: there is only one way.
            raise HaltedError(str(error.filename or "the disk"), problem) from error
        try:
            if self.machine.state is State.STAGING:
                self._abandon()
            else:
                self.go_back()
        except OSError as second:
            raise WedgedError(self.txid, told(second)) from error
        kind = BoundaryError if is_boundary(error) and self._renames() else DiskFailedError
        raise kind("converting", str(error.filename or ""), problem) from error

    def _renames(self) -> bool:
        return any(step.shape is Shape.RENAME or step.method == "link" for step in self.steps)

    def _abandon(self) -> None:
        for home in self.homes:
            self.disk.remove(stage_folder(home, self.txid))
        self._sweep_for_good()
        restore_times(self.disk, self.wave.touched)
        self.machine.move("abandon")

    def go_back(self) -> None:
        """Undo a transaction from wherever it stands, in reverse order of its steps."""
        self._check_homes()
        if self.machine.state is State.STAGING:
            self._abandon()
            return
        if self.machine.state is not State.ROLLING_BACK:
            self.machine.move("undo")
        for step in reversed(self.steps):
            if step.shape in (Shape.COPY, Shape.STREAM, Shape.CREATE) and self.work.has_published(step):
                make_folder(self.disk, stage_folder(step.target_home, self.txid))
            self.results[step.number] = self._put_one_back(step)
            self.pace.meter.ended(step, reads=False)
        sync_folders(self.disk, (folder for step in self.steps for folder in handlers.folders_of_flip(self.work, step)))
        for home in self.homes:
            self.disk.remove(stage_folder(home, self.txid))
        self._sweep_for_good()
        restore_times(self.disk, self.wave.touched)
        self.machine.move("undone")

    def _put_one_back(self, step: Step) -> StepResult:
        if (fixed := undo.reason_to_leave(self.work, step)) is not None:
            return StepResult(step=step, status=ItemStatus.LEFT, reason=fixed.reason, detail=fixed.detail)
        kept = undo.reason_to_keep(self.work, step)
        if kept is None:
            left = undo.back(self.work, step)
            if left is None:
                return StepResult(step=step, status=ItemStatus.UNDONE)
            is_aside = step.shape is Shape.STREAM or self.disk.find(self.work.aside_path(step)) is not None
            status = ItemStatus.LEFT if is_aside else ItemStatus.UNDONE
            return StepResult(step=step, status=status, reason=left.reason, detail=left.detail)
        aside = free_path(self.disk, quarantine_path(step.target_home, self.txid, step.number))
        make_folder(self.disk, parent(aside))
        undo.back(self.work, step, aside=aside)
        detail = f"{kept.detail}; it was set aside as {aside}"
        return StepResult(step=step, status=ItemStatus.UNDONE, reason=kept.reason, detail=detail)

    def _check_homes(self) -> None:
        """Raise OSError unless every domain is there: names in a vault that was locked meanwhile only look absent."""
        for home in self.homes:
            if not is_reachable(self.disk, home):
                raise OSError(errno.ENOKEY, "the vault was locked or unmounted meanwhile", home)

    # --- helpers -------------------------------------------------------------------------------------------------------
