"""What must hold on a small disk at every moment, however a start ended, and what a start may say about it.

What belongs to what is told by the disk itself and by runs that nothing disturbed; what the program says is compared, and never
believed.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.durability.halfway import is_under_way
from tests.durability.small_disks import SET_ASIDE
from tests.support.disktree import ENGINE, Tree, capture, diff, normal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.durability.small_disks import SmallDisk

_LATE = 1_700_000_000_000_000_000  # later than any time of a small disk: the time of a run
_OWN = "user.upgradeconverter."
_MAY_STAY = {"journal", "journal.previous", "journal.before", "ledger", "stamp", "quarantine"}


def settled(tree: Tree, unsteady: tuple[str, ...] = ("", "vault")) -> Tree:
    """Return a tree without times that say when a run was, and without the engine's folders.

    The times of folders in which these come and go are left out too (`unsteady`): see the limits in `docs/durability.md`.
    """
    return {
        path: {
            name: value
            for name, value in entry.items()
            if name not in ("mtime", "atime") or (entry["mtime"] < _LATE and path not in unsteady)
        }
        for path, entry in tree.items()
        if ENGINE not in path.split("/")
    }


def leftovers(top: str, *, waits: bool) -> list[str]:
    """Return what the engine must not leave behind once a start has ended well."""
    own = set(os.listdir(f"{top}/{ENGINE}")) if os.path.isdir(f"{top}/{ENGINE}") else set()
    wrong = own - _MAY_STAY - ({"waiting"} if waits else set())
    in_vault = set(os.listdir(f"{top}/vault/{ENGINE}")) - {"quarantine"} if os.path.isdir(f"{top}/vault/{ENGINE}") else set()
    found = [f"left over: {name}" for name in sorted(wrong | in_vault)]
    return found + (["nothing says that a trial waits"] if waits and "waiting" not in own else [])


@dataclass(frozen=True, slots=True)
class Whole:
    """Knows a disk with its old and with its new layout; between the two nothing else may ever be there.

    Attributes:
        rewritten: the disk once somebody has made new versions while a trial waited; None where nobody does.
    """

    disk: SmallDisk
    before: Tree
    after: Tree
    rewritten: Tree | None = None

    def look(self, top: str) -> list[str]:
        """Return what is wrong with a disk on which a start was stopped, before anything is done about it."""
        tree = normal(capture(top, engine=True))
        facts = {path: _fact(entry, tree) for path, entry in tree.items() if ENGINE not in path.split("/")}
        old, new = (normal(each) for each in (self.before, self.after))
        trees = [old, new, *([normal(self.rewritten)] if self.rewritten is not None else [])]
        problems = []
        for path, fact in facts.items():
            allowed = [_fact(each[path], each) for each in trees if path in each]
            dressed = list(self._dressed(path, old, new))
            added = [] if allowed else dressed
            if not any(_is_between(fact, one, [*allowed, *dressed]) for one in (*allowed, *added)):
                problems.append(f"D2: {path} is {fact}, which it never was and never is to be")
        set_aside = {_content(tree[path]) for path in tree if f"{ENGINE}/quarantine/" in path and "data" in tree[path]}
        for source, target in self.disk.moves:
            problems += self._look_at(top, source, target, facts, set_aside)
        return problems + self.look_for_rewritten(top)

    def look_for_rewritten(self, top: str) -> list[str]:
        """Return which of the versions that somebody made while a trial waited are nowhere on a disk."""
        if self.rewritten is None:
            return []
        there = {_content(entry) for entry in normal(capture(top, engine=True)).values() if "data" in entry}
        made = normal(self.rewritten)
        return [
            f"D1: the new version of {name} is nowhere" for name, _ in self.disk.rewritten if _content(made[name]) not in there
        ]

    def _dressed(self, path: str, old: Tree, new: Tree) -> Iterator[dict[str, Any]]:
        """Yield what something is under its other name: mode and owner change, and a file is put inside, before the name."""
        ways = [(source, target, new) for source, target in self.disk.moves]
        ways += [(target, source, old) for source, target in self.disk.moves if target != SET_ASIDE]
        for here, there, tree in ways:
            other = there + path.removeprefix(here)
            if (path == here or path.startswith(f"{here}/")) and other in tree:
                yield _fact(tree[other], tree)

    def _look_at(self, top: str, source: str, target: str, facts: Tree, set_aside: set[str]) -> list[str]:
        there = []
        problems = []
        for name, tree in ((source, self.before), (target, self.after)):
            if name != SET_ASIDE and name in facts:
                missing = [path for path in tree if (path == name or path.startswith(f"{name}/")) and path not in facts]
                problems += [f"D2: {name} shows without {path}" for path in missing]
                there.append(name)
        is_aside = target == SET_ASIDE and _content(normal(self.before)[source]) in set_aside
        if not there and not is_aside and not is_under_way(top, source, target, self.before):
            problems.append(f"D1: {source} is nowhere")
        return problems


def _content(entry: dict[str, Any]) -> str:
    return str((entry.get("size"), entry.get("data")))


def _fact(entry: dict[str, Any], tree: Tree) -> dict[str, Any]:
    """Return what of an entry must be right at every moment: all but the times of folders and the engine's labels."""
    if "link" in entry:
        entry = {**tree[entry["link"]], **entry}
    fact = {name: entry.get(name) for name in ("kind", "mode", "owner", "size", "to", "device", "data")}
    if entry["kind"] != "directory" and entry["mtime"] < _LATE:
        fact["mtime"] = entry["mtime"]
    fact["xattrs"] = {name: value for name, value in entry.get("xattrs", {}).items() if not name.startswith(_OWN)}
    return fact


