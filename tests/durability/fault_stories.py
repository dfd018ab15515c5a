"""What the sweep does to the program: which starts it disturbs, with which faults, and what must hold after each. Needs root.

For each story, which is a start of the program on a small disk after other starts that nothing disturbed: the process dies before
the n-th call that changes something, or in the middle of the n-th write; and a call fails with ENOSPC, EIO, EDQUOT or EROFS, once
or from then on. A call that only looks fails with EIO, the only one of the four that it knows. After each: every artifact is
whole under its old or its new name, what is said is so, the next start ends as if nothing had happened (every other time the
start that takes everything back does), nothing is left over, and one more start changes nothing.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import signal
import traceback
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema

import upgradeconverter
from tests.durability.small_disks import Place, SmallDisk, rewrite, small_disks
from tests.durability.wholeness import Whole, leftovers, lies, settled
from tests.support.disktree import Tree, capture, diff
from tests.support.door import CHANGE, DEATH, LOOK, Door, Fault, Lasting, armed
from upgradeconverter.cli.main import main as program
from upgradeconverter.disk.posix import PosixDisk
from upgradeconverter.engine.places import JOURNAL
from upgradeconverter.errors import EXIT_STATUSES
from upgradeconverter.journal.log import Journal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CODES = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS)
LONGEST = 60
ROOT = ("",)  # the one folder whose times may be lost for good
RUN: tuple[str, ...] = ()
TRIAL, CONFIRM, ROLLBACK = ("--trial",), ("confirm",), ("rollback",)
# No start of the program: the old system is back and writes, after the new one has.
REWRITE = ("rewrite",)
# Of a start that is recovered from, so many deaths spread over all calls.
DEATHS_RECOVERED = 3
# Errors of starts that recover.
FEWER_CODES = (errno.ENOSPC, errno.EIO)
_VALIDATOR = jsonschema.Draft202012Validator(json.loads((Path(upgradeconverter.__file__).parent / "schema.json").read_text()))


# --- stories -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Story:
    """One start that is disturbed.

    Attributes:
        before: starts that come first and that nothing disturbs, and what is written between them.
        death: the last of these dies before so many thousandths of its changes; None when it does not die.
        words: the start that is disturbed.
        other_end: a start which instead of `words` once more gives what was before the first of all.
    """

    name: str
    disk: SmallDisk
    words: tuple[str, ...]
    before: tuple[tuple[str, ...], ...] = ()
    death: int | None = None
    other_end: tuple[str, ...] = ()

    @property
    def waits(self) -> bool:
        """Whether a trial waits after it."""
        return self.words == TRIAL


def stories(names: Sequence[str]) -> Iterator[Story]:
    """Yield all stories of the small disks named."""
    for disk in (small_disks()[name] for name in names):
        starts = {
            "run": (RUN, ()),
            "trial": (TRIAL, ()),
            "confirm": (CONFIRM, (TRIAL,)),
            "rollback": (ROLLBACK, (RUN,)),
            "rollback of a trial": (ROLLBACK, (TRIAL,)),
            **({"trial of what was rewritten": (TRIAL, (TRIAL, REWRITE))} if disk.rewritten else {}),
        }
        for name, (words, before) in starts.items():
            if disk.stories and name not in disk.stories:
                continue
            end = ROLLBACK if words != ROLLBACK else ()
            yield Story(f"{disk.name}: {name}", disk, words, before, other_end=end)
            for part in range(1, DEATHS_RECOVERED + 1) if disk.recovered else ():
                death = 1000 * part // (DEATHS_RECOVERED + 1)
                yield Story(f"{disk.name}: {name} after death at {death}", disk, words, (*before, words), death, other_end=end)


# --- starts --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ended:
    """How a start ended: its exit status, or minus the number of a signal; its report; what it wrote to standard error."""

    status: int
    document: dict[str, Any] = field(default_factory=dict)
    told: str = ""
    reached: bool = False
    calls: dict[str, list[str]] = field(default_factory=dict)


def start(top: str, disk: SmallDisk, words: Sequence[str], fault: Fault | None = None, *, counts: bool = False) -> Ended:
    """Start the program; with a fault in a process of its own, whose locks go with it whatever it could not do."""
    if words == REWRITE:
        rewrite(disk, top)
        return Ended(0)
    arguments = [*words, "-p", top, *disk.words, "--output", "json"]
    if fault is None:
        return _started(arguments, armed() if counts else contextlib.nullcontext(Door()))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.write(writing, json.dumps(asdict(_started(arguments, armed(fault)))).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as stream:
        said = stream.read()
    _, status = os.waitpid(child, 0)
    return Ended(-os.WTERMSIG(status)) if os.WIFSIGNALED(status) else Ended(**json.loads(said))


def _started(arguments: list[str], arming: contextlib.AbstractContextManager[Door]) -> Ended:
    """Do what the program does; what goes on for ever ends with a traceback."""
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(LONGEST)
    out, err = io.StringIO(), io.StringIO()
    status, document = -1, {}
    with arming as door:
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                status = program(arguments)
            document = json.loads(out.getvalue())
        except BaseException:  # noqa: BLE001 - whatever it is, it is told
            err.write(traceback.format_exc())
    signal.alarm(0)
    return Ended(status, document, err.getvalue(), door.reached, door.calls)


def _too_long(*_: object) -> None:
    message = f"it went on for {LONGEST} seconds"
    raise TimeoutError(message)


# --- judging -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Measure:
    """What a story is measured by: how it goes when nothing disturbs it.

    Attributes:
        ended: how the start ended.
        after: the disk after it.
        whole: what may be there in between.
        death: number of the change before which the last start before it dies.
        other: how `other_end` ends, and the disk after that.
        is_quiet: whether one more start leaves also the engine's own files alone. A trial looks each time at what fails its
            digest, and a rollback at what is gone for good.
    """

    ended: Ended
    after: Tree
    whole: Whole
    death: int | None
    other: tuple[int, Tree]
    is_quiet: bool


def _lead_up(story: Story, top: str, death: int | None) -> None:
    for number, words in enumerate(story.before):
        is_last = number == len(story.before) - 1
        fault = Fault(death) if is_last and death is not None else None
        ended = start(top, story.disk, words, fault)
        if ended.status != (0 if fault is None else -signal.SIGKILL):
            message = f"{story.name}: {words} ended with {ended}"
            raise RuntimeError(message)


def measure(story: Story, place: Place) -> Measure:
    """Let a story happen without any fault."""
    death = None
    if story.death is not None:
        with place.disk(story.disk) as top:
            _lead_up(replace(story, before=story.before[:-1]), top, None)
            death = len(start(top, story.disk, story.words, counts=True).calls[CHANGE]) * story.death // 1000
    whole = _whole(story, place)
    with place.disk(story.disk) as top:
        _lead_up(story, top, death)
        ended = start(top, story.disk, story.words, counts=True)
        after = capture(top)
        is_quiet = _changed_by(story, top, story.words) == ""
        other = start(top, story.disk, story.other_end).status if story.other_end else 0, capture(top)
    if ROLLBACK in (story.words, story.other_end) and story.disk.comes_back:
        found = diff(settled(whole.before, ROOT), settled(other[1], ROOT))
        if found:
            message = f"{story.name}: rolling back undisturbed did not give what was: {found}"
            raise RuntimeError(message)
    return Measure(ended, after, whole, death, other, is_quiet)


def _whole(story: Story, place: Place) -> Whole:
    trees = []
    is_rewritten = REWRITE in story.before
    for starts in ((), (RUN,), *([(TRIAL, REWRITE)] if is_rewritten else [])):
        with place.disk(story.disk) as top:
            if is_rewritten and REWRITE not in starts:
                rewrite(story.disk, top)
            _lead_up(replace(story, before=starts), top, None)
            trees.append(capture(top))
    before, after = trees[:2]
    return Whole(story.disk, before, after, trees[2] if is_rewritten else None)


def _changed_by(story: Story, top: str, words: tuple[str, ...]) -> str:
    """Start once more; returns what that changed, the engine's own files included."""
    before = capture(top, engine=True)
    start(top, story.disk, words)
    return diff(before, capture(top, engine=True))


