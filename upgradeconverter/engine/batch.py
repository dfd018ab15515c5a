"""What one transaction carries out: steps, of which fewer are left the more turns out not to be possible, and their staging.

Guarantees: what must flip together is dropped together (D10); everything staged is durable when `stage` returns (J2).

Must not know: the journal, states, and what comes after staging.
"""

from __future__ import annotations

import errno
from collections import Counter
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from upgradeconverter.disk.port import SourceChangedError, SourceInUseError
from upgradeconverter.engine import staging, stopping
from upgradeconverter.engine.housekeeping import make_folder
from upgradeconverter.engine.pace import Pace
from upgradeconverter.engine.places import folder_of, manifest_path, parent, stage_folder
from upgradeconverter.engine.progress import load_of
from upgradeconverter.engine.work import StepRefusedError, Work, check_displaced, check_source, check_unused
from upgradeconverter.model.operation import Skip
from upgradeconverter.model.outcome import ItemStatus, Reason
from upgradeconverter.model.plan import Attributes, Shape, Step, as_data, folders_wanted, step_from_data
from upgradeconverter.planning.fitting import room_taken

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from upgradeconverter.model.entry import Space

# Of the bytes that the plan keeps free this much is kept in any case: for the journal, and for others.
_RESERVE = 1 << 19
# What a rename across an encryption policy or quota project gives; older kernels say EPERM (fscrypt, "Access semantics").
_STAGING = (Shape.COPY, Shape.STREAM, Shape.CREATE)
_BOUNDARY = (errno.EXDEV, errno.EPERM)


class StepResult(Struct, frozen=True, kw_only=True):
    """What became of one step of the plan; `step` is what was carried out in the end."""

    step: Step
    status: ItemStatus
    reason: Reason | None = None
    detail: str = ""


