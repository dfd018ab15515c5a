"""Is what a run left still as it left it? Compares what the history noted with what lies there; changes nothing.

Somebody uses the new layout: what was written to or deleted since is told, and is no deviation. A deviation is what no use of it
explains: another kind, mode, owner or label, content that is another one although size and time are as they were, an old name
that is there again, a journal that lost records.

Of what was only renamed nobody ever read the content, so only a copy can be compared with what it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from upgradeconverter.disk.manifest import content_digest
from upgradeconverter.engine.ledger import journals_of
from upgradeconverter.engine.places import EARLIER_JOURNALS, JOURNAL
from upgradeconverter.engine.receipts import records_in
from upgradeconverter.journal.log import Journal
from upgradeconverter.model.entry import Kind
from upgradeconverter.model.outcome import ItemStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from upgradeconverter.disk.port import Disk
    from upgradeconverter.journal.log import JournalView
    from upgradeconverter.model.entry import Entry

_MOVED = (ItemStatus.DONE.value, ItemStatus.QUARANTINED.value)
_OWN_COPY = "Copy"
_EMPTIED = "Retire"


class _Noted(Struct):
    """The last that the history says of each path: what lies there, and by which item it became empty."""

    there: dict[str, dict[str, Any]] = field(default_factory=dict)
    emptied: dict[str, dict[str, Any]] = field(default_factory=dict)

    def take(self, item: dict[str, Any]) -> None:
        source, target, status = item.get("source"), item.get("target"), item.get("status")
        if item.get("transfer") in ("retire", "displace"):
            target = None
        if status == ItemStatus.UNDONE.value and target is not None:
            self.there.pop(target, None)
            self.emptied.pop(source or "", None)
        if status in (*_MOVED, ItemStatus.WAITING.value) and target is not None:
            self.there[target] = item
            self.emptied.pop(target, None)
        if status == ItemStatus.WAITING.value and item.get("transfer") == "link":
            # Both names are one file now, which looks as its new name shall.
            self.there.pop(source or "", None)
        if item.get("transfer") == "displace" and self.there.get(source or "", {}).get("time", "") == item.get("time"):
            # What made way for something is told behind that where several transactions are confirmed at once.
            return
        if status in _MOVED and source not in (None, target) and item.get("operation") != _OWN_COPY and not _stays(item):
            self.there.pop(source, None)
            # An older release makes its directories anew at every boot, so only what lies in them tells anything.
            if item.get("operation") != _EMPTIED or target is not None:
                self.emptied[source] = item


def _stays(item: dict[str, Any]) -> bool:
    """Return whether an item is done although its source was left where it was, for a reason that was told."""
    return item.get("reason") is not None and item.get("status") == ItemStatus.DONE.value


def noted(runs: Iterable[dict[str, Any]]) -> _Noted:
    """Return what a history comes to; what is no item is left out, for anybody may have written to the file."""
    found = _Noted()
    for run in runs:
        items = run.get("items")
        for item in items if isinstance(items, list) else ():
            if isinstance(item, dict) and all(_is_path(item.get(name)) for name in ("source", "target")):
                left = item.get("left")
                found.take({**item, "time": run.get("time"), "left": left if _is_sound(left) else None})
    return found


def _is_path(path: object) -> bool:
    parts = path.split("/") if isinstance(path, str) else []
    return path is None or (bool(parts) and not any(part in ("", ".", "..") or "\0" in part for part in parts))


def _is_sound(left: object) -> bool:
    if not isinstance(left, dict) or not isinstance(left.get("owner"), list):
        return False
    numbers = (left.get(name) for name in ("mode", "size", "mtime_ns", "ctime_ns", "inode"))
    return all(isinstance(number, int) for number in numbers) and [type(number) for number in left["owner"]] == [int, int]


def altered(disk: Disk, runs: tuple[dict[str, Any], ...], *, beside: str | None, deep: bool) -> tuple[str, ...]:
    """Return every deviation from what the history noted, one sentence each; `deep` also reads what was copied.

    What lies in `beside`, a vault that cannot be looked into, is left out.
    """
    state = noted(runs)
    found: list[str] = []
    for path, item in _reachable(state.there, beside):
        entry, left = disk.find(path, labels=True), item.get("left")
        if entry is None or not isinstance(left, dict):
            continue
        found += _attributes(path, item, entry, left)
        if deep and not _changes(disk, entry, left):
            found += _content(disk, path, item)
    for path, item in _reachable(state.emptied, beside):
        if disk.find(path) is not None:
            found.append(
                f"{path}: Diverged: it is there again since it became {item.get('target') or 'a duplicate'} on {_when(item)}"
            )
    return tuple(found)


def changed_since(disk: Disk, runs: tuple[dict[str, Any], ...], *, beside: str | None) -> tuple[str, ...]:
    """Return what somebody deleted or wrote to since the history noted it, one sentence each."""
    found = []
    for path, item in _reachable(noted(runs).there, beside):
        entry, left = disk.find(path), item.get("left")
        if entry is None:
            found.append(f"{path}: deleted since {_when(item)}")
        elif isinstance(left, dict) and entry.kind.value == left.get("kind"):
            what = _changes(disk, entry, left) or _touched(entry, left)
            if what:
                found.append(f"{path}: {what} since {_when(item)}")
    return tuple(found)


def lost_records(disk: Disk, runs: tuple[dict[str, Any], ...], view: JournalView) -> tuple[str, ...]:
    """Return whether a journal holds less than the history has seen in it: a record that is cut off leaves no other trace."""
    counts = next((counts for run in reversed(runs) if (counts := journals_of(run))), {})
    views = [(JOURNAL, view), *((name, Journal(disk, name).read(repair=False)) for name in EARLIER_JOURNALS)]
    found = [(name, counts.get(each.transactions[0].txid, 0), records_in(each)) for name, each in views if each.transactions]
    lost = [f"{name}: expected {count} records, found {held}" for name, count, held in found if held < count]
    known = {each.transactions[0].txid for _, each in views if each.transactions}
    if runs and _leaves_a_journal(runs[-1]) and not known & set(list(journals_of(runs[-1]))[:1]):
        lost.append(f"{JOURNAL}: expected the records of the run of {runs[-1].get('time')}, found none")
    return tuple(lost)


def _leaves_a_journal(run: dict[str, Any]) -> bool:
    """Return whether the journal that a line of the history names is there until the next run; a rollback may remove it."""
    items = run.get("items")
    statuses = {item.get("status") for item in items if isinstance(item, dict)} if isinstance(items, list) else set()
    return run.get("command") != "rollback" and bool(statuses & {*_MOVED, ItemStatus.WAITING.value})


def _reachable(paths: dict[str, dict[str, Any]], beside: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in sorted(paths.items()):
        if beside is None or not path.startswith(f"{beside}/"):
            yield path, item


def _when(item: dict[str, Any]) -> str:
    return str(item.get("time"))


def _attributes(path: str, item: dict[str, Any], entry: Entry, left: dict[str, Any]) -> Iterator[str]:
    if entry.kind.value != left.get("kind"):
        yield f"{path}: expected a {left.get('kind')} as of {_when(item)}, found a {entry.kind.value}"
        return
    pairs: tuple[tuple[str, object, object], ...] = (
        ("mode", f"{left.get('mode'):04o}", f"{entry.mode:04o}"),
        ("owner", left.get("owner"), [entry.uid, entry.gid]),
        ("labels", left.get("labels"), dict(entry.labels)),
    )
    for name, expected, found in pairs:
        if expected != found:
            yield f"{path}: expected {name} {expected} as of {_when(item)}, found {found}"


def _changes(disk: Disk, entry: Entry, left: dict[str, Any]) -> str:
    """Return what size, time and inodes tell of somebody's writing, empty when they are as noted."""
    if entry.identity != left.get("inode"):
        return "replaced"
    if entry.kind is not Kind.DIRECTORY:
        is_same = (entry.size, entry.mtime_ns) == (left.get("size"), left.get("mtime_ns"))
        return "" if is_same else f"written to ({left.get('size')} -> {entry.size} bytes)"
    mark = left.get("fingerprint")
    # The mark is over mode and owner too; where they are other ones that is told as such.
    if mark is None or [entry.mode, entry.uid, entry.gid] != [left.get("mode"), *left.get("owner", [])]:
        return ""
    return "" if disk.survey(entry.path).fingerprint == mark else "something inside written to"


def _touched(entry: Entry, left: dict[str, Any]) -> str:
    is_quiet = entry.kind is Kind.DIRECTORY or entry.links > 1 or entry.ctime_ns == left.get("ctime_ns")
    return "" if is_quiet else "touched without a trace in size and time (`verify --deep` compares the content of copies)"


def _content(disk: Disk, path: str, item: dict[str, Any]) -> Iterator[str]:
    expected = str(item.get("digest"))
    if expected.startswith("sha256:"):
        found = f"sha256:{disk.sha256(path)}"
    elif expected.startswith("manifest:"):
        found = content_digest(disk.manifest(path))
    else:
        return
    if found != expected:
        yield f"{path}: altered although size and time are as they were: expected {expected}, found {found}"
