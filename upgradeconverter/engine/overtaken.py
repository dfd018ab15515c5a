"""What the old system did while a trial waited: whoever fell back to it may have gone on with what had been converted.

An artifact of a trial has two versions. Neither changed, or the new one only: the trial stands. The old one only: what was made
of it is out of date, so it is taken back, and the next plan converts it anew. Both: they have diverged, and what the migration
declared decides (`Divergence`). A version is known by identity, size, times and what is inside, never by its time alone.

An artifact that the old system makes after a conversion was confirmed is no such version but something new: see `planner`.

Calling sequence: `look` on any disk, with a journal whose open transactions were recovered; its plan is for the real disk, under
the lock. Changes nothing itself.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from upgradeconverter.engine.housekeeping import is_reachable
from upgradeconverter.engine.places import parent
from upgradeconverter.engine.recover import (
    about,
    copies_of,
    executor_of,
    group_of,
    is_duplicate,
    only_copies,
    open_homes,
    steps_of,
    taken_with,
)
from upgradeconverter.engine.work import StepRefusedError, check_source, is_open_below
from upgradeconverter.model.operation import Divergence, Skip
from upgradeconverter.model.outcome import Reason
from upgradeconverter.model.plan import Plan, Precondition, Shape, Step, Wave
from upgradeconverter.planning.facts import attributes_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from upgradeconverter.disk.port import Disk
    from upgradeconverter.engine.work import Work
    from upgradeconverter.journal.log import Journal, JournalView, Transaction

_TOLD = {
    Divergence.ASK: "both stay as they are",
    Divergence.TARGET: "the new one counts; the old one is set aside once the trial is confirmed",
    Divergence.SOURCE: "the new one cannot make way for it, so both stay",
    Divergence.NEWEST: "nobody can say which of them is wanted, so both stay as they are",
}


# Whatever the new system has written, the old one wrote later.
_OLD_ONE_COUNTS = (Divergence.NEWEST, Divergence.SOURCE)


class _Group(Struct, frozen=True):
    """The copies of a trial that were published together, and what else of the old system's has the same content."""

    key: str
    copies: tuple[Step, ...]
    duplicates: tuple[Step, ...]


def pending_sources(view: JournalView) -> frozenset[str]:
    """Return the sources that wait for a trial to be confirmed."""
    return frozenset(step.source or "" for t in view.waiting for step in steps_of(view, t) if _waits(step))


def _waits(step: Step) -> bool:
    return step.source is not None and step.shape is not Shape.DISPLACE


def look(disk: Disk, journal: Journal, view: JournalView, phases: frozenset[str], *, pack: str, layout: str) -> Plan:
    """Return the plan that takes back what the old system has overtaken; its skips name what has diverged.

    Looks only at what was converted in one of the phases, for only those can convert it anew.
    """
    steps: list[Step] = []
    skips: list[Skip] = []
    for transaction in view.waiting:
        is_reached = all(is_reachable(disk, home) for home in open_homes(transaction))
        if about(transaction).get("phase") not in phases or not is_reached:
            continue
        work = executor_of(disk, journal, view, transaction).work
        for group in _groups(view, transaction):
            try:
                found = _judge(work, group)
            except OSError as error:
                # D10: what cannot be looked at waits as it is.
                detail = f"{error.filename or ''}: {error.strerror or error}"
                found = [Skip(path=step.source or "", reason=Reason.DISK_FAILED, detail=detail) for step in group.copies]
            steps += [step for step in found if isinstance(step, Step)]
            skips += [skip for skip in found if isinstance(skip, Skip)]
    keys = list(dict.fromkeys(step.takes_back for step in steps))
    numbered = tuple(_placed(step, number, keys.index(step.takes_back) + 1) for number, step in enumerate(steps))
    waves = (Wave(steps=numbered, touched=_times(disk, numbered)),) if numbered else ()
    return Plan(pack=pack, source=layout, target=layout, waves=waves, skips=tuple(skips))


def sources_of(view: JournalView, plan: Plan) -> dict[str, tuple[str, ...]]:
    """Return for each group that a plan takes back the sources that wait no more: those to be converted, or put away, anew."""
    taken = {key: taken_with(group_of(view, key), names) for key, names in _names_taken(plan).items()}
    return {key: tuple(step.source or "" for step in steps if _waits(step)) for key, steps in taken.items()}


