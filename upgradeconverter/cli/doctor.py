"""What the next boot would do with a disk and why, and what is unusual about it: for a person who asks, and pastes the answer.

Looks only, and never gives up: what cannot be looked at is one more thing to tell.
"""

from __future__ import annotations

import os
import platform
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from msgspec.structs import replace

from upgradeconverter import __version__, preflight
from upgradeconverter.cli.progress import amount
from upgradeconverter.disk.dryrun import read_only
from upgradeconverter.engine.convert import audit
from upgradeconverter.engine.ledger import read_ledger
from upgradeconverter.engine.overtaken import pending_sources
from upgradeconverter.engine.places import JOURNAL
from upgradeconverter.engine.report import Report
from upgradeconverter.engine.run import Run
from upgradeconverter.engine.usage import strangers
from upgradeconverter.engine.verify import set_aside
from upgradeconverter.errors import UpgradeConverterError
from upgradeconverter.journal.log import Journal, JournalView
from upgradeconverter.model.outcome import CATALOGUE, Outcome, Reason
from upgradeconverter.model.plan import Trial

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from upgradeconverter.cli.commands import Context
    from upgradeconverter.engine.session import Session
    from upgradeconverter.packs.api import Phase

_RUNS, _NAMES = 3, 3
_TIGHT = 10  # of the room, as a part


def doctor(context: Context) -> None:
    """Tell all of it."""
    session = replace(context.session, disk=read_only(context.session.disk), trial=context.session.trial or Trial())
    unusual: list[str] = []
    report = context.report
    with _telling(unusual):
        report.source, report.target = session.carried_label(), session.target_label()
    report.details = {
        "system": _system(context, session),
        "why this target": _why(session),
        "next boot": [line for phase in session.pack.phases for line in _next(context, session, phase)],
        "waits": _waiting(session, unusual),
        "last runs": _last_runs(session, unusual),
        "unusual": unusual,
    }
    _look_around(session, unusual)
    unusual += _room(context.root_fd)
    unusual += [warning for warning in report.warnings if warning not in unusual]
    report.warnings = []
    report.outcome = Outcome.INFORMATION


@contextmanager
def _telling(unusual: list[str]) -> Iterator[None]:
    """Make a sentence of what goes wrong while looking."""
    try:
        yield
    except UpgradeConverterError as error:
        unusual.append(f"{error.code}: {error.message}. {error.hint}")
    except OSError as error:
        unusual.append(f"{error.filename}: {error.strerror}")


def _system(context: Context, session: Session) -> list[str]:
    settings, space = context.settings, session.disk.space("")
    vault = session.pack.vault
    lines = [
        f"upgradeconverter {__version__}, pack {session.pack.name}, Linux {platform.release()}",
        f"release {session.release or 'unknown'}" + (f" (from {session.release_file})" if session.release_file else ""),
        f"root {settings.persist or session.pack.default_persist}, {amount(space.free)} and {space.free_inodes} inodes free",
    ]
    if vault:
        lines.append(f"vault {vault}: {session.disk.vault_state(vault)}")
    chosen = {name: origin for name, origin in settings.origins.items() if origin != "command line"}
    return lines + [f"setting {name} = {getattr(settings, name, '?')} ({origin})" for name, origin in sorted(chosen.items())]


def _why(session: Session) -> list[str]:
    if session.asked:
        return ["it was asked for"]
    if session.release:
        return [f"the release {session.release} needs it"]
    carried = session.pack.order.labels[0]
    try:
        carried = session.carried_label()
    except UpgradeConverterError:
        return ["nobody can tell what the disk carries"]
    if carried != session.pack.order.labels[0]:
        return ["the disk carries it, and nothing names another one"]
    return [f"it is what the pack {session.pack.name} takes where nothing names one"]