class Batch(Struct, kw_only=True):
    """The steps of one transaction.

    Attributes:
        steps: what is carried out; shrinks while staging, then stays as `staged` records it.
        trial: whether the sources stay until the transaction is confirmed.
        results: what became of steps so far.
        idle: new directories that nothing goes into any more, because what was to go there was dropped.
        aside: what will have become of the steps that set something aside, once they are carried out.
    """

    work: Work
    steps: tuple[Step, ...]
    trial: bool = False
    pace: Pace = field(default_factory=Pace)
    results: dict[int, StepResult] = field(default_factory=dict)
    idle: tuple[Step, ...] = ()
    aside: dict[int, StepResult] = field(default_factory=dict)

    def left(self) -> tuple[Skip, ...]:
        """Return what was left alone, with the reason."""
        found = ((result, result.step.source or result.step.target or "") for result in self.results.values())
        return tuple(Skip(path=path, reason=r.reason, detail=r.detail) for r, path in found if r.reason is not None)

    def check(self) -> None:
        """Leave alone what is not what was planned for any more, is in use or has no time, and new directories only it needed."""
        if self.pace.budget.is_over:
            self._leave_all(self.pace.no_time())
            return
        self.work.look_around(self.steps)
        for group in self.groups():
            try:
                for step in group:
                    check_source(self.work.disk, step, deep=False)
                    check_unused(self.work, step)
            except StepRefusedError as refused:
                self._drop(group, refused.reason, refused.detail)
        self._drop_what_does_not_fit()
        self._drop_what_takes_too_long()
        self._drop_idle_folders()
        self._drop_occupied_folders()

    def groups(self) -> tuple[tuple[Step, ...], ...]:
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
            for other in self.groups():
                if other != group and any((step.target or "").startswith(inside) for step in other):
                    self._drop(other, reason, f"{folder} cannot be made: {detail}")
        for step in group:
            if step.group == 0 and step.shape is Shape.CREATE and step not in self.idle:
                # A later wave may need it still.
                self.idle += (step,)
            # What was to make way is told of with what was to take its place, and what keeps a directory with that.
            known = reason if step.shape is not Shape.DISPLACE and not step.once_empty else None
            self.results[step.number] = StepResult(step=step, status=ItemStatus.LEFT, reason=known, detail=detail)
            self.work.staged.pop(step.number, None)
            self.work.marks.pop(step.number, None)
            self.work.digests.pop(step.number, None)
            if step.shape in _STAGING:
                self.work.disk.remove(self.work.stage_path(step))
        gone = {step.number for step in group}
        self.steps = tuple(step for step in self.steps if step.number not in gone)

    def _drop_idle_folders(self) -> None:
        """Leave out new directories that only dropped steps needed."""
        folders = tuple(s for s in self.steps if s.group == 0 and s.shape is Shape.CREATE and s.made_of == "directory")
        wanted = folders_wanted(folders, (step for step in self.steps if step not in folders))
        for step in folders:
            if step not in wanted and step in self.steps:
                self._drop((step,), None, "nothing goes into it")

    def _drop_what_does_not_fit(self) -> None:
        """Leave alone what there is no room for by now: what was put away before may still be on its way out (zfs, btrfs)."""
        for group in self._short({home: self.work.disk.space(home) for home in self._stage_homes()}):
            self._drop(group, Reason.NO_SPACE, "what was freed before is not free yet, or somebody else took it")

    def _drop_what_takes_too_long(self) -> None:
        """Leave alone what would not be done before the deadline, as fast as it went so far; what takes less time may be."""
        admitted = 0
        for group in self.groups():
            work = load_of(group).work
            if self.pace.budget.admits(admitted + work):
                admitted += work
            elif group[0].number not in self.results:
                refused = self.pace.no_time()
                self._drop(group, refused.reason, refused.detail)

    def _leave_all(self, refused: StepRefusedError) -> None:
        """Leave everything alone, without another look at the disk."""
        told = [step for step in self.steps if step.group != 0 and step.shape is not Shape.DISPLACE]
        # A directory goes with what was in it, and is told of only where nothing else is.
        numbers = {step.number for step in told if not step.once_empty} or {step.number for step in told}
        for step in self.steps:
            known = refused.reason if step.number in numbers else None
            self.results[step.number] = StepResult(step=step, status=ItemStatus.LEFT, reason=known, detail=refused.detail)
        self.steps = ()

    def _short(self, spaces: Mapping[str, Space]) -> list[tuple[Step, ...]]:
        """Return the groups that do not fit beside those before them."""
        taken: Counter[str] = Counter()
        free = {space.filesystem: space.free - _RESERVE for space in spaces.values()}
        short = []
        for group in self.groups():
            wanted: Counter[str] = Counter()
            for step in group:
                space = spaces.get(step.target_home)
                if space is not None:
                    wanted[space.filesystem] += room_taken(step, space.block_size)
            if all(taken[name] + size <= free[name] for name, size in wanted.items()):
                taken.update(wanted)
            else:
                short.append(group)
        return short

    def _drop_occupied_folders(self) -> None:
        """Leave directories alone that would only go if they were empty, and will not be.

        In a trial nothing goes yet; some of what is in them may belong to another transaction that waits.
        """
        going = {step.source for step in self.steps if step.operation != "Copy" and not step.once_empty}
        for step in (step for step in self.steps if step.once_empty):
            inside = {entry.path for entry in self.work.disk.entries(step.source or "")}
            if inside <= going or (self.trial and inside & going):
                going.add(step.source)
            else:
                self._drop((step,), None, f"{step.source} is not empty")

    def _stage_homes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(s.target_home for s in self.steps if s.shape in _STAGING))

    def stage(self, read_back: str) -> None:
        """Build the staged copies, durably; what cannot be staged is left alone.

        Raises:
            OSError: the disk refused something that concerns all steps.
        """
        for home in self._stage_homes():
            make_folder(self.work.disk, stage_folder(home, self.work.txid), at_once=False)
        manifests: dict[str, list[str]] = {}
        self.pace.begin_wave()
        for group in self.groups():
            stopping.check()
            if not any(step.number in self.results for step in group):
                self._stage_group(group, manifests)
            self.pace.end_group(group, is_staged=all(step.number not in self.results for step in group))
        self.pace.end_staging()
        self._check_what_makes_way()
        self._drop_idle_folders()
        self._drop_occupied_folders()
        for names in self.work.names.values():
            self.work.disk.remove(names.folder)
        for step in self.steps:
            staging.mark(self.work, step)
        for home in self._stage_homes():
            text = "".join(sorted(manifests.get(home, []))).encode("utf-8", "surrogateescape")
            make_folder(self.work.disk, parent(manifest_path(home, self.work.txid)), at_once=False)
            self.work.disk.write_file(manifest_path(home, self.work.txid), text, Attributes(mode=0o600))
            # J2: one sync covers every staged file, directory and link of this file system, the manifest, and their folders.
            self.work.disk.sync_filesystem(folder_of(home))
        if read_back != "none":
            self._read_back(sample=read_back == "sample")

    def _check_what_makes_way(self) -> None:
        """Leave alone what somebody went on with while the old one was copied."""
        self.work.look_around(step for step in self.steps if step.shape is Shape.DISPLACE)
        for group in self.groups():
            try:
                for step in group:
                    if step.shape is Shape.DISPLACE:
                        check_displaced(self.work, step)
            except StepRefusedError as refused:
                self._drop(group, refused.reason, refused.detail)
            except OSError as error:
                self._drop(group, Reason.DISK_FAILED, told(error))

    def _stage_group(self, group: tuple[Step, ...], manifests: dict[str, list[str]]) -> None:
        lines: dict[str, list[str]] = {}
        try:
            self.pace.begin_group(group)
            for step in group:
                receipt = staging.stage(self.work, step)
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
        if is_boundary(error) and any(step.method == "link" for step in group):
            raise error
        # D10: one file that cannot be read must not stop the others; a disk that is bad fails at the sync below.
        reason = Reason.NO_SPACE if error.errno in (errno.ENOSPC, errno.EDQUOT) else Reason.DISK_FAILED
        self._drop(group, reason, told(error))

    def _refuse_group(self, group: tuple[Step, ...], refused: StepRefusedError) -> None:
        claimed = next((s for s in group if s.sha256 is not None), None)
        before = self.steps
        self._drop(group, refused.reason, refused.detail)
        if refused.reason is not Reason.DIGEST_MISMATCH or claimed is None:
            return
        aside = staging.quarantined(claimed, refused.reason)
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

    def _read_back(self, *, sample: bool) -> None:
        for step in self.steps:
            if step.shape is not Shape.COPY or step.omissions or step.method == "link":
                continue
            if sample and step.number % 16:
                continue
            additions = tuple((name, self.work.contents[digest]) for name, digest in step.additions)
            if not self.work.disk.same_content(step.source or "", self.work.stage_path(step), additions):
                message = "the staged copy reads back differently"
                raise OSError(5, message, self.work.stage_path(step))

    def payload(self) -> dict[str, Any]:
        """Return what `staged` records."""
        return {
            "steps": [as_data(step) for step in self.steps],
            "staged": {str(number): identity for number, identity in sorted(self.work.staged.items())},
            "marks": {str(number): mark for number, mark in sorted(self.work.marks.items())},
            "digests": {str(number): digest for number, digest in sorted(self.work.digests.items())},
        }


def told(error: OSError) -> str:
    """Return what the disk refused and where, as people read it."""
    return ": ".join(str(part) for part in (error.filename, error.strerror or error) if part)


def is_boundary(error: OSError) -> bool:
    """Return whether the disk refused a rename or a second name because of something that lies between both places."""
    return error.errno in _BOUNDARY


def steps_from_payload(payload: Mapping[str, Any]) -> tuple[Step, ...]:
    """Read the steps of a `begin` or `staged` record."""
    return tuple(step_from_data(data) for data in payload["steps"])