def _names_taken(plan: Plan) -> dict[str, set[str]]:
    """Return the new names that make way, by group."""
    found: dict[str, set[str]] = {}
    for step in plan.steps:
        found.setdefault(step.takes_back, set()).add(step.source or "")
    return found


def without(disk: Disk, plan: Plan, view: JournalView, anew: Iterable[Plan]) -> Plan:
    """Return a plan that takes back only what the plans that come after it convert anew; of the rest the trial stands."""
    anew = tuple(anew)
    coming = (step for each in anew for step in each.steps if step.target is not None or step.twin is not None)
    converted = {step.source for step in coming if step.source is not None and not is_open_below(disk, step.source)}
    why = {skip.path: f"{skip.reason.value}: {skip.detail}" for each in anew for skip in each.skips}
    copied = {
        key: [step for step in copies_of(view, key) if _new_name(step) in names] for key, names in _names_taken(plan).items()
    }
    stuck = {key for key, copies in copied.items() if not converted.issuperset(step.source for step in copies)}
    if not stuck:
        return plan
    steps = tuple(step for step in plan.steps if step.takes_back not in stuck)
    waves = tuple(replace(wave, steps=steps) for wave in plan.waves if steps)
    skips = tuple(_stuck(step, why) for key in sorted(stuck) for step in copied[key])
    return replace(plan, waves=waves, skips=(*plan.skips, *skips))


def goes_together(view: JournalView) -> bool:
    """Return whether a trial waits of which several went over together."""
    return any(len(group.copies) > 1 for transaction in view.waiting for group in _groups(view, transaction))


def diverged_from_others(view: JournalView, plan: Plan) -> tuple[str, ...]:
    """Return the sources that have diverged and stay, although others went over together with them."""
    stays = {skip.path for skip in plan.skips if skip.reason is Reason.DIVERGED}
    groups = (group for transaction in view.waiting for group in _groups(view, transaction) if len(group.copies) > 1)
    return tuple(step.source or "" for group in groups for step in group.copies if step.source in stays)


def merged(plan: Plan, overtaken: Plan, view: JournalView) -> Plan:
    """Return a plan in which what is out of date makes way in the transaction, and the group, that converts it anew."""
    if not overtaken.steps:
        return plan
    sources = sources_of(view, overtaken)
    waves = []
    for wave in plan.waves:
        steps: list[Step] = []
        groups = {key: step.group for step in wave.steps for key in sources if step.source in sources[key] and step.group}
        for step in wave.steps:
            for key in [key for key, group in groups.items() if group == step.group]:
                making_way = (each for each in overtaken.steps if each.takes_back == key)
                steps += [replace(each, group=step.group) for each in making_way]
                del sources[key], groups[key]
            steps.append(step)
        touched = {times[0]: times for times in (*overtaken.waves[0].touched, *wave.touched)}
        waves.append(replace(wave, steps=tuple(steps), touched=tuple(touched.values())))
    numbers = count()
    return replace(plan, waves=tuple(replace(w, steps=tuple(replace(s, number=next(numbers)) for s in w.steps)) for w in waves))


def _stuck(step: Step, why: Mapping[str, str]) -> Skip:
    problem = why.get(step.source or "", "it is in use, or not what is converted")
    detail = f"it is not what {_new_name(step)} was made of any more, and cannot be converted anew ({problem}); that one stays"
    return Skip(path=step.source or "", reason=Reason.DIVERGED, detail=detail, rival=_new_name(step))


def _groups(view: JournalView, transaction: Transaction) -> Iterable[_Group]:
    found: dict[int, list[Step]] = {}
    for step in steps_of(view, transaction):
        found.setdefault(step.group, []).append(step)
    for number, steps in found.items():
        copies = only_copies(steps)
        duplicates = tuple(step for step in steps if is_duplicate(step) and step not in copies)
        yield _Group(f"{transaction.txid}/{number}", copies, duplicates)


def _new_name(step: Step) -> str:
    return step.target or step.twin or ""


