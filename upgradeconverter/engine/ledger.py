"""The ledger: an append-only history of all runs, one JSON line each, chained by digest. No decision about data reads it.

It lies in two files: one that grows too large is put aside under another name, in the place of the one that was there, and the
chain goes on. Adding a run looks at no more than the end of the file.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from upgradeconverter.engine.places import EARLIER_LEDGER, ENGINE_FOLDER, LEDGER
from upgradeconverter.model.plan import canonical

if TYPE_CHECKING:
    from upgradeconverter.disk.port import Disk

LIMIT = 4 << 20
_MOST = 1 << 30
_WINDOW = 1 << 14
_FIRST = "0" * 64


def read_ledger(disk: Disk) -> tuple[tuple[dict[str, Any], ...], tuple[str, ...]]:
    """Return every run that is still known, oldest first, and what is wrong with the chain, one sentence each."""
    runs: list[dict[str, Any]] = []
    problems: list[str] = []
    previous = _FIRST
    for path in (EARLIER_LEDGER, LEDGER):
        for number, line in enumerate(_lines(disk, path), start=1):
            run = _run_of(line)
            if run is None:
                problems.append(f"{path} line {number}: expected a run, found something that is not whole")
            else:
                runs.append(run)
                # What came before the older of both files is gone for good; so it is before the other one is put aside.
                is_older = path == EARLIER_LEDGER or _is_full(disk)
                is_first = previous == _FIRST and is_older and bool(run.get("continues"))
                if run.get("previous") != previous and not is_first:
                    what = f"{path} line {number}: does not follow the line before it"
                    problems.append(f"{what}; lines were altered or are missing")
            previous = hashlib.sha256(line).hexdigest()
    return tuple(runs), tuple(problems)


def _is_full(disk: Disk) -> bool:
    entry = disk.find(LEDGER)
    return entry is not None and entry.size > LIMIT


def _lines(disk: Disk, path: str) -> list[bytes]:
    content = disk.read(path, _MOST) if disk.find(path) is not None else b""
    lines = content.split(b"\n")
    return lines if lines[-1] else lines[:-1]


def _run_of(line: bytes) -> dict[str, Any] | None:
    try:
        run = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return run if isinstance(run, dict) else None


def journals_of(run: dict[str, Any] | None) -> dict[str, int]:
    """Return how many records of which journal the history holds after a run, by the journal's first transaction."""
    found = (run or {}).get("journals")
    pairs = found if isinstance(found, list) else []
    return {each[0]: each[1] for each in pairs if _is_pair(each)}


def _is_pair(each: object) -> bool:
    return isinstance(each, list) and [type(part) for part in each] == [str, int]


def _last_line(disk: Disk, path: str) -> tuple[bytes, bool]:
    """Return the last line of a file, and whether it has its end; reads no more than that takes."""
    entry = disk.find(path)
    size = entry.size if entry is not None else 0
    window = _WINDOW
    while size:
        content = disk.tail(path, window)
        body = content.removesuffix(b"\n")
        if b"\n" in body or window >= size:
            return body.rpartition(b"\n")[2], body != content
        window *= 8
    return b"", True


def _end(disk: Disk) -> tuple[str, bytes, bool]:
    """Return where the chain ends: the file, its last line, and whether that has its end."""
    for path in (LEDGER, EARLIER_LEDGER):
        line, is_whole = _last_line(disk, path)
        if line:
            return path, line, is_whole
    return "", b"", True


def last_noted(disk: Disk) -> dict[str, Any] | None:
    """Return the run that was added last; None when there is none, or when its line is not whole."""
    return _run_of(_end(disk)[1])


def add_run(disk: Disk, run: dict[str, Any]) -> None:
    """Append one run durably, with the digest of the line before it."""
    path, line, is_whole = _end(disk)
    entry = disk.find(LEDGER)
    if path == LEDGER and _is_full(disk):
        # A start that died may have written its line without making it durable.
        disk.sync_file(LEDGER)
        disk.remove(EARLIER_LEDGER)
        disk.rename(LEDGER, EARLIER_LEDGER)
        path, entry = EARLIER_LEDGER, None
    chained = {**run, "previous": hashlib.sha256(line).hexdigest() if line else _FIRST}
    if path == EARLIER_LEDGER:
        chained["continues"] = True
    # A line that a power cut left without its end stays, and counts as one.
    torn = b"" if is_whole or path == EARLIER_LEDGER else b"\n"
    disk.append(LEDGER, torn + canonical(chained) + b"\n")
    if entry is None:
        disk.sync_directory(ENGINE_FOLDER)