def faults(story: Story, measured: Measure) -> Iterator[Fault]:
    """Yield all that can go wrong in a story."""
    codes = CODES if story.death is None else FEWER_CODES
    changes, looks = measured.ended.calls[CHANGE], measured.ended.calls[LOOK]
    for at, name in enumerate(changes):
        yield Fault(at)
        yield from (Fault(at, code=code, lasting=lasting) for code in codes for lasting in Lasting)
        if name in ("write", "pwrite"):
            yield Fault(at, torn=True)
            yield Fault(at, code=errno.ENOSPC, lasting=Lasting.ON, torn=True)
    for at in range(len(looks)) if story.name.endswith(story.disk.looks or ("no story",)) else ():
        yield from (Fault(at, LOOK, errno.EIO, lasting) for lasting in Lasting)


def judge(story: Story, measured: Measure, fault: Fault, place: Place, *, go_back: bool) -> list[str]:
    """Let a story happen with one fault; returns what is wrong."""
    with place.disk(story.disk) as top:
        _lead_up(story, top, measured.death)
        before = capture(top)
        ended = start(top, story.disk, story.words, fault)
        problems = [f"before anything is done about it: {text}" for text in measured.whole.look(top)]
        if fault.code == DEATH:
            problems += [] if ended.status == -signal.SIGKILL else [f"it did not die but ended with {ended.status}"]
        else:
            problems += _judge_end(ended, measured, top, before)
        return problems + _carry_on(story, measured, top, go_back=go_back and bool(story.other_end))


