"""Which of the planned steps fit on the disk, and which share a transaction. Pure.

A group that does not fit beside its copy, not even once the sources of earlier transactions are gone, is left out by name. Waves
are bounded, and so is the work that a power cut costs.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct, field
from msgspec.structs import replace

from upgradeconverter.model.entry import Kind
from upgradeconverter.model.operation import Skip
from upgradeconverter.model.outcome import Reason
from upgradeconverter.model.plan import Need, Shape, Step, Trial, Wave, folders_wanted
from upgradeconverter.planning.facts import Facts, above
from upgradeconverter.planning.lowspace import as_stream, can_go_over, the_copy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from upgradeconverter.model.entry import Space

# Bytes or inodes by file system.
_Sums: TypeAlias = "defaultdict[str, int]"
# One transaction is bounded so that a power cut costs at most this much repeated work (bytes) and a short journal line.
WAVE_BYTES = 4 << 30
WAVE_STEPS = 1000
# Inodes that are never planned with: the engine's folders, journal, manifest, stamp and ledger on one file system.
_INODE_RESERVE = 16


class Fitting(Struct, frozen=True, kw_only=True):
    """What fits, in the order in which it is to be carried out, what does not, and what the fullest moment needs.

    `left_out` are the groups of what does not.
    """

    waves: tuple[Wave, ...]
    short: tuple[Skip, ...]
    left_out: frozenset[int]
    needs: tuple[Need, ...]


def reserve(free: int) -> int:
    """Return the bytes that are never planned with: journal, directories, and what others write meanwhile."""
    return max(1 << 20, min(16 << 20, free // 50))


def _none() -> _Sums:
    return defaultdict(int)


def _add(sums: _Sums, others: _Sums, sign: int = 1) -> None:
    for name, number in others.items():
        sums[name] += sign * number


class _Cost(Struct):
    """Bytes and inodes by file system: what steps take at once, and what they give back when their wave is through."""

    taken: _Sums = field(default_factory=_none)
    inodes: _Sums = field(default_factory=_none)
    freed: _Sums = field(default_factory=_none)
    freed_inodes: _Sums = field(default_factory=_none)

    def add(self, other: _Cost) -> None:
        if other is _FOR_NOTHING:
            return
        _add(self.taken, other.taken)
        _add(self.inodes, other.inodes)
        _add(self.freed, other.freed)
        _add(self.freed_inodes, other.freed_inodes)


_FOR_NOTHING = _Cost()


def _cost_of(steps: Iterable[Step], facts: Facts, trial: Trial | None) -> _Cost:
    steps = tuple(steps)
    if all(step.shape is Shape.RENAME for step in steps):
        return _FOR_NOTHING
    cost, stays = _Cost(), _waits(steps, trial)
    for step in steps:
        there = facts.spaces[step.target_home]
        if taken := room_taken(step, there.block_size):
            cost.taken[there.filesystem] += taken
            cost.inodes[there.filesystem] += step.entries if _is_copied(step) or step.shape is Shape.STREAM else 1
        entry = facts.entries.get(step.source) if step.source is not None else None
        if step.shape is Shape.STREAM:
            # It leaves what it takes.
            cost.freed[there.filesystem] += taken
            cost.freed_inodes[there.filesystem] += step.entries
        goes = step.shape is Shape.RETIRE or (step.shape is Shape.COPY and step.operation != "Copy")
        goes = goes and not stays and not step.keeps
        # What has another name does not go away with this one.
        if goes and entry is not None and (entry.links == 1 or entry.kind is Kind.DIRECTORY):
            here = facts.spaces[step.source_home].filesystem
            cost.freed[here] += step.allocated
            cost.freed_inodes[here] += step.entries
    return cost


def room_taken(step: Step, block_size: int) -> int:
    """Return how many bytes a step takes where its target lies until its transaction has ended, at most."""
    if step.shape is Shape.STREAM:
        return step.piece + step.hollow
    if _is_copied(step):
        return step.allocated + step.entries * block_size
    return block_size if step.shape in (Shape.CREATE, Shape.COPY) else 0


def _is_copied(step: Step) -> bool:
    return (step.shape is Shape.COPY and step.method == "copy") or (step.shape is not Shape.RETIRE and step.made_of == "copy")


def _waits(group: Iterable[Step], trial: Trial | None) -> bool:
    """Return whether a group keeps its sources until a trial is confirmed."""
    return trial is not None and not any(step.source in trial.at_once for step in group if step.source is not None)


class _Room(Struct):
    """The file systems while waves are laid out: what finished waves left, and what the open one takes."""

    spaces: dict[str, Space]
    left: _Sums = field(default_factory=_none)
    left_inodes: _Sums = field(default_factory=_none)
    open: _Cost = field(default_factory=_Cost)
    fullest: _Sums = field(default_factory=_none)
    fullest_inodes: _Sums = field(default_factory=_none)

    def shortage(self, cost: _Cost) -> str:
        """Return why steps do not fit into the open wave, empty when they do."""
        for name in sorted(cost.taken):
            space = self.spaces[name]
            usable = space.free - reserve(space.free)
            wanted = self.left[name] + self.open.taken[name] + cost.taken[name]
            if wanted > usable:
                return f"file system {name}: needs {wanted} bytes, {max(usable, 0)} usable"
            inodes = self.left_inodes[name] + self.open.inodes[name] + cost.inodes[name]
            if inodes > space.free_inodes - _INODE_RESERVE:
                return f"file system {name}: needs {inodes} inodes, {max(space.free_inodes - _INODE_RESERVE, 0)} usable"
        return ""

    def usable(self, name: str) -> int:
        """Return the bytes of a file system that can still be planned with."""
        space = self.spaces[name]
        return space.free - reserve(space.free) - self.left[name] - self.open.taken[name]

    def take(self, cost: _Cost) -> None:
        """Plan steps into the open wave."""
        self.open.add(cost)
        for name in cost.taken:
            self.fullest[name] = max(self.fullest[name], self.left[name] + self.open.taken[name])
            self.fullest_inodes[name] = max(self.fullest_inodes[name], self.left_inodes[name] + self.open.inodes[name])

    def closed(self) -> _Room:
        """Return the room as it is once the open wave is through and its sources are gone."""
        left, inodes = self.left.copy(), self.left_inodes.copy()
        _add(left, self.open.taken)
        _add(left, self.open.freed, -1)
        _add(inodes, self.open.inodes)
        _add(inodes, self.open.freed_inodes, -1)
        return replace(self, left=left, left_inodes=inodes, open=_Cost())

    def needs(self) -> tuple[Need, ...]:
        """Return the fullest moment of every file system on which something is written."""
        return tuple(
            Need(
                filesystem=name,
                free=self.spaces[name].free,
                needed=self.fullest[name],
                reserve=reserve(self.spaces[name].free),
                free_inodes=self.spaces[name].free_inodes,
                needed_inodes=self.fullest_inodes[name],
            )
            for name in sorted(self.fullest)
            if self.fullest[name] > 0
        )


def fit(planned: Iterable[Step], facts: Facts, trial: Trial | None = None) -> Fitting:
    """Bundle steps into waves, new directories first, groups never torn apart; what never fits is left out.

    In a trial nothing is freed, save by what is given up at once: that comes first, in waves of its own.
    """
    groups: dict[int, list[Step]] = {}
    for step in planned:
        groups.setdefault(step.group, []).append(step)
    folders = groups.pop(0, [])
    room = _Room({space.filesystem: space for space in facts.spaces.values()})
    room.take(_cost_of(folders, facts, trial))
    lasting = [group for group in groups.values() if not _waits(group, trial)]
    waiting = [group for group in groups.values() if _waits(group, trial)]
    waves, short, room = _lay_out_all(lasting, room, facts, trial)
    waves, short, room = _with_streams(waves, short, room, facts, trial)
    more, shorter, room = _lay_out_all(waiting, room.closed() if waves else room, facts, trial)
    laid = _with_folders(folders, [(wave, False) for wave in waves] + [(wave, True) for wave in more])
    return Fitting(
        waves=tuple(_wave(wave, facts, trial=is_trial) for wave, is_trial in laid),
        short=tuple(skip for group, problem in (*short, *shorter) for skip in _too_big(group, problem)),
        left_out=frozenset(group[0].group for group, _ in (*short, *shorter)),
        needs=room.needs() if laid else (),
    )


def _lay_out_all(
    groups: list[list[Step]], room: _Room, facts: Facts, trial: Trial | None
) -> tuple[list[list[Step]], list[tuple[list[Step], str]], _Room]:
    """Return waves, what did not fit into any with the reason, and the room after all of them."""
    waves: list[list[Step]] = [[]]
    pending, before = groups, -1
    while pending and len(pending) != before:
        # What did not fit may do so when what came after it has made room.
        before = len(pending)
        pending, room = _lay_out(pending, waves, room, facts, trial)
    short = [(group, room.shortage(_cost_of(group, facts, trial))) for group in pending]
    return [wave for wave in waves if wave], short, room


def _with_streams(
    waves: list[list[Step]], short: list[tuple[list[Step], str]], room: _Room, facts: Facts, trial: Trial | None
) -> tuple[list[list[Step]], list[tuple[list[Step], str]], _Room]:
    """Let go over piece by piece what there is no room to copy, each in a wave of its own after all others."""
    streams, left = [], []
    for group, problem in short:
        streamed = _streamed(group, room.closed(), facts)
        if streamed is None:
            left.append((group, problem))
            continue
        room = room.closed()
        room.take(_cost_of(streamed, facts, trial))
        streams.append(streamed)
    if streams:
        waves, emptied = _parted_by(waves, {step.source or "" for group in streams for step in group})
        waves = [*waves, *streams, *([emptied] if emptied else [])]
    return waves, left, room


def _streamed(group: list[Step], room: _Room, facts: Facts) -> list[Step] | None:
    """Return a group with its copy as a stream, or None where that cannot be."""
    copy = the_copy(group)
    tree = facts.trees.get(copy.source or "") if copy is not None else None
    if copy is None or tree is None or not can_go_over(copy, tree):
        return None
    space = facts.spaces[copy.target_home]
    if facts.spaces[copy.source_home].filesystem != space.filesystem:
        return None
    stream = as_stream(copy, tree, space, room.usable(space.filesystem))
    if stream is None:
        return None
    streamed = [stream if step is copy else step for step in group]
    return streamed if not room.shortage(_cost_of(streamed, facts, None)) else None


def _parted_by(waves: list[list[Step]], streams: set[str]) -> tuple[list[list[Step]], list[Step]]:
    """Take out of the waves the directories that go once they are empty, and are not so before the streams are through."""
    emptied = [
        step for wave in waves for step in wave if step.once_empty and any(path.startswith(f"{step.source}/") for path in streams)
    ]
    rest = [[step for step in wave if step not in emptied] for wave in waves]
    return [wave for wave in rest if wave], emptied


def _lay_out(
    pending: list[list[Step]], waves: list[list[Step]], room: _Room, facts: Facts, trial: Trial | None
) -> tuple[list[list[Step]], _Room]:
    """Put each group into the open wave or a fresh one; returns those that fit in neither, and the room after the rest."""
    short = []
    for group in pending:
        cost = _cost_of(group, facts, trial)
        copied = sum(cost.taken.values()) + sum(room.open.taken.values())
        full = bool(waves[-1]) and (copied > WAVE_BYTES or len(waves[-1]) + len(group) > WAVE_STEPS)
        if not full and not room.shortage(cost):
            waves[-1].extend(group)
        elif waves[-1] and not (fresh := room.closed()).shortage(cost):
            room = fresh
            waves.append(list(group))
        else:
            short.append(group)
            continue
        room.take(cost)
    return short, room


def _too_big(group: Iterable[Step], problem: str) -> Iterable[Skip]:
    return (Skip(path=s.source, reason=Reason.NO_SPACE, detail=problem) for s in group if s.source and s.target)


def _with_folders(folders: list[Step], waves: list[tuple[list[Step], bool]]) -> tuple[tuple[tuple[Step, ...], bool], ...]:
    """Put the new directories that something goes into before everything else; number all steps anew."""
    used = list(folders_wanted(folders, (step for wave, _ in waves for step in wave)))
    if used:
        waves = [([*used, *waves[0][0]], waves[0][1]), *waves[1:]]
    numbered = []
    number = 0
    for wave, is_trial in waves:
        numbered.append((tuple(_numbered(step, number + place) for place, step in enumerate(wave)), is_trial))
        number += len(wave)
    return tuple(numbered)


def _numbered(step: Step, number: int) -> Step:
    return step if step.number == number else replace(step, number=number)


def _wave(steps: tuple[Step, ...], facts: Facts, *, trial: bool) -> Wave:
    holders = dict.fromkeys(above(p) for step in steps for p in (step.source, step.target) if p)
    homes = dict.fromkeys(home for step in steps for home in (step.source_home, step.target_home, ""))
    return Wave(steps=steps, touched=_times(facts, (*homes, *holders)), restore=_inner_times(steps, facts), trial=trial)


def _times(facts: Facts, paths: Iterable[str]) -> tuple[tuple[str, int, int], ...]:
    found = ((path, facts.entries.get(path)) for path in dict.fromkeys(paths))
    return tuple((path, entry.atime_ns, entry.mtime_ns) for path, entry in found if entry is not None)


def _inner_times(steps: tuple[Step, ...], facts: Facts) -> tuple[tuple[str, int, int], ...]:
    """Return the times of directories that get a file inside before they are renamed, under their new names."""
    grown = {above(s.target) for s in steps if s.shape is Shape.CREATE and s.target is not None}
    found = []
    for step in steps:
        entry = facts.entries.get(step.source) if step.source is not None else None
        if step.shape is Shape.RENAME and step.source in grown and entry is not None and step.target is not None:
            found.append((step.target, entry.atime_ns, entry.mtime_ns))
    return tuple(found)
