"""What a run tells: one document for tools, the same as text for people. Knows no disk."""

from __future__ import annotations

import hashlib
import json
import time
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field
from msgspec.structs import asdict

from upgradeconverter.errors import EXIT_DEVIATIONS, EXIT_DONE
from upgradeconverter.model.outcome import CATALOGUE, ItemStatus, Outcome, Reason
from upgradeconverter.model.plan import Shape, Undo, undo_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from upgradeconverter.engine.batch import StepResult
    from upgradeconverter.engine.conceal import Concealer
    from upgradeconverter.errors import UpgradeConverterError
    from upgradeconverter.model.operation import Skip
    from upgradeconverter.model.plan import Plan, Step


# What people have to know of a step; that it can be moved back needs no word.
_UNDO_WORDS = {Undo.UNTIL_CONFIRMED: ", until confirmed", Undo.MOVED_BACK: "", Undo.NEVER: ", for good"}


_encode = json.JSONEncoder(ensure_ascii=True).encode


class Report(Struct, kw_only=True):
    """Everything that `--output json` prints; see `schema.json` for the meaning of each field.

    Attributes:
        begun: when the start began, by a clock that may be wrong; `started_ns` by one that only counts.
        became: the steps behind `items`, and what became of each so far.
        concealer: leaves out what must not be told outside of the vault.
    """

    command: str
    phase: str = "all"
    outcome: Outcome = Outcome.NOTHING_TO_DO
    exit_status: int = EXIT_DONE
    source: str | None = None
    target: str | None = None
    plan_digest: str | None = None
    run: str | None = None
    items: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    space: list[dict[str, Any]] = field(default_factory=list)
    recovered: list[dict[str, Any]] = field(default_factory=list)
    left_by_recovery: list[dict[str, Any]] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    error: dict[str, Any] | None = None
    begun: str = ""
    started_ns: int = field(default_factory=time.monotonic_ns)
    became: list[tuple[Step, StepResult | None]] = field(default_factory=list)
    concealer: Concealer | None = None

    def document(self) -> dict[str, Any]:
        """Return the report as the one JSON document."""
        return {
            "command": self.command,
            "phase": self.phase,
            "outcome": self.outcome.value,
            "exit_status": self.exit_status,
            "from": self.source,
            "target": self.target,
            "plan_digest": self.plan_digest,
            "run": self.run,
            "items": self.items,
            "skipped": self.skipped,
            "warnings": self.warnings,
            "space": self.space,
            "recovered": self.recovered,
            "details": self.details,
            "error": self.error,
        }

    def concealed(self) -> dict[str, Any]:
        """Return the document without names that only the vault knows."""
        return self.document() if self.concealer is None else self.concealer.document(self.document())

    def show(self, plans: Iterable[tuple[Plan, Sequence[StepResult]]]) -> None:
        """Tell what is going to be done and what became of it so far, phase by phase; may be called again as more is known."""
        plans = tuple(plans)
        self.items, self.became, self.skipped, self.space = [], [], list(self.left_by_recovery), []
        for plan, results in plans:
            self.source, self.target = plan.source, plan.target
            self.take_skips(plan.skips)
            became = {result.step.number: result for result in results}
            for wave in plan.waves:
                for step in wave.steps:
                    self._show_step(step, became.get(step.number), trial=wave.trial)
            self.warn(*plan.warnings)
            self.space += [asdict(need) for need in plan.space]
        self.plan_digest = _digest_of([plan for plan, _ in plans])

    def _show_step(self, planned: Step, result: StepResult | None, *, trial: bool) -> None:
        step = planned if result is None else result.step
        if is_shown(step):
            self.items.append(item_of(step, ItemStatus.PLANNED if result is None else result.status, trial=trial))
            self.became.append((step, result))
        if result is not None and result.reason is not None:
            path = step.source or step.target or ""
            self.skipped.append({"path": path, "reason": result.reason.value, "detail": result.detail})

    def warn(self, *texts: str) -> None:
        """Note what people should know, each text once."""
        self.warnings.extend(text for text in dict.fromkeys(texts) if text not in self.warnings)

    def take_skips(self, skips: tuple[Skip, ...]) -> None:
        """Note what is left alone, each by name and reason (D8); recovery knew better why than the plan after it."""
        told = {skip["path"] for skip in self.left_by_recovery}
        self.skipped.extend(_told(skip) for skip in skips if skip.path not in told)

    def take_recovery(self, txid: str, last: str, result: str, left: tuple[Skip, ...]) -> None:
        """Note what became of an open transaction, and what it left alone."""
        self.recovered.append({"txid": txid, "last": last, "result": result})
        self.left_by_recovery += (told := [_told(skip) for skip in left])
        self.skipped += told

    def fail(self, error: UpgradeConverterError, outcome: Outcome) -> None:
        """Note why the command ended."""
        self.outcome, self.exit_status = outcome, error.exit_status
        self.error = {"code": error.code, "message": error.message, "hint": error.hint}

    def judge_strictly(self) -> None:
        """With --strict, something left alone is a failure; that an old form is kept for a rollback is none."""
        if not all(map(_is_kept, self.skipped)) and self.exit_status == EXIT_DONE:
            self.exit_status = EXIT_DEVIATIONS


