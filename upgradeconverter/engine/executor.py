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
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from upgradeconverter import log
from upgradeconverter.disk.port import SourceChangedError, SourceInUseError
from upgradeconverter.engine import steps as handlers
from upgradeconverter.engine import stopping
from upgradeconverter.engine.machine import RunMachine
from upgradeconverter.engine.places import (
    QUARANTINE,
    WORKING_FOLDERS,
    folder_of,
    manifest_path,
    parent,
    quarantine_path,
    stage_folder,
    trash_folder,
)
from upgradeconverter.engine.states import State
from upgradeconverter.engine.steps import StepRefusedError, Work
from upgradeconverter.errors import BoundaryError, DiskFailedError, InterruptedRunError, WedgedError
from upgradeconverter.journal.record import RecordKind
from upgradeconverter.model.entry import Kind
from upgradeconverter.model.operation import Skip
from upgradeconverter.model.outcome import ItemStatus, Reason
from upgradeconverter.model.plan import Attributes, Shape, Step, Wave, as_data, folders_wanted, step_from_data

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from upgradeconverter.disk.port import Disk, Progress
    from upgradeconverter.journal.log import Journal

_PRIVATE = Attributes(mode=0o700)
# What a rename across an encryption policy or quota project gives; older kernels say EPERM (fscrypt, "Access semantics").
_BOUNDARY = (errno.EXDEV, errno.EPERM)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What became of one step of the plan; `step` is what was carried out in the end."""

    step: Step
    status: ItemStatus
    reason: Reason | None = None
    detail: str = ""


@dataclass(slots=True, kw_only=True)
class Executor:
    """One transaction.

    Attributes:
        run: what `begin` records about the run: id, direction, pack, layouts, plan digest.
        steps: what is carried out; shrinks while staging, then stays as `staged` records it.
        touched, restore: see `Wave`.
        homes: domains that the wave lies in, also where all its steps there were dropped.
        idle: new directories that nothing goes into any more, because what was to go there was dropped.
        aside: what will have become of the steps that set something aside, once they are carried out.
        read_back: `all`, `sample` or `none`: which staged copies are read again before they count.
        trial: whether the sources stay until the transaction is confirmed.
    """

    disk: Disk
    journal: Journal
    txid: str
    steps: tuple[Step, ...]
    touched: tuple[tuple[str, int, int], ...] = ()
    restore: tuple[tuple[str, int, int], ...] = ()
    run: Mapping[str, Any] = field(default_factory=dict)
    contents: Mapping[str, bytes] = field(default_factory=dict)
    read_back: str = "none"
    trial: bool = False
    progress: Progress | None = None
    results: dict[int, StepResult] = field(default_factory=dict)
    homes: tuple[str, ...] = ()
    idle: tuple[Step, ...] = ()
    aside: dict[int, StepResult] = field(default_factory=dict)
    work: Work = field(init=False)
    machine: RunMachine = field(init=False)
    initial: State = State.PREPARED

    def __post_init__(self) -> None:
        """Build the handlers' context and the machine."""
        self.homes = self.homes or homes_of(self.steps)
        self.work = Work(disk=self.disk, txid=self.txid, contents=self.contents, progress=self._on_progress)
        self.machine = RunMachine(self._record, self.initial)

    def _on_progress(self, size: int) -> None:
        stopping.check()
        if self.progress is not None:
            self.progress(size)

    def _record(self, kind: RecordKind, payload: dict[str, Any]) -> None:
        self.journal.append(self.txid, kind, payload)

    # --- a new wave ----------------------------------------------------------------------------------------------------

    def run_wave(self) -> tuple[StepResult, ...]:
        """Carry the wave out; returns what became of each step.

        Raises:
            DiskFailedError: the disk refused something; all was put back.
            WedgedError: it refused the way back as well.
        """
        self._check_all()
        self._drop_idle_folders()
        if not self.steps:
            return tuple(self.results.values())
        try:
            self._make_folder(folder_of(""))
            self.machine.move("begin", self._begin_payload())
        except OSError as error:
            self._not_begun(error)
        try:
            self._stage()
        except InterruptedRunError:
            self._abandon()
            raise
        except OSError as error:
            self._put_back(error)
        if not self.steps:
            self._abandon()
            return tuple(self.results.values())
        try:
            self.machine.move("flip", self._staged_payload())
            self.go_forth()
        except OSError as error:
            self._put_back(error)
        return tuple(self.results[number] for number in sorted(self.results))

    def _not_begun(self, error: OSError) -> None:
        """Close the transaction if its `begin` reached the journal although the disk said no; never returns."""
        try:
            if any(transaction.txid == self.txid for transaction in self.journal.read(repair=True).open):
                self._restore_times(self.touched)
                self._record(RecordKind.ABORTED, {})
        except OSError as second:
            raise WedgedError(self.txid, second.strerror or str(second)) from error
        raise DiskFailedError("beginning", str(error.filename or ""), error.strerror or str(error)) from error

    def _begin_payload(self) -> dict[str, Any]:
        return {
            "run": dict(self.run),
            "trial": self.trial,
            "steps": [as_data(step) for step in self.steps],
            "touched": [list(entry) for entry in self.touched],
            "restore": [list(entry) for entry in self.restore],
        }

    def _staged_payload(self) -> dict[str, Any]:
        return {
            "steps": [as_data(step) for step in self.steps],
            "staged": {str(number): identity for number, identity in sorted(self.work.staged.items())},
            "marks": {str(number): mark for number, mark in sorted(self.work.marks.items())},
            "digests": {str(number): digest for number, digest in sorted(self.work.digests.items())},
        }

    def left(self) -> tuple[Skip, ...]:
        """Return what was left alone, with the reason."""
        found = ((result, result.step.source or result.step.target or "") for result in self.results.values())
        return tuple(Skip(path=path, reason=r.reason, detail=r.detail) for r, path in found if r.reason is not None)

    def _check_all(self) -> None:
        for group in self._groups():
            try:
                for step in group:
                    handlers.check_source(self.disk, step, deep=False)
                    handlers.check_unused(self.work, step)
            except StepRefusedError as refused:
                self._drop(group, refused.reason, refused.detail)

    def _groups(self) -> tuple[tuple[Step, ...], ...]:
        """Return what flips together or not at all; of what is shared by others each step stands for itself."""
        groups: dict[tuple[int, int], list[Step]] = {}
        for step in self.steps:
            groups.setdefault((step.group, 0 if step.group else step.number), []).append(step)
        return tuple(tuple(group) for group in groups.values())

    def _drop(self, group: Iterable[Step], reason: Reason | None, detail: str) -> None:
        """Leave a whole group alone: what must flip together flips together or not at all (D10).

        With a new directory goes all that was to lie in it.
        """
        group = tuple(group)
        for folder in (step.target for step in group if step.shape is Shape.CREATE and step.made_of == "directory"):
            inside = f"{folder}/"
            for other in self._groups():
                if other != group and any((step.target or "").startswith(inside) for step in other):
                    self._drop(other, reason, f"{folder} cannot be made: {detail}")
        for step in group:
            if step.group == 0 and step.shape is Shape.CREATE and step not in self.idle:
                # A later wave may need it still.
                self.idle += (step,)
            self.results[step.number] = StepResult(step=step, status=ItemStatus.LEFT, reason=reason, detail=detail)
            self.work.staged.pop(step.number, None)
            self.work.marks.pop(step.number, None)
            self.work.digests.pop(step.number, None)
            if step.shape in (Shape.COPY, Shape.CREATE):
                self.disk.remove(self.work.stage_path(step))
        gone = {step.number for step in group}
        self.steps = tuple(step for step in self.steps if step.number not in gone)

    def _drop_idle_folders(self) -> None:
        """Leave out new directories that only dropped steps needed."""
        folders = tuple(s for s in self.steps if s.group == 0 and s.shape is Shape.CREATE and s.made_of == "directory")
        wanted = folders_wanted(folders, (step for step in self.steps if step not in folders))
        for step in folders:
            if step not in wanted and step in self.steps:
                self._drop((step,), None, "nothing goes into it")

    # --- staging -------------------------------------------------------------------------------------------------------

    def _stage_homes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(s.target_home for s in self.steps if s.shape in (Shape.COPY, Shape.CREATE)))

    def _stage(self) -> None:
        for home in self._stage_homes():
            self._make_folder(stage_folder(home, self.txid), at_once=False)
        manifests: dict[str, list[str]] = {}
        for group in self._groups():
            stopping.check()
            if all(step in self.steps for step in group):
                self._stage_group(group, manifests)
        self._drop_idle_folders()
        for names in self.work.names.values():
            self.disk.remove(names.folder)
        for step in self.steps:
            handlers.mark(self.work, step)
        for home in self._stage_homes():
            text = "".join(sorted(manifests.get(home, []))).encode("utf-8", "surrogateescape")
            self._make_folder(parent(manifest_path(home, self.txid)), at_once=False)
            self.disk.write_file(manifest_path(home, self.txid), text, Attributes(mode=0o600))
            # J2: one sync covers every staged file, directory and link of this file system, the manifest, and their folders.
            self.disk.sync_filesystem(folder_of(home))
        if self.read_back != "none":
            self._read_back()

    def _stage_group(self, group: tuple[Step, ...], manifests: dict[str, list[str]]) -> None:
        lines: dict[str, list[str]] = {}
        try:
            for step in group:
                receipt = handlers.stage(self.work, step)
                if receipt is not None:
                    lines.setdefault(step.target_home, []).append(f"{step.number}\n{receipt.manifest}")
        except StepRefusedError as refused:
            self._refuse_group(group, refused)
        except SourceChangedError as error:
            is_open = isinstance(error, SourceInUseError)
            self._drop(group, Reason.IN_USE if is_open else Reason.CHANGED_MEANWHILE, str(error))
        except OSError as error:
            self._drop_unless_boundary(group, error)
        else:
            for home, texts in lines.items():
                manifests.setdefault(home, []).extend(texts)

    def _drop_unless_boundary(self, group: tuple[Step, ...], error: OSError) -> None:
        if error.errno in _BOUNDARY and any(step.method == "link" for step in group):
            raise error
        # D10: one file that cannot be read must not stop the others; a disk that is bad fails at the sync below.
        reason = Reason.NO_SPACE if error.errno in (errno.ENOSPC, errno.EDQUOT) else Reason.DISK_FAILED
        self._drop(group, reason, f"{error.filename or ''}: {error.strerror or error}")

    def _refuse_group(self, group: tuple[Step, ...], refused: StepRefusedError) -> None:
        claimed = next((s for s in group if s.sha256 is not None), None)
        before = self.steps
        self._drop(group, refused.reason, refused.detail)
        if refused.reason is not Reason.DIGEST_MISMATCH or claimed is None:
            return
        aside = handlers.quarantined(claimed, refused.reason)
        # The directory that only held it is emptied by this as well.
        follows = {step.number for step in group if step.shape is Shape.RETIRE and step.made_of == "directory"}
        for number in follows:
            self.results.pop(number, None)
        kept = {step.number for step in self.steps} | follows
        self.steps = tuple(aside if step is claimed else step for step in before if step is claimed or step.number in kept)
        self.results.pop(claimed.number, None)
        status = ItemStatus.WAITING if self.trial else ItemStatus.QUARANTINED
        detail = f"{refused.detail}; {'to be ' if self.trial else ''}set aside as {self.work.aside_path(aside)}"
        self.aside[claimed.number] = StepResult(step=aside, status=status, reason=refused.reason, detail=detail)

    def _read_back(self) -> None:
        for step in self.steps:
            if step.shape is not Shape.COPY or step.omissions or step.method == "link":
                continue
            if self.read_back == "sample" and step.number % 16:
                continue
            additions = tuple((name, self.contents[digest]) for name, digest in step.additions)
            if not self.disk.same_content(step.source or "", self.work.stage_path(step), additions):
                message = "the staged copy reads back differently"
                raise OSError(5, message, self.work.stage_path(step))

    # --- forth ---------------------------------------------------------------------------------------------------------

    def go_forth(self) -> None:
        """Finish a transaction from wherever it stands (FLIPPING, COMMITTED or RETIRED)."""
        self._check_homes()
        if self.machine.state is State.FLIPPING:
            self._flip()
        if self.machine.state is State.COMMITTED and self.trial:
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
            waiting = self.aside.get(step.number) or StepResult(step=step, status=ItemStatus.WAITING)
            self.results.setdefault(step.number, waiting)
        with suppress(OSError):
            self._restore_times(self._unchanged())
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
            handlers.back(self.work, step)
            detail = f"{step.target or step.source} was deleted by somebody"
            reason = Reason.CHANGED_MEANWHILE
            self.results[step.number] = StepResult(step=step, status=ItemStatus.LEFT, reason=reason, detail=detail)
        self.steps = tuple(step for step in self.steps if step not in steps)

    def _tidy(self) -> None:
        """Sweep a closed transaction; what the disk refuses now is left to the next start, for the wave itself is done."""
        with suppress(OSError):
            self.sweep()

    def _flip(self) -> None:
        for step in self.steps:
            log.detail("flip", txid=self.txid, step=step.number, source=step.source, target=step.target)
            handlers.flip(self.work, step)
        for step in self.steps:
            in_place = step.shape in (Shape.RENAME, Shape.ADJUST) or step.method == "link"
            if in_place and self.disk.find(step.target or "") is not None:
                self.disk.sync_file(step.target or "")
        self._sync(folder for step in self.steps for folder in handlers.folders_of_flip(self.work, step))
        self.machine.move("check")
        for step in self.steps:
            if step.shape is not Shape.RETIRE and "T" not in self.work.who(step, ours_only=True):
                message = "the target is not there after the flip"
                raise OSError(5, message, step.target)
        self.machine.move("commit")

    def _retire(self) -> None:
        for folder in dict.fromkeys(parent(self.work.trash_path(s)) for s in self.steps if handlers.retires(s)):
            self._make_folder(folder)
        for step in self.steps:
            self.results[step.number] = self._retire_one(step)
        self._sync(folder for step in self.steps for folder in handlers.folders_of_retire(self.work, step))
        self._restore_times((*self._unchanged(), *self.restore))
        self.machine.move("retire")

    def _retire_one(self, step: Step) -> StepResult:
        known = self.results.get(step.number) or self.aside.get(step.number) or StepResult(step=step, status=ItemStatus.DONE)
        refused = handlers.retire(self.work, step)
        if refused is None and step.keeps:
            detail = known.detail or f"set aside as {self.work.aside_path(step)}"
            return StepResult(step=step, status=ItemStatus.QUARANTINED, reason=Reason(step.why), detail=detail)
        if refused is None:
            return known
        if self.trial and handlers.is_to_be_set_aside(self.work, step, refused):
            self._make_folder(parent(self.work.aside_path(step)))
            refused = handlers.set_aside(self.work, step)
        is_gone = step.target is not None and self.disk.find(step.target) is None
        status = ItemStatus.LEFT if step.shape is Shape.RETIRE or is_gone else known.status
        return replace(known, status=status, reason=refused.reason, detail=refused.detail)

    def _unchanged(self) -> tuple[tuple[str, int, int], ...]:
        """Return the times of folders in which only the engine's own came and went: nothing shall tell of it."""
        holders = {parent(path) for step in self.steps for path in (step.source, step.target) if path}
        return tuple(times for times in self.touched if times[0] not in holders)

    def sweep(self) -> None:
        """Delete what is garbage once the transaction is closed: trash, stage, manifests, empty folders (J6)."""
        for home in sorted({*self.homes, ""}, key=len, reverse=True):
            sweep_home(self.disk, home, self.txid)

    def _sweep_for_good(self) -> None:
        """Sweep before `aborted` is written: when that was the last one of a run, nobody may ever look for what is left."""
        self.sweep()
        self._sync(folder_of(home) for home in (*self.homes, ""))

    # --- back ----------------------------------------------------------------------------------------------------------

    def _put_back(self, error: OSError) -> None:
        """Undo after the disk failed; ends in DiskFailedError or WedgedError, never returns."""
        problem = error.strerror or str(error)
        try:
            if self.machine.state is State.STAGING:
                self._abandon()
            else:
                self.go_back()
        except OSError as second:
            raise WedgedError(self.txid, second.strerror or str(second)) from error
        kind = BoundaryError if error.errno in _BOUNDARY and self._renames() else DiskFailedError
        raise kind("converting", str(error.filename or ""), problem) from error

    def _renames(self) -> bool:
        return any(step.shape is Shape.RENAME or step.method == "link" for step in self.steps)

    def _abandon(self) -> None:
        for home in self.homes:
            self.disk.remove(stage_folder(home, self.txid))
        self._sweep_for_good()
        self._restore_times(self.touched)
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
            if step.shape in (Shape.COPY, Shape.CREATE) and "T" in self.work.who(step, ours_only=True):
                self._make_folder(stage_folder(step.target_home, self.txid))
            self.results[step.number] = self._put_one_back(step)
        self._sync(folder for step in self.steps for folder in handlers.folders_of_flip(self.work, step))
        for home in self.homes:
            self.disk.remove(stage_folder(home, self.txid))
        self._sweep_for_good()
        self._restore_times(self.touched)
        self.machine.move("undone")

    def _put_one_back(self, step: Step) -> StepResult:
        kept = handlers.reason_to_keep(self.work, step)
        if kept is None:
            handlers.back(self.work, step)
            return StepResult(step=step, status=ItemStatus.UNDONE)
        aside = quarantine_path(step.target_home, self.txid, step.number)
        self._make_folder(parent(aside))
        handlers.back(self.work, step, aside=aside)
        detail = f"{kept.detail}; it was set aside as {aside}"
        return StepResult(step=step, status=ItemStatus.UNDONE, reason=kept.reason, detail=detail)

    def _check_homes(self) -> None:
        """Raise OSError unless every domain is there: names in a vault that was locked meanwhile only look absent."""
        for home in self.homes:
            if not is_reachable(self.disk, home):
                raise OSError(errno.ENOKEY, "the vault was locked or unmounted meanwhile", home)

    # --- helpers -------------------------------------------------------------------------------------------------------

    def _restore_times(self, times: Iterable[tuple[str, int, int]]) -> None:
        for path, atime_ns, mtime_ns in times:
            if self.disk.find(path) is not None:
                # A folder whose times must not be set, such as an immutable one, is no reason to stop half way.
                with suppress(PermissionError):
                    self.disk.set_attributes(path, Attributes(atime_ns=atime_ns, mtime_ns=mtime_ns))
                self.disk.sync_file(path)

    def _sync(self, folders: Iterable[str]) -> None:
        for folder in dict.fromkeys(folders):
            entry = self.disk.find(folder)
            # Somebody may have put something else in its place since, and then there is nothing of ours to be synced.
            if entry is not None and entry.kind is Kind.DIRECTORY:
                self.disk.sync_directory(folder)

    def _make_folder(self, path: str, *, at_once: bool = True) -> None:
        """Make one of the engine's own folders with everything above it; durably, unless something else is going to sync it."""
        missing = []
        while path and self.disk.find(path) is None:
            missing.append(path)
            path = parent(path)
        for folder in reversed(missing):
            self.disk.make_directory(folder, _PRIVATE)
            if at_once:
                self.disk.sync_directory(parent(folder))


