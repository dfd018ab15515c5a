"""Builds the staged copy of one step: the first half of what is done with it, of which nobody sees anything yet.

Guarantees: nothing but the transaction's own stage is written to; durable is it only once the caller has synced the file system.
"""

from __future__ import annotations

from msgspec.structs import replace

from upgradeconverter.disk.port import CopyOrder, CopyReceipt
from upgradeconverter.engine.work import StepRefusedError, Work, check_source, check_unused
from upgradeconverter.model.outcome import Reason
from upgradeconverter.model.plan import Attributes, Shape, Step


def stage(work: Work, step: Step) -> CopyReceipt | None:
    """Build the staged copy of a step; returns its receipt, or None for shapes that stage nothing."""
    if step.shape in (Shape.COPY, Shape.CREATE):
        receipt = _stage_copy(work, step) if step.shape is Shape.COPY else _stage_new(work, step)
        if receipt is not None:
            work.digests[step.number] = receipt.digest
        return receipt
    if step.shape is Shape.STREAM:
        _stage_hollow(work, step)
        return None
    if step.shape is Shape.DISPLACE:
        return None
    check_source(work.disk, step, deep=step.shape is Shape.RENAME)
    if step.shape is Shape.RENAME and step.sha256 is not None and work.disk.sha256(step.source or "") != step.sha256:
        raise StepRefusedError(Reason.DIGEST_MISMATCH, f"{step.source} does not have SHA-256 {step.sha256}")
    return None


def mark(work: Work, step: Step) -> None:
    """Remember what the staged copy of a step is, once all of the transaction is staged: files in it may share names."""
    if step.shape in (Shape.COPY, Shape.CREATE) and step.made_of != "directory" and step.method != "link":
        work.marks[step.number] = work.disk.survey(work.stage_path(step)).fingerprint


def _stage_copy(work: Work, step: Step) -> CopyReceipt | None:
    check_source(work.disk, step, deep=False)
    source = step.source or ""
    if step.method == "link":
        _stage_second_name(work, step)
        return None
    check_unused(work, step)
    receipt = work.disk.copy(_order(work, step), progress=work.progress)
    if step.sha256 is not None and receipt.sha256 != step.sha256:
        raise StepRefusedError(Reason.DIGEST_MISMATCH, f"{source} has SHA-256 {receipt.sha256}, not {step.sha256}")
    # The source must be the same after the copy as before it, or the copy may mix two states.
    check_source(work.disk, step, deep=True)
    work.staged[step.number] = receipt.identity
    return receipt


def _stage_hollow(work: Work, step: Step) -> None:
    """Stage everything of a source but its content, for which there is no room beside it."""
    check_source(work.disk, step, deep=False)
    check_unused(work, step)
    if step.sha256 is not None and (found := work.disk.sha256(step.source or "")) != step.sha256:
        raise StepRefusedError(Reason.DIGEST_MISMATCH, f"{step.source} has SHA-256 {found}, not {step.sha256}")
    order = replace(_order(work, step), hollow=True, sha256=False)
    receipt = work.disk.copy(order)
    check_source(work.disk, step, deep=True)
    work.staged[step.number] = receipt.identity


def _order(work: Work, step: Step) -> CopyOrder:
    return CopyOrder(
        source=step.source or "",
        target=work.stage_path(step),
        after=step.after,
        additions=tuple((name, work.contents[digest]) for name, digest in step.additions),
        omissions=step.omissions,
        sha256=step.sha256 is not None,
        names=work.names_in(step.target_home),
    )


def _stage_second_name(work: Work, step: Step) -> None:
    """Give a file of a trial its new name beside the old one: what is written under one of them is there under the other."""
    source, disk = step.source or "", work.disk
    if step.sha256 is not None and disk.sha256(source) != step.sha256:
        raise StepRefusedError(Reason.DIGEST_MISMATCH, f"{source} does not have SHA-256 {step.sha256}")
    check_source(disk, step, deep=False)
    work.staged[step.number] = disk.make_hard_link(source, work.stage_path(step))


def _stage_new(work: Work, step: Step) -> CopyReceipt | None:
    path = work.stage_path(step)
    if step.made_of == "copy":
        order = CopyOrder(source=step.source or "", target=path, after=step.after, omissions=step.omissions)
        receipt = work.disk.copy(order, progress=work.progress)
        work.staged[step.number] = receipt.identity
        return receipt
    if step.made_of == "directory":
        work.staged[step.number] = work.disk.make_directory(path, step.after)
    elif step.made_of == "file":
        work.staged[step.number] = work.disk.write_file(path, work.contents[step.why], step.after)
    else:
        work.staged[step.number] = work.disk.make_link(path, step.why)
    return None


def quarantined(step: Step, reason: Reason) -> Step:
    """Return the step that sets the source of a step aside instead of publishing it."""
    return replace(
        step,
        operation="Quarantine",
        shape=Shape.RETIRE,
        method="copy",
        made_of="",
        target=None,
        after=Attributes(),
        sha256=None,
        additions=(),
        keeps=True,
        why=reason.value,
    )