def _is_between(fact: dict[str, Any], one: dict[str, Any], others: list[dict[str, Any]]) -> bool:
    """Return whether a fact is one of those expected, save for mode and owner, which change one after the other."""
    free = ("mode", "owner")
    same = all(fact.get(name) == value for name, value in one.items() if name not in free)
    return same and all(fact[name] in {each[name] for each in others} for name in free)


# --- what is said --------------------------------------------------------------------------------------------------------


def lies(
    document: dict[str, Any],
    expected: dict[str, Any],
    top: str,
    trees: tuple[Tree, Tree, Tree],
    *,
    is_open: bool,
    waited: Tree | None,
) -> list[str]:
    """Return what a report says that is not so.

    Args:
        document: the report.
        expected: the report of the same start when nothing disturbs it.
        top: the disk as it is.
        trees: the disk before the start, as it is now, and as it is after an undisturbed one.
        is_open: whether a transaction is open.
        waited: the disk before, where a trial waited then.
    """
    before, now, after = (settled(tree) for tree in trees)
    status, problems = document["exit_status"], []
    if status == 3 and (found := diff(before, now)):
        problems.append(f"refused before any write, but: {found}")
    if status == 4 and is_open:
        problems.append("rolled back, but a transaction is open")
    if status in (0, 1):
        problems += ["done, but a transaction is open"] if is_open else []
        more = Counter(map(_told, document["skipped"])) - Counter(map(_told, expected["skipped"]))
        if not more and (found := diff(after, now)):
            problems.append(f"done and nothing more was left, but: {found}")
    problems += [text for item in document["items"] for text in _lie(item, top, waited or {})]
    return problems


def _told(skip: dict[str, Any]) -> tuple[str, str]:
    return skip["path"], skip["reason"]


def _lie(item: dict[str, Any], top: str, waited: Tree) -> Iterator[str]:
    if (
        item["operation"] not in ("Move", "Quarantine")
        or item["transfer"] not in ("rename", "copy", "stream")
        or not item["source"]
    ):
        return
    old, new = (os.path.lexists(f"{top}/{item[name]}") for name in ("source", "target"))
    said = item["status"]
    is_so = {
        "done": new and not old,
        "waiting": old and new,
        "left": old,
        # What the trial before had made is back.
        "undone": old and new == (item["target"] in waited),
        "quarantined": new and not old,
    }
    if not is_so.get(said, True):
        names = " and ".join(name for name, there in (("the old name", old), ("the new name", new)) if there) or "no name"
        yield f"{item['source']} is said to be {said}, but {names} is there"
