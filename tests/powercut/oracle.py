"""What must hold on a disk that a power cut left, before anything is done about it and after the next start.

D1, D2 and D7 are those of `docs/durability.md`. What belongs to what is taken from the fixture's `expect.diff`, which people have
read line by line, and from a run that nothing disturbed; what the program itself says of the disk is not asked.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.powercut.stories import NEIGHBOUR, ROOT, VAULT
from tests.support.disktree import ENGINE, Tree, capture, decode_extent, diff
from tests.support.running import run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.powercut.stories import Moves
    from tests.support.cases import Case

_LATE = 1_700_000_000_000_000_000  # later than any time of a fixture: the time of a run
_OWN = "user.upgradeconverter."
_WORKING = ("stage", "trash", "manifest")
_GONE, _COMPLETE, _STALE = "gone", "complete", "stale"
NO_RECORD = "no record"
_BY_FILE = ("rayos",)


def moves_of(case: Case) -> Moves:
    """Return the old and new name of each artifact, by what the fixture's expected result says of its files."""
    found: dict[tuple[str, str], None] = {}
    for line in (case.folder / "expect.diff").read_text(encoding="utf-8").splitlines():
        if line.startswith("+ ") and " <= " in line:
            new, old = line.removeprefix("+ ").split(" <= ")
            news, olds = new.split("/"), old.split("/")
            # The files of a topic, and of a pack that moves files, move each by itself, all else as a whole.
            is_alone = case.pack in _BY_FILE or new.startswith("status/")
            while not is_alone and len(olds) > 1 and news[-1] == olds[-1]:
                news.pop()
                olds.pop()
            found["/".join(olds), "/".join(news)] = None
    return tuple(found)


def settled(tree: Tree) -> Tree:
    """Return a tree without times that say when a run was, and without the root's, which a cut may take."""
    return {
        path: {
            name: value for name, value in entry.items() if name not in ("mtime", "atime") or (entry["mtime"] < _LATE and path)
        }
        for path, entry in tree.items()
    }


def without_engine(tree: Tree) -> Tree:
    """Return a tree without the engine's own folders; a file that has another name there keeps its content."""
    kept = {}
    for path, entry in tree.items():
        if ENGINE not in path.split("/"):
            first = entry.get("link", "")
            kept[path] = {**tree[first], "path": path} if ENGINE in first.split("/") else entry
    return kept


def last_record(root: str) -> str:
    """Return the kind of the last whole record in the journal."""
    last = NO_RECORD
    with suppress(OSError), open(f"{root}/{ENGINE}/journal", "rb") as journal:
        for line in journal:
            with suppress(ValueError, KeyError, TypeError):
                last = str(json.loads(line[17:])["kind"])
    return last


@dataclass(frozen=True, slots=True)
class Artifact:
    """One thing that is moved: both names, and what lies below each when it is complete (`""` is itself).

    Attributes:
        stale: what also may lie below the new name: made of an older version than there is.
    """

    old: str
    new: str
    at_old: Tree
    at_new: Tree
    stale: Tree


@dataclass(frozen=True, slots=True)
class Oracle:
    """Knows what a disk may look like.

    Attributes:
        artifacts: what moves.
        before, after: the whole disk with the old and with the new layout; nothing else may ever be there.
        ends: what the disk is after each start that is recorded; the first is what it was before them.
    """

    artifacts: tuple[Artifact, ...]
    before: Tree
    after: Tree
    ends: tuple[Tree, ...]

    @classmethod
    def of(cls, moves: Moves, before: Tree, after: Tree, ends: Sequence[Tree], *, is_stale: bool) -> Oracle:
        """Make one of captured trees; `is_stale` where the old versions were written to after a trial."""
        artifacts = tuple(
            Artifact(old, new, _below(before, old), _below(after, new), _below(ends[0], new) if is_stale else {})
            for old, new in moves
        )
        return cls(artifacts, before, after, tuple(ends))

    def look(self, root: str) -> list[str]:
        """Return what is wrong with a disk before anything is done about it."""
        everything = capture(root, engine=True)
        tree = without_engine(everything)
        facts = _facts(everything)
        top = os.path.dirname(root)
        tops = (top, *(f"{top}-{number}" for number in (1,) if os.path.isdir(f"{top}-{number}")))
        above = {name for each in tops for name in os.listdir(each)} - {ROOT, VAULT, NEIGHBOUR, "lost+found"}
        problems = [f"D7: {name} lies outside of the root" for name in sorted(above)]
        there = {fact.get("content") for fact in facts.values()}
        # Moved, rewritten or set aside: what anybody has written is somewhere.
        problems += [
            f"D1: what {path} said is nowhere"
            for path, fact in _facts(self.before).items()
            if fact.get("size") and fact["content"] not in there
        ]
        for artifact in self.artifacts:
            problems += _look_at(artifact, facts)
        moved = {name for artifact in self.artifacts for name in (artifact.old, artifact.new)}
        for path in sorted({*tree, *self.before, *self.after}):
            if any(path == name or path.startswith(f"{name}/") for name in moved):
                continue
            if path in tree and path not in self.before and path not in self.after:
                problems.append(f"D7: {path} is nobody's")
            elif (
                path in self.before
                and path in self.after
                and facts.get(path)
                not in (
                    _fact(self.before[path], self.before),
                    _fact(self.after[path], self.after),
                )
            ):
                problems.append(f"D7: {path} is not what it was")
        return problems

    def kept_word(self, root: str, start: int) -> list[str]:
        """Return how a disk differs from what a start that said it was done had made of it."""
        found = diff(settled(self.ends[start + 1]), settled(capture(root)))
        return [f"a start had ended, but: {found}"] if found else []

    def carry_on(self, root: str, starts: Sequence[Sequence[str]], expected: Tree) -> list[str]:
        """Do what the next boot does; return what is wrong with what comes of it."""
        problems = []
        for words in starts:
            status, document = run(*words, "-p", root)
            code = (document["error"] or {}).get("code", "")
            if status != 0 and code != "NothingToRollBack":
                problems.append(f"{' '.join(words)} ended with {status} {document['error']}")
        quiet = capture(root, engine=True)
        problems += [f"left behind: {path}" for path in leftovers(root)]
        found = diff(settled(expected), settled(without_engine(quiet)))
        if found:
            problems.append(f"not what an undisturbed start gives: {found}")
        if problems:
            return problems
        run(*starts[-1], "-p", root)
        again = diff(quiet, capture(root, engine=True))
        return [f"one more start changed something: {again}"] if again else []


