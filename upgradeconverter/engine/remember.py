"""What is written down once a start is through: the history for people, the stamp for the next start.

Must not know waves and transactions. What is written here decides nothing about data; a disk that refuses it makes no failure.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

from upgradeconverter.engine.ledger import add_run, last_noted
from upgradeconverter.engine.places import JOURNAL
from upgradeconverter.engine.receipts import entry_of
from upgradeconverter.engine.report import Report, as_text
from upgradeconverter.engine.session import watched_paths
from upgradeconverter.engine.stamp import Section, Signature, Stamp, discard_unfinished, is_settled, write_stamp
from upgradeconverter.errors import UpgradeConverterError
from upgradeconverter.journal.log import Journal, JournalView
from upgradeconverter.journal.record import RecordKind
from upgradeconverter.model.outcome import PASSING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from upgradeconverter.disk.port import Disk
    from upgradeconverter.engine.session import Session
    from upgradeconverter.model.plan import Plan


@contextmanager
def noting(report: Report) -> Iterator[None]:
    """Let history or stamp be refused by the disk: what was done stands, and the next start only has to look for itself."""
    try:
        yield
    except OSError as error:
        report.warn(f"what was done could not be noted down: {error.filename}: {error.strerror}")


def note(disk: Disk, report: Report, phase: str) -> None:
    """Add a start to the history, with all that the journal holds and the history does not."""
    try:
        view = Journal(disk, JOURNAL).read(repair=False, brief=(RecordKind.BEGIN,))
    except UpgradeConverterError:
        # What is wrong with the journal was told, or is by the next start.
        view = JournalView()
    add_run(disk, entry_of(disk, report, phase, view, last_noted(disk)))


def stamp(session: Session, layout: str, section: Section | None = None, *, ended: str = "", changed: bool = True) -> None:
    """Write the stamp if it says something new.

    Args:
        session: the session.
        layout: the layout that the disk carries.
        section: what a start may answer from now on.
        ended: the run that has come to its end, if one has.
        changed: whether the disk was changed; else what is known of other ways of starting still holds.
    """
    old = session.stamp()
    if old is None and layout == session.pack.order.labels[0] and section is None and not ended:
        discard_unfinished(session.disk)
        return
    kept = [each for each in old.sections if section is None or each.phase != section.phase] if old and not changed else []
    new = Stamp(
        pack=session.pack.name,
        layout=layout,
        run=ended or (old.run if old is not None else ""),
        sections=(*kept, section) if section is not None else tuple(kept),
    )
    if new != old or not is_settled(session.disk):
        write_stamp(session.disk, new)


def section(session: Session, phase: str) -> Section | None:
    """Return what a start like this one may answer at once from now on; None when each start has to look.

    Made from a look at the disk as it is now, so that it is what the next start would say. Somebody may change the disk in the
    same moment: what is watched is noted between two looks that must be equal, so that a change shows in one or the other.
    """
    if any(session.vault_problem(each) is not None for each in session.phases(phase)):
        return None
    if not session.is_lasting:
        return None
    names = tuple(each.name for each in session.phases(phase))
    before = [session.make_plan(name) for name in names]
    skips = tuple(skip for plan in before for skip in plan.skips)
    if any(plan.steps for plan in before) or any(skip.reason in PASSING for skip in skips):
        return None
    if any(session.disk.is_open(wanted.path) for wanted in session.pack.inputs if not wanted.outside):
        # Whoever has the configuration open may leave no trace when they let it go, and only then it can be read.
        return None
    paths = dict.fromkeys(path for name in names for path in watched_paths(session, name, skips))
    watched = tuple((path, _signature(session, path)) for path in paths)
    after = [session.make_plan(name) for name in names]
    if _digests(after) != _digests(before):
        return None
    next_report = Report(command="run", phase=phase)
    next_report.show((plan, ()) for plan in after)
    return Section(
        phase=phase,
        asked=session.asked,
        release=session.release,
        config=session.config,
        watched=watched,
        text=as_text(next_report).rstrip("\n"),
        json=json.dumps(next_report.document()),
        told=json.dumps(session.concealer().document(next_report.document())),
    )


def _digests(plans: Iterable[Plan]) -> list[tuple[str, tuple[str, ...]]]:
    return [(plan.digest, plan.warnings) for plan in plans]


def _signature(session: Session, path: str) -> Signature | None:
    disk = session.disk
    for each in session.outside.values():
        if path.startswith(f"{each.path.rstrip('/')}/"):
            if each.disk is None:
                return None
            disk, path = each.disk, path.removeprefix(f"{each.path.rstrip('/')}/")
    entry = disk.find(path)
    return None if entry is None else (entry.identity, entry.mtime_ns, entry.ctime_ns)