def _next(context: Context, session: Session, phase: Phase) -> Iterator[str]:
    """Yield what a phase would do, in the order in which a person asks."""
    switch = "off" if context.settings.switched_off else "dry-run" if context.settings.dry_run else ""
    if switch:
        yield f"{phase.name}: nothing is converted, the kernel command line or a flag says {switch}; without that:"
    if _answers_at_once(context, session, phase):
        yield f"{phase.name}: nothing to do, as the stamp knows without a look at the disk"
        return
    report = Report(command="plan", phase=phase.name)
    problems: list[str] = []
    if os.fstatvfs(context.root_fd).f_flag & os.ST_RDONLY:
        yield f"{phase.name}: refused, the root is mounted read-only; with a writable one:"
    with _telling(problems):
        audit(Run(session=session, report=report, when_short=context.settings.when_short), phase.name)
    yield from (f"{phase.name}: refused, nothing is touched. {problem}" for problem in problems)
    if (error := report.error) is not None:
        yield f"{phase.name}: refused, nothing is touched. {error['code']}: {error['message']}. {error['hint']}"
    if report.error is None and (problem := session.vault_problem(phase)) is not None and report.items:
        yield f"{phase.name}: refused, nothing is touched. {problem.code}: {problem.message}. {problem.hint}"
    yield from (f"{phase.name}: {warning}" for warning in report.warnings)
    kinds = Counter((item["migration"], item["transfer"]) for item in report.items)
    for (migration, transfer), number in kinds.items():
        size = sum(item["size"] or 0 for item in report.items if (item["migration"], item["transfer"]) == (migration, transfer))
        yield f"{phase.name}: {migration}: {number} by {transfer}, {amount(size)}"
    if not kinds and not problems and report.error is None:
        yield f"{phase.name}: nothing to do after a look at the disk"
    yield from _left(phase.name, report)


def _answers_at_once(context: Context, session: Session, phase: Phase) -> bool:
    expected = {"pack": session.pack.name, "asked": session.asked, "release": session.release, "config": session.config}
    top = context.settings.persist or session.pack.default_persist
    return preflight.answer(top, phase.name, expected, form="text") is not None


def _left(phase: str, report: Report) -> Iterator[str]:
    by_reason: dict[str, list[str]] = {}
    for skip in report.skipped:
        by_reason.setdefault(skip["reason"], []).append(skip["path"])
    for reason, paths in by_reason.items():
        named = ", ".join(repr(path) for path in paths[:_NAMES]) + (", ..." if len(paths) > _NAMES else "")
        yield f"{phase}: leaves {len(paths)} alone, {reason}: {named}. {' '.join(CATALOGUE[Reason(reason)])}"
    for need in report.space:
        if need["needed"] > need["free"] - need["reserve"]:
            yield f"{phase}: needs {amount(need['needed'])}, {amount(need['free'])} are free"


def _view(session: Session) -> JournalView:
    return Journal(session.disk, JOURNAL).read(repair=False)


def _waiting(session: Session, unusual: list[str]) -> list[str]:
    """Say what was begun and did not come to its end, and what people have to decide."""
    lines = []
    with _telling(unusual):
        view = _view(session)
        lines += [f"transaction {t.txid} is open after {t.last.value}: the next start finishes or undoes it" for t in view.open]
        if sources := pending_sources(view):
            lines.append(
                f"a trial of {len(sources)} items: `confirm` lets it last, `rollback` takes it back; both layouts are whole"
            )
        if view.torn is not None:
            unusual.append("the journal ends in a torn record, as a power cut leaves it; the next start cuts it off")
    return lines


def _last_runs(session: Session, unusual: list[str]) -> list[str]:
    lines = []
    with _telling(unusual):
        runs, problems = read_ledger(session.disk)
        unusual += problems
        lines += [_run_text(run) for run in runs[-_RUNS:]]
    return lines


def _run_text(run: Mapping[str, object]) -> str:
    said = (f"{run.get(name)}" for name in ("time", "command", "phase"))
    return f"{' '.join(said)}: {run.get('outcome')}, {run.get('from')} -> {run.get('target')}, by version {run.get('engine')}"


def _look_around(session: Session, unusual: list[str]) -> None:
    """Name what is there and would not be on a disk that one expects."""
    disk, vault = session.disk, session.pack.vault
    with _telling(unusual):
        unusual += [f"{path}: nothing that this pack knows" for path in strangers(session)]
    with _telling(unusual):
        mounted = [path for path in disk.mounts("") if path != vault]
        unusual += [f"{path}: something is mounted there; nothing is moved out of it or into it by a rename" for path in mounted]
    with _telling(unusual):
        homes = ("", *([vault] if vault else []))
        unusual += [f"{path}: set aside by an earlier run; nothing reads it" for path in set_aside(disk, homes)]
    if vault and disk.vault_state(vault) == "plain":
        unusual.append(f"{vault}: a plain directory, what lies there is not encrypted")


def _room(root_fd: int) -> list[str]:
    facts = os.fstatvfs(root_fd)
    found = [f"less than {100 // _TIGHT} % of the room is free"] if facts.f_bavail * _TIGHT < facts.f_blocks else []
    return [*found, "the root is mounted read-only"] if facts.f_flag & os.ST_RDONLY else found