def _told(skip: Skip) -> dict[str, Any]:
    return {"path": skip.path, "reason": skip.reason.value, "detail": skip.detail}


def _digest_of(plans: Sequence[Plan]) -> str | None:
    """Return the digest of what is to be done in all phases together; of one phase, the digest of its plan."""
    if len(plans) > 1:
        return hashlib.sha256("".join(plan.digest for plan in plans).encode()).hexdigest()
    return plans[0].digest if plans else None


def is_shown(step: Step) -> bool:
    """Return whether a step is reported as an item: all but the files that only travel inside another step."""
    return not (step.shape is Shape.CREATE and step.made_of == "file" and step.twin is not None and step.operation == "Write")


def size_of(step: Step) -> int | None:
    """Return how many bytes a step is about; None of a tree that is only renamed, for nobody looks inside."""
    return step.size if step.entries else None


def item_of(step: Step, status: ItemStatus, *, trial: bool) -> dict[str, Any]:
    """Return one item of the report."""
    return {
        "migration": step.migration,
        "operation": step.operation,
        "source": step.source,
        "target": step.target if step.target is not None else step.twin,
        "transfer": step.shape.value,
        "status": status.value,
        "undo": undo_of(step, trial=trial).value,
        "size": size_of(step),
    }


def as_json(report: Report) -> Iterator[str]:
    """Return the report as the one JSON document, for people who read that as well: what there may be many of, one a line.

    It comes in pieces, since of very many items the whole text is large.
    """
    return pieces(report.document())


def pieces(document: dict[str, Any]) -> Iterator[str]:
    """Yield a document as text."""
    before = "{\n"
    for name, value in document.items():
        yield f'{before}  "{name}": '
        if isinstance(value, list) and value:
            yield "[\n    " + _encode(value[0])
            yield from (f",\n    {_encode(each)}" for each in value[1:])
            yield "\n  ]"
        else:
            yield json.dumps(value, indent=2).replace("\n", "\n  ")
        before = ",\n"
    yield "\n}"


def as_text(report: Report) -> str:
    """Return the report for people."""
    lines = [f"{report.command} {report.phase}: {report.outcome.value.replace('-', ' ')}"]
    if report.source is not None and report.outcome is not Outcome.INFORMATION:
        way = "->" if report.items else "as it is; wanted:"
        lines.append(f"  layout {report.source}" + (f" {way} {report.target}" if report.target != report.source else ""))
    lines += [f"  recovered: transaction {r['txid']} after {r['last']}: {r['result']}" for r in report.recovered]
    lines += [f"  {_item_text(item)}" for item in report.items]
    lines += _skipped_text(report.skipped)
    lines += [f"  warning: {text}" for text in report.warnings]
    lines += [
        f"  space: file system {s['filesystem']}: {s['needed']} of {s['free']} bytes, {s['needed_inodes']} inodes"
        for s in report.space
    ]
    lines += _details_text(report.details)
    if report.error is not None:
        lines += [f"  {report.error['code']}: {report.error['message']}", f"  {report.error['hint']}"]
    return "\n".join(_visible(line) for line in lines) + "\n"