def _judge(work: Work, group: _Group) -> list[Step | Skip]:
    """Return the steps that take a group back, or what has diverged in it; nothing where it stands as it is."""
    left: list[Step | Skip] = [_diverged(step) for step in group.duplicates if _is_source_changed(work, step)]
    written = [step for step in group.copies if _is_source_changed(work, step)]
    return left + (_settle(work, group, written) if written else [])


def _settle(work: Work, group: _Group, written: list[Step]) -> list[Step | Skip]:
    gone = [step for step in written if work.disk.find(_new_name(step)) is None]
    used = [step for step in written if step in gone or _is_target_changed(work, step)]
    # What has the digest in its name is right already, whatever the old system has made of the other one.
    is_right = any(step.sha256 is not None for step in group.copies)
    if gone or is_right or any(step.divergence not in _OLD_ONE_COUNTS for step in used):
        return [_diverged(step) for step in written]
    if fixed := [skip for step in written if (skip := _fixed(work, step)) is not None]:
        return [*fixed]
    # What the old system left as it was goes on waiting.
    return [_taking_back(work, step, group.key, keeps=step in used) for step in written]


def _fixed(work: Work, step: Step) -> Skip | None:
    """Return why what was made on trial cannot make way, or None."""
    tree = work.disk.survey(_new_name(step))
    what = f"{step.source} is not what {_new_name(step)} was made of any more, and that cannot make way"
    for path in tree.immutable:
        detail = f"{what}: {path} is immutable or append-only"
        return Skip(path=step.source or "", reason=Reason.IMMUTABLE, detail=detail, rival=_new_name(step))
    for path in work.disk.mounts(_new_name(step)):
        return Skip(path=step.source or "", reason=Reason.IN_USE, detail=f"{what}: something is mounted at {path}")
    return None


def _diverged(step: Step) -> Skip:
    detail = f"it is not what {_new_name(step)} was made of any more, since a trial began; {_TOLD[step.divergence]}"
    return Skip(path=step.source or "", reason=Reason.DIVERGED, detail=detail, rival=_new_name(step))


def _is_source_changed(work: Work, step: Step) -> bool:
    source = work.disk.find(step.source or "")
    if source is None:
        return False
    if step.method == "link":
        # What is written to one of two names is there under the other; only another file in its place is another version.
        return step.expected is not None and source.identity != step.expected.identity
    try:
        check_source(work.disk, step, deep=True)
    except StepRefusedError:
        return True
    return False


def _is_target_changed(work: Work, step: Step) -> bool:
    target = work.disk.find(_new_name(step))
    if target is None or target.identity != work.staged.get(step.number):
        return True
    if step.method == "link":
        expected = step.expected
        return expected is None or (target.size, target.mtime_ns) != (expected.size, expected.mtime_ns)
    return work.disk.survey(target.path).fingerprint != work.marks.get(step.number)


def _taking_back(work: Work, step: Step, key: str, *, keeps: bool) -> Step:
    path = _new_name(step)
    entry, tree = work.disk.find(path), work.disk.survey(path)
    return Step(
        number=0,
        group=0,
        migration=step.migration,
        operation="SetAside" if keeps else "Retire",
        shape=Shape.DISPLACE,
        source=path,
        source_home=work.disk.domain(parent(path)).home,
        before=attributes_of(entry, None) if entry is not None else step.after,
        expected=Precondition.of(entry, tree.fingerprint) if entry is not None else None,
        keeps=keeps,
        takes_back=key,
        why=Reason.DIVERGED.value if keeps else "out of date",
        size=tree.size,
        allocated=tree.allocated,
        entries=tree.entries,
    )


def _placed(step: Step, number: int, group: int) -> Step:
    return replace(step, number=number, group=group)


def _times(disk: Disk, steps: Iterable[Step]) -> tuple[tuple[str, int, int], ...]:
    """Return the times of the folders that the steps touch, for an undo."""
    folders = dict.fromkeys(["", *(path for step in steps for path in (step.source_home, parent(step.source or "")))])
    found = (disk.find(path) for path in folders)
    return tuple((entry.path, entry.atime_ns, entry.mtime_ns) for entry in found if entry is not None)