def is_reachable(disk: Disk, home: str) -> bool:
    """Return whether a domain is there: names in a vault that is locked or not mounted only look absent."""
    return not home or (disk.vault_state(home) != "locked" and disk.domain(home).home == home)


def sweep_home(disk: Disk, home: str, txid: str) -> None:
    """Delete a closed transaction's leftovers in one domain, and the engine's folders there that are empty.

    The time of the domain's home does not tell of it.
    """
    folder, holder = folder_of(home), disk.find(home)
    if holder is None or disk.find(folder) is None:
        return
    for path in (trash_folder(home, txid), stage_folder(home, txid), manifest_path(home, txid)):
        disk.remove(path)
    for name in (*WORKING_FOLDERS, QUARANTINE):
        disk.remove_directory(f"{folder}/{name}")
    if home and disk.remove_directory(folder):
        disk.set_attributes(home, Attributes(atime_ns=holder.atime_ns, mtime_ns=holder.mtime_ns))
        disk.sync_file(home)


def executor_for(disk: Disk, journal: Journal, wave: Wave, txid: str, **options: Any) -> Executor:
    """Return the executor of a new wave."""
    return Executor(
        disk=disk,
        journal=journal,
        txid=txid,
        steps=wave.steps,
        touched=wave.touched,
        restore=wave.restore,
        trial=wave.trial,
        **options,
    )


def homes_of(steps: Iterable[Step]) -> tuple[str, ...]:
    """Return the homes of the domains that steps lie in."""
    return tuple(dict.fromkeys(home for step in steps for home in (step.source_home, step.target_home)))


def steps_from_payload(payload: Mapping[str, Any]) -> tuple[Step, ...]:
    """Read the steps of a `begin` or `staged` record."""
    return tuple(step_from_data(data) for data in payload["steps"])