def _judge_end(ended: Ended, measured: Measure, top: str, before: Tree) -> list[str]:
    document = ended.document
    if not ended.reached or ended.status not in EXIT_STATUSES or "Traceback" in ended.told or not document:
        return [f"it ended with {ended.status}, reached {ended.reached}: {ended.told}"]
    problems = [f"the report does not fit its schema: {error.message}" for error in _VALIDATOR.iter_errors(document)]
    if document["exit_status"] != ended.status or (document["error"] or {}).get("code") == "Internal":
        problems.append(f"it ended with {ended.status}: {document['error']}")
    trees = (before, capture(top), measured.after)
    found = lies(document, measured.ended.document, top, trees, is_open=_is_open(top), waited=measured.whole.rewritten)
    return problems + [f"{document['outcome']} {(document['error'] or {}).get('code', '')}: {text}" for text in found]


def _is_open(top: str) -> bool:
    disk = PosixDisk.at(top)
    try:
        return bool(Journal(disk, JOURNAL).read(repair=False).open)
    finally:
        disk.close()


def _carry_on(story: Story, measured: Measure, top: str, *, go_back: bool) -> list[str]:
    """Do what the next start does, or the one that takes everything back, and then the same once more."""
    words = story.other_end if go_back else story.words
    status, expected = measured.other if go_back else (measured.ended.status, measured.after)
    problems = []
    ended = start(top, story.disk, words)
    code = (ended.document.get("error") or {}).get("code", "")
    # What stopped before it began, or at its very end, leaves a rollback nothing to do.
    is_back = words == ROLLBACK and (code == "NothingToRollBack" or ended.status == 0)
    if ended.status != status and not is_back:
        problems.append(f"then {words} ended with {ended.status} {ended.document.get('error')} {ended.told}")
    unsteady = ROOT if words == ROLLBACK else (*ROOT, "vault")
    now = settled(capture(top), unsteady)
    found = diff(settled(expected, unsteady), now)
    if found and not (is_back and not diff(settled(measured.whole.before, unsteady), now)):
        problems.append(f"then {words} gave something else: {found}")
    problems += [f"then {words}: {text}" for text in leftovers(top, waits=story.waits and not go_back)]
    problems += [f"then {words}: {text}" for text in measured.whole.look_for_rewritten(top)]
    if (
        not problems
        and measured.is_quiet
        and (story.disk.comes_back or not go_back)
        and (found := _changed_by(story, top, words))
    ):
        problems.append(f"one more {words} changed something: {found}")
    return problems