def _visible(line: str) -> str:
    """Escape what does not show: file names may hold line breaks, control sequences for terminals, and bytes that are no text."""
    if line.isprintable():
        return line
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in line)


def _skipped_text(skipped: list[dict[str, Any]]) -> list[str]:
    if not skipped:
        return []
    lines: list[str] = []
    for title, told in (
        ("left alone or set aside", [skip for skip in skipped if not _is_kept(skip)]),
        ("old forms, kept so that a rollback can bring them back", [skip for skip in skipped if _is_kept(skip)]),
    ):
        by_reason: dict[str, list[dict[str, Any]]] = {}
        for skip in told:
            by_reason.setdefault(skip["reason"], []).append(skip)
        lines += [f"  {title}:"] if told else []
        for reason, each in by_reason.items():
            lines += [f"    {skip['path']!r}: {reason} ({skip['detail']})" for skip in each]
            lines.append(f"      {' '.join(CATALOGUE[Reason(reason)])}")
    return lines


def _is_kept(skip: dict[str, Any]) -> bool:
    """Return whether something was converted, and what it was made of is kept: nothing is left over."""
    return bool(skip.get("reason") == Reason.REWRITTEN.value)


def _run_text(run: dict[str, Any]) -> list[str]:
    """Return one run of the history as a line, and below it one for each item; the file may hold anything."""
    items, skipped = (found if isinstance(found := run.get(name), list) else [] for name in ("items", "skipped"))
    items = [item for item in items if isinstance(item, dict)]
    took = f", {run['seconds']} s" if "seconds" in run else ""
    skipped = [skip for skip in skipped if not (isinstance(skip, dict) and _is_kept(skip))]
    line = (
        f"{run.get('time')} {run.get('run')} {run.get('command')} {run.get('phase')}: {run.get('outcome')}, "
        f"{run.get('from')} -> {run.get('target')}, {len(items)} items, {len(skipped)} left alone{took}"
    )
    return [line, *(f"  {_item_text(item)}" for item in items)]


def _item_text(item: dict[str, Any]) -> str:
    """Return one item as a line."""
    arrow = f" -> {item['target']}" if item.get("target") and item["target"] != item.get("source") else ""
    how = f"{item.get('transfer')}{_UNDO_WORDS.get(item.get('undo', ''), '')}"
    what = f"{item.get('status')!s:<11} {item.get('operation')!s:<15} {item.get('source') or ''}{arrow} [{how}]"
    return f"{what} {item['reason']}" if item.get("reason") else what


def _entry_text(entry: Any) -> list[str]:
    if not isinstance(entry, dict):
        return [entry]
    if "summary" in entry:
        return _migration_text(entry)
    if "agent" in entry:
        return [f"{entry['agent']:<16} {entry['state']:<8} {entry['place'] or '/'}: {_room_text(entry)}"]
    return _run_text(entry)


def _migration_text(row: dict[str, Any]) -> list[str]:
    way = f"{', '.join(row['reads']) or 'documents'} -> {', '.join(row['writes']) or 'nothing'}"
    back = "" if row["reversible"] else "; cannot be taken back"
    over = f"; no more: {row['ended']}" if "ended" in row else ""
    first = f"{row['migration']} ({row['phase']}, {row['layouts']}{over}): {row['summary']}"
    return [first, f"  {way} [{row['owner'] or '-'}{back}]"]


def _room_text(room: dict[str, Any]) -> str:
    text = f"{room['files']} files, {room['size']} bytes, {room['allocated']} allocated"
    return f"{text}, {room['reclaimable']} could be reclaimed" if room["reclaimable"] else text


def _details_text(details: dict[str, Any]) -> list[str]:
    lines = []
    for name, value in details.items():
        if value == []:
            lines.append(f"  {name}: none")
        elif isinstance(value, list):
            lines.append(f"  {name}:")
            lines += [f"    {line}" for entry in value for line in _entry_text(entry)]
        elif isinstance(value, dict):
            lines.append(f"  {name}: {_room_text(value)}")
        else:
            lines.append(f"  {name}: {value}")
    return lines