def leftovers(root: str) -> Iterator[str]:
    """Yield what the engine must not leave."""
    for path in (*(f"{ENGINE}/{name}" for name in _WORKING), f"vault/{ENGINE}"):
        if os.path.lexists(f"{root}/{path}"):
            yield path


def _below(tree: Tree, top: str) -> Tree:
    return {path: entry for path, entry in _facts(tree).items() if path == top or path.startswith(f"{top}/")}


def _facts(tree: Tree) -> Tree:
    return {path: _fact(entry, tree) for path, entry in tree.items()}


def _fact(entry: dict[str, Any], tree: Tree) -> dict[str, Any]:
    """Return what of an entry must be right at every moment: all but the times of folders, the engine's labels, and holes."""
    if "link" in entry:
        entry = {**tree[entry["link"]], **entry}
    fact: dict[str, Any] = {name: entry[name] for name in ("kind", "mode", "owner", "size", "to", "device") if name in entry}
    if entry["kind"] != "directory" and entry["mtime"] < _LATE:
        fact["mtime"] = entry["mtime"]
    if "data" in entry:
        fact["content"] = _digest(entry["size"], entry["data"])
    fact["xattrs"] = {name: value for name, value in entry.get("xattrs", {}).items() if not name.startswith(_OWN)}
    return fact


def _digest(size: int, extents: list[list[Any]]) -> str:
    content = hashlib.sha256()
    position = 0
    for offset, encoding, value in extents:
        part = decode_extent(encoding, value)
        content.update(bytes(offset - position) + part)
        position = offset + len(part)
    content.update(bytes(size - position))
    return content.hexdigest()


def _look_at(artifact: Artifact, facts: Tree) -> list[str]:
    """Return what is wrong with one artifact: it must be complete under one name (D1), and under each name that shows (D2)."""
    other = {artifact.old + path.removeprefix(artifact.new): fact for path, fact in artifact.at_new.items()}
    extra = {path: fact for path, fact in other.items() if path not in artifact.at_old}
    # Mode and owner are set before the name changes, and a trial's second name is the same file.
    dressed = {path: {**fact, **_dress(other[path])} for path, fact in artifact.at_old.items() if path in other}
    old = _compare(artifact.at_old, facts, artifact.old, {**extra, **dressed})
    new = _compare(artifact.at_new, facts, artifact.new, {})
    is_stale = new not in (_GONE, _COMPLETE) and _compare(artifact.stale, facts, artifact.new, {}) == _COMPLETE
    problems = [f"D2: {text}" for text in (old, _STALE if is_stale else new) if text not in (_GONE, _COMPLETE, _STALE)]
    if _COMPLETE not in (old, new):
        problems.append(f"D1: {artifact.old} is nowhere complete")
    return problems


def _dress(fact: dict[str, Any]) -> dict[str, Any]:
    return {name: fact[name] for name in ("mode", "owner") if name in fact}


def _compare(expected: Tree, facts: Tree, top: str, allowed: Tree) -> str:
    """Return whether what lies under a name is gone or complete, else how it differs; what is allowed may be there instead."""
    if top not in facts:
        return _GONE
    there = {path for path in facts if path == top or path.startswith(f"{top}/")}
    for path in sorted(there | expected.keys()):
        if facts.get(path) not in (expected.get(path), allowed.get(path, expected.get(path))):
            return f"{top} is partial: {path} is {facts.get(path)}, not {expected.get(path)}"
    return _COMPLETE
